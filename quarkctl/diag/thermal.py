"""Heat: how it leaves the glasses, how hot they get, and whether throttling works."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from quarkctl.diag.check import Case, Check
from quarkctl.diag.estimate import Estimate, combined
from quarkctl.diag.evidence import AR1_NO_SENSOR, ZONE_DECIC, Evidence, span
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.product import AR1_ZONES, ZONES

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Floats, Ints, Table
    from quarkctl.diag.foster import Binned, Model

_NO_FRAMES = "no thermal frames: record telemetry for some seconds or more"
#: Temperature that the whole skin may reach: what `time to limit` is counted to.
_SOAKED_K_PER_MIN = 0.2
_SOAKED_S = 180.0


@dataclass(frozen=True)
class Heat:
    """Zones in degC (nan where a sensor is missing) and the power drawn from the bus, of the longest start."""

    table: Table
    time_s: Floats
    zones: Floats
    power_time_s: Floats
    watts: Floats

    def zone(self, name: str) -> Floats:
        return self.zones[:, ZONES.index(name)]


@lru_cache(maxsize=4)
def _heat(key: int, evidence: _Held) -> Heat | None:
    import numpy as np

    e = evidence.evidence
    t, p = e.steady("thermal"), e.of("power")
    if len(t) < 3 or not len(p):
        return None
    p = p[p["boot"] == t["boot"][0]]
    zones = t["zone_decic"].astype(float) / 10
    zones[(t["zone_decic"] <= ZONE_DECIC[0]) | (t["zone_decic"] >= ZONE_DECIC[1])] = np.nan
    watts = p["bus_mv"].astype(float) * p["load_ma"] / 1e6
    return Heat(t, t["time_us"] / 1e6, zones, p["time_us"] / 1e6, watts)


class _Held:
    """Evidence by identity: it is not hashable, and the same record is asked for by many checks."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def __hash__(self) -> int:
        return id(self.evidence)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.evidence is self.evidence


def heat(evidence: Evidence) -> Heat | None:
    return _heat(id(evidence), _Held(evidence))


@lru_cache(maxsize=16)
def _fitted(held: _Held, zone: str) -> tuple[Binned, Model | None] | None:
    from quarkctl.diag import foster

    h = heat(held.evidence)
    if h is None or h.time_s[-1] - h.time_s[0] < 30:
        return None
    record = foster.bins(h.time_s, h.zone(zone), h.power_time_s, h.watts)
    golden = held.evidence.product.golden.get(zone)
    tau = max(golden.tau_s) if golden else 0.0
    return record, foster.choose(record, golden_tau_s=tau, signed=zone != "ar1")


def _model(case: Case, zone: str) -> tuple[Model, Model, Binned] | Finding:
    """The zone's model, and one that ends as slowly as the golden unit does; or why there is none: the order rule of the
    fit."""
    import numpy as np

    from quarkctl.diag import foster

    h = heat(case.evidence)
    if h is None:
        return case.invalid(_NO_FRAMES, subject=zone)
    if np.isnan(h.zone(zone)).all():
        return case.invalid("its sensor is missing", subject=zone)
    span_s = float(h.time_s[-1] - h.time_s[0])
    if case.evidence.holes(h.table).mean() > 0.1:
        return case.invalid("more than a tenth of the record is missing", subject=zone)
    golden = case.evidence.product.golden.get(zone)
    golden_tau = max(golden.tau_s) if golden else 0.0
    if golden_tau and span_s < golden_tau:
        need = f"{span_s:.0f} s are shorter than one slow time constant ({golden_tau:.0f} s)"
        return case.absent(f"{need}: record longer", subject=zone)
    got = _fitted(_Held(case.evidence), zone)
    if got is None or got[1] is None:
        return case.absent("the power never changed enough: change the load while this records", subject=zone)
    record, model = got[0], got[1]
    slow = max(model.tau_s[-1], golden_tau)
    if span_s < slow:
        need = f"{span_s:.0f} s are shorter than one slow time constant ({slow:.0f} s)"
        return case.absent(f"{need}: record longer", subject=zone)
    return model, foster.slower(record, model, golden_tau) if golden_tau else model, record


