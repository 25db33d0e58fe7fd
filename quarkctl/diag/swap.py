"""Is a battery swap survived: who takes over, what the bus does meanwhile, and what is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quarkctl.diag.check import Case, Check
from quarkctl.diag.estimate import Estimate, combined
from quarkctl.diag.evidence import Evidence, span
from quarkctl.diag.finding import Finding, Span, Verdict, judge
from quarkctl.diag.product import SIDES

if TYPE_CHECKING:
    import numpy as np

    from quarkctl.diag.evidence import Table

NO_SWAP = "no pack was removed: pull one while this records"
PULL = "remove one battery, wait 5 s, put it back"
_ETA = 0.9
_MA2S_FULL = 0xFFFF
_CLOCK_WINDOW_US = 1_000_000


@dataclass(frozen=True)
class Removal:
    """A removal and what followed. ``gap_us``: until the other pack carried the load; None when that was never seen.
    ``captured``: the power path's own timer measured it, instead of two converter samples."""

    event: np.void
    pack: int
    gap_us: float | None
    captured: bool


def removals(evidence: Evidence) -> list[Removal]:
    out = []
    takeovers = evidence.of("takeover")
    period_us = 1e6 / (evidence.product.converter_hz or 1000.0)
    captures = "switch_us" in (takeovers.dtype.names or ())
    events = evidence.of("pack_removed")
    for event in events[events["pack"] < 2] if len(events) else events:
        pack = int(event["pack"])
        after = takeovers[
            (takeovers["boot"] == event["boot"]) & (takeovers["pack"] == 1 - pack)
            & (takeovers["sample_us"] >= event["sample_us"])
        ] if len(takeovers) else takeovers  # fmt: skip
        if not len(after):
            out.append(Removal(event, pack, None, False))
            continue
        first = after[after["sample_us"].argmin()]
        sampled = float(int(first["sample_us"]) - int(event["sample_us"]))
        if captures:
            out.append(Removal(event, pack, max(float(first["switch_us"]), sampled - 1.5 * period_us, 0.0), True))
        else:
            out.append(Removal(event, pack, sampled, False))
    return out


def _at(removal: Removal) -> Span:
    e = removal.event
    return Span("pack_removed", int(e["boot"]), int(e["time_us"]), int(e["time_us"]))


def _no_removal(case: Case) -> Finding:
    e = case.evidence
    if e.boots > 1:
        return case.invalid("the device reset; what it saw just before is lost")
    if not e.rows:
        return case.invalid("nothing was received")
    unseen = _unseen(e, "pack_removed")
    return case.invalid(unseen) if unseen else case.absent(NO_SWAP)


def _unseen(evidence: Evidence, event: str) -> str:
    """What to say where a pack left, or came back, oftener than the events tell; empty where it did not."""
    import numpy as np

    if not evidence.has("battery", "pack_state"):
        return ""
    rows, events = evidence.of("battery"), evidence.of(event)
    word = {"pack_removed": "left", "pack_inserted": "came back"}[event]
    for side, name in enumerate(SIDES):
        moved = 0
        for boot in np.unique(rows["boot"]):
            steps = np.diff(((rows["pack_state"][rows["boot"] == boot] >> side) & 1).astype(int))
            left = np.flatnonzero(steps < 0)
            if event == "pack_removed":
                moved += len(left)
            elif len(left):  # one that comes and never left is what the firmware found at its start
                moved += int((steps[left[0] :] > 0).sum())
        if moved > int((events["pack"] == side).sum() if len(events) else 0):
            return f"the {name} pack {word}, but the frame that tells of it is missing: record without losses"
    return ""


def _lost_after(evidence: Evidence, event: np.void) -> bool:
    return any(x.boot == event["boot"] and x.to_us >= event["time_us"] for x in evidence.losses)


