"""The cells themselves: resistance, charge, capacity, balance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from quarkctl.diag.check import Case, Check
from quarkctl.diag.estimate import Estimate, combined
from quarkctl.diag.evidence import ZONE_DECIC, span
from quarkctl.diag.finding import Finding, Span, judge
from quarkctl.diag.product import SIDES

if TYPE_CHECKING:
    from quarkctl.diag.charge_state import Rest
    from quarkctl.diag.evidence import Evidence, Flags, Floats, Table

#: Least share of the charge between two rests that shows a capacity, and least charge that shows a gauge's gain.
_SOC_SPAN_MIN = 0.15
_TICKS_MIN = 8
#: Where neighbouring samples may have anything between them: bounds of the current in C, out of and into the pack.
_GAP_C = (-1.0, 3.0)
#: Frames that come later than this leave a hole that a gauge's gain is not counted over.
_BRIDGED_S = 1.0


class Pack:
    """One pack's columns over the longest start of a record. ``valid``: the pack was there."""

    def __init__(self, case: Case, side: int) -> None:
        import numpy as np

        t = case.evidence.steady("battery")
        self.table: Table = t
        self.time_s: Floats = t["time_us"] / 1e6
        self.ma: Floats = t["pack_ma"][:, side].astype(float)
        self.mv: Floats = t["pack_mv"][:, side].astype(float)
        self.temp_decic: Floats = t["pack_temp_decic"][:, side].astype(float)
        swaps = np.diff(t["swap_count"][:, side], prepend=t["swap_count"][:1, side]).cumsum()
        self.pack_number = swaps
        self.valid: Flags = ((t["pack_state"] >> side) & 1 == 1) & (self.mv > 1000) & (self.mv < 6000)
        self.hole: Flags = case.evidence.holes(t)

    def temp_c(self) -> float | None:
        good = self.valid & (self.temp_decic > ZONE_DECIC[0]) & (self.temp_decic < ZONE_DECIC[1])
        return float(self.temp_decic[good].mean()) / 10 if good.any() else None

    def rows(self, first: int, last: int) -> Span | None:
        return span("battery", self.table, first, last)


def _packs(case: Case) -> list[tuple[str, Pack]] | None:
    if len(case.evidence.of("battery")) < 10:
        return None
    return [(side, Pack(case, i)) for i, side in enumerate(SIDES)]


_NO_FRAMES = "no battery frames: record telemetry for a second or more"


def dcir(case: Case) -> list[Finding]:
    from quarkctl.diag import resistance

    capacity = case.evidence.product.capacity_mah
    packs = _packs(case)
    if packs is None:
        return [case.invalid(_NO_FRAMES)]
    if capacity is None:
        return [case.skip("the board profile has no product.pack_mah")]
    out = []
    for side, p in packs:
        if not p.valid.any():
            out.append(case.absent("never present", subject=side))
            continue
        same = p.valid.copy()
        same[1:] &= p.pack_number[1:] == p.pack_number[:-1]  # the first sample of another pack is no step of this one
        found = resistance.active(p.time_s, p.ma, p.mv, same, capacity)
        how = "active"
        if found is None:
            found, how = resistance.passive(p.time_s, p.ma, p.mv, same, 0.2 * capacity), "passive"
        if found is None:
            need = f"no load step of {0.2 * capacity:.0f} mA: change the load, or pull the other pack"
            out.append(case.absent(need, subject=side))
            continue
        temp = p.temp_c()
        value = found.value if temp is None else resistance.at_25_c(found.value, temp)
        factor = value / found.value if found.value else 1.0
        note = f"{how}, {found.note}" + ("; temperature unknown" if temp is None else f", at {temp:.1f} C")
        out.append(case.judged(Estimate(value, found.u * abs(factor), found.n), note, subject=side,
                               span=p.rows(0, -1), floor=0.0))  # fmt: skip
    return out


def _rests(case: Case, p: Pack) -> list[Rest]:
    from quarkctl.diag import charge_state

    product = case.evidence.product
    if product.ocv is None or product.capacity_mah is None:
        return []
    return charge_state.rests(p.time_s, p.ma, p.mv, p.valid, product.ocv, product.capacity_mah,
                              (product.pack_mohm or 200.0) * 1.4)  # fmt: skip


def _gauge_soc(case: Case, side: int, at_us: int, boot: int) -> tuple[float, str] | None:
    import numpy as np

    e = case.evidence
    for message, field, name in (("gauge", "gauge_soc_pct", "gauge"), ("battery", "pack_soc_pct", "estimate")):
        if not e.has(message, field):
            continue
        t = e.of(message)
        here = t["design_mah"][:, side] > 0 if message == "gauge" else (t["pack_state"] >> side) & 1 == 1
        t = t[(t["boot"] == boot) & here]  # a gauge whose pack is out says nothing
        if not len(t):
            continue
        k = int(np.abs(t["time_us"].astype(np.int64) - at_us).argmin())
        return float(t[field][k][side]), name
    return None