def _terms(model: Model) -> str:
    return " + ".join(f"{r:.3g} K/W, {t:.3g} s" for r, t in zip(model.k_per_w, model.tau_s, strict=True))


def step(case: Case) -> list[Finding]:
    found = _model(case, "ar1")
    if isinstance(found, Finding):
        return [found]
    model, slow, _ = found
    h = heat(case.evidence)
    assert h is not None  # a model came from it  # noqa: S101
    details = {"k_per_w": list(model.k_per_w), "tau_s": list(model.tau_s), "offset_c": model.offset_c}
    fitted = model.resistance()
    # what a record that ends early cannot tell: whether it goes on as slowly as the golden unit
    tail = slow.resistance().value - fitted.value
    value = replace(fitted, u=combined(fitted.u, tail))
    note = _terms(model)
    if abs(tail) > max(2 * fitted.u, 0.03 * fitted.value):
        note += "; it still warmed when the load ended: hold the load longer"
    return [case.judged(value, note, subject="ar1", span=span("thermal", h.table), details=details)]


def time_to_limit(case: Case) -> list[Finding]:
    import numpy as np

    found = _model(case, "skin")
    if isinstance(found, Finding):
        return [found]
    model, slow, record = found
    h = heat(case.evidence)
    limit = case.limits.limits.get("skin_c")
    if h is None or limit is None or limit.usl is None:
        return [case.skip("the limits file has no skin_c")]
    watts = float(np.quantile(record.watts, 0.98))
    start = 25.0
    took, low, high = model.time_to(limit.usl, watts, start)
    other = slow.time_to(limit.usl, watts, start)[0]
    low, high = min(low, other), max(high, other)
    if math.isinf(low):
        note = f"never at {watts:.2f} W from {start:.0f} C"
        return [case.finding(Verdict.PASS, note, subject="skin", span=span("thermal", h.table))]
    note = f"to {limit.usl:g} C at {watts:.2f} W from {start:.0f} C: {low:.0f} to {high:.0f} s"
    if math.isinf(took):  # likely never, and not before that: the earliest moment has no other side
        value, u = low, 0.0
    else:
        value, u = took, max(took - low, high - took) if math.isfinite(high) else took - low
    return [case.judged(Estimate(value, u, 1), note, subject="skin", span=span("thermal", h.table))]


def soak(case: Case) -> list[Finding]:
    import numpy as np

    h = heat(case.evidence)
    if h is None:
        return [case.invalid(_NO_FRAMES)]
    end = float(h.time_s[-1])
    last = h.time_s >= end - _SOAKED_S
    if end - h.time_s[0] < _SOAKED_S:
        return [case.absent(f"needs {_SOAKED_S:.0f} s at constant load at the end of the record")]
    minutes = (h.time_s[last] - end) / 60
    zones = h.zones[last]
    if np.isnan(zones).any(axis=0).all():
        return [case.invalid("all sensors are missing")]
    moving = []
    for i, zone in enumerate(ZONES):
        if np.isnan(zones[:, i]).any():
            continue
        slope = float(np.polyfit(minutes, zones[:, i], 1)[0])
        if abs(slope) > _SOAKED_K_PER_MIN:
            moving.append(f"{zone} {slope:+.1f} K/min")
    if moving:
        return [case.absent(f"not soaked yet: {', '.join(moving)}; wait until all are below {_SOAKED_K_PER_MIN} K/min")]
    means = zone_means(zones)
    watts = float(h.watts[h.power_time_s >= end - _SOAKED_S].mean())
    hot = int(np.nanargmax(means))
    cold = int(np.nanargmin(means))
    note = f"{ZONES[hot]} {means[hot]:.1f} C, {ZONES[cold]} {means[cold]:.1f} C at {watts:.2f} W"
    return [
        case.judged(
            float(means[hot] - means[cold]), note, subject=ZONES[hot], span=span("thermal", h.table[last]), floor=0.0
        )
    ]


