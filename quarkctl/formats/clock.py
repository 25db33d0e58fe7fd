"""The clock of a device against that of the host.

Every transport only adds delay: host time minus device time is the true offset plus something positive. The truth is
therefore the lower edge of all pairs, never their mean. Kept are the smallest differences of a bounded number of windows;
the line is the edge of their lower convex hull that lies below their middle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Windows that are kept; when there are more, each becomes twice as long.
_WINDOWS = 2048
_FIRST_WINDOW_US = 50_000
#: Times beyond 71 years since a reset, or since 1970 plus as much, are none; what is below never overflows 64 bits.
TIME_US_MAX = 2**51
#: No crystal of ours is worse; a steeper edge is an accident of few pairs.
_DRIFT_PPM_MAX = 500.0
#: A drift is not told from shorter spans: delay would pass for it.
_DRIFT_SPAN_US = 5_000_000


@dataclass(frozen=True)
class Clock:
    """host_ns = offset_ns + device time x (1 + drift / 10^6), for device time in ns.

    ``uncertainty_ns`` is the 95 % quantile of the windows' smallest delays above the line: how far the least delayed frames
    of a moment are from it. A delay that all frames have in common cannot be seen, and is not in it.
    ``drift_uncertainty_ppm`` is what this is worth over the span. ``delay_ns`` are the 50, 95 and 100 % quantiles.
    """

    offset_ns: int
    drift_ppm: float
    uncertainty_ns: int
    drift_uncertainty_ppm: float
    delay_ns: tuple[int, int, int]
    origin_us: int
    span_us: int

    def host_ns(self, device_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Host time of device times (microseconds, integers)."""
        import numpy as np

        since = np.clip(np.asarray(device_us, np.int64), -TIME_US_MAX, TIME_US_MAX) - self.origin_us
        drift = (since * (self.drift_ppm * 1e-3)).astype(np.int64)
        return self.offset_ns + since * 1000 + drift

    def as_dict(self) -> dict[str, object]:
        return {
            "drift_ppm": round(self.drift_ppm, 3),
            "drift_uncertainty_ppm": round(self.drift_uncertainty_ppm, 3),
            "uncertainty_us": self.uncertainty_ns / 1000,
            "delay_us": [d / 1000 for d in self.delay_ns],
            "span_s": self.span_us / 1e6,
        }


@dataclass
class Fitter:
    """Takes pairs of one start of one chip, in any number; holds at most `_WINDOWS` of them."""

    window_us: int = _FIRST_WINDOW_US
    _best: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, device_us: NDArray[np.int64], host_ns: NDArray[np.int64]) -> None:
        """Pairs without a host time (0) are left out."""
        import numpy as np

        t, h = np.asarray(device_us, np.int64), np.asarray(host_ns, np.int64)
        seen = (h > 0) & (h < 1000 * TIME_US_MAX) & (t >= 0) & (t < TIME_US_MAX)
        t, h = t[seen], h[seen]
        if not t.size:
            return
        delay = h - t * 1000
        while True:
            slot = t // self.window_us
            order = np.lexsort((delay, slot))
            first = order[np.flatnonzero(np.diff(slot[order], prepend=slot[order[0]] - 1))]
            if first.size + len(self._best) <= 2 * _WINDOWS:
                break
            self._coarser()
        for s, us, d in zip(slot[first].tolist(), t[first].tolist(), delay[first].tolist(), strict=True):
            if s not in self._best or d < self._best[s][1]:
                self._best[s] = (us, d)
        while len(self._best) > _WINDOWS:
            self._coarser()

    def _coarser(self) -> None:
        self.window_us *= 2
        best: dict[int, tuple[int, int]] = {}
        for us, d in self._best.values():
            s = us // self.window_us
            if s not in best or d < best[s][1]:
                best[s] = (us, d)
        self._best = best

    def clock(self) -> Clock | None:
        """None without any pair."""
        import numpy as np

        if not self._best:
            return None
        points = sorted(self._best.values())
        t = np.array([p[0] for p in points], np.int64)
        d = np.array([p[1] for p in points], np.int64)
        origin, span = int(t[0]), int(t[-1] - t[0])
        slope = 0.0  # ns a us, that is 1000 ppm
        if span >= _DRIFT_SPAN_US:
            low, high = _edge(t, d)
            slope = float(d[high] - d[low]) / float(t[high] - t[low]) if high > low else 0.0
            slope = min(max(slope, -_DRIFT_PPM_MAX / 1000), _DRIFT_PPM_MAX / 1000)
        above = d - slope * (t - origin)
        base = float(above.min())
        delay = above - base
        p50, p95, p100 = (int(q) for q in np.quantile(delay, [0.5, 0.95, 1.0]))
        return Clock(
            round(base) + origin * 1000, slope * 1000, p95, p95 / span * 1000 if span >= _DRIFT_SPAN_US else _DRIFT_PPM_MAX,
            (p50, p95, p100), origin, span,
        )  # fmt: skip


def _edge(t: NDArray[np.int64], d: NDArray[np.int64]) -> tuple[int, int]:
    """Ends of the edge of the lower convex hull (Andrew's monotone chain) under the middle of the span."""
    at, delay, hull = t.tolist(), d.tolist(), [0]
    for i in range(1, t.size):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (delay[b] - delay[a]) * (at[i] - at[a]) >= (delay[i] - delay[a]) * (at[b] - at[a]):
                hull.pop()
            else:
                break
        hull.append(i)
    middle = (at[0] + at[-1]) / 2
    for a, b in pairwise(hull):
        if at[b] >= middle:
            return a, b
    return hull[0], hull[-1]
