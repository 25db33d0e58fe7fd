"""Trend plots as SVG: values over time, one colour a station, the limits as lines. No script, no network."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 220, 70, 28, 12, 12
#: Okabe and Ito, "Color Universal Design" (2008): told apart by everybody.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "currentColor", "#999933")


def svg(points: Sequence[dict[str, Any]], unit: str) -> str:
    """Points as `quarkctl.rig.history.query.series` gives them."""
    values = [float(p["value"]) for p in points if math.isfinite(p["value"])]
    if not values:
        return '<p class="quiet">no values</p>'
    limits = [float(v) for v in (points[-1]["lsl"], points[-1]["usl"]) if v is not None]
    low, high = min(values + limits), max(values + limits)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    first, last = points[0]["started"], points[-1]["started"]

    def x(t: float) -> float:
        share = (t - first) / (last - first) if last > first else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<div class="scroll"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="plot">']
    for value in _ticks(low, high):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in limits:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="limit"/>'
        )
    stations = sorted({p["station"] for p in points})
    for index, station in enumerate(stations):
        colour = _COLOURS[index % len(_COLOURS)]
        mine = [
            (x(p["started"]), y(p["value"])) for p in points if p["station"] == station and math.isfinite(p["value"])
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in mine)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in mine]
    for t, anchor in ((first, "start"), (last, "end")):
        words = time.strftime("%Y-%m-%d %H:%M", time.localtime(t))
        parts.append(f'<text x="{x(t):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{words}</text>')
    parts.append(f'<text x="6" y="{_TOP + 4}">{escape(unit)}</text></svg></div>')
    keys = "".join(
        '<span><svg class="key" viewBox="0 0 10 10"><circle cx="5" cy="5" r="5" '
        f'fill="{_COLOURS[i % len(_COLOURS)]}"/></svg>{escape(s)}</span>'
        for i, s in enumerate(stations[:16])
    )
    return "".join(parts) + f'<p class="legend">{keys}</p>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the two."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    width = next(power * f for f in (1, 2, 5, 10) if power * f >= raw)
    first = math.ceil(low / width)
    return [round(i * width, 12) for i in range(first, math.floor(high / width) + 1)]