def takeover(case: Case) -> list[Finding]:
    found = removals(case.evidence)
    if not found:
        return [_no_removal(case)]
    for r in found:
        if r.gap_us is None:
            if _lost_after(case.evidence, r.event):
                return [case.invalid("frames are missing after the removal: record without losses", span=_at(r))]
            last = max(
                int(t["time_us"][t["boot"] == r.event["boot"]].max(initial=0)) for t in case.evidence.tables.values()
            )
            if last < int(r.event["time_us"]) + 200_000 and r.event["boot"] == case.evidence.boots - 1:
                return [case.invalid("the record ends in the swap: go on recording for a second", span=_at(r))]
            note = f"no pack took over after the {SIDES[r.pack]} one left"
            return [case.finding(Verdict.FAIL, note, span=_at(r))]
    period_ms = 1000.0 / (case.evidence.product.converter_hz or 1000.0)
    worst = max(found, key=lambda r: r.gap_us or 0.0)
    u = 0.002 if worst.captured else period_ms
    how = "timed by the power path" if worst.captured else f"between converter samples {period_ms:g} ms apart"
    note = f"{len(found)} removal{'s' * (len(found) > 1)}, {how}"
    judged = case.judged(Estimate((worst.gap_us or 0.0) / 1000, u, len(found)), note, span=_at(worst), floor=0.0)
    return [_unless_unseen(case, judged, "pack_removed")]


def _unless_unseen(case: Case, found: Finding, event: str) -> Finding:
    """A fault stays one; anything better is not proved while an event is missing."""
    unseen = _unseen(case.evidence, event)
    return case.invalid(unseen, span=found.span) if unseen and found.verdict is not Verdict.FAIL else found


@dataclass(frozen=True)
class Lowest:
    """Lowest bus voltage of a record, and why it might not be the lowest (``doubt``)."""

    mv: float
    row: Span | None
    doubt: str = ""
    latched: bool = True


def lowest_bus(evidence: Evidence) -> Lowest | None:
    """From the latch that hardware holds between frames. Each power frame names the frame at which the latch was cleared,
    and that one must be here too. None without power frames."""
    import numpy as np

    t = evidence.of("power")
    if len(t) < 2:
        return None
    if not evidence.has("power", "bus_mv_min", "latched_since_seq"):
        k = int(t["bus_mv"].argmin())
        return Lowest(float(t["bus_mv"][k]), span("power", t, k, k), "", latched=False)
    mv = t["bus_mv_min"].astype(float)
    same = t["boot"][1:] == t["boot"][:-1]
    broken = same & (t["latched_since_seq"][1:] != t["seq"][:-1])
    first_of_boot = np.concatenate(([True], ~same))
    k = 1 + int(np.argmin(mv[1:]))
    doubt = ""
    if broken.any():
        doubt = "the held minimum of a missing frame is unknown: record without losses"
    elif evidence.boots > 1:
        doubt = "the minimum held when the device reset is lost"
    elif first_of_boot[0] and mv[0] < mv[k]:
        doubt = f"{mv[0]:.0f} mV was held since before the record began: start it earlier"
    return Lowest(float(mv[k]), span("power", t, k, k), doubt)


def _judge_lowest(case: Case, offset_mv: float) -> list[Finding]:
    found = lowest_bus(case.evidence)
    if found is None:
        return [case.invalid("no power frames: record telemetry for a second or more")]
    value = found.mv - offset_mv
    if not found.latched:
        rate = _sampling_hz(case.evidence)
        note = f"{rate:.0f} Hz samples without a held minimum cannot show a dip"
        f = case.judged(value, note, span=found.row)
        return [
            f if f.verdict is Verdict.FAIL else case.invalid(f"{note}; use firmware that latches it", span=found.row)
        ]
    f = case.judged(value, "held by hardware between frames", span=found.row)
    if not found.doubt or f.verdict in (Verdict.FAIL, Verdict.SKIP):
        return [f]
    if "since before" in found.doubt and case.limit and case.limit.is_set:
        held = float(case.evidence.of("power")["bus_mv_min"][0]) - offset_mv
        if judge(held, 0.0, case.limit).verdict is Verdict.PASS:
            return [f]
    return [case.invalid(found.doubt, span=found.row)]


