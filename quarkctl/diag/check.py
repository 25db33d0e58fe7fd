"""What a check is, and the words that every check needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from quarkctl.diag.estimate import Estimate
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Judgement, Span, Verdict, judge
from quarkctl.diag.limits import Limit, Limits


@dataclass(frozen=True)
class Check:
    """One diagnosis. ``code`` is never reused for another. The texts are what `diag explain` and the reference print.

    ``topic``: what ``diag AREA TOPIC`` selects. ``measure``: name of the limit and unit of what is measured; empty for
    checks that hold or do not hold. ``operator``: what must happen while a live device is listened to.
    """

    code: str
    area: str
    topic: str
    name: str
    title: str
    why: str
    method: str
    source: str
    doubt: str
    run: Callable[[Case], list[Finding]]
    measure: str = ""
    unit: str = ""
    operator: str = ""


@dataclass(frozen=True)
class Case:
    """One check on one piece of evidence: what a check function gets, and how it makes findings."""

    check: Check
    evidence: Evidence
    limits: Limits
    asked: bool = False

    @property
    def limit(self) -> Limit | None:
        return self.limits.get(self.check.measure, self.check.unit) if self.check.measure else None

    def finding(
        self, verdict: Verdict, note: str = "", *, subject: str = "", value: float | None = None, u: float | None = None,
        span: Span | None = None, details: Mapping[str, object] | None = None,
    ) -> Finding:  # fmt: skip
        return Finding(
            self.check.code, self.check.title, verdict, subject, value, self.check.unit, u,
            self.limit, note, span, details or {},
        )  # fmt: skip

    def invalid(self, note: str, **more: object) -> Finding:
        """The evidence cannot tell; ``note`` says what evidence would."""
        return self.finding(Verdict.INVALID, note, **more)  # type: ignore[arg-type]

    def absent(self, note: str, **more: object) -> Finding:
        """The record is good but holds no occasion; ``note`` says how to make one. Asked for by name, that is INVALID."""
        return self.finding(Verdict.INVALID if self.asked else Verdict.SKIP, note, **more)  # type: ignore[arg-type]

    def skip(self, note: str, **more: object) -> Finding:
        return self.finding(Verdict.SKIP, note, **more)  # type: ignore[arg-type]

    def judged(
        self, value: float | Estimate, note: str = "", *, subject: str = "", span: Span | None = None,
        floor: float | None = None, ceiling: float | None = None, details: Mapping[str, object] | None = None,
    ) -> Finding:  # fmt: skip
        """A measured value against the check's limit; SKIP where there is none or the project has not set it."""
        number, u = (value.value, value.u) if isinstance(value, Estimate) else (value, 0.0)
        limit = self.limit
        if limit is None or not limit.is_set:
            why = (
                f"the project has set no {self.check.measure}" if limit
                else f"the limits file has no {self.check.measure}"
            )  # fmt: skip
            return self.finding(Verdict.SKIP, why, subject=subject, value=number, u=u, span=span, details=details)
        j: Judgement = judge(number, u, limit, floor=floor, ceiling=ceiling)
        words = [w for w in (note, j.note if j.verdict is not Verdict.MARGINAL else "") if w]
        if limit.label == "U":
            words.append("limit not verified")
        return self.finding(
            j.verdict, "; ".join(words), subject=subject, value=number, u=j.u, span=span, details=details
        )

    def unless_host(self, found: Finding, from_ns: int, to_ns: int, ms: float = 1.0, *, link: bool = False) -> Finding:
        """A fault of virtual glasses that may be one of their host cannot be told from it: INVALID. ``ms``: of one unit
        of the value; from, to: arrivals between which it was measured."""
        waited = self.evidence.host_wait_ms(from_ns, to_ns, link=link)
        limit, value = found.limit, found.value
        if found.verdict is not Verdict.FAIL or limit is None or limit.usl is None or value is None:
            return found
        if not waited or value - waited / ms > limit.usl:
            return found
        note = (
            f"{found.note}; meanwhile these virtual glasses waited {waited:.0f} ms for their host's processors: "
            "run them on a computer with less to do"
        )
        return replace(found, verdict=Verdict.INVALID, note=note.removeprefix("; "))


def run(check: Check, evidence: Evidence, limits: Limits, *, asked: bool = False) -> list[Finding]:
    """Findings of one check. ``asked``: it was asked for by name, so "no occasion" is no answer."""
    import numpy as np

    # a device may send any numbers: what they overflow to is no number, and that is INVALID
    with np.errstate(all="ignore"):
        return check.run(Case(check, evidence, limits, asked))
