"""Truths near the limit: units whose true value is drawn around a limit, and what the verdicts make of them.

The plant knows the truth, to which a check sees only telemetry. What must hold: where the truth is beyond the limit by more
than the guard band, no verdict is PASS. `make bench-diag` draws 200 units a limit, tests draw few.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quarkctl.diag import checks
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.product import ZONES
from quarkctl.sim.plant import HEAT_J_PER_K, TO_AMBIENT_W_PER_K, TO_SKIN_W_PER_K
from tests.diag.virtual import SWAP, Unit, judge, profile, swap_run

SWAPS = [(3, "eject", 0), (5, "insert", 0), (7, "eject", 1), (9, "insert", 1)]
#: Where the truth lies, in guard bands beyond the limit (negative: inside). The last two must hold no PASS.
BINS = (-np.inf, -2.0, -1.0, 0.0, 1.0, np.inf)
WORDS = ("inside by > 2 w", "2 to 1 w", "1 to 0 w", "beyond by 0 to 1 w", "> 1 w")


@dataclass(frozen=True)
class Sweep:
    """Units whose true measurand is spread by ``around`` on both sides of a bound of the limit of ``code``.

    ``make``: (seed, wanted truth) -> (unit, truth as it came out). ``subject``: which finding of the check. ``tested``: the
    bound, "usl" or "lsl"; ``at``: another limit than that of the board, for what no unit of it comes near.
    """

    code: str
    around: float
    make: Callable[[int, float], tuple[Unit, float]]
    subject: str = ""
    tested: str = "usl"
    at: float | None = None


@dataclass
class Outcome:
    """``verdicts[bin][verdict]``: how many; ``wrong``: PASS of truths beyond the limit by more than the guard band."""

    verdicts: list[dict[str, int]] = field(default_factory=lambda: [{} for _ in WORDS])
    covered: int = 0
    runs: int = 0
    wrong: list[tuple[int, float, float, float]] = field(default_factory=list)


def sweep(s: Sweep, seeds: Iterable[int]) -> Outcome:
    out = Outcome()
    limits = profile("s1-virtual")[1]
    measure = checks.CHECKS[s.code].measure
    if s.at is not None:
        moved = limits.limits[measure]
        moved = replace(moved, usl=s.at) if s.tested == "usl" else replace(moved, lsl=s.at)
        limits = replace(limits, limits={**limits.limits, measure: moved})
    limit = limits.limits[measure]
    bound = getattr(limit, s.tested)
    for seed in seeds:
        wanted = bound + random.Random(f"{s.code} {seed}").uniform(-s.around, s.around)
        unit, truth = s.make(seed, wanted)
        found = checks.run(unit.evidence(), limits, checks.select("all", [s.code]), asked=True)
        f = one(found, s.subject)
        out.runs += 1
        guard = limit.guard_band(f.u) if f.u is not None and f.limit else 0.0
        beyond = (truth - bound if s.tested == "usl" else bound - truth) / max(guard, 1e-9)
        k = int(np.searchsorted(BINS, beyond)) - 1
        out.verdicts[k][f.verdict.value] = out.verdicts[k].get(f.verdict.value, 0) + 1
        if f.value is not None and f.u is not None:
            out.covered += abs(f.value - truth) <= f.u
        if f.verdict is Verdict.PASS and beyond > 1.0:
            out.wrong.append((seed, truth, f.value or 0.0, f.u or 0.0))
    return out


def one(found: list[Finding], subject: str) -> Finding:
    """The finding about a subject; of several the worst."""
    mine = [f for f in found if f.subject == subject] or list(found)
    return min(mine, key=lambda f: list(Verdict).index(f.verdict) if f.verdict is not Verdict.FAIL else -1)


# --- swaps ------------------------------------------------------------------------------------------------------------


def switched(seed: int, gap_us: Callable[[Any, float, float], float]) -> tuple[Unit, list[dict[str, float]]]:
    """Two swaps, where ``gap_us(plant, carried_ma, bus_mv)`` says how long each switchover takes; and what was true."""
    u, told = Unit(seed), list[dict[str, float]]()
    eject = u.plant.eject

    def watched(side: int) -> None:
        p = u.plant
        carried, before, load = max(p.cells[side].ma, 0.0), p.bus_mv, p.load_ma
        p.switchover_us = gap_us(p, carried, before)
        eject(side)
        if carried > 0:
            told.append({"gap": p.switchover_us, "before": before, "lowest": p._dip_mv or p.bus_mv, "load": load})

    u.plant.eject = watched  # type: ignore[method-assign]
    return u.run(SWAP, SWAPS), told


def takeover(seed: int, truth_ms: float) -> tuple[Unit, float]:
    u, told = switched(seed, lambda p, ma, mv: 1000 * truth_ms)
    return u, max(t["gap"] for t in told) / 1000


def to_lowest(p: Any, ma: float, mv: float, lowest: float) -> float:
    return float((mv - lowest) * p.bus_uf / ma) if ma > 0 else 40.0


def bus_minimum(seed: int, truth_mv: float) -> tuple[Unit, float]:
    u, told = switched(seed, lambda p, ma, mv: to_lowest(p, ma, mv, truth_mv))
    return u, min(t["lowest"] for t in told)


def brown_out(seed: int, truth_mv: float) -> tuple[Unit, float]:
    u, lowest = bus_minimum(seed, truth_mv + 2900)
    return u, lowest - 2900


def droop(seed: int, truth_mv: float) -> tuple[Unit, float]:
    u, told = switched(seed, lambda p, ma, mv: to_lowest(p, ma, mv, mv - truth_mv))
    return u, max(t["before"] - t["lowest"] for t in told)


def hold_up(seed: int, truth: float) -> tuple[Unit, float]:
    def ratio(p: Any, mv: float, load: float, gap: float) -> float:
        return float(p.bus_uf * (mv**2 - 2900**2) / 1e6 * 0.9 / (2 * load * mv / 1e6) / gap)

    u, told = switched(seed, lambda p, ma, mv: ratio(p, mv, p.load_ma, 1.0) / truth)
    return u, min(ratio(u.plant, t["before"], t["load"], t["gap"]) for t in told)


def inrush(seed: int, truth_ma: float) -> tuple[Unit, float]:
    return swap_run(seed, "hard_insertion", truth_ma), truth_ma


def inrush_energy(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    insert = u.plant.insert

    def watched(side: int, soc: float | None = None) -> None:
        insert(side, soc)
        u.plant._inrush_ma2s = truth

    u.plant.insert = watched  # type: ignore[method-assign]
    return u.run(SWAP, SWAPS), truth


def clock(seed: int, truth_ms: float) -> tuple[Unit, float]:
    u = swap_run(seed)
    return u.fault("clock_jump", truth_ms).run([(12, "idle", 0.1)]), float(int(truth_ms * 1000)) / 1000


# --- cells ------------------------------------------------------------------------------------------------------------


def dcir(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    u.plant.cells[0].r0_mohm = truth
    return u.run(SWAP, SWAPS), truth


def soc(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    left = u.plant.cells[0]
    left.soc -= 0.2
    left.gauge_mah = (left.soc + truth / 100) * left.full_mah
    u.run([(260, "sleep", 1.0)])
    return u, 100 * ((left.gauge_mah or 0.0) / left.full_mah - left.soc)


def gauge(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    u.plant.cells[0].gauge_gain = 1 + truth / 100
    return u.run([(1500, "display", 1.0)]), truth


def capacity(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    left = u.plant.cells[0]
    left.capacity_mah = truth / 100 * left.full_mah
    return u.run([(200, "sleep", 1.0), (1500, "camera", 1.0), (600, "sleep", 1.0)]), truth


def balance(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    left, right = u.plant.cells
    right.soc = left.soc - truth / 100
    off = random.Random(f"balance {seed}")
    for c in (left, right):  # each gauge is right within what its MaxError register says
        c.gauge_mah = min((c.soc + off.uniform(-0.02, 0.02)) * c.full_mah, c.full_mah)
    u.run([(3, "sleep", 0.1)])
    return u, 100 * abs(left.soc - right.soc)


def cross_charge(seed: int, truth_ma: float) -> tuple[Unit, float]:
    u, most = Unit(seed).fault("cross_charging", truth_ma), [0.0]
    leak = u.plant._leak_back

    def watched(feeding: list[int]) -> None:
        leak(feeding)
        both = all(c.present for c in u.plant.cells)
        most[0] = max(most[0], *(-c.ma for c in u.plant.cells)) if both else most[0]

    u.plant._leak_back = watched  # type: ignore[method-assign]
    return u.run(SWAP, SWAPS), most[0]


def charge(seed: int, truth_ma: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=4.0 + seed % 3)
    for c in u.plant.cells:
        c.soc, c.gauge_mah = 0.4, 0.4 * c.full_mah
    u.fault("hot_charging", 0.2 + truth_ma / 140)
    u.plant.set_charger(on=True)
    return u.run([(5, "idle", 0.2), (30, "idle", 1.0)]), truth_ma


def life(seed: int, truth: float) -> tuple[Unit, float]:
    u = Unit(seed)
    u.plant.cells[0].full_mah = truth / 100 * 280
    return u.run([(3, "sleep", 0.1)]), truth


# --- heat -------------------------------------------------------------------------------------------------------------


def network(u: Unit) -> Any:
    """Conductances of the plant's five nodes, W/K: what leaves each node for each temperature above ambient."""
    p = u.plant
    g = np.zeros((5, 5))
    for i in range(4):
        k = TO_SKIN_W_PER_K[i] * p.heat_scale[i] * ((1 - p._fault("detached_spreader", 0.0) / 100) if i == 0 else 1)
        g[i, i] += k
        g[4, 4] += k
        g[i, 4] -= k
        g[4, i] -= k
    for i in range(5):
        g[i, i] += TO_AMBIENT_W_PER_K[i] * (p.heat_scale[4] if i == 4 else 1)
    return g


