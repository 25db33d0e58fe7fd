"""State of charge from a rested voltage, and charge by counting current."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quarkctl.diag.estimate import Estimate

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: A pack rests when nothing but relaxation could move its voltage, and that has died away.
REST_MV_PER_MIN = 0.1
REST_S_LONG = 1800.0
REST_S_WINDOW = 120.0


@dataclass(frozen=True)
class Table:
    """Open-circuit voltage over state of charge, interpolated by a monotone cubic (Fritsch and Carlson 1980, PCHIP).

    ``soc`` and ``mv`` ascend; ``u_mv`` is the expanded uncertainty of the table itself.
    """

    soc: tuple[float, ...]
    mv: tuple[float, ...]
    u_mv: float

    def dense(self) -> tuple[Floats, Floats]:
        """(soc, mv) at 2001 points: fine enough that a straight line between two errs by less than 0.001 %."""
        x, y = np.array(self.soc, float), np.array(self.mv, float)
        at = np.linspace(x[0], x[-1], 2001)
        return at, pchip(x, y, at)

    def soc_of(self, mv: float) -> float:
        at, curve = self.dense()
        return float(np.interp(mv, curve, at))

    def mv_of(self, soc: float) -> float:
        at, curve = self.dense()
        return float(np.interp(soc, at, curve))

    def slope(self, soc: float) -> float:
        """mV per unit of charge."""
        return max((self.mv_of(soc + 0.005) - self.mv_of(soc - 0.005)) / 0.01, 1.0)


def pchip(x: Floats, y: Floats, at: Floats) -> Floats:
    """Piecewise cubic Hermite interpolation with slopes that keep a monotone table monotone."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    m = np.zeros_like(y)
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = d[:-1] * d[1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        m[1:-1] = np.where(same, (w1 + w2) / (w1 / d[:-1] + w2 / d[1:]), 0.0)
    for end, (h0, h1, d0, d1) in ((0, (h[0], h[1], d[0], d[1])), (-1, (h[-1], h[-2], d[-1], d[-2]))):
        slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
        slope = 0.0 if slope * d0 <= 0 else slope
        m[end] = 3 * d0 if d0 * d1 < 0 and abs(slope) > 3 * abs(d0) else slope
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    t = (at - x[i]) / h[i]
    return np.asarray(
        y[i] * (1 + 2 * t) * (1 - t) ** 2 + h[i] * m[i] * t * (1 - t) ** 2 + y[i + 1] * t**2 * (3 - 2 * t)
        + h[i] * m[i + 1] * t**2 * (t - 1)
    )  # fmt: skip


@dataclass(frozen=True)
class Rest:
    """A window in which a pack rested: sample range, open-circuit voltage and what it says."""

    first: int
    last: int
    mv: Estimate
    soc: Estimate


def rests(
    time_s: Floats, ma: Floats, mv: Floats, valid: Flags, table: Table, capacity_mah: float, mohm: float
) -> list[Rest]:
    """All windows of `REST_S_WINDOW` in which the pack rested, at most one a minute.

    Rested: the current stays within C/20, and what remains of dV/dt when the charge that flows is taken off stays within
    `REST_MV_PER_MIN` (or the current has been that small for `REST_S_LONG`). The small current's drop is added back with
    ``mohm``, half of which counts as uncertain.
    """
    out: list[Rest] = []
    small = valid & (np.abs(ma) <= capacity_mah / 20)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], small.view(np.int8), [0]))))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        began = time_s[first]
        starts = np.arange(began, time_s[end - 1] - REST_S_WINDOW + 1e-9, REST_S_WINDOW / 2)
        for start in starts:
            i = int(np.searchsorted(time_s, start))
            j = int(np.searchsorted(time_s, start + REST_S_WINDOW, side="right"))
            if j - i < 10 or np.max(np.diff(time_s[i:j])) > REST_S_WINDOW / 4:
                continue
            rest = _rest(time_s, ma, mv, i, j, table, capacity_mah, mohm, long=start - began >= REST_S_LONG)
            if rest:
                out.append(rest)
    return out


