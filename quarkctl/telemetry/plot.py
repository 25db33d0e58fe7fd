"""Plots of recordings: a picture, or one page that needs nothing from anywhere and zooms from hours to microseconds."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats.schema import Field, Kind
from quarkctl.telemetry.arrow import needed
from quarkctl.telemetry.mcap import notices
from quarkctl.telemetry.perfetto import numbers
from quarkctl.telemetry.timeline import Rows, Timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Shown at first; the others are one click away.
_FIRST_SHOWN = (
    "bus.*",
    "power.bus_mv",
    "power.load_ma",
    "battery.pack_ma*",
    "battery.pack_soc*",
    "thermal.zone*",
    "imu.*",
)
#: What says little over time.
_LEFT_OUT = ("hello.build_id*", "*.latched_since_seq", "hello.layout_hash", "fault.*", "hello.version_*")
#: Points of a gap: neighbours farther apart than so many usual distances are not joined.
_GAP_FACTOR = 8
#: Columns of a picture: more points than this are drawn as extremes.
_PICTURE_COLUMNS = 4000


@dataclass
class Series:
    """One number over time."""

    name: str
    about: Field | None
    values: list[NDArray[Any]] = field(default_factory=list)


@dataclass
class Group:
    """The numbers of one message of one chip; they share their times (ns)."""

    title: str
    times: list[NDArray[Any]] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    enums: dict[str, Any] = field(default_factory=dict)


@dataclass
class Drawing:
    """Everything that is drawn, in memory."""

    title: str
    groups: list[Group]
    events: list[tuple[int, str]]
    notices: list[dict[str, Any]]

    @property
    def points(self) -> int:
        return sum(v.size for g in self.groups for s in g.series.values() for v in s.values)


def collect(timeline: Timeline, patterns: Sequence[str] = (), span_ns: tuple[int, int] = (0, 2**63 - 1)) -> Drawing:
    """Series whose ``message.field`` matches one of the patterns (with * and ?), all useful ones without any.

    Raises UsageWrong when a pattern fits nothing.
    """
    import numpy as np

    groups: dict[tuple[int, int, str], Group] = {}
    events: list[tuple[int, str]] = []
    seen: set[str] = set()
    for rows in timeline.rows():
        inside = (rows.time_ns >= span_ns[0]) & (rows.time_ns <= span_ns[1])
        if not inside.any():
            continue
        if rows.message.kind is Kind.EVENT:
            events += _events(rows, inside)
            continue
        for chip in np.unique(rows.chip).tolist():
            mine = inside & (rows.chip == chip)
            group: Group | None = None
            for name, column in numbers(rows):
                full = f"{rows.name}.{name}"
                seen.add(full)
                if not _wanted(full, patterns):
                    continue
                if group is None:
                    group = groups.setdefault((rows.source, chip, rows.name), _group(timeline, rows, chip))
                    group.times.append(rows.time_ns[mine])
                f = next((f for f in rows.message.fields if f.name == name.split("[")[0].split(".")[0]), None)
                if f and f.enum:
                    group.enums[full] = {v: k for k, v in rows.schema.enums[f.enum].items()}
                group.series.setdefault(full, Series(full, f)).values.append(column[mine])
    for p in patterns:
        if not any(_fits(name, p) for name in seen):
            known = ", ".join(sorted(seen)[:12])
            raise UsageWrong(f"nothing fits --field {p}", hint=f"there are {known}{', ...' if len(seen) > 12 else ''}")
    if not groups and not events:
        raise InputWrong("there is nothing to plot in this span of time")
    title = ", ".join(dict.fromkeys(s.device for s in timeline.sources)) or "nothing"
    return Drawing(title, list(groups.values()), sorted(events), notices(timeline))


def _wanted(name: str, patterns: Sequence[str]) -> bool:
    if patterns:
        return any(_fits(name, p) for p in patterns)
    return not any(_fits(name, p) for p in _LEFT_OUT)


def _fits(name: str, pattern: str) -> bool:
    """``power.bus_mv`` also fits the elements ``power.bus_mv[0]``, and ``power`` all of its fields."""
    return any(
        fnmatchcase(name.replace("[", "<"), p.replace("[", "<")) for p in (pattern, pattern + "[*", pattern + ".*")
    )


def _group(timeline: Timeline, rows: Rows, chip: int) -> Group:
    names = {v: k for k, v in rows.schema.enums.get("chip", {}).items()}
    several = len(timeline.sources) > 1
    device = f"{timeline.sources[rows.source].device} " if several else ""
    return Group(f"{device}{names.get(chip, chip)} {rows.name}")


def _events(rows: Rows, inside: NDArray[Any]) -> list[tuple[int, str]]:
    enums = {f.name: {v: k for k, v in rows.schema.enums[f.enum].items()} for f in rows.message.fields if f.enum}
    out = []
    for i in inside.nonzero()[0].tolist():
        words = [str(enums[k].get(int(c[i]), c[i])) for k, c in rows.columns.items() if k in enums]
        out.append((int(rows.time_ns[i]), " ".join([rows.name.replace("_", " "), *words])))
    return out


# --- the page ---------------------------------------------------------------------------------------------------------


def page(drawing: Drawing) -> str:
    """One HTML document: data, style and program inside, nothing from a network (its policy forbids it)."""
    import numpy as np

    folder = Path(__file__).parent / "page"
    filled = [[t for t in g.times if t.size] for g in drawing.groups]
    spans = [(min(int(t.min()) for t in ts), max(int(t.max()) for t in ts)) for ts in filled if ts]
    spans += [(t, t) for t, _ in drawing.events]
    low, high = min(a for a, _ in spans), max(b for _, b in spans)
    origin_ns = low // 1000 * 1000

    def us(time_ns: int) -> float:
        return (time_ns - origin_ns) / 1000

    blobs: list[str] = []
    groups: list[dict[str, Any]] = []
    for g in drawing.groups:
        times = np.concatenate(g.times)
        order = None if np.all(times[1:] >= times[:-1]) else np.argsort(times, kind="stable")
        times = times if order is None else times[order]
        steps = np.diff(times, prepend=times[:1])
        turns = np.flatnonzero(np.diff(steps, prepend=-1))  # a converter's steps are the same for long
        runs = np.stack([np.diff(turns, append=steps.size), steps[turns] / 1000], 1).astype("<f8").reshape(-1)
        usual = float(np.median(steps[1:])) if steps.size > 1 else 0.0
        members = []
        for s in g.series.values():
            values = np.concatenate(s.values)
            values = _plain(values if order is None else values[order])
            members.append({
                "name": s.name, "field": s.name.partition(".")[2], "type": values.dtype.str[1:],
                "data": _blob(blobs, values), "unit": s.about.unit if s.about else "", "doc": s.about.doc if s.about else "",
                "names": g.enums.get(s.name), "shown": any(_fits(s.name, p) for p in _FIRST_SHOWN),
            })  # fmt: skip
        groups.append({
            "title": g.title, "first": us(int(times[0])), "times": _blob(blobs, runs), "count": int(steps.size),
            "gap": max(usual * _GAP_FACTOR / 1000, 1.0), "series": members,
        })  # fmt: skip
    if not any(s["shown"] for g in groups for s in g["series"]):
        for s in [s for g in groups for s in g["series"]][:8]:
            s["shown"] = True
    marks = [
        {"from": us(n.get("from_ns", n["time_ns"])), "to": us(n["time_ns"]), "kind": n["kind"], "text": n["text"]}
        for n in drawing.notices
    ]
    body = {
        "origin_ms": origin_ns / 1e6, "origin_us": origin_ns // 1000 % 1_000_000, "wall": origin_ns > 10**18,
        "from": us(low), "to": us(high), "groups": groups, "notices": marks,
        "events": [{"at": us(t), "text": text} for t, text in drawing.events],
    }  # fmt: skip
    lost = sum(n["count"] for n in drawing.notices if n["kind"] == "lost")
    parts = {
        "TITLE": html.escape(drawing.title),
        "ABOUT": f"{drawing.points} points, {lost} frames lost",
        "STYLE": (folder / "plot.css").read_text("utf-8"),
        "DATA": "".join(blobs),
        "PAGE": json.dumps(body).replace("<", "\\u003c"),
        "PROGRAM": (folder / "plot.js").read_text("utf-8"),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", (folder / "plot.html").read_text("utf-8"))
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """As a type that JavaScript has: 64-bit integers as doubles, exact up to 2^53."""
    kind = values.dtype.newbyteorder("<")
    return values.astype("<f8" if kind.itemsize == 8 else kind)


def _blob(blobs: list[str], values: NDArray[Any]) -> str:
    name = f"d{len(blobs)}"
    packed = base64.b64encode(zlib.compress(values.tobytes(), 1)).decode()
    blobs.append(f'<script type="text/plain" id="{name}">{packed}</script>\n')
    return name


# --- the picture ------------------------------------------------------------------------------------------------------


def picture(drawing: Drawing, path: Path) -> None:
    """PNG or SVG by the suffix of ``path``: one lane a series of those shown first. Raises HostUnfit without matplotlib."""
    import numpy as np

    needed("matplotlib").use("Agg")
    pyplot = needed("matplotlib.pyplot")
    chosen = [(g, s) for g in drawing.groups for s in g.series.values() if any(_fits(s.name, p) for p in _FIRST_SHOWN)]
    chosen = (chosen or [(g, s) for g in drawing.groups for s in g.series.values()])[:24]
    lanes = max(len(chosen), 1)
    figure, axes = pyplot.subplots(lanes, 1, sharex=True, figsize=(12, 1.2 + 1.1 * lanes), squeeze=False)
    begin = min((int(t.min()) for g, _ in chosen for t in g.times if t.size), default=0)
    for axis, (g, s) in zip(axes[:, 0], chosen, strict=False):
        t, v = _extremes((np.concatenate(g.times) - begin) / 1e9, np.concatenate(s.values))
        axis.plot(t, v, linewidth=0.8)
        unit = f"\n{s.about.unit}" if s.about and s.about.unit else ""
        axis.set_ylabel(s.name.replace(".", "\n") + unit, rotation=0, ha="right", va="center", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        for at, text in drawing.events:
            axis.axvline((at - begin) / 1e9, color="tab:purple", linewidth=0.7, linestyle=":")
            if axis is axes[0, 0]:
                axis.annotate(
                    text, ((at - begin) / 1e9, 1), xycoords=("data", "axes fraction"), fontsize=6, rotation=30
                )
        for n in drawing.notices:
            if n["kind"] in ("lost", "corrupt"):
                axis.axvspan((n["from_ns"] - begin) / 1e9, (n["time_ns"] - begin) / 1e9, color="tab:red", alpha=0.25)
    axes[-1, 0].set_xlabel("s", fontsize=8)
    figure.suptitle(drawing.title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _extremes(t: NDArray[Any], v: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest of each column where there are more points than columns."""
    import numpy as np

    if t.size <= 2 * _PICTURE_COLUMNS:
        return t, v
    starts = np.linspace(0, t.size, _PICTURE_COLUMNS, endpoint=False).astype(np.int64)
    low, high = np.minimum.reduceat(v, starts), np.maximum.reduceat(v, starts)
    return np.repeat(t[starts], 2), np.stack([low, high], 1).reshape(-1)