def shares(u: Unit) -> Any:
    """Where one more watt of the bus ends: in the AR1, and a little in the packs that feed it."""
    p = u.plant
    rise = np.zeros(5)
    rows = u.rows["battery"]
    ma = {load: np.array([r["pack_ma"] for r in rows if lo <= sum(r["pack_ma"]) <= hi], float)
          for load, lo, hi in (("low", 0, 60), ("high", 300, 600))}  # fmt: skip
    power = {k: (v.sum(axis=1).mean()) * 3.9e-3 for k, v in ma.items()}
    for side in (0, 1):
        ohm = p._resistance(side) / 1000
        heat = {k: float((v[:, side] ** 2).mean()) * 1e-6 * ohm for k, v in ma.items()}
        rise[2 + side] = (heat["high"] - heat["low"]) / (power["high"] - power["low"])
    rise[0] = 1.0
    return rise


def warm(seed: int, phases: list[tuple[float, str, float]], **plant: Any) -> Unit:
    u = Unit(seed, ambient_c=plant.pop("ambient_c", None))
    for name, value in plant.items():
        setattr(u.plant, name, value)
    return u.run(phases)


def theta(seed: int, truth: float) -> tuple[Unit, float]:
    # 24.2 K/W with the spreader as it is; the fault takes some of its conductance away, or adds
    u = Unit(seed, ambient_c=21.0)
    part = np.interp(truth, [18.8, 20.4, 22.0, 24.2, 26.2, 28.8, 30.0], [-90.0, -50.0, -27.0, 0.0, 15.5, 31.0, 37.0])
    u.plant.faults["detached_spreader"] = float(part)
    u.run([(200, "sleep", 1.0), (1500, "camera", 1.0), (600, "sleep", 1.0)])
    return u, float(np.linalg.solve(network(u), shares(u))[0])


