"""Battery checks: is a swap survived, and does the bus hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict, judge
from quarkctl.diag.limits import Limit, Limits
from quarkctl.formats.stream import Sample

SIDES = ("left", "right")


@dataclass(frozen=True)
class Check:
    """One diagnosis. ``code`` is never reused for another."""

    code: str
    name: str
    title: str
    why: str
    run: Callable[[Evidence, Limits], Finding]


def _finding(
    check: str,
    verdict: Verdict,
    note: str = "",
    *,
    value: float | None = None,
    limit: Limit | None = None,
    boot: int = 0,
    time_us: tuple[int, int] = (0, 0),
) -> Finding:
    c = CHECKS[check]
    return Finding(c.code, c.title, verdict, value, limit, note, boot, time_us)


def _no_limit(check: str, name: str) -> Finding:
    return _finding(check, Verdict.SKIP, f"the limits file has no {name}")


# --- PWR-001 ----------------------------------------------------------------------------------------------------------


def takeover(evidence: Evidence, limits: Limits) -> Finding:
    """Longest time from a removal to the moment when the other pack carries at least 90 % of the load.

    Both times are the converter's own (`sample_us` of the events, resolution one sample)."""
    limit = limits.get("takeover_ms", "ms")
    if limit is None:
        return _no_limit("takeover", "takeover_ms")
    removals = evidence.of("pack_removed")
    if not removals and _reset_count(evidence):
        return _finding("takeover", Verdict.INVALID, "the device reset; what it saw just before is lost", limit=limit)
    if not removals:
        return _finding("takeover", Verdict.INVALID, "no pack was removed: pull one while this records", limit=limit)
    takeovers = evidence.of("takeover")
    longest, at = 0.0, removals[0]
    for removal in removals:
        other = 1 - removal.number("pack")
        after = [
            _elapsed_us(removal, t)
            for t in takeovers
            if t.boot == removal.boot and t.number("pack") == other and _elapsed_us(removal, t) >= 0
        ]
        if not after:
            if _gap_after(evidence, removal):
                return _finding("takeover", Verdict.INVALID, "frames are missing after the removal", limit=limit)
            side = SIDES[1 - other] if other in (0, 1) else "?"
            return _finding(
                "takeover", Verdict.FAIL, f"no pack took over after the {side} one left", limit=limit,
                boot=removal.boot, time_us=(removal.time_us, removal.time_us),
            )  # fmt: skip
        took = min(after)
        if took / 1000 >= longest:
            longest, at = took / 1000, removal
    return _finding(
        "takeover", judge(longest, limit), f"{len(removals)} removal{'s' if len(removals) > 1 else ''}", value=longest,
        limit=limit, boot=at.boot, time_us=(at.time_us, at.time_us),
    )  # fmt: skip


def _elapsed_us(first: Sample, second: Sample) -> int:
    """Between two events, by the converter's clock."""
    return second.number("sample_us") - first.number("sample_us")


def _reset_count(evidence: Evidence) -> int:
    boots = [s.boot for s in evidence.samples]
    return max(boots, default=0) - min(boots, default=0)


def _gap_after(evidence: Evidence, sample: Sample) -> bool:
    return any(g.boot == sample.boot and g.time_us >= sample.time_us for g in evidence.gaps)


# --- PWR-002 ----------------------------------------------------------------------------------------------------------


def bus_minimum(evidence: Evidence, limits: Limits) -> Finding:
    """Lowest bus voltage, from the minimum that hardware holds between frames.

    Samples at 1 kHz or less alone cannot show a dip of some 100 us; the held minimum can, if no frame that carried it is
    missing: each power frame names the frame at which the hold was cleared, and that one must be here too. The first
    frame's hold began before the record: what it shows is no proof, and if it is bad, neither is the rest."""
    limit = limits.get("bus_mv_min", "mV")
    if limit is None:
        return _no_limit("bus_minimum", "bus_mv_min")
    frames = evidence.of("power")
    if len(frames) < 2:
        return _finding(
            "bus_minimum", Verdict.INVALID, "no power frames: record telemetry for a second or more", limit=limit
        )
    lowest = frames[1]
    for before, frame in pairwise(frames):
        if frame.boot == before.boot and frame.number("latched_since_seq") != before.seq:
            return _finding(
                "bus_minimum", Verdict.INVALID, "the held minimum of a missing frame is unknown: record without losses",
                limit=limit, boot=frame.boot, time_us=(before.time_us, frame.time_us),
            )  # fmt: skip
        if frame.number("bus_mv_min") < lowest.number("bus_mv_min"):
            lowest = frame
    value = lowest.number("bus_mv_min")
    first = frames[0].number("bus_mv_min")
    if judge(first, limit) is not Verdict.PASS and first < value:
        return _finding(
            "bus_minimum", Verdict.INVALID, f"{first} mV was held since before the record began: start it earlier",
            limit=limit, boot=frames[0].boot, time_us=(frames[0].time_us, frames[0].time_us),
        )  # fmt: skip
    if _reset_count(evidence) and judge(value, limit) is not Verdict.FAIL:
        return _finding("bus_minimum", Verdict.INVALID, "the minimum held when the device reset is lost", limit=limit)
    return _finding(
        "bus_minimum", judge(value, limit), "held by hardware between frames", value=value, limit=limit,
        boot=lowest.boot, time_us=(frames[0].time_us, lowest.time_us),
    )  # fmt: skip