def _rest(
    time_s: Floats,
    ma: Floats,
    mv: Floats,
    i: int,
    j: int,
    table: Table,
    capacity_mah: float,
    mohm: float,
    *,
    long: bool,
) -> Rest | None:
    t, v, c = time_s[i:j] - time_s[i], mv[i:j], ma[i:j]
    x = np.column_stack((np.ones_like(t), t - t.mean()))
    fit, *_ = np.linalg.lstsq(x, v, rcond=None)
    sd = max(float(np.std(v - x @ fit)), 0.29)
    slope_u = 2.0 * sd / math.sqrt(float(np.sum((t - t.mean()) ** 2))) * 60.0
    soc = table.soc_of(float(fit[0]))
    used = float(c.mean()) / capacity_mah / 3600.0 * table.slope(soc)  # mV/s that discharge explains
    relaxing = abs(float(fit[1]) + used) * 60.0
    if relaxing > REST_MV_PER_MIN + slope_u + 0.3 * abs(used) * 60.0 and not long:
        return None
    drop = float(c.mean()) * mohm / 1000.0
    middle = float(fit[0]) + drop
    u_mv = math.hypot(2.0 * sd / math.sqrt(len(t)), abs(drop) / 2, relaxing / 2, table.u_mv)
    soc = table.soc_of(middle)
    return Rest(i, j - 1, Estimate(middle, u_mv, j - i), Estimate(soc, u_mv / table.slope(soc), j - i))


@dataclass(frozen=True)
class Count:
    """Charge between two samples in mAh, positive out of the pack; ``gap_mah`` bounds what losses may hide."""

    mah: float
    gap_mah: float
    gap_s: float


def count(time_s: Floats, ma: Floats, hole: Flags, bounds_ma: tuple[float, float]) -> Count:
    """Trapezoid over the samples. Where ``hole[k]`` says that samples between k and k + 1 are missing, the current may
    have been anything within ``bounds_ma``: half of what that allows is the bound. ``hole``: shape (n - 1,)."""
    dt = np.diff(time_s)
    mean = (ma[:-1] + ma[1:]) / 2
    gap_s = float(np.sum(dt[hole]))
    low, high = bounds_ma
    mean = np.where(hole, (low + high) / 2, mean)
    return Count(float(np.sum(mean * dt)) / 3600.0, gap_s * (high - low) / 2 / 3600.0, gap_s)


def counted(time_s: Floats, ma: Floats) -> Floats:
    """Running charge in mAh, zero at the first sample."""
    return np.concatenate(([0.0], np.cumsum((ma[:-1] + ma[1:]) / 2 * np.diff(time_s)) / 3600.0))


def gain(counted_mah: Floats, register_mah: Sequence[float] | Floats) -> Estimate | None:
    """How much a gauge's register moves for each mAh that flowed, from the moments at which it ticks.

    Between two ticks of a register in whole mAh flowed exactly as much as it says, so the line through the ticks has no
    rounding error. None with fewer than four ticks.
    """
    register = np.asarray(register_mah, float)
    ticks = np.flatnonzero(np.diff(register) != 0)
    if len(ticks) < 4:
        return None
    x = (counted_mah[ticks] + counted_mah[ticks + 1]) / 2
    y = -(register[ticks] + register[ticks + 1]) / 2 + register[0]
    a = np.column_stack((np.ones_like(x), x - x.mean()))
    fit, *_ = np.linalg.lstsq(a, y, rcond=None)
    df = len(x) - 2
    spread = float(np.sum((x - x.mean()) ** 2))
    if spread <= 0:
        return None
    from quarkctl.diag.estimate import expansion

    sd = math.sqrt(max(float(np.sum((y - a @ fit) ** 2)) / df, 1e-4))
    return Estimate(float(fit[1]), expansion(df) * sd / math.sqrt(spread), len(x), f"{len(x)} ticks of the gauge")