def time_to_limit(seed: int, truth_s: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=21.0)
    scale = float(np.interp(truth_s, [400, 640, 900], [0.8, 1.0, 1.1]))
    u.plant.heat_scale = (*u.plant.heat_scale[:4], u.plant.heat_scale[4] * scale)
    u.run([(200, "sleep", 1.0), (1500, "camera", 1.0), (600, "sleep", 1.0)])
    watts = max(r["bus_mv"] * r["load_ma"] / 1e6 for r in u.rows["power"])
    note = next(f.note for f in judge(u, ["THM-002"]))
    words = note.split()
    watts = float(words[words.index("at") + 1]) if "at" in words else watts
    g, c, heat, t, at = network(u), np.array(HEAT_J_PER_K), shares(u) * watts, np.zeros(5), 0
    while t[4] < 18.0 and at < 40_000:
        t += (heat - g @ t) / c
        at += 1
    return u, float(at)


def hot_spot(seed: int, truth_k: float) -> tuple[Unit, float]:
    u = warm(seed, [(2400, "display", 1.0)], ambient_c=20.0)
    t = u.plant._temps
    return u, max(t) - min(t)


def skin(seed: int, truth_c: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=truth_c - 19.0).fault("missing_throttle", 1.0)
    hottest = [0.0]
    u.run([(60, "sleep", 1.0)])
    while u.plant._temps[4] < truth_c and len(hottest) < 400:
        u.run([(5, "camera", 1.0)])
        hottest.append(u.plant._temps[4])
    u.run([(60, "sleep", 1.0)])
    return u, max(hottest)