def zone_means(zones: Floats) -> Floats:
    """Of each zone, nan for one whose sensor is missing."""
    import numpy as np

    good = np.isfinite(zones)
    return np.asarray(
        np.where(good.any(axis=0), np.where(good, zones, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1), np.nan)
    )


def skin(case: Case) -> list[Finding]:
    import numpy as np

    h = heat(case.evidence)
    if h is None:
        return [case.invalid(_NO_FRAMES)]
    found = [_hottest(case, "thermal", h.table, h.zone("skin"))]
    if (t := case.evidence.ar1_tables.get("ar1_thermal")) is not None:
        raw = t["zone_decic"][:, AR1_ZONES.index("skin")]
        if (raw != AR1_NO_SENSOR).any():
            there = (raw > ZONE_DECIC[0]) & (raw < ZONE_DECIC[1])
            found.append(_hottest(case, "ar1_thermal", t, np.where(there, raw / 10, np.nan), subject="ar1"))
    return found


def _hottest(case: Case, message: str, table: Table, t: Floats, subject: str = "") -> Finding:
    import numpy as np

    if len(t) < 5:
        return case.absent(f"{len(t)} readings are too few: record for 5 seconds or more", subject=subject)
    good = np.isfinite(t)
    if good.sum() < 5:
        return case.invalid("the skin sensor is missing", subject=subject)
    # the median of 5 takes single spikes away, which are the sensor's and not the skin's
    v, rows = t[good], np.flatnonzero(good)
    mid = np.median(np.stack([v[k : len(v) - 4 + k] for k in range(5)]), axis=0)
    k = int(mid.argmax())
    note = "held against the skin; values are not recalculated to another ambient"
    return case.judged(float(mid[k]), note, subject=subject, span=span(message, table, int(rows[k]), int(rows[k + 4])))


# --- throttling -------------------------------------------------------------------------------------------------------


def _wanted(case: Case, zones: Floats, relief_c: float) -> Ints:
    """Level that the trip table asks for at each row, with every trip ``relief_c`` lower."""
    import numpy as np

    level = np.zeros(len(zones), int)
    for i, zone in enumerate(ZONES):
        for k, trip in enumerate(case.evidence.product.trip_c.get(zone, ()), 1):
            if trip is not None:
                level = np.maximum(level, np.where(zones[:, i] + relief_c >= trip, k, 0))
    return level


def _throttle(case: Case) -> Heat | Finding:
    if not case.evidence.product.trip_c:
        return case.skip("the board profile has no thermal.trip_c")
    h = heat(case.evidence)
    return case.invalid(_NO_FRAMES) if h is None else h


def throttle_level(case: Case) -> list[Finding]:
    import numpy as np

    h = _throttle(case)
    if isinstance(h, Finding):
        return [h]
    zones = np.nan_to_num(h.zones, nan=-273.0)
    level = h.table["throttle_level"].astype(int)
    relief = case.evidence.product.hysteresis_c or 0.0
    # a tenth of a degree is the resolution: what is nearer to a trip than that may be seen on either side of it
    must, may = _wanted(case, zones, -0.15), _wanted(case, zones, relief + 0.15)
    if not must.any() and not level.any():
        return [case.absent("no zone reached a trip: load the glasses until one does")]
    period = float(np.median(np.diff(h.time_s)))
    worst, at = _latest(level, _wanted(case, zones, 0.0), _wanted(case, zones, relief), h.time_s, period)
    over = level > may
    dwell = np.convolve(over, np.ones(max(int(12 / period), 1)), "full")[: len(over)] >= max(int(12 / period), 1)
    if dwell.any():
        row = int(dwell.argmax())
        note = f"level {level[row]} although no zone asks for more than {may[row]}"
        return [case.finding(Verdict.FAIL, note, span=span("thermal", h.table, row, row))]
    note = f"highest level {level.max()}, asked for {must.max()}"
    # trip and level change lie anywhere between two rows: the difference of two such is triangular, 95 % within 0.78 of one
    value = Estimate(worst, 0.78 * period if worst else 0.0, len(h.table))
    found = case.judged(value, note, span=span("thermal", h.table, at, at), floor=0.0)
    arrived = h.table["host_ns"]
    began = int(np.searchsorted(h.time_s, h.time_s[at] - worst))
    return [case.unless_host(found, int(arrived[began]), int(arrived[at]), 1000.0)]


