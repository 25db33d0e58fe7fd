"""Many runs: spread, capability, drift, first failure, and how much of the spread is the measurement's own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from quarkctl.diag.estimate import CONFIDENCE, Estimate, expansion, f_tail, normal_quantile

#: Below this count a capability index is given as its interval only.
CPK_COUNT_MIN = 30


@dataclass(frozen=True)
class Spread:
    """Of one measurement over repeated runs. ``invalid`` runs gave no value and are in no figure."""

    n: int
    invalid: int
    mean: float
    sd: float
    low: float
    high: float


def spread(values: Sequence[float], invalid: int = 0) -> Spread:
    if not values:
        return Spread(0, invalid, math.nan, math.nan, math.nan, math.nan)
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(len(values), invalid, statistics.fmean(values), sd, min(values), max(values))


def cpk(values: Sequence[float], lsl: float | None, usl: float | None) -> Estimate | None:
    """Process capability index with its 95 % interval (Bissell 1990): z * sqrt(1 / 9n + Cpk^2 / (2n - 2)).

    None with fewer than three values, without spread, or without a limit.
    """
    n = len(values)
    sides = [s for s in (lsl, usl) if s is not None]
    if n < 3 or not sides:
        return None
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    if sd == 0:
        return None
    value = min(
        *(
            (mean - lsl) / (3 * sd) if lsl is not None else math.inf,
            (usl - mean) / (3 * sd) if usl is not None else math.inf,
        )
    )
    z = normal_quantile(0.5 + CONFIDENCE / 2)
    return Estimate(value, z * math.sqrt(1 / (9 * n) + value**2 / (2 * n - 2)), n)


@dataclass(frozen=True)
class Drift:
    """Theil-Sen slope a run, with the probability that runs in random order show as much (Mann-Kendall)."""

    per_run: float
    p: float


def drift(values: Sequence[float]) -> Drift | None:
    """None with fewer than five values."""
    n = len(values)
    if n < 5:
        return None
    pairs = list(combinations(range(n), 2))
    slope = statistics.median((values[j] - values[i]) / (j - i) for i, j in pairs)
    s = sum((values[j] > values[i]) - (values[j] < values[i]) for i, j in pairs)
    ties = [values.count(v) for v in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    z = 0.0 if s == 0 or variance <= 0 else (abs(s) - 1) / math.sqrt(variance)
    return Drift(slope, 2 * (1 - statistics.NormalDist().cdf(z)))


def first_failure(verdicts: Sequence[str]) -> int | None:
    """Number of the first run that failed, from 1."""
    return next((i for i, v in enumerate(verdicts, 1) if v == "FAIL"), None)


@dataclass(frozen=True)
class GaugeStudy:
    """Standard deviations of a crossed study, and shares of the total in percent of standard deviations (AIAG MSA 4).
    ``distinct_categories`` is 9999 where the gauge has no spread at all."""

    parts: int
    operators: int
    trials: int
    repeatability: float
    reproducibility: float
    part: float
    total: float
    grr_pct: float
    distinct_categories: int
    interaction_p: float
    rows: tuple[tuple[str, int, float, float, float, float], ...]
    """ANOVA table: source, degrees of freedom, sum of squares, mean square, F, p."""

    @property
    def verdict(self) -> str:
        return "ok" if self.grr_pct < 10 else "conditional" if self.grr_pct <= 30 else "reject"


def gauge_study(table: Mapping[tuple[str, str], Sequence[float]]) -> GaugeStudy:
    """Gauge repeatability and reproducibility by two-way ANOVA. ``table``: (part, operator) -> trials, all of one length.

    The interaction is pooled into the error where its p exceeds 0.25. With one operator, reproducibility is not in it.
    Raises ValueError for a table with holes, or with fewer than two parts or two trials.
    """
    parts = sorted({p for p, _ in table})
    operators = sorted({o for _, o in table})
    counts = {len(v) for v in table.values()}
    a, b = len(parts), len(operators)
    if len(table) != a * b or len(counts) != 1:
        raise ValueError("every operator must measure every part equally often")
    n = counts.pop()
    if a < 2 or n < 2:
        raise ValueError("a gauge study needs at least two parts and two trials each")
    mean = {k: statistics.fmean(v) for k, v in table.items()}
    by_part = {p: statistics.fmean(mean[p, o] for o in operators) for p in parts}
    by_operator = {o: statistics.fmean(mean[p, o] for p in parts) for o in operators}
    grand = statistics.fmean(by_part.values())
    ss_part = b * n * sum((m - grand) ** 2 for m in by_part.values())
    ss_operator = a * n * sum((m - grand) ** 2 for m in by_operator.values())
    ss_inter = n * sum((mean[p, o] - by_part[p] - by_operator[o] + grand) ** 2 for p in parts for o in operators)
    ss_error = sum((x - mean[k]) ** 2 for k, v in table.items() for x in v)
    df_part, df_operator, df_inter, df_error = a - 1, b - 1, (a - 1) * (b - 1), a * b * (n - 1)
    ms_error = ss_error / df_error
    ms_inter = ss_inter / df_inter if df_inter else 0.0
    f_inter = ms_inter / ms_error if df_inter and ms_error else math.nan
    p_inter = f_tail(f_inter, df_inter, df_error) if df_inter else 1.0
    pooled = p_inter > 0.25
    if pooled:
        ms_error = (ss_error + ss_inter) / (df_error + df_inter)
    base, df_base = (ms_error, df_error + df_inter) if pooled else (ms_inter, df_inter)
    ms_part, ms_operator = ss_part / df_part, ss_operator / df_operator if df_operator else 0.0
    var_inter = 0.0 if pooled else max((ms_inter - ms_error) / n, 0.0)
    var_operator = max((ms_operator - base) / (a * n), 0.0) if df_operator else 0.0
    var_part = max((ms_part - base) / (b * n), 0.0)
    repeat, reproduce = math.sqrt(ms_error), math.sqrt(var_operator + var_inter)
    grr = math.hypot(repeat, reproduce)
    total = math.hypot(grr, math.sqrt(var_part))

    def row(name: str, df: int, ss: float, ms: float) -> tuple[str, int, float, float, float, float]:
        f = ms / base if base and name != "repeatability" else math.nan
        return name, df, ss, ms, f, f_tail(f, df, df_base) if df and not math.isnan(f) else math.nan

    return GaugeStudy(
        a, b, n, repeat, reproduce, math.sqrt(var_part), total, 100 * grr / total if total else 0.0,
        int(1.41 * math.sqrt(var_part) / grr) if grr else 9999, p_inter,
        (row("part", df_part, ss_part, ms_part), row("operator", df_operator, ss_operator, ms_operator),
         ("part x operator", df_inter, ss_inter, ms_inter, f_inter, p_inter),
         row("repeatability", df_error + (df_inter if pooled else 0), ss_error + (ss_inter if pooled else 0), ms_error)),
    )  # fmt: skip


@dataclass(frozen=True)
class Change:
    """Of a measurement between two sets of runs: new minus old, with its 95 % half width."""

    old: float
    new: float
    change: Estimate
    significant: bool


def change(old: Sequence[float], new: Sequence[float], u_old: float = 0.0, u_new: float = 0.0) -> Change:
    """Welch's interval where both sets have two values or more; else the measurements' own uncertainties."""
    m0, m1 = statistics.fmean(old), statistics.fmean(new)
    u = math.hypot(u_old, u_new)
    if len(old) > 1 and len(new) > 1:
        v0, v1 = statistics.variance(old) / len(old), statistics.variance(new) / len(new)
        if v0 + v1 > 0:
            df = (v0 + v1) ** 2 / (v0**2 / (len(old) - 1) + v1**2 / (len(new) - 1))
            u = expansion(df) * math.sqrt(v0 + v1)
    return Change(m0, m1, Estimate(m1 - m0, u, len(old) + len(new)), abs(m1 - m0) > u)