def bus_minimum(case: Case) -> list[Finding]:
    return _judge_lowest(case, 0.0)


def brown_out(case: Case) -> list[Finding]:
    uvlo = case.evidence.product.uvlo_mv
    if uvlo is None:
        return [case.skip("the board profile has no bus.uvlo_mv")]
    return _judge_lowest(case, float(uvlo))


def _sampling_hz(evidence: Evidence) -> float:
    import numpy as np

    rates = [0.0]
    if evidence.has("bus", "period_ns"):
        rates.append(1e9 / max(float(np.median(evidence.of("bus")["period_ns"])), 1.0))
    if len(evidence.of("power")) > 1:
        rates.append(1e6 / max(float(np.median(np.diff(evidence.of("power")["time_us"]))), 1.0))
    return max(rates)


@dataclass(frozen=True)
class Dip:
    """Bus voltage before a removal, and the lowest until shortly after it; ``carried_ma`` is what the pack had carried."""

    removal: Removal
    before_mv: float
    lowest_mv: float
    load_ma: float
    carried_ma: float
    row: Span | None
    broken: bool


def dips(evidence: Evidence) -> list[Dip]:
    t, packs = evidence.of("power"), evidence.of("battery")
    out = []
    for r in removals(evidence):
        at = int(r.event["time_us"])
        here = t["boot"] == r.event["boot"]
        before = t[here & (t["time_us"] < at - 20_000)]
        after = t[here & (t["time_us"] >= at - 20_000) & (t["time_us"] <= at + 250_000)]
        if not len(before) or not len(after):
            continue
        index = (here & (t["time_us"] <= at + 250_000)).nonzero()[0]
        rows = index[-len(after) :]
        broken = bool((t["latched_since_seq"][rows] != t["seq"][rows - 1]).any())
        earlier = packs[(packs["boot"] == r.event["boot"]) & (packs["time_us"] < at - 20_000)]
        carried = float(earlier["pack_ma"][-1][r.pack]) if len(earlier) else 0.0
        out.append(Dip(r, float(before["bus_mv"][-1]), float(after["bus_mv_min"].min()), float(before["load_ma"][-1]),
                       max(carried, 0.0), span("power", after), broken))  # fmt: skip
    return out


def droop(case: Case) -> list[Finding]:
    e = case.evidence
    if not removals(e):
        return [_no_removal(case)]
    if not e.has("power", "bus_mv_min", "latched_since_seq"):
        rate = _sampling_hz(e)
        w = (e.product.shortest_dip_us or 300.0) / 1e6
        if rate < 16 / w:
            chance = min(1.0, 0.063 * w * rate)
            return [case.invalid(
                f"{rate:.0f} Hz samples show 90 % of a {w * 1e6:.0f} us dip with a chance of {100 * chance:.1g} %: attach "
                f"an instrument of {16 / w / 1000:.0f} kS/s, or use firmware that latches the minimum"
            )]  # fmt: skip
    found = dips(e)
    if not found or any(d.broken for d in found):
        return [case.invalid("the power frame that holds the minimum of the swap is missing: record without losses")]
    worst = max(found, key=lambda d: d.before_mv - d.lowest_mv)
    judged = case.judged(worst.before_mv - worst.lowest_mv, "held by hardware", span=worst.row, floor=0.0)
    return [_unless_unseen(case, judged, "pack_removed")]