def _latest(level: Ints, rise: Ints, hold: Ints, time_s: Floats, period_s: float) -> tuple[float, int]:
    """Longest time from the first row that shows a trip passed until the level followed or the zones had cooled below
    the hysteresis, and the row at its end. Noise that dips below the trip meanwhile does not start it anew."""
    worst, at, began, asked = 0.0, 0, 0.0, 0
    for k in range(len(level)):
        if asked and (level[k] >= asked or hold[k] < asked):
            asked = 0
        if rise[k] > max(level[k], asked):
            began, asked = (time_s[k], int(rise[k])) if not asked else (began, asked)
        if asked and time_s[k] - began + period_s > worst:
            worst, at = float(time_s[k] - began + period_s), k
    return worst, at


def throttle_hysteresis(case: Case) -> list[Finding]:
    import numpy as np

    h = _throttle(case)
    if isinstance(h, Finding):
        return [h]
    if case.evidence.product.hysteresis_c is None:
        return [case.skip("the board profile has no thermal.hysteresis_c")]
    level = h.table["throttle_level"].astype(int)
    change = np.diff(level)
    edges = h.time_s[1:][change != 0]
    for start in edges:
        toggles = int(((edges >= start) & (edges < start + 600)).sum())
        if toggles > 10:
            note = f"{toggles} changes in 10 minutes: it hunts"
            row = int(np.searchsorted(h.time_s, start))
            return [case.finding(Verdict.FAIL, note, span=span("thermal", h.table, row, row))]
    gaps = []
    for k in np.flatnonzero(change < 0):
        was = level[k]
        trips = [
            (trip[was - 1], i) for i, z in enumerate(ZONES)
            if (trip := case.evidence.product.trip_c.get(z, ())) and len(trip) >= was and trip[was - 1] is not None
        ]  # fmt: skip
        # the release lies between two rows: the lower of them is the nearest to it, since power rises right after
        room = [float(t or 0) - float(np.min(h.zones[k : k + 2, i])) for t, i in trips]
        room = [r for r in room if not math.isnan(r)]
        if room:
            gaps.append((min(room), int(k)))
    if not gaps:
        return [case.absent("the throttle was never released: let the glasses cool down while this records")]
    value, released = min(gaps)
    return [case.judged(value, f"{len(gaps)} releases", span=span("thermal", h.table, released, released + 1))]


def throttle_effect(case: Case) -> list[Finding]:
    import numpy as np

    h = _throttle(case)
    if isinstance(h, Finding):
        return [h]
    level = h.table["throttle_level"].astype(int)
    drops = []
    for k in np.flatnonzero(np.diff(level) > 0):
        at = h.time_s[k]
        near = level[(h.time_s >= at - 4) & (h.time_s <= at + 4.5)]
        if np.count_nonzero(np.diff(near)) > 1:
            continue  # it changed again: nobody knows which level the power belongs to
        before = h.watts[(h.power_time_s >= at - 4) & (h.power_time_s <= at - 0.2)]
        after = h.watts[(h.power_time_s >= at + 1.2) & (h.power_time_s <= at + 4)]
        if len(before) >= 3 and len(after) >= 3 and before.mean() > 0.3:
            drops.append((100 * (1 - float(np.median(after)) / float(np.median(before))), int(k)))
    if not drops:
        return [case.absent("the throttle never rose under load: load the glasses until it does")]
    value = float(np.median([d for d, _ in drops]))
    first = drops[0][1]
    return [case.judged(value, f"{len(drops)} times", span=span("thermal", h.table, first, first + 1))]


