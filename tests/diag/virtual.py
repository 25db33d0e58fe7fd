"""Telemetry of virtual units without firmware: the plant model, and a reporter as simple as can be.

It plays the microcontroller's part from the description of the messages, not from the firmware's sources: the firmware
itself is held against the same plant in QEMU (test_virtual_glasses.py). A unit is healthy within a spread that its seed
draws, so a false alarm is one that a real lot would give.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from quarkctl import boards, schemas
from quarkctl.diag import checks, limits
from quarkctl.diag.evidence import Evidence, dtype
from quarkctl.diag.finding import Finding
from quarkctl.diag.limits import Limits
from quarkctl.diag.product import ZONES, Product, product
from quarkctl.formats.account import Counts, Loss
from quarkctl.sim import faults
from quarkctl.sim.plant import THROTTLE_SHARE, Cell, Plant

#: (seconds, load, period of the battery and power messages in s)
Phase = tuple[float, str, float]

SWAP: Sequence[Phase] = (
    (3, "sleep", 0.1),
    (3, "display", 0.1),
    (12, "camera", 0.1),
    (3, "idle", 0.1),
    (1, "sleep", 0.1),
)
DAY: Sequence[Phase] = (
    (200, "sleep", 1.0), (2, "camera", 0.1), (2, "idle", 0.1), (2, "camera", 0.1), (1500, "camera", 1.0),
    (600, "sleep", 1.0),
)  # fmt: skip
CHARGE: Sequence[Phase] = ((5, "idle", 0.2), (60, "idle", 1.0))


@cache
def profile(board: str) -> tuple[Product, Limits]:
    return product(boards.load(board)), limits.parse(*boards.limits_text(board), checks.UNITS)


@cache
def trips(board: str) -> list[tuple[int, int, int]]:
    """(zone, level, trip in 0.1 degC), levels ascending."""
    of = profile(board)[0].trip_c
    rows = [(i, k, round(10 * t)) for i, z in enumerate(ZONES) for k, t in enumerate(of.get(z, ()), 1) if t is not None]
    return sorted(rows, key=lambda row: row[1])


@dataclass
class Unit:
    """One virtual unit and what it told so far."""

    seed: int
    board: str = "s1-virtual"
    machine: dict[str, float] = field(default_factory=dict)
    ambient_c: float | None = None

    def __post_init__(self) -> None:
        r = random.Random(self.seed)
        soc = r.uniform(0.72, 0.9)
        gap = r.uniform(0.02, 0.05)
        cells = [
            Cell(s, capacity_mah=280 * r.uniform(0.985, 1.015), r0_mohm=180 * r.uniform(0.93, 1.1), pack_id=i + 1)
            for i, s in enumerate((soc, soc - gap))
        ]
        for c in cells:
            c.gauge_gain = r.uniform(0.996, 1.004)
            c.gauge_mah = min((c.soc + r.uniform(-0.02, 0.02)) * c.full_mah, c.full_mah)
        self.spread_gain = cells[0].gauge_gain
        self.plant = Plant(
            seed=self.seed, load="sleep", ambient_c=self.ambient_c if self.ambient_c is not None else r.uniform(19, 27),
            switchover_us=r.uniform(30, 50), bus_uf=r.uniform(85, 115), cells=cells,
            displays=0 if self.board.startswith("g1") else 2,
            heat_scale=tuple(r.uniform(0.96, 1.04) for _ in ZONES),
            zone_offset_c=tuple(r.uniform(-0.4, 0.4) for _ in ZONES),
        )  # fmt: skip
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.boot, self.boot_us, self.level, self.changed_us, self.changes = 0, 0, 0, 0, 0
        self.swaps, self.switch, self.slow_us, self.hot_us, self.auth_us = [0, 0], None, 0, 0, 0
        self.low, self.back, self.last = 1e9, [0, 0], {"power": 0, "battery": 0}
        self.rose_us, self.latencies = 0, list[float]()
        self.seq = 0
        self.removed: tuple[int, int] | None = None

    def fault(self, name: str, size: float) -> Unit:
        if name in faults.PLANT_FAULTS:
            left = self.plant.cells[0]
            keep = left.capacity_mah / 280, left.gauge_gain, (left.gauge_mah or 0.0) / left.full_mah
            self.plant.switch_fault(name, size)
            left.capacity_mah *= keep[0]
            left.gauge_gain *= keep[1]
            left.gauge_mah = keep[2] * left.full_mah
        else:
            self.machine[name] = size
        return self

    def run(self, phases: Sequence[Phase], swaps: Sequence[tuple[float, str, int]] = ()) -> Unit:
        """``swaps``: (seconds from the start of the last phase but two, eject or insert, side) during the camera phase."""
        for seconds, load, every_s in phases:
            self.plant.set_load(load)
            todo = list(swaps) if load == "camera" and len(phases) == len(SWAP) else []
            began = self.plant.time_us
            step = round(every_s * 1e6)
            while self.plant.time_us - began < seconds * 1e6:
                at = (self.plant.time_us - began) / 1e6
                while todo and todo[0][0] <= at:
                    _, action, side = todo.pop(0)
                    self._swap(action, side)
                self._tick(min(step, 500_000) if step < 500_000 else step)
        return self

    def _swap(self, action: str, side: int) -> None:
        p = self.plant
        if action == "eject":
            p.eject(side)
            if "reset_on_swap" in self.machine:
                self._reset()
                self.removed = None
                return
            self._add("pack_removed", pack=side, sample_us=p.time_us)
            self.removed = (side, p.time_us)
        else:
            p.insert(side)
            self.swaps[side] += 1
            self._add(
                "pack_inserted",
                pack=side,
                sample_us=p.time_us + 20_000,
                inrush_ma=min(round(p._inrush_ma), 65535),
                inrush_ma2s=min(round(p._inrush_ma2s), 65535),
            )

    def _reset(self) -> None:
        self.boot += 1
        self.boot_us = self.plant.time_us
        self.level, self.swaps, self.low, self.back = 0, [0, 0], 1e9, [0, 0]
        self.seq = 0
        self.last = {"power": 0, "battery": 0}

    def _tick(self, step_us: int) -> None:
        p = self.plant
        readings = []
        end = p.time_us + step_us
        while p.time_us < end:
            p.throttle_level = self.level
            readings += p.advance(min(p.time_us + 500_000, end), min(step_us, 500_000))
        r = readings[-1]
        if p.brown_out:
            p.brown_out = False
            self._reset()
            self.removed = None
        self.low = min(self.low, *(x.bus_mv_min for x in readings))
        self.back = [min(self.back[i], *(x.pack_ma_min[i] for x in readings)) for i in (0, 1)]
        if self.removed:
            self._add("takeover", pack=1 - self.removed[0], sample_us=self.removed[1], bus_mv_min=round(self.low),
                      switch_us=max(x.switch_us for x in readings))  # fmt: skip
            self.removed = None
        enabled = r.authentic or r.present
        p.pack_enable = enabled
        soc = [int(100 * (c.gauge_mah or 0) / c.full_mah) for c in p.cells]
        self._add("power", bus_mv=r.bus_mv, bus_mv_min=round(self.low), load_ma=sum(r.pack_ma), converter_us=r.time_us,
                  latched_since_seq=self.last["power"], bus_mv_max=r.bus_mv, load_ma_max=sum(r.pack_ma))  # fmt: skip
        self.last["power"], self.low = self.seq, 1e9
        self._add("battery", pack_mv=r.pack_mv, pack_ma=r.pack_ma, pack_ma_min=self.back, pack_soc_pct=soc,
                  latched_since_seq=self.last["battery"], pack_temp_decic=r.zone_decic[2:4], swap_count=self.swaps,
                  pack_state=r.present | r.authentic << 2 | enabled << 4)  # fmt: skip
        self.last["battery"], self.back = self.seq, [0, 0]
        self._govern(readings)
        if p.time_us - self.slow_us >= 1_000_000:
            self._slow()

    def _govern(self, readings: Sequence[Any]) -> None:
        hysteresis = 20
        if "throttle_without_hysteresis" in self.machine:
            hysteresis = int(self.machine["throttle_without_hysteresis"])
        for r in readings:
            rise = hold = 0
            for zone, level, trip in trips(self.board):  # levels ascend
                if r.zone_decic[zone] >= trip:
                    rise = level
                if r.zone_decic[zone] + hysteresis >= trip:
                    hold = level
            if rise > self.level:
                self.rose_us = self.rose_us or r.time_us
                if r.time_us - self.rose_us < 1e6 * self.machine.get("slow_governor", 0.0):
                    rise = self.level
                else:
                    self.latencies.append((r.time_us - self.rose_us) / 1e6)
                    self.rose_us = 0
            if rise > self.level:
                self.level, self.changed_us, self.changes = rise, r.time_us, self.changes + 1
            elif hold < self.level and r.time_us - self.changed_us >= 5_000_000:
                self.level, self.changed_us, self.changes = self.level - 1, r.time_us, self.changes + 1
            if r.time_us - self.hot_us >= 500_000:
                self.hot_us = r.time_us
                self._add("thermal", at_us=r.time_us, zone_decic=r.zone_decic, throttle_level=self.level,
                          throttle_changes=self.changes)  # fmt: skip

    def _slow(self) -> None:
        p = self.plant
        self.slow_us = p.time_us
        g = p.registers()
        self._add("gauge", gauge_soc_pct=g.soc_pct, remaining_mah=g.remaining_mah, full_mah=g.full_mah,
                  design_mah=g.design_mah, cycle_count=g.cycle_count, max_error_pct=g.max_error_pct)  # fmt: skip
        self._add("charger", charger_state=g.charger_state, charge_ma_max=g.charge_ma_max)
        self._add("ar1_link", sent_count=g.sent_count, lost_count=g.lost_count, latency_us_max=g.latency_us_max,
                  wake_us_max=g.wake_us_max, hand_over_us_max=g.hand_over_us_max)  # fmt: skip
        if p.displays:
            self._add("display", frame_count=g.frame_count, dropped_count=g.dropped_count)
        self._add("camera", camera_frame_count=g.camera_frame_count, camera_dropped_count=g.camera_dropped_count)
        if p.time_us - self.auth_us >= 5_000_000:
            self.auth_us = p.time_us
            for i in (0, 1):
                if p.cells[i].present:
                    self._add("pack_auth", pack=i, accepted=g.accepted[i], pack_id=g.pack_id[i],
                              challenge=g.challenge[i], response=g.response[i])  # fmt: skip

    def _add(self, message: str, at_us: int | None = None, **values: Any) -> None:
        self.seq = (self.seq + 1) & 0xFFFF
        at = (self.plant.time_us if at_us is None else at_us) - self.boot_us
        row = {"boot": self.boot, "seq": self.seq, "time_us": at, **values}
        self.rows.setdefault(message, []).append(row)

    def evidence(self, **changes: Any) -> Evidence:
        schema = schemas.telemetry()
        tables = {name: table(schema, name, rows) for name, rows in self.rows.items()}
        lost, losses = 0, []
        share = self.machine.get("lost_telemetry", 0.0) / 100
        if share:
            r = np.random.default_rng(self.seed)
            for name, t in tables.items():
                gone = r.random(len(t)) < share
                gone[0] = False
                lost += int(gone.sum())
                for k in np.flatnonzero(gone):
                    at = int(t["time_us"][k])
                    losses.append(Loss("lost", 1, int(t["boot"][k]), 1, at - 50_000, at + 50_000, 0, 0))
                tables[name] = t[~gone]
        received = sum(len(t) for t in tables.values())
        hello = {
            "board": self.board, "serial": f"V{self.seed:06d}", "version_major": 1, "version_minor": 0,
            "version_revision": 0, "layout_hash": schema.layout_hash, "reset_reason": 4 if self.boot else 0,
            "build_id": [0] * 8,
        }  # fmt: skip
        body = {
            "schema": schema, "tables": tables, "counts": Counts(received=received, lost=lost), "losses": losses,
            "product": profile(self.board)[0], "frames": received, "source": f"unit {self.seed}", "hello": hello,
        }  # fmt: skip
        return Evidence(**(body | changes))


def table(schema: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    out = np.zeros(len(rows), dtype(schema, name))
    for field_name in {k for r in rows for k in r}:
        out[field_name] = [r[field_name] for r in rows]
    return out


def judge(unit: Unit, words: Sequence[str] = ()) -> list[Finding]:
    chosen = checks.select("all", words)
    return checks.run(unit.evidence(), profile(unit.board)[1], chosen)


def swap_run(seed: int, fault: str = "", size: float = 0.0, board: str = "s1-virtual") -> Unit:
    """Both packs swapped under full load, and some steps of the load: 22 s."""
    u = Unit(seed, board)
    if fault:
        u.fault(fault, size)
    u.run(SWAP, [(3, "eject", 0), (5, "insert", 0), (7, "eject", 1), (9, "insert", 1)])
    return u


def hot_day_run(seed: int, fault: str = "", size: float = 0.0, board: str = "s1-virtual") -> Unit:
    """A day on which every unit must throttle."""
    return day_run(seed, fault, size, board, ambient_c=24.0 + seed % 4)


def day_run(
    seed: int, fault: str = "", size: float = 0.0, board: str = "s1-virtual", ambient_c: float | None = None
) -> Unit:
    """Rest, load, soak with throttling, rest: 38 minutes."""
    u = Unit(seed, board, ambient_c=ambient_c)
    if fault:
        u.fault(fault, size)
    return u.run(DAY)


def charge_run(seed: int, fault: str = "", size: float = 0.0, board: str = "s1-virtual") -> Unit:
    """On the charger in the cold."""
    u = Unit(seed, board, ambient_c=3.0 + seed % 4)
    for c in u.plant.cells:
        c.soc, c.gauge_mah = 0.4, 0.4 * c.full_mah
    if fault:
        u.fault(fault, size)
    u.plant.charger = True
    u.plant._solve()
    return u.run(CHARGE)


__all__ = ["THROTTLE_SHARE", "Unit", "charge_run", "day_run", "judge", "profile", "swap_run", "table"]