def hold_up(case: Case) -> list[Finding]:
    e = case.evidence
    if e.product.uvlo_mv is None or e.product.bus_uf is None:
        return [case.skip("the board profile has no bus.uf or bus.uvlo_mv")]
    if not removals(e):
        return [_no_removal(case)]
    seen = dips(e)
    found = [d for d in seen if d.removal.gap_us is not None and not d.broken]
    if not found:
        return [case.invalid("no takeover with the power frames around it: record without losses")]
    if not found[0].removal.captured:
        return [case.invalid("converter samples cannot time a switchover of some 10 us: use firmware that captures it")]
    worst: tuple[float, float, str, Dip] | None = None
    for d in found:
        gap_us = d.removal.gap_us or 0.0
        if gap_us <= 0 or d.load_ma <= 0:
            continue
        uf, u_rel, how = e.product.bus_uf, 0.2, "capacitance of the profile"
        depth = d.before_mv - d.lowest_mv
        if depth > 30 and d.carried_ma > 20:  # I * t / C
            uf, u_rel, how = (
                d.carried_ma * gap_us / depth,
                3.0 / depth + 0.02 + 2.0 / gap_us,
                "capacitance from the dip",
            )
        watts = d.load_ma * d.before_mv / 1e6
        hold_us = uf * (d.before_mv**2 - e.product.uvlo_mv**2) / 1e6 * _ETA / (2 * watts)
        ratio = hold_us / gap_us
        if worst is None or ratio < worst[0]:
            worst = ratio, u_rel, f"holds {hold_us:.0f} us, gap {gap_us:.0f} us; {how} {uf:.0f} uF", d
    if worst is None:
        return [case.absent("no removal under load: pull the pack that carries current")]
    ratio, u_rel, note, d = worst
    judged = case.judged(Estimate(ratio, ratio * u_rel, len(found)), note, span=d.row)
    if len(found) < len(seen) and judged.verdict is not Verdict.FAIL:
        return [case.invalid("frames around another removal are missing: record without losses", span=d.row)]
    return [_unless_unseen(case, judged, "pack_removed")]


def inrush(case: Case) -> list[Finding]:
    e = case.evidence
    t = e.of("pack_inserted")
    if not len(t):
        return [_no_insertion(case)]
    if not e.has("pack_inserted", "inrush_ma"):
        return [case.invalid("the firmware does not hold the peak current of an insertion")]
    k = int(t["inrush_ma"].argmax())
    found = case.judged(
        float(t["inrush_ma"][k]), f"{SIDES[int(t['pack'][k]) & 1]} pack", span=span("pack_inserted", t, k, k)
    )
    return [_unless_unseen(case, found, "pack_inserted")]


def _no_insertion(case: Case) -> Finding:
    unseen = _unseen(case.evidence, "pack_inserted")
    return case.invalid(unseen) if unseen else case.absent("no pack was inserted: put one in while this records")


def inrush_energy(case: Case) -> list[Finding]:
    e = case.evidence
    t = e.of("pack_inserted")
    if not len(t):
        return [_no_insertion(case)]
    if not e.has("pack_inserted", "inrush_ma2s"):
        return [case.invalid("the firmware does not hold the squared current of an insertion")]
    k = int(t["inrush_ma2s"].argmax())
    value, where = float(t["inrush_ma2s"][k]), span("pack_inserted", t, k, k)
    note = f"{SIDES[int(t['pack'][k]) & 1]} pack"
    if t["inrush_ma2s"][k] == _MA2S_FULL:
        return [case.finding(Verdict.FAIL, f"{note}; the hold was full: as much or more", value=value, span=where)]
    # held in whole mA2s, and 5 % is what the shunt and its amplifier are good for over so short a pulse
    found = case.judged(Estimate(value, combined(1.0, 0.05 * value), len(t)), note, span=where, floor=0.0)
    return [_unless_unseen(case, found, "pack_inserted")]


def state_kept(case: Case) -> list[Finding]:
    e = case.evidence
    if not e.hello:
        return [case.invalid("no hello frame: record for two seconds or more")]
    resets = max(e.boots - 1, 0)
    reason = ""
    if resets:
        number = e.hello["reset_reason"]
        reason = f"last reset: {e.schema.enum_name('reset_reason', int(str(number)))}".replace("_", " ")
    out = [case.judged(float(resets), reason)]
    if e.ar1_starts:
        out.append(case.judged(float(e.ar1_starts - 1), "by its own stream", subject="ar1"))
    return out


