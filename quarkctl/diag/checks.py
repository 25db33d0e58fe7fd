"""All checks there are, and which of them a word selects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from quarkctl.diag import cells, check, link, pack, sensors, swap, thermal
from quarkctl.diag.check import Check
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict, worst
from quarkctl.diag.limits import Limits
from quarkctl.errors import UsageWrong

#: What `diag AREA` and `rig diag AREA` take; `all` is every one.
_ORDER = ("battery", "thermal", "sensors", "link")
AREAS = (*_ORDER, "all")
_ALL = [*swap.CHECKS, *cells.CHECKS, *pack.CHECKS, *thermal.CHECKS, *sensors.CHECKS, *link.CHECKS]

#: By code, in the order of areas and codes.
CHECKS: Mapping[str, Check] = {
    c.code: c for c in sorted(_ALL, key=lambda c: (_ORDER.index(c.area), c.code not in ("CAM-001", "DSP-001"), c.code))
}
#: Unit of every measurement that a limits file may name.
UNITS: Mapping[str, str] = {c.measure: c.unit for c in CHECKS.values() if c.measure}


def topics(area: str) -> list[str]:
    return list(dict.fromkeys(c.topic for c in CHECKS.values() if c.area == area))


def select(area: str, words: Sequence[str]) -> list[Check]:
    """Checks of an area (``all``: every one) that match any of the words: topic, name or code. No words: the whole area.

    Raises UsageWrong for a word that selects nothing.
    """
    inside = [c for c in CHECKS.values() if area in ("all", c.area)]
    if not words:
        return inside
    chosen: dict[str, Check] = {}
    for word in words:
        found = [c for c in inside if word in (c.topic, c.name) or word.upper() == c.code]
        if not found:
            names = list(dict.fromkeys(c.topic for c in inside))
            raise UsageWrong(f"there is no check {word!r}", hint=f"there are {', '.join(names)}; `quarkctl diag list`")
        chosen |= {c.code: c for c in found}
    return [c for c in CHECKS.values() if c.code in chosen]


def run(
    evidence: Evidence, limits: Limits, chosen: Sequence[Check], *, asked: bool = False,
    progress: Callable[[Check], None] | None = None,
) -> list[Finding]:  # fmt: skip
    """Findings of the chosen checks. ``asked``: they were asked for by name, so "no occasion" is INVALID, not SKIP."""
    found: list[Finding] = []
    for c in chosen:
        if progress:
            progress(c)
        found += check.run(c, evidence, limits, asked=asked)
    return found


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Over all. A run in which nothing could be judged is INVALID, never a silent pass."""
    over = worst(findings)
    return Verdict.INVALID if over is Verdict.SKIP and findings else over