def soc(case: Case) -> list[Finding]:
    packs = _packs(case)
    if packs is None:
        return [case.invalid(_NO_FRAMES)]
    if case.evidence.product.ocv is None:
        return [case.skip("the board profile has no cell.ocv_mv")]
    out = []
    for i, (side, p) in enumerate(packs):
        found = _rests(case, p)
        if not found:
            out.append(
                case.absent("the pack never rested: record it for some minutes with the glasses asleep", subject=side)
            )
            continue
        best: tuple[float, Estimate, Rest, str] | None = None
        for rest in found:
            at = int(p.table["time_us"][rest.last])
            said = _gauge_soc(case, i, at, int(p.table["boot"][rest.last]))
            if said is None:
                continue
            error = said[0] - 100 * rest.soc.value
            if best is None or abs(error) > best[0]:
                note = (
                    f"{said[1]} says {said[0]:.0f} %, rested {rest.mv.value:.0f} mV says {100 * rest.soc.value:.1f} %"
                )
                best = abs(error), Estimate(error, combined(100 * rest.soc.u, 0.6), rest.soc.n), rest, note
        if best is None:
            out.append(case.invalid("nothing in the record says a state of charge", subject=side))
        else:
            out.append(case.judged(best[1], best[3], subject=side, span=p.rows(best[2].first, best[2].last)))
    return out


def _stretch(hole: Flags, keep: Flags) -> tuple[int, int]:
    """First and last row of the longest run without a hole in which all rows are kept."""
    import numpy as np

    ok = np.concatenate(([False], keep[:-1] & keep[1:] & ~hole, [False]))
    edges = np.flatnonzero(np.diff(ok.astype(np.int8)))
    runs = list(zip(edges[::2], edges[1::2], strict=True))
    if not runs:
        return 0, 0
    first, end = max(runs, key=lambda r: r[1] - r[0])
    return int(first), int(end)


def gauge(case: Case) -> list[Finding]:
    import numpy as np

    from quarkctl.diag import charge_state

    packs = _packs(case)
    if packs is None:
        return [case.invalid(_NO_FRAMES)]
    if not case.evidence.has("gauge", "remaining_mah"):
        return [case.invalid("the firmware sends no gauge registers")]
    t = case.evidence.steady("gauge")
    out = []
    for i, (side, p) in enumerate(packs):
        late_s = np.diff(p.time_s)
        first, last = _stretch(p.hole & (late_s > _BRIDGED_S), p.valid & (p.pack_number == np.roll(p.pack_number, 1)))
        if last - first < 10:
            out.append(case.invalid("no stretch without a gap", subject=side))
            continue
        counted = charge_state.counted(p.time_s[first : last + 1], p.ma[first : last + 1])
        rows = t[(t["time_us"] >= p.table["time_us"][first]) & (t["time_us"] <= p.table["time_us"][last])]
        at = np.interp(rows["time_us"] / 1e6, p.time_s[first : last + 1], counted)
        noise = charge_state.count_noise(p.time_s[first : last + 1], p.ma[first : last + 1])
        # the gauge is read less often than the current: each of its rows has added up several samples
        noise *= math.sqrt((last - first) / max(len(rows), 1))
        found = charge_state.gain(at, rows["remaining_mah"][:, i], noise) if len(rows) > 2 else None
        flowed = float(np.ptp(counted))
        if found is None or found.n < _TICKS_MIN:
            need = f"only {flowed:.1f} mAh flowed without a gap: record until {_TICKS_MIN + 2} mAh did"
            out.append(case.absent(need, subject=side))
            continue
        # in a short hole the current was anything that the record knows
        bridged_s = float(late_s[first:last][p.hole[first:last]].sum())
        hidden = bridged_s * float(np.ptp(p.ma[first : last + 1])) / 2 / 3600 / flowed
        value = Estimate(100 * (found.value - 1), combined(100 * found.u, 100 * hidden), found.n)
        limit = case.limit
        max_error = float(rows["max_error_pct"][:, i].max()) if "max_error_pct" in (rows.dtype.names or ()) else 0.0
        note = f"{flowed:.1f} mAh counted, {found.note}"
        f = case.judged(value, note, subject=side, span=p.rows(first, last))
        if limit and limit.is_set and limit.usl is not None and max_error > limit.usl:
            wider = replace(limit, lsl=-max_error, usl=max_error, source=f"MaxError register ({max_error:g} %)")
            j = judge(value.value, value.u, wider)
            f = replace(f, limit=wider, verdict=j.verdict, note=note)
        out.append(f)
    return out


