"""What a report draws: the whole record in few points, and every event closely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quarkctl.diag.evidence import AR1_NO_SENSOR, Evidence
from quarkctl.diag.product import AR1_ZONES, SIDES, ZONES

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Floats, Table

_POINTS = 1200
_EVENTS_MAX = 40
_AROUND_US = (1_500_000, 3_000_000)


@dataclass(frozen=True)
class Plot:
    """``series``: name -> points (seconds, value), a gap is None. ``lines``: name -> limit. ``marks``: seconds -> name."""

    title: str
    unit: str
    series: dict[str, list[tuple[float, float | None]]]
    lines: dict[str, float]
    marks: list[tuple[float, str]]

    def as_dict(self) -> dict[str, object]:
        return dict(vars(self))


def plots(evidence: Evidence, limits: dict[str, tuple[float | None, float | None]]) -> list[Plot]:
    """``limits``: measure -> (lsl, usl), for the lines."""
    marks = _marks(evidence)
    out = _around(evidence, limits, None, marks)
    events = [m for m in marks if "out" in m[1] or "in" in m[1].split() or "reset" in m[1]][:_EVENTS_MAX]
    for at, name in events:
        out += _around(evidence, limits, (at, name), marks)
    return out


def starts_of(evidence: Evidence) -> list[float]:
    """Seconds at which each start is drawn: one after the other, a second apart."""
    out, at = [], 0.0
    for boot in range(evidence.boots):
        times = [t["time_us"][t["boot"] == boot] for t in evidence.tables.values()]
        times = [t for t in times if len(t)]
        first = min((int(t.min()) for t in times), default=0)
        last = max((int(t.max()) for t in times), default=0)
        out.append(at - first / 1e6)
        at += (last - first) / 1e6 + 1.0
    return out


def _seconds(table: Table, starts: list[float]) -> Floats:
    import numpy as np

    return np.asarray(table["time_us"] / 1e6 + np.array(starts or [0.0])[table["boot"]])


def _marks(evidence: Evidence) -> list[tuple[float, str]]:
    starts = starts_of(evidence)
    out: list[tuple[float, str]] = []
    for message, word in (("pack_removed", "out"), ("pack_inserted", "in")):
        t = evidence.of(message)
        if len(t):
            out += [
                (float(s), f"{SIDES[int(p) & 1]} {word}") for s, p in zip(_seconds(t, starts), t["pack"], strict=True)
            ]
    t = evidence.of("throttle_changed")
    if len(t):
        out += [(float(s), f"level {v}") for s, v in zip(_seconds(t, starts), t["throttle_level"], strict=True)]
    for boot in range(1, evidence.boots):
        first = [
            tt["time_us"][tt["boot"] == boot].min() for tt in evidence.tables.values() if (tt["boot"] == boot).any()
        ]
        out.append((starts[boot] + float(min(first)) / 1e6, "reset"))
    return sorted(out)


def _around(
    evidence: Evidence, limits: dict[str, tuple[float | None, float | None]], event: tuple[float, str] | None,
    marks: list[tuple[float, str]],
) -> list[Plot]:  # fmt: skip
    import numpy as np

    starts = starts_of(evidence)

    def cut(table: Table) -> tuple[Table, Floats]:
        s = _seconds(table, starts)
        if event is None:
            return table, s
        keep = (s >= event[0] - _AROUND_US[0] / 1e6) & (s <= event[0] + _AROUND_US[1] / 1e6)
        return table[keep], s[keep]

    out: list[Plot] = []
    title = "" if event is None else f"{event[1]} at {event[0]:.1f} s: "
    shown = [m for m in marks if event is None or abs(m[0] - event[0]) < 3.0]
    power, at = cut(evidence.of("power"))
    if len(power) > 1:
        series = {"bus": thin(at, power["bus_mv"])}
        if "bus_mv_min" in (power.dtype.names or ()):
            series["held minimum"] = thin(at, power["bus_mv_min"])
        lsl = limits.get("bus_mv_min", (None, None))[0]
        out.append(Plot(f"{title}bus", "mV", series, {"limit": lsl} if lsl is not None else {}, shown))
    packs, at = cut(evidence.of("battery"))
    if len(packs) > 1:
        out.append(
            Plot(
                f"{title}current of the packs",
                "mA",
                {s: thin(at, packs["pack_ma"][:, i]) for i, s in enumerate(SIDES)},
                {},
                shown,
            )
        )
    if event is not None:
        return out
    if len(packs) > 1:
        absent = [
            np.where((packs["pack_state"] >> i) & 1 == 1, packs["pack_mv"][:, i].astype(float), np.nan) for i in (0, 1)
        ]
        out.append(Plot("voltage of the packs", "mV", {s: thin(at, absent[i]) for i, s in enumerate(SIDES)}, {}, shown))
    heat, at = cut(evidence.of("thermal"))
    if len(heat) > 1:
        usl = limits.get("skin_c", (None, None))[1]
        series = {z: thin(at, heat["zone_decic"][:, i] / 10) for i, z in enumerate(ZONES)}
        out.append(
            Plot("temperature of the zones", "degC", series, {"skin limit": usl} if usl is not None else {}, shown)
        )
        out.append(Plot("throttle level", "1", {"level": thin(at, heat["throttle_level"])}, {}, shown))
        out += _ar1_zones(evidence, heat, at, shown)
    gauge, at = cut(evidence.of("gauge"))
    if len(gauge) > 1:
        out.append(
            Plot(
                "remaining charge",
                "mAh",
                {s: thin(at, gauge["remaining_mah"][:, i]) for i, s in enumerate(SIDES)},
                {},
                shown,
            )
        )
    return out


def _ar1_zones(evidence: Evidence, heat: Table, at: Floats, marks: list[tuple[float, str]]) -> list[Plot]:
    """The AR1's own sensors; its clock is another one, so they are drawn where they arrived among the others."""
    import numpy as np

    t = evidence.ar1_tables.get("ar1_thermal")
    if t is None or not heat["host_ns"].all():
        return []
    inside = (t["host_ns"] >= heat["host_ns"].min()) & (t["host_ns"] <= heat["host_ns"].max())
    t, order = t[inside], np.argsort(heat["host_ns"], kind="stable")
    seconds = np.interp(t["host_ns"], heat["host_ns"][order], at[order])
    raw = t["zone_decic"]
    series = {
        z: thin(seconds, np.where(raw[:, i] == AR1_NO_SENSOR, np.nan, raw[:, i] / 10))
        for i, z in enumerate(AR1_ZONES)
        if (raw[:, i] != AR1_NO_SENSOR).any()
    }
    return [Plot("temperature of the AR1's own zones", "degC", series, {}, marks)] if series else []


def thin(at: Floats, values: Floats) -> list[tuple[float, float | None]]:
    """At most `_POINTS` points, keeping the lowest and the highest of each stretch in their order; nan becomes None."""
    import numpy as np

    v = np.asarray(values, float)
    if len(v) > _POINTS:
        parts = np.array_split(np.arange(len(v)), _POINTS // 2)
        filled = np.where(np.isfinite(v), v, np.nanmedian(v) if np.isfinite(v).any() else 0.0)
        keep = sorted({int(p[f(filled[p])]) for p in parts for f in (np.argmin, np.argmax)})
        at, v = at[keep], v[keep]
    return [(round(float(t), 4), round(float(x), 3) if np.isfinite(x) else None) for t, x in zip(at, v, strict=True)]
