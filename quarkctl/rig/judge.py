"""A recording and the checks of an area -> findings: the one place where a rig meets the diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl import boards
from quarkctl.diag import battery, limits
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, worst
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.telemetry import store

AREAS = ("battery",)


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
    if area not in AREAS:
        raise UsageWrong(f"there are no {area} checks", hint=f"there are checks for {', '.join(AREAS)}")
    for check in checks:
        if check not in battery.CHECKS:
            raise UsageWrong(f"there is no check {check!r}", hint=f"there are {', '.join(battery.CHECKS)}")


def judge(recording: Path, area: str, checks: Sequence[str]) -> Judgement:
    """Raises InputWrong for a recording that cannot be judged at all."""
    verify(area, checks)
    r = store.load(recording)
    if not r.samples:
        raise InputWrong(f"{recording.name} holds no samples ({r.wire_bytes} wire bytes)")
    evidence = Evidence(r.schema, r.samples, r.counts, r.gaps, str(recording), r.sha256, r.ending)
    identity = evidence.identity()
    if not identity.get("board"):
        raise InputWrong("the evidence does not say which board it is from", hint="listen for two seconds or more")
    parsed = limits.parse(*boards.limits_text(identity["board"]))
    found = [f for c in list(checks) or [""] for f in battery.run(evidence, parsed, c)]
    verdict = worst(found)
    decided = [f for f in found if f.verdict is verdict]
    return Judgement(
        verdict.value,
        {**identity, "limits": f"{parsed.sku} v{parsed.version}", "verdict": verdict.value},
        [f.as_dict() for f in found],
        [_measurement(f) for f in found if f.value is not None],
        "; ".join(f"{f.code} {f.check}: {f.verdict.value}{f' ({f.note})' if f.note else ''}" for f in decided[:3]),
    )


def _measurement(f: Finding) -> dict[str, Any]:
    limit = f.limit
    return {
        "name": f.code, "value": f.value, "unit": limit.unit if limit else "1", "u": limit.u if limit else None,
        "lsl": limit.lsl if limit else None, "usl": limit.usl if limit else None, "verdict": f.verdict.value,
    }  # fmt: skip