def telemetry_whole(case: Case) -> list[Finding]:
    counts = case.evidence.counts
    if not case.evidence.rows:
        return [case.invalid("nothing was received")]
    if counts.corrupt:
        return [case.invalid(f"{counts.corrupt} corrupt frames: the line is bad, not the device")]
    loss = case.evidence.losses[0] if case.evidence.losses else None
    at = Span("", loss.boot, loss.from_us, loss.to_us, loss.count) if loss else None
    return [case.judged(float(counts.lost), f"{counts.received} frames received", span=at)]


def both_packs(case: Case) -> list[Finding]:
    t = case.evidence.of("battery")
    if not len(t):
        return [case.invalid("no battery frames: record telemetry for a second or more")]
    missing, fakes, resting = [], [], []
    for i, side in enumerate(SIDES):
        here = (t["pack_state"] >> i) & 1 == 1
        if not here.any():
            missing.append(side)
        elif not ((t["pack_state"][here] >> (2 + i)) & 1).any():
            fakes.append(side)
        elif not (t["pack_ma"][here, i] > 0).any():
            resting.append(side)
    for message in ("pack_removed", "pack_inserted", "takeover"):
        events = case.evidence.of(message)
        if len(events) and (events["pack"] > 1).any():
            k = int((events["pack"] > 1).argmax())
            note = f"{message} names pack {events['pack'][k]}, which there is not"
            return [case.finding(Verdict.FAIL, note, span=span(message, events, k, k))]
    if fakes:
        return [case.finding(Verdict.FAIL, f"not authentic: {', '.join(fakes)}", span=span("battery", t))]
    if missing:
        return [case.finding(Verdict.FAIL, f"not seen: {', '.join(missing)}", span=span("battery", t))]
    note = ", ".join(f"{s} {p} %" for s, p in zip(SIDES, t["pack_soc_pct"][-1], strict=True))
    if resting:
        note += f"; {' and '.join(resting)} carried no current"
    return [case.finding(Verdict.PASS, note, span=span("battery", t))]


def clock(case: Case) -> list[Finding]:
    e = case.evidence
    if not e.has("power", "converter_us"):
        return [case.invalid("the firmware does not send the converter's clock beside its own")]
    t = e.steady("power")
    step_ms, u_ms, row = clock_step(t)
    if row is None:
        return [case.absent("needs six windows of a second or ten frames without a reset: record longer")]
    found = case.judged(Estimate(step_ms, u_ms, len(t)), span=row, floor=0.0)
    # virtual glasses whose plant did not run for a while stamp what they have late
    inside = t["host_ns"][(t["time_us"] >= row.first_us) & (t["time_us"] <= row.last_us)]
    return [case.unless_host(found, int(inside.min()), int(inside.max()))]