def capacity(case: Case) -> list[Finding]:
    import numpy as np

    from quarkctl.diag import charge_state

    e = case.evidence
    packs = _packs(case)
    if packs is None:
        return [case.invalid(_NO_FRAMES)]
    nominal = e.product.capacity_mah
    if e.product.ocv is None or nominal is None:
        return [case.skip("the board profile has no cell.ocv_mv or product.pack_mah")]
    if not e.has("gauge", "full_mah"):
        return [case.invalid("the firmware sends no gauge registers")]
    out = []
    for i, (side, p) in enumerate(packs):
        found = _rests(case, p)
        number = [int(p.pack_number[r.first]) for r in found]
        pairs = [
            (a, b) for x, a in enumerate(found) for y, b in enumerate(found)
            if y > x and number[x] == number[y] == int(p.pack_number[b.last])
            and abs(a.soc.value - b.soc.value) >= _SOC_SPAN_MIN
        ]  # fmt: skip
        if not pairs:
            need = f"needs two rests with {100 * _SOC_SPAN_MIN:.0f} % of the charge used between them"
            out.append(case.absent(need, subject=side))
            continue
        a, b = max(pairs, key=lambda r: abs(r[0].soc.value - r[1].soc.value))
        i0, i1 = (a.first + a.last) // 2, (b.first + b.last) // 2
        bounds = (_GAP_C[0] * nominal, _GAP_C[1] * nominal)
        c = charge_state.count(p.time_s[i0 : i1 + 1], p.ma[i0 : i1 + 1], p.hole[i0:i1], bounds)
        share = a.soc.value - b.soc.value
        held = c.mah / share
        # a table that is off by the same at both rests errs in their difference only by its change of slope: half of it
        u_soc = combined(a.soc.u, b.soc.u) / abs(share)
        u = abs(held) * u_soc + abs(c.gap_mah / share)
        rows = e.steady("gauge")
        k = int(np.abs(rows["time_us"] - p.table["time_us"][b.last]).argmin())
        stated = float(rows["full_mah"][k, i])
        if stated <= 0:
            out.append(case.invalid("the gauge states no capacity", subject=side))
            continue
        note = (
            f"holds {held:.0f} mAh, the gauge says {stated:.0f}; {c.mah:.1f} mAh for {100 * share:.1f} % of the charge"
        )
        if c.gap_s:
            note += f"; {c.gap_s:.1f} s missing may hide {c.gap_mah:.1f} mAh"
        out.append(case.judged(Estimate(100 * held / stated, 100 * u / stated, 2), note, subject=side,
                               span=p.rows(a.first, b.last), floor=0.0))  # fmt: skip
    return out


def balance(case: Case) -> list[Finding]:
    import numpy as np

    e = case.evidence
    both = _both(e.steady("battery")) if len(e.of("battery")) else None
    if both is None:
        return [case.invalid(_NO_FRAMES)]
    t = e.steady("battery")
    rows = np.flatnonzero(both)
    if not len(rows):
        return [case.absent("the two packs were never present together")]
    at = t[rows[-1]]
    said = [_gauge_soc(case, i, int(at["time_us"]), int(at["boot"])) for i in (0, 1)]
    if said[0] is None or said[1] is None:
        return [case.invalid("nothing in the record says a state of charge")]
    (left, how), (right, _) = said[0], said[1]
    u = _gauge_u_pct(e, int(at["boot"])) if how == "gauge" else 10.0
    return [case.judged(Estimate(abs(left - right), u, 1), f"left {left:.0f} %, right {right:.0f} % by the {how}",
                        span=span("battery", t, int(rows[-1]), int(rows[-1])), floor=0.0)]  # fmt: skip


def _gauge_u_pct(evidence: Evidence, boot: int) -> float:
    """Of the difference of two gauges: what each says of its own error (MaxError, 0x0C), and whole percents."""
    t = evidence.of("gauge")
    t = t[t["boot"] == boot]
    errors = t["max_error_pct"].max(axis=0) if len(t) and "max_error_pct" in (t.dtype.names or ()) else (5.0, 5.0)
    return combined(float(errors[0]), float(errors[1]), 0.6, 0.6)


def _both(t: Table) -> Flags:
    import numpy as np

    return np.asarray((t["pack_state"] & 3) == 3)


