"""State of charge from a rested voltage, and charge by counting current."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quarkctl.diag.estimate import Estimate, expansion
from quarkctl.diag.ocv import Table

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: A pack rests when nothing but relaxation could move its voltage, and that has died away.
REST_MV_PER_MIN = 0.1
REST_S_LONG = 1800.0
REST_S_WINDOW = 120.0


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
    `REST_MV_PER_MIN` (or the current has been that small for `REST_S_LONG`); a pack of half the capacity sinks twice as
    fast by use, which is no relaxation. The small current's drop is added back with
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
    if relaxing > REST_MV_PER_MIN + slope_u + 1.2 * abs(used) * 60.0 and not long:
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


def count_noise(time_s: Floats, ma: Floats) -> float:
    """Standard deviation in mAh of what one sample adds to the count: from second differences, which no course of the load
    that lasts for three samples shows; outliers (steps of the load) are cut."""
    second = np.abs(np.diff(ma, 2))
    second = second[second <= max(4.0 * 1.4826 * float(np.median(second)), 1.0)] if len(second) else second
    sd = max(float(np.sqrt(np.mean(second**2) / 6)) if len(second) else 0.0, 0.29)
    return sd * float(np.median(np.diff(time_s))) / 3600.0


def gain(counted_mah: Floats, register_mah: Sequence[float] | Floats, step_mah: float = 0.0) -> Estimate | None:
    """How much a gauge's register moves for each mAh that flowed, from the moments at which it ticks.

    Between two ticks of a register in whole mAh flowed exactly as much as it says, so the line through the ticks has no
    rounding error. ``step_mah``: noise of one counted sample (`count_noise`). None with fewer than four ticks.
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
    rest = y - a @ fit
    sse = float(rest @ rest)
    sd = math.sqrt(max(sse / df, 1e-4))
    # Ticks are seen up to a sample late (white); counting adds up the noise of each sample (a random walk), and the slope
    # through a walk of n steps scatters by about n of them over the whole way (held by tests/diag/coverage.py).
    variance = sd**2 / spread + len(counted_mah) * step_mah**2 / float(np.ptp(x)) ** 2
    u = expansion(df) * math.sqrt(variance)
    return Estimate(float(fit[1]), u, len(x), f"{len(x)} ticks of the gauge")
