"""A measured number with its uncertainty, and the few distributions that honest uncertainties need.

Written out here because scipy costs a second to import and 100 MB to install, for four functions of one line of use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
#: Coverage of every interval of this package.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """``value`` +- ``u``: the half width of the 95 % interval, from ``n`` observations."""

    value: float
    u: float
    n: int
    note: str = ""


def combined(*parts: float) -> float:
    """Expanded uncertainties of independent causes, added in quadrature (GUM, JCGM 100:2008, 5.1.2)."""
    return math.sqrt(sum(p * p for p in parts))


def normal_quantile(p: float) -> float:
    return _NORMAL.inv_cdf(p)


def beta_share(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if not 0.0 < x < 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_share(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    ) / a  # fmt: skip
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    total = d
    for m in range(1, 400):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            total *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return front * total


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t for p > 0.5, by bisection of its distribution."""
    if df > 200:
        return normal_quantile(p)
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        share = 1.0 - 0.5 * beta_share(df / 2, 0.5, df / (df + middle * middle))
        low, high = (middle, high) if share < p else (low, middle)
    return (low + high) / 2


def f_tail(f: float, df1: float, df2: float) -> float:
    """Probability that F of (df1, df2) exceeds ``f``."""
    if f <= 0 or math.isnan(f):
        return 1.0
    return 1.0 if math.isinf(df2) else beta_share(df2 / 2, df1 / 2, df2 / (df2 + df1 * f))


def expansion(df: float) -> float:
    """Factor from a standard deviation with ``df`` degrees of freedom to the half width of its 95 % interval."""
    return t_quantile(0.5 + CONFIDENCE / 2, max(df, 1.0))