def cross_charge(case: Case) -> list[Finding]:
    import numpy as np

    e = case.evidence
    if len(e.of("battery")) < 2:
        return [case.invalid(_NO_FRAMES)]
    t = e.of("battery")
    idle = np.ones(len(t), bool)
    if e.has("charger", "charger_state"):
        c = e.of("charger")
        at = np.clip(np.searchsorted(c["time_us"], t["time_us"]), 0, len(c) - 1)
        near = np.maximum(c["charger_state"][at], c["charger_state"][np.maximum(at - 1, 0)])
        idle = near == 0
    both = _both(t) & idle
    if not both.any():
        return [case.absent("the two packs were never present together off the charger")]
    held = e.has("battery", "pack_ma_min")
    ma = (t["pack_ma_min"] if held else t["pack_ma"]).astype(float)
    back = np.where(both[:, None], np.maximum(-ma, 0.0), 0.0)
    row, side = np.unravel_index(int(back.argmax()), back.shape)
    value = float(back[row, side])
    note = f"into the {SIDES[int(side)]} pack" if value else ""
    note += ("; " if note else "") + ("held by hardware" if held else "sampled, not held: short peaks do not show")
    return [case.judged(value, note, span=span("battery", t, int(row), int(row)), floor=0.0)]


CHECKS = (
    Check(
        "PWR-006", "battery", "dcir", "dcir", "pack DCIR", "a pack with high resistance sags under load and heats up",
        "Active: (V1 - V2) / (I2 - I1) over pulses from 0.2 C held for 10 s to 1 C for 1 s, V1 and V2 by a straight line at "
        "the end of each. Passive, where there was no such pulse: Theil-Sen through the origin over all load steps of at "
        "least 0.2 C between neighbouring samples picks the steps to believe, least squares over them gives the value. "
        "Brought to 25 C: it halves from 0 to 25 C.",
        "pulse method: IEC 61960 as described by a maker of test equipment (the standard's text was not checked); limit: "
        "1.5 x the new value",
        "The passive value is the resistance at 100 ms; the active one holds the polarisation of one second besides. A "
        "corroded contact looks like a worn cell. Without a load step there is no verdict.",
        dcir, "dcir_mohm", "mohm", "change the load a few times, or pull the other pack",
    ),
    Check(
        "PWR-007", "battery", "soc", "soc", "SoC error", "a gauge that is wrong ends the day early",
        "State of charge that the gauge says minus that of the rested voltage. Rested: |I| <= C/20, and dV/dt less what the "
        "small current explains stays below 0.1 mV/min, or 30 min have passed. Table by a monotone cubic (PCHIP); "
        "uncertainty: that of the voltage and the table over the table's slope.",
        "project: table of the cell in the board profile",
        "In the flat part of the table 5 mV are 1 % of charge. Voltage hysteresis of the cell is not modelled.",
        soc, "soc_error_pct", "%", "let the glasses sleep until the packs have rested",
    ),
    Check(
        "PWR-008", "battery", "soc", "gauge", "gauge gain", "a gauge that counts wrong drifts between rests",
        "Slope of the gauge's remaining capacity over the charge counted from the converter's current (trapezoid), through "
        "the moments at which the register ticks: those have no rounding error.",
        "limit: the larger of the gauge's MaxError register (0x0C, SBS) and 2 % (project)",
        "Gauge and converter may share a shunt: a wrong shunt does not show here. Only the longest stretch without a gap "
        "of a second counts; in a shorter one the current may have been anything of the record, which is uncertainty.",
        gauge, "gauge_error_pct", "%", "use the glasses until 10 mAh have flowed from each pack",
    ),
    Check(
        "PWR-020", "battery", "life", "capacity", "capacity held", "a pack may hold less than its gauge believes",
        "Charge counted between two rests over the difference of their states of charge by voltage, in percent of the full "
        "charge capacity that the gauge states (register 0x10).",
        "project",
        "Needs two rests with 15 % of the charge between them. Samples that are missing bound the charge by -1 C to 3 C and "
        "widen the uncertainty instead of being interpolated.",
        capacity, "capacity_pct", "%", "rest, use a fifth of the charge, rest again",
    ),
    Check(
        "PWR-014", "battery", "balance", "balance", "pack balance", "uneven packs leave one alone at the end",
        "Difference of the two states of charge when both were last present.",
        "project",
        "After a swap for a full pack an imbalance is right. Each gauge is believed as far as its MaxError register says. "
        "An estimate from voltage is good to 10 % only, which leaves no room for a verdict.",
        balance, "imbalance_pct", "%",
    ),
    Check(
        "PWR-016", "battery", "balance", "cross_charge", "cross-charge", "a pack must never be charged by the other",
        "Largest current into a pack while both were present off the charger, from the minimum held by hardware.",
        "project: leakage of the ideal-diode switches",
        "It shows only while the packs differ in voltage and the load does not hide it. Without held minima short peaks "
        "do not show.",
        cross_charge, "cross_charge_ma", "mA",
    ),
)  # fmt: skip
