"""What packs say of themselves, and what the charger does to them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from quarkctl.diag.check import Case, Check
from quarkctl.diag.estimate import Estimate
from quarkctl.diag.evidence import ZONE_DECIC, span
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.product import SIDES

#: Different answers that a pack can give: 32 bits, one of them spent on "there is an answer".
_ANSWERS = 2.0**31
#: A record whose equal answers are less likely than this is a replay.
_BY_CHANCE = 1e-6


def auth(case: Case) -> list[Finding]:
    import numpy as np

    e = case.evidence
    packs = e.of("battery")
    if not len(packs):
        return [case.invalid("no battery frames: record telemetry for a second or more")]
    t = e.of("pack_auth")
    out = []
    for i, side in enumerate(SIDES):
        here = (packs["pack_state"] >> i) & 1 == 1
        if not here.any():
            out.append(case.absent("never present", subject=side))
            continue
        mine = t[t["pack"] == i] if len(t) else t
        if not len(mine):
            if (here & ((packs["pack_state"] >> (2 + i)) & 1 == 0)).all():
                out.append(
                    case.finding(Verdict.FAIL, "never proved what it is", subject=side, span=span("battery", packs))
                )
            else:
                out.append(case.absent("no challenge was recorded: record for 10 s or more", subject=side))
            continue
        refused = int((mine["accepted"] == 0).sum())
        replayed = _replays(mine["challenge"].tolist(), mine["response"].tolist())
        enabled = here & ((packs["pack_state"] >> (4 + i)) & 1 == 1)
        ids = len(np.unique(mine["pack_id"]))
        swaps = int(packs["swap_count"][:, i].max()) - int(packs["swap_count"][:, i].min())
        where = span("pack_auth", mine)
        if replayed:
            out.append(
                case.finding(
                    Verdict.FAIL, "the same answer to different challenges: a replay", subject=side, span=where
                )
            )
        elif ids > 1 + swaps:
            out.append(case.finding(Verdict.FAIL, f"{ids} identities with {swaps} swaps", subject=side, span=where))
        elif refused:
            other = (packs["pack_state"] >> (1 - i)) & 1 == 1
            fed = bool((enabled & other & ((packs["pack_state"] >> (2 + i)) & 1 == 0)).any())
            note = f"{refused} of {len(mine)} answers wrong" + ("; yet it fed the bus" if fed else "; kept off the bus")
            out.append(case.finding(Verdict.FAIL, note, subject=side, span=where))
        else:
            out.append(case.finding(Verdict.PASS, f"{len(mine)} challenges answered", subject=side, span=where))
    return out


def _replays(challenges: Sequence[int], responses: Sequence[int]) -> bool:
    """Whether different challenges got the same answer more often than the chance of 32 bits allows: among some hundred
    honest answers two may well be equal, and in a day's record some are. P(k pairs or more) < lambda^k / k!"""
    asked = dict(zip(challenges, responses, strict=True))
    counts = Counter(r for r in asked.values() if r)
    pairs = sum(n * (n - 1) // 2 for n in counts.values())
    if not pairs:
        return False
    expected = len(asked) * (len(asked) - 1) / 2 / _ANSWERS
    return pairs * math.log(expected) - math.lgamma(pairs + 1) < math.log(_BY_CHANCE)


def life(case: Case) -> list[Finding]:
    e = case.evidence
    if not len(e.of("battery")):
        return [case.invalid("no battery frames: record telemetry for a second or more")]
    if not e.has("gauge", "full_mah", "design_mah", "cycle_count"):
        return [case.invalid("the firmware sends no gauge registers")]
    t = e.of("gauge")
    out = []
    for i, side in enumerate(SIDES):
        rows = t[t["design_mah"][:, i] > 0]
        if not len(rows):
            out.append(case.absent("never present", subject=side))
            continue
        full, design, cycles = (float(rows[k][-1, i]) for k in ("full_mah", "design_mah", "cycle_count"))
        where = span("gauge", rows)
        note = f"{full:.0f} of {design:.0f} mAh after {cycles:.0f} cycles"
        nominal = e.product.capacity_mah
        if nominal and abs(design - nominal) > 0.02 * nominal:
            note = f"states a design capacity of {design:.0f} mAh, the product's is {nominal:.0f}"
            out.append(case.finding(Verdict.FAIL, note, subject=side, value=100 * full / design, u=0.5, span=where))
            continue
        out.append(
            case.judged(Estimate(100 * full / design, 100 * 0.5 / design, len(rows)), note, subject=side, span=where)
        )
    return out


def charge(case: Case) -> list[Finding]:
    import numpy as np

    e = case.evidence
    regions = e.product.jeita
    if not regions or not e.product.charge_ma:
        return [case.skip("the board profile has no charge.jeita or charge.fast_ma")]
    if not len(e.of("battery")):
        return [case.invalid("no battery frames: record telemetry for a second or more")]
    if not e.has("charger", "charger_state"):
        return [case.invalid("the firmware sends no charger messages")]
    t, c = e.steady("battery"), e.steady("charger")
    if not len(c) or not (c["charger_state"] > 0).any():
        return [case.absent("no charger was connected: put the glasses on it while this records")]
    at = np.clip(np.searchsorted(c["time_us"], t["time_us"], side="right") - 1, 0, len(c) - 1)
    on = c["charger_state"][at] > 0
    out = []
    for i, side in enumerate(SIDES):
        here = on & ((t["pack_state"] >> i) & 1 == 1)
        decic = t["pack_temp_decic"][:, i]
        known = here & (decic > ZONE_DECIC[0]) & (decic < ZONE_DECIC[1])
        if not known.any():
            out.append(case.invalid("its temperature is not known", subject=side) if here.any()
                       else case.absent("never on the charger", subject=side))  # fmt: skip
            continue
        temp = decic / 10.0
        allowed_ma, allowed_mv = np.zeros(len(t)), np.full(len(t), min(r.mv for r in regions))
        for r in regions:
            inside = (temp >= r.from_c) & (temp < r.to_c)
            allowed_ma[inside], allowed_mv[inside] = r.share * e.product.charge_ma, r.mv
        ma, mv = -t["pack_ma"][:, i].astype(float), t["pack_mv"][:, i].astype(float)
        # the charger sees a temperature up to a second later, half a kelvin of sensor apart
        near_edge = np.zeros(len(t), bool)
        for edge in {r.from_c for r in regions} | {r.to_c for r in regions}:
            near_edge |= np.abs(temp - edge) < 0.6
        judged = known & ~near_edge
        if not judged.any():
            out.append(case.invalid("only ever within 0.6 K of a limit of the profile", subject=side))
            continue
        excess = np.where(judged, ma - allowed_ma, -np.inf)
        k = int(excess.argmax())
        where = span("battery", t, k, k)
        note = f"{ma[k]:.0f} mA at {temp[k]:.1f} C, allowed {allowed_ma[k]:.0f} mA"
        over = judged & (ma > 1) & (mv > allowed_mv + 15)
        if over.any():
            j = int(np.where(over, mv - allowed_mv, -np.inf).argmax())
            note = f"charged to {mv[j]:.0f} mV at {temp[j]:.1f} C, allowed {allowed_mv[j]:.0f} mV"
            out.append(case.finding(Verdict.FAIL, note, subject=side, span=span("battery", t, j, j)))
            continue
        out.append(case.judged(max(float(excess[k]), 0.0), note, subject=side, span=where, floor=0.0))
    return out


CHECKS = (
    Check(
        "PWR-017", "battery", "charge", "charge", "charge by temperature", "charging cold or hot cells makes them dangerous",
        "Largest current into a pack beyond what the charge profile allows at its temperature, and its voltage likewise.",
        "regions: board profile (JEITA scheme); defaults of TI BQ25882: 20 % current from 0 to 10 C, 4.0 V from 45 to 60 C",
        "Within 0.6 K of a limit of the profile the charger may be right either way: not judged. Only temperatures that "
        "occurred are judged.",
        charge, "charge_excess_ma", "mA", "put the glasses on the charger",
    ),
    Check(
        "PWR-018", "battery", "auth", "auth", "pack proves itself", "a counterfeit pack may burn",
        "Every challenge is answered rightly, no answer serves more challenges than chance allows (replay: less likely than "
        "1e-6 for honest answers), and a pack keeps its identity from insertion to removal.",
        "project",
        "A pack that was cloned with its secret passes.",
        auth,
    ),
    Check(
        "PWR-019", "battery", "life", "life", "state of health", "a worn pack no longer lasts the day",
        "Full charge capacity (register 0x10) over design capacity (0x18) that the gauge states; the cycle count (0x17) is "
        "told beside it. A design capacity other than the product's is a fault.",
        "80 %: convention of the trade; registers: Smart Battery Data Specification 1.1",
        "It is the gauge's own belief; what the pack really holds is measured by PWR-020.",
        life, "soh_pct", "%",
    ),
)  # fmt: skip
