"""A finding: one measured value against one limit, with a verdict that can be defended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from quarkctl.diag.estimate import combined
from quarkctl.diag.limits import Limit


class Verdict(Enum):
    PASS = "PASS"  # noqa: S105 - a verdict
    """Inside the limit by at least the guard band."""
    MARGINAL = "MARGINAL"
    """Inside the limit, but closer than the measurement is certain."""
    FAIL = "FAIL"
    """Outside the limit."""
    INVALID = "INVALID"
    """The evidence cannot support a verdict; the note says what evidence would."""
    SKIP = "SKIP"
    """Does not apply, or has no limit; the note says why."""


@dataclass(frozen=True)
class Span:
    """The samples behind a value: ``count`` rows of ``message`` in a stretch of device time of one start."""

    message: str
    boot: int
    first_us: int
    last_us: int
    count: int = 1

    def as_dict(self) -> dict[str, object]:
        return dict(vars(self))


@dataclass(frozen=True)
class Finding:
    """``subject`` tells several findings of one check apart (a pack, a zone). ``u`` is the expanded uncertainty (95 %)
    of ``value``, with the instrument's part from the limits file."""

    code: str
    check: str
    verdict: Verdict
    subject: str = ""
    value: float | None = None
    unit: str = ""
    u: float | None = None
    limit: Limit | None = None
    note: str = ""
    span: Span | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.subject} {self.check}" if self.subject else self.check

    def as_dict(self) -> dict[str, object]:
        return {
            "code": self.code,
            "check": self.check,
            "subject": self.subject,
            "verdict": self.verdict.value,
            "value": _finite(self.value),
            "unit": self.unit or None,
            "uncertainty": _finite(self.u),
            "limit": self.limit.as_dict() if self.limit else None,
            "note": self.note,
            "span": self.span.as_dict() if self.span else None,
            "details": dict(self.details),
        }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    u: float
    note: str = ""


def judge(
    value: float, u: float, limit: Limit, *, floor: float | None = None, ceiling: float | None = None
) -> Judgement:
    """Value against limit and guard band (ILAC-G8:09/2019: w = U, the expanded uncertainty).

    U joins the instrument's uncertainty (limits file) and ``u``, what the algorithm adds. ``floor`` and ``ceiling`` bound
    what the measurand can be at all: where guard bands leave nothing to pass in, only a clear fault gives a verdict.
    """
    whole = combined(limit.u, u)
    if math.isnan(value) or math.isnan(whole):
        return Judgement(Verdict.INVALID, whole, "the samples hold no number")
    below = limit.lsl is not None and value < limit.lsl
    above = limit.usl is not None and value > limit.usl
    guard = limit.guard_band(whole)
    low = floor if limit.lsl is None else limit.lsl + guard
    high = ceiling if limit.usl is None else limit.usl - guard
    if guard > 0 and low is not None and high is not None and low > high:
        clear = (limit.lsl is not None and value < limit.lsl - guard) or (
            limit.usl is not None and value > limit.usl + guard
        )
        if clear:
            return Judgement(Verdict.FAIL, whole)
        return Judgement(Verdict.INVALID, whole, f"an uncertainty of {guard:.3g} {limit.unit} leaves no room to pass")
    if not math.isfinite(whole):
        return Judgement(Verdict.INVALID, whole, "the uncertainty has no bound")
    if below or above:
        return Judgement(Verdict.FAIL, whole)
    near_low = limit.lsl is not None and value < limit.lsl + guard
    near_high = limit.usl is not None and value > limit.usl - guard
    if near_low or near_high:
        return Judgement(Verdict.MARGINAL, whole, "inside the guard band")
    return Judgement(Verdict.PASS, whole)


#: A fault outweighs missing evidence, which outweighs a narrow pass.
ORDER = (Verdict.FAIL, Verdict.INVALID, Verdict.MARGINAL, Verdict.PASS)


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict over all."""
    return next((v for v in ORDER if any(f.verdict is v for f in findings)), Verdict.SKIP)
