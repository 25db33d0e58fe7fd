"""Direct-current resistance of a pack, from steps that somebody made (active) or that happened (passive)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quarkctl.diag.estimate import Estimate, expansion

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Two samples further apart than this are no step: polarisation would have moved the voltage meanwhile.
STEP_S_MAX = 0.35
#: IEC 61960 as described by a maker of test equipment: 0.2 C for 10 s, then 1 C for 1 s.
LOW_S, HIGH_S = 10.0, 1.0


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value at which half of the weight is reached: minimises the weighted sum of absolute deviations."""
    order = np.argsort(values)
    v, w = values[order], np.cumsum(weights[order])
    i = int(np.searchsorted(w, w[-1] / 2))
    if math.isclose(w[i], w[-1] / 2) and i + 1 < len(v):
        return float(v[i] + v[i + 1]) / 2
    return float(v[i])


def noise_mv(d_ma: Floats, d_mv: Floats, quiet_ma: float) -> tuple[float, int]:
    """Standard deviation of a voltage difference where the current stayed, outliers cut, and how many made it."""
    quiet = d_mv[np.abs(d_ma) <= quiet_ma]
    if len(quiet) < 3:
        return math.nan, 0
    sd = float(np.std(quiet))
    for _ in range(3):
        quiet = quiet[np.abs(quiet - np.median(quiet)) <= 4 * max(sd, 0.3)]
        sd = float(np.std(quiet, ddof=1)) if len(quiet) > 2 else math.nan
    return sd, len(quiet)


def passive(time_s: Floats, ma: Floats, mv: Floats, valid: Flags, least_ma: float) -> Estimate | None:
    """Resistance in mohm from the load steps of at least ``least_ma`` between neighbouring samples; None without any.

    Theil-Sen through the origin (the median of -dV/dI over all steps, weighted by |dI|) says which steps to believe;
    the value is the least-squares slope of those within 4 s, which rounding to whole millivolts does not bias. Its
    variance is s^2 / sum(dI^2), with s from the voltage while the current rests.
    ``time_s``, ``ma`` (positive discharges), ``mv``, ``valid``: shape (n,).
    """
    if len(time_s) < 2:
        return None
    pair = valid[:-1] & valid[1:] & (np.diff(time_s) > 0) & (np.diff(time_s) <= STEP_S_MAX)
    d_ma, d_mv = np.diff(ma)[pair], np.diff(mv)[pair]
    big = np.abs(d_ma) >= least_ma
    count = int(big.sum())
    if not count:
        return None
    ratios, weights = -1000.0 * d_mv[big] / d_ma[big], np.abs(d_ma[big])
    value = weighted_median(ratios, weights)
    sd, seen = noise_mv(d_ma, d_mv, least_ma / 20)
    df = seen - 1
    if seen < 20:  # hardly ever at rest: only the scatter of the steps themselves tells
        if count < 3:
            return Estimate(value, math.inf, count, "too few steps to know how far they scatter")
        scatter = (d_mv[big] + value / 1000.0 * d_ma[big]).astype(float)
        sd, df = float(np.sqrt(np.sum(scatter**2) / (count - 1))), count - 1
    # two readings rounded to 1 mA: 0.41 mA of the step, seen through the resistance
    sd = math.hypot(sd, value / 1000.0 * 0.41)
    near = np.abs(ratios - value) * weights <= 4000.0 * sd
    if 2 * near.sum() < count:
        return Estimate(value, math.inf, count, "the load steps contradict each other")
    ratios, weights = ratios[near], weights[near]
    value = float(np.sum(ratios * weights**2) / np.sum(weights**2))
    u = expansion(df) * 1000.0 * sd / math.sqrt(float(np.sum(weights**2)))
    return Estimate(value, u, len(ratios), f"{len(ratios)} load steps")


def active(time_s: Floats, ma: Floats, mv: Floats, valid: Flags, capacity_mah: float) -> Estimate | None:
    """Resistance in mohm from pulses: a low current held for `LOW_S`, then a high one for `HIGH_S`; None without a pulse.

    (V1 - V2) / (I2 - I1): V1 at the end of the low hold, V2 after one second of the high one, each a straight line
    through its last second. It holds the polarisation of that second too, so it is a little above the passive value.
    """
    if len(time_s) < 10:
        return None
    found: list[tuple[float, float, float]] = []
    jumps = np.flatnonzero(np.diff(ma) >= 0.4 * capacity_mah)
    for j in jumps:
        t0 = time_s[j + 1]
        low = (time_s >= time_s[j] - LOW_S) & (time_s <= time_s[j])
        end = (time_s >= time_s[j] - 1.0) & (time_s <= time_s[j])
        high = (time_s >= t0) & (time_s <= t0 + HIGH_S + 1e-6)
        if not (valid[low].all() and valid[high].all()) or time_s[low][0] > time_s[j] - LOW_S + 1.0:
            continue
        if high.sum() < 4 or end.sum() < 4 or time_s[high][-1] < t0 + HIGH_S - 0.25:
            continue
        i1, i2 = float(ma[end].mean()), float(ma[high].mean())
        steady = np.ptp(ma[low]) <= 0.1 * capacity_mah and np.ptp(ma[high]) <= 0.1 * capacity_mah
        if not steady or i2 - i1 < 0.4 * capacity_mah or i2 < 0.6 * capacity_mah or i1 > 0.4 * capacity_mah:
            continue
        v1, var1, df1 = _line_at(time_s[end], mv[end], float(time_s[j]))
        v2, var2, df2 = _line_at(time_s[high], mv[high], float(t0 + HIGH_S))
        scale = 1000.0 / (i2 - i1)
        found.append((scale * (v1 - v2), scale**2 * (var1 + var2), scale**4 * (var1**2 / df1 + var2**2 / df2)))
    if not found:
        return None
    values, variances, fourths = np.array(found).T
    weights = (1.0 / variances) / np.sum(1.0 / variances)
    variance = float(np.sum(weights**2 * variances))
    df = variance**2 / float(np.sum(weights**4 * fourths))  # Welch and Satterthwaite
    n = len(found)
    value = float(np.sum(values * weights))
    return Estimate(value, expansion(df) * math.sqrt(variance), n, f"{n} pulse{'s' if n > 1 else ''}")


def _line_at(t: Floats, v: Floats, at: float) -> tuple[float, float, int]:
    """A straight line through (t, v): its value at ``at``, the variance of that, and its degrees of freedom."""
    x = np.column_stack((np.ones_like(t), t - at))
    fit, *_ = np.linalg.lstsq(x, v, rcond=None)
    df = len(t) - 2
    s2 = max(float(np.sum((v - x @ fit) ** 2)) / df, 1.0 / 12.0)  # never better than the rounding to 1 mV
    return float(fit[0]), s2 * float(np.linalg.inv(x.T @ x)[0, 0]), df


def at_25_c(mohm: float, temp_c: float) -> float:
    """What the resistance would be at 25 degC: it halves from 0 to 25 (usual magnitude for Li-ion pouch cells)."""
    return float(mohm / 2.0 ** ((25.0 - min(temp_c, 25.0)) / 25.0))