def hysteresis(seed: int, truth_k: float) -> tuple[Unit, float]:
    size = round(10 * truth_k)
    u = Unit(seed, ambient_c=25.0).fault("throttle_without_hysteresis", size)
    return u.run([(100, "sleep", 1.0), (1200, "camera", 1.0), (500, "sleep", 1.0)]), size / 10


def effect(seed: int, truth_pct: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=25.0).fault("missing_throttle", 1 - truth_pct / 24.5)
    drops, govern = list[float](), u._govern

    def watched(readings: Any) -> None:
        before, level = u.plant.load_ma, u.level
        govern(readings)
        u.plant.throttle_level = u.level
        if u.level > level:
            drops.append(100 * (1 - u.plant.load_ma / before))

    u._govern = watched  # type: ignore[method-assign]
    return u.run([(100, "sleep", 1.0), (1200, "camera", 0.5)]), float(np.median(drops)) if drops else 24.5


def latency(seed: int, truth_s: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=25.0)
    u.machine["slow_governor"] = truth_s
    return u.run([(100, "sleep", 1.0), (900, "camera", 0.5)]), max(u.latencies, default=0.0)


# --- sensors ----------------------------------------------------------------------------------------------------------


def spike(seed: int, truth_k: float) -> tuple[Unit, float]:
    size = round(10 * truth_k)
    return Unit(seed).fault("spiking_thermistor", size).run([(200, "sleep", 1.0)]), size / 10


def lag(seed: int, truth_s: float) -> tuple[Unit, float]:
    u = Unit(seed, ambient_c=22.0).fault("lagging_thermistor", truth_s)
    return u.run([(200, "sleep", 1.0), (1500, "camera", 1.0), (600, "sleep", 1.0)]), truth_s


def offset(seed: int, truth_k: float) -> tuple[Unit, float]:
    u = Unit(seed).fault("offset_thermistor", 10 * truth_k)
    o = np.array(u.plant.zone_offset_c)
    o[ZONES.index("skin")] += truth_k
    return u.run([(120, "sleep", 1.0)]), float(np.abs(o - np.median(o)).max())


# --- link -------------------------------------------------------------------------------------------------------------


