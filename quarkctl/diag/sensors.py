"""Do the thermistors tell the truth: stuck, spiking, late, off, swapped, missing."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import TYPE_CHECKING

from quarkctl.diag.check import Case, Check
from quarkctl.diag.estimate import Estimate, combined
from quarkctl.diag.evidence import AR1_NO_SENSOR, ZONE_DECIC, span
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.product import AR1_ZONES, ZONES
from quarkctl.diag.thermal import Heat, heat, zone_means

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Flags, Floats, Table
    from quarkctl.diag.foster import Binned
    from quarkctl.diag.product import Golden

_NO_FRAMES = "no thermal frames: record telemetry for some seconds or more"
_FAST_TAU_S = 25.0
_ISOTHERMAL_W = 0.12
_ISOTHERMAL_S = 60.0
#: So much slower or faster than the golden one a good unit's zones may warm (expanded; of the virtual units).
_PACE_SPREAD = 0.012
_ALIKE_BINS = 8


def _all(case: Case) -> Heat | Finding:
    h = heat(case.evidence)
    return case.invalid(_NO_FRAMES) if h is None else h


def present(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    out = [
        _gone(case, "thermal", h.table, i, zone, np.isnan(h.zones[:, i]))
        for i, zone in enumerate(ZONES)
        if np.isnan(h.zones[:, i]).any()
    ]
    there = f"{len(ZONES)} zones"
    t = case.evidence.ar1_tables.get("ar1_thermal")
    if t is not None:
        raw = t["zone_decic"]
        fitted = [i for i in range(len(AR1_ZONES)) if (raw[:, i] != AR1_NO_SENSOR).any()]
        bad = (raw <= ZONE_DECIC[0]) | (raw >= ZONE_DECIC[1])
        out += [_gone(case, "ar1_thermal", t, i, f"ar1 {AR1_ZONES[i]}", bad[:, i]) for i in fitted if bad[:, i].any()]
        there += f", {len(fitted)} of the AR1's own"
    return out or [case.finding(Verdict.PASS, there, span=span("thermal", h.table))]


def _gone(case: Case, message: str, table: Table, zone: int, name: str, gone: Flags) -> Finding:
    k = int(gone.argmax())
    raw = int(table["zone_decic"][k, zone])
    note = f"reads {raw / 10:g} C in {100 * gone.mean():.0f} % of the record: open or short"
    return case.finding(Verdict.FAIL, note, subject=name, span=span(message, table, k, k))


def stuck(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    need = 3 * _FAST_TAU_S
    power = np.interp(h.time_s, h.power_time_s, h.watts)
    worst: list[Finding] = []
    moved = False
    for i, zone in enumerate(ZONES):
        if np.isnan(h.zones[:, i]).any():
            continue
        raw = h.table["zone_decic"][:, i].astype(int)
        edges = np.flatnonzero(np.diff(raw) != 0)
        bounds = np.concatenate(([0], edges + 1, [len(raw)]))
        longest = 0.0
        for a, b in pairwise(bounds):
            flat_s = float(h.time_s[b - 1] - h.time_s[a])
            if flat_s < need:
                continue
            level = power[a:b]
            first = level[: max(len(level) // 10, 1)].mean()
            change = np.flatnonzero(np.abs(level - first) > 0.2 * max(level.max(), 0.5))
            # what counts is how long it stayed flat after the power had changed
            after = float(h.time_s[b - 1] - h.time_s[a + change[0]]) if len(change) else 0.0
            longest = max(longest, after)
        others = [float(np.ptp(z)) for k, z in enumerate(h.zones.T) if k != i and not np.isnan(z).any()]
        if not others or max(others) < 3.0:
            continue
        moved = True
        worst.append(case.judged(longest, subject=zone, span=span("thermal", h.table), floor=0.0))
    if not moved:
        return [case.absent("nothing warmed up: change the load and wait")]
    return _worst_of(worst)


def _worst_of(found: list[Finding]) -> list[Finding]:
    """All that are not good, or the one that came nearest to its limit."""
    bad = [f for f in found if f.verdict not in (Verdict.PASS, Verdict.SKIP)]
    return bad or [max(found, key=lambda f: abs(f.value or 0.0))]


def spike(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    if len(h.table) < 15:
        return [case.absent("needs 15 thermal frames")]
    out = []
    for i, zone in enumerate(ZONES):
        v = h.zones[:, i]
        if np.isnan(v).any():
            continue
        # Hampel: distance from the median of 7 in units of their median absolute deviation, at least the resolution
        window = np.lib.stride_tricks.sliding_window_view(v, 7)
        middle = np.median(window, axis=1)
        mad = 1.4826 * np.median(np.abs(window - middle[:, None]), axis=1)
        distance = np.abs(v[3:-3] - middle)
        high = distance > 4 * np.maximum(mad, 0.15)
        k = int(np.where(high, distance, 0.0).argmax())
        value = float(distance[k]) if high.any() else 0.0
        out.append(case.judged(value, f"{int(high.sum())} spikes", subject=zone, span=span("thermal", h.table, k + 3, k + 3),
                               floor=0.0))  # fmt: skip
    return _worst_of(out) if out else [case.invalid("all sensors are missing")]


def offset(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    calm = np.interp(h.time_s, h.power_time_s, h.watts) <= _ISOTHERMAL_W
    end = int(np.argmin(calm)) if not calm.all() else len(calm)
    if end < 5 or h.time_s[end - 1] - h.time_s[0] < _ISOTHERMAL_S:
        need = f"begin the record after a long rest: {_ISOTHERMAL_S:.0f} s below {_ISOTHERMAL_W} W"
        return [case.absent(need)]
    zones = h.zones[:end]
    if np.isnan(zones).all(axis=0).all():
        return [case.invalid("all sensors are missing")]
    minutes = (h.time_s[:end] - h.time_s[0]) / 60
    slopes = [
        float(np.polyfit(minutes, zones[:, i], 1)[0]) for i in range(len(ZONES)) if not np.isnan(zones[:, i]).any()
    ]
    if slopes and max(abs(s) for s in slopes) > 0.35:
        return [case.absent("not in balance yet: let the glasses rest for half an hour, then record")]
    means = zone_means(zones)
    # what the small power warms each zone by is known from the golden unit
    watts = float(h.watts[h.power_time_s <= h.time_s[end - 1]].mean())
    golden = case.evidence.product.golden
    means = means - np.array([watts * sum(golden[z].k_per_w) if z in golden else 0.0 for z in ZONES])
    centre = float(np.nanmedian(means))
    away = np.abs(means - centre)
    i = int(np.nanargmax(away))
    note = f"{means[i]:.1f} C where the others are at {centre:.1f} C"
    return [case.judged(float(away[i]), note, subject=ZONES[i], span=span("thermal", h.table, 0, end - 1), floor=0.0)]


def _expected(case: Case, h: Heat) -> tuple[list[Binned], Floats] | Finding:
    """The record of each zone in bins, and what a golden unit's would show; shape (zones, bins)."""
    import numpy as np

    from quarkctl.diag import foster

    golden = case.evidence.product.golden
    if set(golden) != set(ZONES):
        return case.skip("the board profile has no thermal.golden of all zones")
    if h.time_s[-1] - h.time_s[0] < 240:
        return case.absent("needs four minutes with a change of load")
    records, predicted = [], []
    for i, zone in enumerate(ZONES):
        record = foster.bins(h.time_s, h.zones[:, i], h.power_time_s, h.watts)
        if np.ptp(record.watts) < 0.4:
            return case.absent("the power never changed enough: change the load while this records")
        records.append(record)
        predicted.append(foster.predict(record, golden[zone].k_per_w, golden[zone].tau_s))
    return records, np.array(predicted)


