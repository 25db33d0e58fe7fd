"""Two reports side by side: what changed, and whether the change is more than the measurement's own uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarkctl.diag.statistics import Change, GaugeStudy, change, gauge_study
from quarkctl.errors import InputWrong

_SCHEMA = "quarkctl.diag/"


@dataclass(frozen=True)
class Line:
    """``change`` is None where one side has no value; ``word``: same, better, worse, changed, new, gone."""

    code: str
    name: str
    unit: str
    old_verdict: str
    new_verdict: str
    change: Change | None
    word: str


@dataclass(frozen=True)
class Saved:
    """What a JSON report says of one quantity over its runs."""

    code: str
    name: str
    unit: str
    verdict: str
    values: Sequence[float]
    u: float
    limit: Mapping[str, Any]


def read(file_name: str, body: Any) -> tuple[dict[tuple[str, str], Saved], Mapping[str, Any]]:
    """Quantities and provenance of a JSON report. Raises InputWrong for what is none."""
    try:
        if not str(body["schema"]).startswith(_SCHEMA):
            raise KeyError("schema")
        runs = body.get("runs") or [body["findings"]]
        out: dict[tuple[str, str], Saved] = {}
        for key in dict.fromkeys((f["code"], f.get("subject", "")) for run in runs for f in run):
            found = [f for run in runs for f in run if (f["code"], f.get("subject", "")) == key]
            values = [
                float(f["value"]) for f in found if f["value"] is not None and f["verdict"] not in ("INVALID", "SKIP")
            ]
            order = ("FAIL", "INVALID", "MARGINAL", "PASS", "SKIP")
            verdict = min((f["verdict"] for f in found), key=order.index)
            last = found[-1]
            name = f"{key[1]} {last['check']}".strip()
            out[key] = Saved(
                key[0],
                name,
                last["unit"] or "",
                verdict,
                values,
                float(last["uncertainty"] or 0.0),
                last["limit"] or {},
            )
        return out, body["evidence"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputWrong(
            f"{file_name} is not a JSON report of quarkctl diag", hint="make one: --report NAME.json"
        ) from error


def compare(old: Mapping[tuple[str, str], Saved], new: Mapping[tuple[str, str], Saved]) -> list[Line]:
    out = []
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        s = b or a
        if s is None or (a and b and a.verdict == b.verdict == "SKIP"):
            continue
        c = change(a.values, b.values, a.u, b.u) if a and b and a.values and b.values and a.unit == b.unit else None
        out.append(Line(s.code, s.name, s.unit, a.verdict if a else "-", b.verdict if b else "-", c, _word(a, b, c)))
    return out


def _word(a: Saved | None, b: Saved | None, c: Change | None) -> str:
    if a is None or b is None:
        return "new" if a is None else "gone"
    if c is None or not c.significant:
        return "same" if a.verdict == b.verdict else "changed"
    lsl, usl = b.limit.get("lsl"), b.limit.get("usl")
    if (lsl is None) == (usl is None):
        return "changed"
    return "better" if (c.change.value > 0) == (lsl is not None) else "worse"


def gauge_studies(reports: Sequence[tuple[str, Any]]) -> dict[str, GaugeStudy]:
    """Gauge R&R of every quantity, from reports of several parts (serial) by several operators.

    Raises InputWrong where the reports are no crossed study.
    """
    table: dict[str, dict[tuple[str, str], list[float]]] = {}
    for file_name, body in reports:
        saved, evidence = read(file_name, body)
        part, operator = str(evidence.get("serial", "?")), str(evidence.get("operator", "") or "-")
        for s in saved.values():
            if s.values:
                table.setdefault(f"{s.code} {s.name}", {}).setdefault((part, operator), []).extend(s.values)
    out = {}
    reason = "there are no measured values in them"
    for name, cells in table.items():
        try:
            out[name] = gauge_study(cells)
        except ValueError as error:
            reason = str(error)
    if not out:
        raise InputWrong(
            f"these reports are no gauge study: {reason}", hint="parts x operators x trials: --operator, --repeat"
        )
    return out
