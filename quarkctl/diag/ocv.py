"""Open-circuit voltage of a cell over its state of charge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


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
        import numpy as np

        x, y = np.array(self.soc, float), np.array(self.mv, float)
        at = np.linspace(x[0], x[-1], 2001)
        return at, pchip(x, y, at)

    def soc_of(self, mv: float) -> float:
        import numpy as np

        at, curve = self.dense()
        return float(np.interp(mv, curve, at))

    def mv_of(self, soc: float) -> float:
        import numpy as np

        at, curve = self.dense()
        return float(np.interp(soc, at, curve))

    def slope(self, soc: float) -> float:
        """mV per unit of charge."""
        return max((self.mv_of(soc + 0.005) - self.mv_of(soc - 0.005)) / 0.01, 1.0)


def pchip(x: Floats, y: Floats, at: Floats) -> Floats:
    """Piecewise cubic Hermite interpolation with slopes that keep a monotone table monotone."""
    import numpy as np

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