def link(fault: str, key: str) -> Callable[[int, float], tuple[Unit, float]]:
    def make(seed: int, truth: float) -> tuple[Unit, float]:
        u, most = Unit(seed), [0.0]
        u.fault(fault, truth / (1.4 if fault == "slow_link" else 1.1))
        registers = u.plant.registers

        def watched() -> Any:
            most[0] = max(most[0], u.plant._link[key] / 1000)
            return registers()

        u.plant.registers = watched  # type: ignore[method-assign]
        return u.run([(3, "sleep", 0.1), (5, "idle", 0.1), (3, "sleep", 0.1), (5, "camera", 0.1)]), most[0]

    return make


def theta_early(seed: int, truth: float) -> tuple[Unit, float]:
    """A record that ends while it still warms: 400 to 900 s of load."""
    u = Unit(seed, ambient_c=21.0)
    part = np.interp(truth, [18.8, 20.4, 22.0, 24.2, 26.2, 28.8, 30.0], [-90.0, -50.0, -27.0, 0.0, 15.5, 31.0, 37.0])
    u.plant.faults["detached_spreader"] = float(part)
    u.run([(200, "sleep", 1.0), (400 + 100 * (seed % 6), "camera", 1.0)])
    return u, float(np.linalg.solve(network(u), shares(u))[0])


SWEEPS = (
    Sweep("PWR-001", 0.012, takeover),
    Sweep("PWR-002", 80, bus_minimum, tested="lsl"),
    Sweep("PWR-009", 80, droop),
    Sweep("PWR-010", 0.5, hold_up, tested="lsl"),
    Sweep("PWR-011", 80, brown_out, tested="lsl"),
    Sweep("PWR-012", 200, inrush),
    Sweep("PWR-013", 12, clock),
    Sweep("PWR-021", 100, inrush_energy),
    Sweep("PWR-006", 24, dcir, "left"),
    Sweep("PWR-007", 8, soc, "left"),
    Sweep("PWR-007", 8, soc, "left", "lsl"),
    Sweep("PWR-008", 3, gauge, "left"),
    Sweep("PWR-008", 3, gauge, "left", "lsl"),
    Sweep("PWR-014", 10, balance),
    Sweep("PWR-016", 8, cross_charge),
    Sweep("PWR-017", 16, charge, "left"),
    Sweep("PWR-019", 5, life, "left", "lsl"),
    Sweep("PWR-020", 20, capacity, "left", "lsl"),
    Sweep("THM-001", 2.0, theta, "ar1"),
    Sweep("THM-001", 2.0, theta, "ar1", "lsl"),
    Sweep("THM-001", 2.0, theta_early, "ar1"),
    Sweep("THM-002", 250, time_to_limit, "skin", "lsl", 640.0),
    Sweep("THM-003", 0, hot_spot, at=15.5),
    Sweep("THM-004", 1.5, latency),
    Sweep("THM-005", 1.0, hysteresis, tested="lsl"),
    Sweep("THM-006", 8, effect, tested="lsl"),
    Sweep("THM-007", 2, skin),
    Sweep("SEN-003", 0.8, spike, "skin"),
    Sweep("SEN-004", 20, lag, "skin"),
    Sweep("SEN-005", 1.2, offset),
    Sweep("LNK-001", 0.4, link("slow_link", "latency_us")),
    Sweep("LNK-003", 60, link("slow_wake", "wake_us")),
    Sweep("LNK-004", 15, link("slow_hand_over", "hand_over_us")),
)

#: Checks that have no such truth, and why; all others must have a sweep.
WITHOUT = {
    "PWR-003": "holds or does not hold", "PWR-018": "holds or does not hold", "SEN-002": "holds or does not hold",
    "PWR-004": "a count", "PWR-005": "a count", "DSP-001": "a count", "CAM-001": "a count", "LNK-002": "a count",
    "SEN-001": "a time that the record itself holds", "SEN-006": "a ratio of residuals, no property of the unit",
}  # fmt: skip

__all__ = ["BINS", "SWEEPS", "WITHOUT", "WORDS", "Outcome", "Sweep", "sweep"]
