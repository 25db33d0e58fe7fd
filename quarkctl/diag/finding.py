"""A finding: one measured value against one limit, with a verdict that can be defended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

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
    """Does not apply; the note says why."""


@dataclass(frozen=True)
class Finding:
    """``time_us`` is the span of device time that the value comes from; ``boot`` the start it belongs to."""

    code: str
    check: str
    verdict: Verdict
    value: float | None = None
    limit: Limit | None = None
    note: str = ""
    boot: int = 0
    time_us: tuple[int, int] = (0, 0)

    def as_dict(self) -> dict[str, object]:
        return {
            "code": self.code,
            "check": self.check,
            "verdict": self.verdict.value,
            "value": self.value,
            "unit": self.limit.unit if self.limit else None,
            "uncertainty": self.limit.u if self.limit else None,
            "limit": self.limit.as_dict() if self.limit else None,
            "note": self.note,
            "boot": self.boot,
            "time_us": list(self.time_us),
        }


def judge(value: float, limit: Limit) -> Verdict:
    """Value against limit and guard band w (ILAC-G8:09/2019: w = U, the expanded uncertainty)."""
    below = limit.lsl is not None and value < limit.lsl
    above = limit.usl is not None and value > limit.usl
    if below or above:
        return Verdict.FAIL
    guard = limit.guard_band
    near_low = limit.lsl is not None and value < limit.lsl + guard
    near_high = limit.usl is not None and value > limit.usl - guard
    return Verdict.MARGINAL if near_low or near_high else Verdict.PASS


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict over all: a fault outweighs missing evidence, which outweighs a narrow pass."""
    order = (Verdict.FAIL, Verdict.INVALID, Verdict.MARGINAL, Verdict.PASS)
    return next((v for v in order if any(f.verdict is v for f in findings)), Verdict.SKIP)