def clock_step(t: Table) -> tuple[float, float, Span | None]:
    """Largest step between two clocks in ms, its uncertainty, and where. A stamp is late by what it waited and never
    early, so the upper envelope of (converter - own) over windows is what the clocks do."""
    import numpy as np

    # a converter that has brought nothing since the row before says nothing of its clock
    t = t[np.concatenate(([True], np.diff(t["converter_us"].astype(np.int64)) != 0))]
    d = t["converter_us"].astype(np.int64) - t["time_us"]
    if len(t) < 30:
        return 0.0, 0.0, None
    width = max(_CLOCK_WINDOW_US, 10 * int(np.median(np.diff(t["time_us"]))))
    window = ((t["time_us"] - t["time_us"][0]) // width).astype(int)
    ids, counts = np.unique(window, return_counts=True)
    ids = ids[counts >= 5]
    if len(ids) < 6:
        return 0.0, 0.0, None
    tops = np.array([d[window == k].max() for k in ids], float)
    steps = np.diff(tops)
    steps = steps - np.median(steps)
    k = int(np.abs(steps).argmax())
    others = np.delete(steps, slice(max(k - 1, 0), k + 2))
    scatter = 1.4826 * float(np.median(np.abs(others))) if len(others) else 0.0
    rows = np.flatnonzero((window == ids[k]) | (window == ids[k + 1]))
    value = max(abs(float(steps[k])) - 20e-6 * width, 0.0) / 1000
    return value, 2 * scatter / 1000 + 1.0, span("power", t, int(rows[0]), int(rows[-1]))


def display(case: Case) -> list[Finding]:
    e = case.evidence
    if not e.product.displays:
        return [case.skip("this product has no displays")]
    if not e.has("display", "frame_count", "dropped_count"):
        return [case.invalid("the firmware sends no display messages")]
    return _frames(case, "display", "", "the displays were off: record with a load that shows something")


def camera(case: Case) -> list[Finding]:
    if not case.evidence.has("camera", "camera_frame_count", "camera_dropped_count"):
        return [case.invalid("the firmware sends no camera messages")]
    return _frames(case, "camera", "camera_", "the camera was off: start it while this records")


def _frames(case: Case, message: str, prefix: str, off: str) -> list[Finding]:
    """Frames that a stream dropped over the longest start; ``prefix`` of its two counters."""
    t = case.evidence.steady(message)
    shown, gone = t[f"{prefix}frame_count"].astype(int), t[f"{prefix}dropped_count"].astype(int)
    frames, dropped = int(shown[-1] - shown[0]), int(gone[-1] - gone[0])
    if frames <= 0 and dropped <= 0:
        return [case.absent(off)]
    if dropped < 0 or frames < 0:
        return [case.invalid("its counters run back")]
    k = int((gone > gone[0]).argmax())
    return [case.judged(float(dropped), f"{frames} frames", span=span(message, t, max(k - 1, 0), k))]


CHECKS = (
    Check(
        "PWR-001", "battery", "swap", "takeover", "takeover", "the glasses must not notice that a battery left",
        "Longest time from a removal until the other pack carries 90 % of the load: by the capture timer of the power path "
        "where the firmware reports it, else between the two converter samples that showed it.",
        "limit: hold-up time of the bus capacitance at full load, with a factor of two",
        "Without the capture timer the resolution is one converter sample: too coarse for a limit below that, which is "
        "INVALID unless the fault is larger than the resolution. A removal whose takeover may hide in lost frames "
        "is INVALID.",
        takeover, "takeover_ms", "ms", PULL,
    ),
    Check(
        "PWR-002", "battery", "swap", "bus_minimum", "bus minimum", "below the brown-out limit both chips reset",
        "Lowest bus voltage, from the minimum that hardware holds between frames. Each power frame names the frame at which "
        "the hold was cleared; that frame must be in the record too.",
        "limit: brown-out of the power chip plus 200 mV",
        "Samples at 1 kHz alone cannot show a dip of some 100 us. The first frame's hold began before the record: what it "
        "shows is no proof, and if it is bad, neither is the rest. What was held when the device reset is lost.",
        bus_minimum, "bus_mv_min", "mV", PULL,
    ),
    Check(
        "PWR-003", "battery", "swap", "both_packs", "both packs seen", "a pack that is not seen cannot take over",
        "Both packs were present at some time and proved what they are.",
        "project: two packs",
        "A pack that carries no current is not at fault: the one with the higher voltage supplies the bus alone until the "
        "other has caught up. The note says so; that it carries when it must is what the takeover check is for.",
        both_packs,
    ),
    Check(
        "PWR-004", "battery", "swap", "state_kept", "no reset", "a swap must keep the state of both chips",
        "Starts of the microcontroller between the first and the last sample, minus one; those of the AR1 likewise where "
        "its stream is in the record.",
        "project: a swap keeps the state of both chips",
        "Without the AR1's stream its reset does not show here; the link checks see that it did not answer.",
        state_kept, "reset_count", "1",
    ),
    Check(
        "PWR-005", "battery", "swap", "telemetry_whole", "no gap", "a gap hides what happened in it",
        "Frames missing in the sequence numbers.",
        "project: a swap leaves no gap in the telemetry",
        "Only the device is judged: where the host received corrupt bytes, it cannot be, and the verdict is INVALID.",
        telemetry_whole, "lost_frame_count", "1",
    ),
    Check(
        "PWR-009", "battery", "swap", "droop", "droop depth", "the deeper the dip, the less margin for a worn capacitor",
        "Bus voltage before a removal minus the lowest held by hardware until 250 ms after it: dip = I * t / C + I * R.",
        "formula: TI SLVAE51A, equations 1 and 2; sampling rule by simulation: a linear fall in w/10 and an exponential "
        "recovery with w/2, random phase, 20,000 trials: chance to see 90 % = min(1, 0.063 w fs); always from fs = 16 / w",
        "Without a latch and below 16 / w samples a second the verdict is INVALID. w is the shortest dip of interest, "
        "a fact "
        "of the board (300 us by default).",
        droop, "droop_mv", "mV", PULL,
    ),
    Check(
        "PWR-010", "battery", "swap", "hold_up", "hold-up reserve", "the bus capacitance feeds both chips until then",
        "Hold-up time C (V0^2 - Vuvlo^2) eta / (2 P), eta 0.9, over the measured gap; C from the dip itself (I * t / depth) "
        "where it is deep enough, else from the board profile.",
        "energy of a capacitor; factor 2: project",
        "The smallest of all removals. A pack that carried nothing when it was pulled tells nothing.",
        hold_up, "hold_up_ratio", "1", PULL,
    ),
    Check(
        "PWR-011", "battery", "swap", "brown_out", "brown-out margin", "how far the lowest bus voltage stayed from a reset",
        "Lowest held bus voltage minus the undervoltage lockout of the board profile.",
        "project: at least 100 mV or the uncertainty",
        "As PWR-002. Of the rails only the bus is reported by the firmware.",
        brown_out, "brown_out_margin_mv", "mV", PULL,
    ),
    Check(
        "PWR-012", "battery", "swap", "inrush", "inrush", "too much current at insertion trips the pack's protection",
        "Largest peak current held by hardware over the bounce of an insertion.",
        "project: over-current protection of the pack",
        "The peak alone: how long it lasts is PWR-021.",
        inrush, "inrush_ma", "mA", PULL,
    ),
    Check(
        "PWR-021", "battery", "swap", "inrush_energy", "inrush I2t", "an inrush that lasts trips the pack's protection too",
        "Largest integral of the squared current of an insertion, (mA)^2 s, held by hardware from the first contact until "
        "the pack counts as inserted.",
        "project: a part of what the pack's over-current protection lets pass",
        "The hold ends with the bounce: a load that is switched on later is not part of it.",
        inrush_energy, "inrush_ma2s", "mA2s", PULL,
    ),
    Check(
        "PWR-013", "battery", "swap", "clock", "clock kept", "a jump of the clock makes alarms late and logs lie",
        "Largest step between the power path's clock and the microcontroller's, between windows of 1 s (ten frames where "
        "those are rarer): upper envelope of "
        "their difference in each window, less 20 ppm.",
        "project: 20 ppm crystal",
        "Stamps wait for up to one sampling period, which the envelope removes; a step below its scatter is not seen. It "
        "needs 6 s of one start.",
        clock, "clock_step_ms", "ms",
    ),
    Check(
        "DSP-001", "battery", "swap", "display", "display kept", "the wearer sees a dropped frame",
        "Frames that the displays dropped in the record.",
        "project: a swap keeps the picture",
        "Only products with displays. A display that was off tells nothing.",
        display, "display_dropped_count", "1",
    ),
    Check(
        "CAM-001", "battery", "swap", "camera", "camera kept", "a swap must not end what is being filmed",
        "Frames that the camera dropped in the record.",
        "project: a swap keeps the stream",
        "A camera that was off tells nothing. Frames that arrive late, but arrive, are not counted.",
        camera, "camera_dropped_count", "1", "start the camera, then pull one battery",
    ),
)  # fmt: skip
