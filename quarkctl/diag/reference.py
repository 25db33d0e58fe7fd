"""The reference of all checks: what `diag explain` prints and docs/diagnostics.md holds, from one source."""

from __future__ import annotations

from quarkctl.diag.check import Check
from quarkctl.diag.checks import CHECKS


def entry(check: Check) -> list[tuple[str, str]]:
    out = [("measured", check.method), ("source", check.source), ("doubt", check.doubt)]
    if check.measure:
        unit = "a number" if check.unit == "1" else f"in {check.unit}"
        out.append(("limit", f"{check.measure}, {unit}"))
    if check.operator:
        out.append(("to do", check.operator))
    command = check.area if check.area == check.topic else f"{check.area} {check.topic}"
    return [*out, ("command", f"quarkctl diag {command}")]


def markdown() -> str:
    """One section a check."""
    out = []
    for c in CHECKS.values():
        out += [f"### {c.code} {c.title}", "", f"Why: {c.why}.", ""]
        out += [f"- {name}: {text}" for name, text in entry(c)]
        out.append("")
    return "\n".join(out)
