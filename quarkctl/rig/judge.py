"""A recording and the checks of an area -> findings: the one place where a rig meets the diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl import boards
from quarkctl.diag import checks as diag_checks
from quarkctl.diag import columns, limits
from quarkctl.diag.finding import Finding
from quarkctl.diag.product import product_of
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.telemetry.store import Recording


@dataclass(frozen=True)
class Judgement:
    """``verdict`` as in `quarkctl.diag.finding.Verdict`; ``words`` name the findings that decided."""

    verdict: str
    facts: dict[str, Any]
    findings: list[dict[str, Any]]
    measurements: list[dict[str, Any]]
    words: str


def verify(area: str, checks: Sequence[str]) -> None:
    """Before any station is touched. Raises UsageWrong for areas and checks that there are not."""
    if area not in diag_checks.AREAS:
        raise UsageWrong(f"there are no {area} checks", hint=f"there are checks for {', '.join(diag_checks.AREAS)}")
    diag_checks.select(area, checks)


def judge(recording: Path, area: str, checks: Sequence[str]) -> Judgement:
    """Raises InputWrong for a recording that cannot be judged at all."""
    verify(area, checks)
    evidence = columns.recorded(Recording(recording), product_of)
    identity = evidence.identity()
    if not identity.get("board"):
        raise InputWrong("the evidence does not say which board it is from", hint="listen for two seconds or more")
    parsed = limits.parse(*boards.limits_text(identity["board"]), diag_checks.UNITS)
    found = diag_checks.run(evidence, parsed, diag_checks.select(area, checks), asked=bool(checks))
    verdict = diag_checks.verdict(found)
    decided = [f for f in found if f.verdict is verdict]
    return Judgement(
        verdict.value,
        {**identity, "limits": parsed.title, "verdict": verdict.value},
        [f.as_dict() for f in found],
        [_measurement(f) for f in found if f.value is not None],
        "; ".join(f"{f.code} {f.check}: {f.verdict.value}{f' ({f.note})' if f.note else ''}" for f in decided[:3]),
    )


def _measurement(f: Finding) -> dict[str, Any]:
    limit = f.limit
    return {
        "name": f"{f.code} {f.subject}".rstrip(), "value": f.value, "unit": f.unit or "1", "u": f.u,
        "lsl": limit.lsl if limit else None, "usl": limit.usl if limit else None, "verdict": f.verdict.value,
    }  # fmt: skip