CHECKS = (
    Check(
        "THM-001", "thermal", "step", "step", "thermal resistance", "a detached heat spreader cooks the processor",
        "Foster model of two or three terms of the AR1's zone, T = offset + sum r_i (power filtered by tau_i), by variable "
        "projection: a grid of 48 log-spaced tau, amplitudes in closed form, Gauss-Newton in ln tau around the best. Any "
        "course of power. A third term where BIC gains more than 10 and the record is longer than two slow time constants, "
        "one only where it is longer than three and BIC prefers it. Value: sum of r_i.",
        "limit: golden unit +-15 % (project)",
        "A record shorter than one slow time constant (the larger of the fitted and the golden) gives no verdict; how far "
        "the golden unit's slowest one would change the value is uncertainty. Power is that of the whole bus: a load that "
        "heats elsewhere is booked on the AR1.",
        step, "theta_ar1_k_per_w", "K/W", "switch from sleep to full load and wait",
    ),
    Check(
        "THM-002", "thermal", "step", "time_to_limit", "time to limit", "how long the glasses can work at full speed",
        "From the skin's model, balance at 25 C and the highest sustained power of the record: time until the skin limit. "
        "The interval is where the fit's 95 % confidence band reaches it.",
        "project",
        "As THM-001. Without throttling: the model is that of the heat path, not of the governor.",
        time_to_limit, "time_to_skin_limit_s", "s", "switch from sleep to full load and wait",
    ),
    Check(
        "THM-003", "thermal", "soak", "soak", "hot spot", "a hot spot hurts parts that the mean temperature spares",
        "Hottest minus coolest zone over the last three minutes, when no zone moves by more than 0.2 K a minute.",
        "project",
        "Only zones with a sensor. While any zone still moves there is no verdict.",
        soak, "hot_spot_k", "K", "hold one load until nothing warms up any more",
    ),
    Check(
        "THM-004", "thermal", "throttle", "throttle_level", "throttle latency", "a trip that is passed must slow the AR1",
        "Longest time during which the level was below what the trip table asks for; a level above what the table allows "
        "for more than 12 s is a fault.",
        "project: two periods of the thermal message; trip table of the board profile",
        "A zone whose sensor is missing asks for nothing. Needs a zone that reached a trip.",
        throttle_level, "throttle_latency_s", "s", "hold full load until the glasses throttle",
    ),
    Check(
        "THM-005", "thermal", "throttle", "throttle_hysteresis", "throttle hysteresis", "a throttle that hunts stutters",
        "Smallest distance between a trip and the hottest zone when its level was released; more than 10 changes in 10 "
        "minutes are a fault.",
        "project: hysteresis of the board profile",
        "Read from rows half a second apart: the release lies between two of them.",
        throttle_hysteresis, "throttle_hysteresis_k", "K", "hold full load until they throttle, then let them cool down",
    ),
    Check(
        "THM-006", "thermal", "throttle", "throttle_effect", "throttle effect", "a level that changes nothing is no help",
        "Fall of the bus power from before to after each rise of the level; the median of all.",
        "project",
        "A load that changes in the same seconds hides it.",
        throttle_effect, "throttle_drop_pct", "%", "hold full load until the glasses throttle",
    ),
    Check(
        "THM-007", "thermal", "skin", "skin", "skin temperature", "what touches the temple must not burn it",
        "Highest temperature of the skin sensor, median of five samples; where the AR1's stream is in the record, of its "
        "own one besides.",
        "43 C: ECMA-287 (secondary) and low end of IEC 62368-1 Table 38 TS1 for worn devices; to be checked in the bought "
        "standards. Not recalculated to other ambients",
        "The sensor sits under the shell: the touched surface may differ by what the profile's uncertainty says. Only loads "
        "that occurred are judged.",
        skin, "skin_c", "degC",
    ),
)  # fmt: skip