# --- PWR-003 ----------------------------------------------------------------------------------------------------------


def both_packs(evidence: Evidence, _: Limits) -> Finding:
    """Both packs were present at some time and proved what they are.

    A pack that carries no current is not at fault: the one with the higher voltage supplies the bus alone until the other
    has caught up. The note says so; that it does carry when it must is what the takeover check is for."""
    frames = evidence.of("battery")
    if not frames:
        return _finding("both_packs", Verdict.INVALID, "no battery frames: record telemetry for a second or more")
    span = (frames[0].time_us, frames[-1].time_us)
    missing, fakes, resting = [], [], []
    for i, side in enumerate(SIDES):
        present = [f for f in frames if evidence.bits(f, "pack_state")[f"{side}_present"]]
        if not present:
            missing.append(side)
        elif not any(evidence.bits(f, "pack_state")[f"{side}_authentic"] for f in present):
            fakes.append(side)
        elif not any(f.numbers("pack_ma")[i] > 0 for f in present):
            resting.append(side)
    if fakes:
        return _finding(
            "both_packs", Verdict.FAIL, f"not authentic: {', '.join(fakes)}", boot=frames[-1].boot, time_us=span
        )
    if missing:
        return _finding(
            "both_packs", Verdict.FAIL, f"not seen: {', '.join(missing)}", boot=frames[-1].boot, time_us=span
        )
    last = frames[-1]
    soc = ", ".join(f"{s} {p} %" for s, p in zip(SIDES, last.numbers("pack_soc_pct"), strict=True))
    if resting:
        soc += f"; {' and '.join(resting)} carried no current"
    return _finding("both_packs", Verdict.PASS, soc, boot=last.boot, time_us=span)


# --- PWR-004, PWR-005 -------------------------------------------------------------------------------------------------


def state_kept(evidence: Evidence, limits: Limits) -> Finding:
    """Resets between the first and the last sample."""
    limit = limits.get("reset_count", "1")
    if limit is None:
        return _no_limit("state_kept", "reset_count")
    hellos = evidence.of("hello")
    if not hellos:
        return _finding("state_kept", Verdict.INVALID, "no hello frame: record for two seconds or more", limit=limit)
    resets = _reset_count(evidence)
    reason = ""
    if resets:
        number = hellos[-1].number("reset_reason")
        reason = f"last reset: {evidence.schema.enum_name('reset_reason', number)}".replace("_", " ")
    return _finding(
        "state_kept", judge(resets, limit), reason, value=resets, limit=limit, boot=hellos[-1].boot,
        time_us=(evidence.samples[0].time_us, evidence.samples[-1].time_us),
    )  # fmt: skip


def telemetry_whole(evidence: Evidence, limits: Limits) -> Finding:
    """Frames missing in the sequence. Only the device is judged: where the host received corrupt bytes, it cannot be."""
    limit = limits.get("lost_frame_count", "1")
    if limit is None:
        return _no_limit("telemetry_whole", "lost_frame_count")
    if not evidence.samples:
        return _finding("telemetry_whole", Verdict.INVALID, "nothing was received", limit=limit)
    counts = evidence.counts
    if counts.corrupt:
        return _finding(
            "telemetry_whole", Verdict.INVALID, f"{counts.corrupt} corrupt frames: the line is bad, not the device",
            limit=limit,
        )  # fmt: skip
    gap = evidence.gaps[0] if evidence.gaps else None
    return _finding(
        "telemetry_whole", judge(counts.lost, limit), f"{counts.received} frames received", value=counts.lost,
        limit=limit, boot=gap.boot if gap else 0, time_us=(gap.time_us, gap.time_us) if gap else (0, 0),
    )  # fmt: skip


CHECKS: Mapping[str, Check] = {
    c.name: c
    for c in (
        Check("PWR-001", "takeover", "takeover", "the glasses must not notice that a battery left", takeover),
        Check("PWR-002", "bus_minimum", "bus minimum", "below the brown-out limit both chips reset", bus_minimum),
        Check("PWR-003", "both_packs", "both packs seen", "a pack that is not seen cannot take over", both_packs),
        Check("PWR-004", "state_kept", "no reset", "a swap must keep the state of both chips", state_kept),
        Check("PWR-005", "telemetry_whole", "no gap", "a gap hides what happened in it", telemetry_whole),
    )
}


def run(evidence: Evidence, limits: Limits, only: str = "") -> list[Finding]:
    """All battery checks in the order of their codes, or the one that is named."""
    return [c.run(evidence, limits) for c in CHECKS.values() if not only or c.name == only]
