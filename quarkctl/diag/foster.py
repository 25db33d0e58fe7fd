"""Thermal model of a zone: a sum of first-order responses to power, fitted to any course of power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quarkctl.diag.estimate import Estimate, expansion

Floats = npt.NDArray[np.float64]

#: The record is brought to at most so many bins: a fit takes the same short time for an hour as for ten minutes.
BINS = 360
_TAUS = np.geomspace(2.0, 4000.0, 48)
_APART = 3
#: Neighbouring residuals more alike than this mean that the model misses something.
_ALIKE = 0.3
#: A record must be so many slow time constants long for a prediction, and for letting BIC choose one term.
PREDICT_TAUS, CHOOSE_TAUS = 1.0, 3.0
#: And so many for a third term.
THIRD_TAUS = 2.0


@dataclass(frozen=True)
class Model:
    """T(t) = offset + sum of r[i] * (power filtered by tau[i]) + decay of what was stored before the record.

    ``k_per_w``, ``tau_s``: ascending tau. ``sd_c`` is the scatter of one bin, ``rho`` how alike neighbouring ones
    err, ``covariance`` belongs to (offset, r...,
    ln tau..., decay...).
    """

    offset_c: float
    k_per_w: tuple[float, ...]
    tau_s: tuple[float, ...]
    decay_c: tuple[float, ...]
    sd_c: float
    rho: float
    bic: float
    span_s: float
    bin_count: int
    covariance: Floats

    @property
    def order(self) -> int:
        return len(self.tau_s)

    @property
    def df(self) -> int:
        return max(self.bin_count - 1 - 2 * self.order, 1)

    def resistance(self) -> Estimate:
        """Sum of the terms, K/W: steady rise for each watt."""
        g = np.zeros(len(self.covariance))
        g[1 : 1 + self.order] = 1.0
        return self._estimate(sum(self.k_per_w), g)

    def steady(self, watts: float) -> Estimate:
        """Temperature after a long time at constant power, degC."""
        g = np.zeros(len(self.covariance))
        g[0] = 1.0
        g[1 : 1 + self.order] = watts
        return self._estimate(self.offset_c + watts * sum(self.k_per_w), g)

    def slow_tau(self) -> Estimate:
        g = np.zeros(len(self.covariance))
        g[2 * self.order] = self.tau_s[-1]
        return self._estimate(self.tau_s[-1], g)

    def _estimate(self, value: float, gradient: Floats) -> Estimate:
        variance = float(gradient @ self.covariance @ gradient)
        return Estimate(value, expansion(self.df) * math.sqrt(max(variance, 0.0)), self.bin_count)

    def time_to(self, limit_c: float, watts: float, start_c: float) -> tuple[float, float, float]:
        """Seconds from ``start_c`` in balance until ``limit_c`` at constant power, and where the fit's 95 % confidence band
        reaches it first and last; infinity where that is never."""
        n = self.order
        t = np.concatenate(([0.0], np.geomspace(0.5, 40 * self.tau_s[-1], 2000)))[:, None]
        r, tau = np.array(self.k_per_w), np.array(self.tau_s)
        left = np.exp(-t / tau)
        rise = watts * ((1 - left) @ r)
        gradient = watts * np.concatenate((1 - left, -r * (t / tau) * left), axis=1)
        part = self.covariance[1 : 1 + 2 * n, 1 : 1 + 2 * n]
        variance = np.maximum(np.einsum("ki,ij,kj->k", gradient, part, gradient), 0.0)
        band = expansion(self.df) * np.sqrt(variance)
        took, first, last = (_reaches(t[:, 0], rise + k * band, limit_c - start_c) for k in (0, 1, -1))
        return took, first, last


def _reaches(t: Floats, course: Floats, need: float) -> float:
    over = course >= need
    if not over.any():
        return math.inf
    k = int(over.argmax())
    return float(np.interp(need, course[k - 1 : k + 1], t[k - 1 : k + 1])) if k else 0.0


@dataclass(frozen=True)
class Binned:
    """A record in equal bins. ``temp_c`` is nan where a bin has no sample. ``moment``: where in its bin the power lay, the
    mean of power times the place from -0.5 to 0.5; without it a step inside a bin would be half a bin off."""

    step_s: float
    temp_c: Floats
    watts: Floats
    moment: Floats | None = None

    @property
    def span_s(self) -> float:
        return self.step_s * len(self.temp_c)


def bins(time_s: Floats, temp_c: Floats, power_time_s: Floats, watts: Floats, count: int = BINS) -> Binned:
    """Means over at most ``count`` equal bins of whole sample periods, so that no bin has its samples elsewhere than its
    neighbour; power is held where none was measured."""
    period = float(np.median(np.diff(time_s)))
    start, end = float(time_s[0]) - period / 2, float(time_s[-1]) + period / 2
    step = max(int(np.ceil((end - start) / period / count)), 1) * period
    count = max(int((end - start) / step + 1e-6), 1)
    end = start + count * step

    def mean(t: Floats, v: Floats) -> Floats:
        i = np.clip(((t - start) / step).astype(int), 0, count - 1)
        keep = (t >= start) & (t < end) & np.isfinite(v)
        n = np.bincount(i[keep], minlength=count)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.bincount(i[keep], v[keep], minlength=count) / np.where(n > 0, n, np.nan))

    p = mean(power_time_s, watts)
    known = np.flatnonzero(np.isfinite(p))
    p = np.interp(np.arange(count), known, p[known]) if len(known) else np.zeros(count)
    place = (power_time_s - start) / step % 1.0 - 0.5
    moment = np.nan_to_num(
        mean(power_time_s, (watts - np.interp(power_time_s, start + step * (np.arange(count) + 0.5), p)) * place)
    )
    return Binned(step, mean(time_s, temp_c), p, moment)


def responses(watts: Floats, step_s: float, taus: Floats, moment: Floats | None = None) -> Floats:
    """Mean over each bin of power filtered by each tau, from rest; shape (bins, taus). Exact for power constant in a bin;
    with ``moment``, to first order for any."""
    a = np.exp(-step_s / taus)
    share = (1 - a) * taus / step_s
    p = watts[:, None]
    m = np.zeros_like(p) if moment is None else moment[:, None]
    # what is stored at the start of each bin: y[k + 1] = a y[k] + (1 - a) p[k] + (1 - a)^2 m[k], for all k by doubling
    y = np.zeros((len(watts), len(taus)))
    y[1:] = ((1 - a) * p + (1 - a) ** 2 * m)[:-1]
    reach, power = 1, a
    while reach < len(y):
        y[reach:] += power * y[:-reach]
        reach, power = 2 * reach, power * power
    return np.asarray(p + (y - p) * share - m * (1 - a))


def decays(count: int, step_s: float, taus: Floats) -> Floats:
    """Mean over each bin of exp(-t / tau)."""
    a = np.exp(-step_s / taus)
    return np.asarray((1 - a) * taus / step_s * np.exp(-np.outer(np.arange(count) * step_s, 1 / taus)))


def fit(record: Binned, *, order: int = 2, signed: bool = False, settled: bool = False) -> Model | None:
    """Least squares by variable projection: a grid of log-spaced tau, amplitudes solved in closed form for each, then
    Gauss-Newton in ln tau around the best. A tau above twice the record is a drift, not a time constant: left out.
    None when the record cannot tell (constant power, too few samples).

    ``signed`` allows negative amplitudes: right for a zone that is not where the power goes. ``settled``: the record
    begins in thermal balance, so nothing was stored before it.
    """
    good = np.isfinite(record.temp_c)
    if good.sum() < 30 or np.ptp(record.watts) < 0.02:
        return None
    y = record.temp_c[good]
    n = len(record.temp_c)
    grid = _TAUS[2 * record.span_s >= _TAUS]
    f = responses(record.watts, record.step_s, grid, record.moment)[good]
    e = decays(n, record.step_s, grid)[good]
    taus = _grid(grid, y, f, e, order, signed=signed, settled=settled)
    if taus is None:
        return None
    return _refine(record, good, taus, signed=signed, settled=settled)


def choose(record: Binned, *, golden_tau_s: float = 0.0, signed: bool = False) -> Model | None:
    """Two terms, beginning in balance, unless the data say otherwise.

    A third where BIC gains more than 10 by it and the record is longer than two of its slowest time constants. One term
    only where the record is longer than three slow time constants and BIC prefers it (one is biased on shorter
    ones). Heat stored before the record only where BIC gains more than 10 by it: beside a step at the start of the
    record both explain the same, and the interval would tell nothing.
    """
    best = fit(record, order=2, signed=signed, settled=True)
    if best is None or record.span_s >= CHOOSE_TAUS * golden_tau_s:
        one = fit(record, order=1, signed=signed, settled=True)
        long = one is not None and record.span_s >= CHOOSE_TAUS * one.tau_s[-1]
        if best is None or (one is not None and long and one.bic < best.bic):
            best = one
    if best is not None and best.rho < _ALIKE:
        return best  # nothing is left that stored heat or another term could explain
    third = _third(record, best, signed=signed) if best is not None and best.order == 2 else None
    if third is not None and best is not None and third.bic < best.bic - 10:
        return third
    stored = fit(record, order=2, signed=signed, settled=False)
    return stored if stored and (best is None or stored.bic < best.bic - 10) else best


def slower(record: Binned, model: Model, tau_s: float) -> Model:
    """The model with another slowest time constant and amplitudes to match: a record that ends early fits both, and what
    they foretell lies on both sides of the truth (held by tests/diag/truths.py). Its covariance stays that of ``model``."""
    taus = np.sort(np.array([*model.tau_s[:-1], tau_s]))
    good = np.isfinite(record.temp_c)
    columns = _columns(record, good, taus, settled=not model.decay_c)
    x = np.linalg.lstsq(columns, record.temp_c[good], rcond=None)[0]
    r = tuple(float(v) for v in x[1 : 1 + model.order])
    return replace(model, offset_c=float(x[0]), k_per_w=r, tau_s=tuple(float(t) for t in taus))


def _third(record: Binned, two: Model, *, signed: bool) -> Model | None:
    """A third term below, between and above the two that were found, where the record is long enough to tell its slowest:
    the glasses are more than two lumps, and what two terms leave out shows in the sum of theirs."""
    good = np.isfinite(record.temp_c)
    fast, slow = two.tau_s
    tried = [
        _refine(record, good, np.sort(np.array([fast, slow, extra])), signed=signed, settled=True)
        for extra in (fast / 4, math.sqrt(fast * slow), 2.5 * slow)
    ]
    told = [m for m in tried if m is not None and record.span_s >= THIRD_TAUS * m.tau_s[-1]]
    return min(told, key=lambda m: m.bic, default=None)


def _grid(grid: Floats, y: Floats, f: Floats, e: Floats, order: int, *, signed: bool, settled: bool) -> Floats | None:
    count = f.shape[1]
    i, j = np.triu_indices(count, _APART)
    if order == 1:
        i = j = np.arange(count)
    one = np.ones((len(y), 1))
    columns = np.concatenate((one, f, e), axis=1)
    gram, proj = columns.T @ columns, columns.T @ y
    use = [np.zeros_like(i), 1 + i] + ([1 + j] if order == 2 else [])
    if not settled:
        use.append(1 + count + j)
    index = np.stack(use, axis=1)
    a = gram[index[:, :, None], index[:, None, :]]
    b = proj[index]
    scale = np.sqrt(np.einsum("kii->ki", a))
    scale[scale == 0] = 1.0
    a = a / scale[:, :, None] / scale[:, None, :] + 1e-10 * np.eye(index.shape[1])
    x = np.linalg.solve(a, (b / scale)[:, :, None])[:, :, 0] / scale
    sse = float(y @ y) - np.sum(x * b, axis=1)
    r = x[:, 1 : 1 + order]
    allowed = (r.sum(axis=1) > 0) if signed else (r > 0).all(axis=1)
    if not allowed.any():
        return None
    best = int(np.argmin(np.where(allowed, sse, np.inf)))
    return np.asarray(grid[[i[best]] if order == 1 else [i[best], j[best]]])


def _columns(record: Binned, good: npt.NDArray[np.bool_], taus: Floats, *, settled: bool) -> Floats:
    n = len(record.temp_c)
    parts = [np.ones((n, 1)), responses(record.watts, record.step_s, taus, record.moment)]
    if not settled:
        parts.append(decays(n, record.step_s, taus))
    return np.concatenate(parts, axis=1)[good]


def _refine(record: Binned, good: npt.NDArray[np.bool_], taus: Floats, *, signed: bool, settled: bool) -> Model | None:
    y = record.temp_c[good]
    log = np.log(taus)
    n = len(taus)
    step = 1e-3

    def solve(at: Floats) -> tuple[Floats, Floats, float]:
        c = _columns(record, good, np.exp(at), settled=settled)
        x = np.asarray(np.linalg.lstsq(c, y, rcond=None)[0], np.float64)
        rest = y - c @ x
        ok = x[1 : 1 + n].sum() > 0 if signed else (x[1 : 1 + n] > 0).all()
        return c, x, float(rest @ rest) if ok else math.inf

    c, x, sse = solve(log)
    if not math.isfinite(sse):
        return None
    full = c
    for _ in range(12):
        full = np.concatenate((c, _tau_gradient(record, good, log, x, step, settled=settled)), axis=1)
        move, *_ = np.linalg.lstsq(full, y - c @ x, rcond=None)
        d = np.clip(move[-n:], -0.5, 0.5)
        for _ in range(6):
            tried = np.clip(log + d, math.log(0.5), math.log(max(2 * record.span_s, 10.0)))
            c2, x2, sse2 = solve(tried)
            if sse2 < sse:
                break
            d = d / 2
        else:
            break
        gained = (sse - sse2) / max(sse, 1e-12)
        log, c, x, sse = tried, c2, x2, sse2
        if gained < 1e-7:
            break
    full = np.concatenate((c, _tau_gradient(record, good, log, x, step, settled=settled)), axis=1)
    rest = y - c @ x
    df = max(len(y) - full.shape[1], 1)
    s2 = sse / df
    inverse = np.linalg.pinv(full.T @ full, rcond=1e-13)
    # Neighbouring bins that err alike carry less: n * (1 - rho) / (1 + rho) independent ones
    rho = float(rest[:-1] @ rest[1:]) / max(sse, 1e-12)
    inflation = (1 + max(rho, 0.0)) / (1 - min(max(rho, 0.0), 0.98))
    order = np.argsort(log)
    amplitudes = 1 + order
    extra = [] if settled else list(1 + n + order)
    index = np.array([0, *amplitudes, *(full.shape[1] - n + order), *extra])
    bic = len(y) * math.log(max(sse, 1e-12) / len(y)) + full.shape[1] * math.log(len(y))
    return Model(
        float(x[0]), tuple(float(v) for v in x[amplitudes]), tuple(float(v) for v in np.exp(log[order])),
        tuple(float(x[k]) for k in extra), math.sqrt(s2), rho, bic, record.span_s, len(y),
        s2 * inflation * inverse[np.ix_(index, index)],
    )  # fmt: skip


def _tau_gradient(
    record: Binned, good: npt.NDArray[np.bool_], log: Floats, x: Floats, step: float, *, settled: bool
) -> Floats:
    """Change of the model with each ln tau, all in one run over the bins."""
    n = len(log)
    both = np.exp(np.concatenate((log + step, log - step)))
    f = responses(record.watts, record.step_s, both, record.moment)[good]
    g = x[1 : 1 + n] * (f[:, :n] - f[:, n:]) / (2 * step)
    if not settled:
        e = decays(len(record.temp_c), record.step_s, both)[good]
        g = g + x[1 + n : 1 + 2 * n] * (e[:, :n] - e[:, n:]) / (2 * step)
    return np.asarray(g)


def predict(record: Binned, k_per_w: Sequence[float], tau_s: Sequence[float]) -> Floats:
    """Rise above ambient in each bin of a known model, from balance at the first bin's power."""
    taus = np.array(tau_s, float)
    first = record.watts[0]
    return np.asarray(
        responses(record.watts - first, record.step_s, taus) @ np.array(k_per_w) + first * float(np.sum(k_per_w))
    )