def lag(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    got = _expected(case, h)
    if isinstance(got, Finding):
        return [got]
    records, predicted = got
    out = []
    for i, zone in enumerate(ZONES):
        y = records[i].temp_c
        if not np.isfinite(y).all() or np.ptp(predicted[i]) < 5.0:
            continue
        value, u = _lag_s(records[i], case.evidence.product.golden[zone])
        out.append(case.judged(Estimate(value, u, len(y)), subject=zone, span=span("thermal", h.table), floor=0.0))
    if not out:
        return [case.absent("no zone should have warmed by 5 K: change the load and wait")]
    return _worst_of(out)


def _lag_s(record: Binned, golden: Golden) -> tuple[float, float]:
    """First-order lag that, applied to the expected course, fits the measured one best, and its uncertainty; gain and offset
    are free. A unit whose zone warms a little slower than the golden one looks the same: that much is uncertain."""
    import numpy as np

    from quarkctl.diag import foster

    taus = np.concatenate(([1e-3], np.geomspace(1.0, 300.0, 60)))
    y = record.temp_c - record.temp_c.mean()
    x = foster.predict(record, golden.k_per_w, golden.tau_s)
    f = foster.responses(x - x[0], record.step_s, taus)
    f -= f.mean(axis=0)
    gain = y @ f / np.maximum((f**2).sum(axis=0), 1e-12)
    sse = ((y[:, None] - gain * f) ** 2).sum(axis=0)
    k = int(sse.argmin())
    # a tau within what one more parameter buys: F(1, n) at 95 % is 3.9; neighbouring bins err alike
    near = taus[sse <= sse[k] * (1 + 3.9 * _ALIKE_BINS / len(y))]
    mean_delay_s = float(np.dot(golden.k_per_w, golden.tau_s) / sum(golden.k_per_w))
    scatter = max(near.max() - taus[k], taus[k] - near.min(), record.step_s / 2)
    return float(taus[k]), combined(float(scatter), _PACE_SPREAD * mean_delay_s)


def swapped(case: Case) -> list[Finding]:
    import numpy as np

    h = _all(case)
    if isinstance(h, Finding):
        return [h]
    got = _expected(case, h)
    if isinstance(got, Finding):
        return [got]
    measured, predicted = np.array([r.temp_c for r in got[0]]), got[1]
    if not np.isfinite(measured).all():
        return [case.invalid("a sensor is missing")]
    m = measured - measured[:, :1]
    p = predicted - predicted[:, :1]
    if np.ptp(p) < 4.0:
        return [case.absent("no zone warmed up by 4 K: change the load and wait")]
    cost = np.sqrt(((m[:, None, :] - p[None, :, :]) ** 2).mean(axis=2))
    n = len(ZONES)
    ways = list(permutations(range(n)))
    totals = np.array([sum(cost[i, w[i]] ** 2 for i in range(n)) for w in ways])
    best = ways[int(totals.argmin())]
    own = float(np.sqrt(totals[ways.index(tuple(range(n)))]))
    other = float(np.sqrt(totals.min()))
    value = own / max(other, 0.05)
    pairs = [f"{ZONES[i]} shows {ZONES[best[i]]}" for i in range(n) if best[i] != i]
    return [case.judged(value, ", ".join(pairs), span=span("thermal", h.table), floor=1.0)]


CHECKS = (
    Check(
        "SEN-001", "sensors", "sensors", "stuck", "sensor stuck", "a sensor that never moves hides a fire",
        "Longest time without a change of one step while the power had changed by a fifth and another zone by 3 K.",
        "three fast time constants (project)",
        "A zone that hardly warms in the product may rightly stand still: it is judged only where others moved by 3 K.",
        stuck, "stuck_s", "s", "change the load and wait",
    ),
    Check(
        "SEN-002", "sensors", "sensors", "present", "sensor present", "a broken wire reads as frost or fire",
        "Every zone reads between -50 and 150 C; where the AR1's stream is in the record, so does every zone of it that "
        "ever had a sensor.",
        "range of the thermistors (project)",
        "A sensor that is broken to a plausible value shows in the other checks.",
        present,
    ),
    Check(
        "SEN-003", "sensors", "sensors", "spike", "sensor spikes", "a spike throttles for nothing",
        "Largest distance from the median of seven neighbours where it exceeds four of their scaled median absolute "
        "deviations (Hampel).",
        "project",
        "A true change within one second looks like a spike; none of the zones can change that fast.",
        spike, "spike_k", "K",
    ),
    Check(
        "SEN-004", "sensors", "sensors", "lag", "sensor lag", "a late sensor throttles too late",
        "First-order lag that, applied to what a golden unit would show at this power, fits the sensor best; gain and "
        "offset free. A good unit may be slower than the golden one by 1.2 % of its delay: part of the uncertainty.",
        "golden unit of the board profile; limit: project",
        "A heat path that changed looks like a lag too: see THM-001. Zones that should not move by 5 K are not judged.",
        lag, "sensor_lag_s", "s", "change the load and wait",
    ),
    Check(
        "SEN-005", "sensors", "sensors", "offset", "sensor offset", "a sensor that is off throttles too early or too late",
        "Largest distance of a zone from the median of all over a first minute at rest, less what the golden unit warms by "
        "at that power.",
        "2 K pairwise after isothermal soak (project)",
        "Only a record that begins in balance can tell.",
        offset, "sensor_offset_k", "K", "let the glasses rest for half an hour before this starts",
    ),
    Check(
        "SEN-006", "sensors", "sensors", "swapped", "sensors swapped", "swapped channels throttle the wrong thing",
        "Residual of all zones against the golden unit, over that of the best of all 120 assignments of channels to zones.",
        "project",
        "Zones that behave alike (the two batteries) cannot be told apart.",
        swapped, "swap_ratio", "1", "change the load and wait",
    ),
)  # fmt: skip
