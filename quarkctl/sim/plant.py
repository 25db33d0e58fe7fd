"""The physical half of the virtual glasses: two cells on one bus, a load, five thermal nodes.

Pure arithmetic: time is an argument, noise comes from a seed, nothing is read or written. Figures are defaults of the
virtual product (see the sources beside them), not facts about real glasses.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from quarkctl.sim.loads import LOADS_MA

#: Open-circuit voltage in mV at 0, 10, ... 100 % of a 4.45 V class Li-ion pouch cell; typical shape, not one maker's part.
OCV_MV = (3300, 3560, 3660, 3720, 3770, 3830, 3920, 4020, 4130, 4270, 4430)

SIDES = ("left", "right")
ZONES = ("ar1", "rtos", "battery_left", "battery_right", "skin")

#: What is left of the AR1's share at each throttle level.
THROTTLE_SHARE = (1.0, 0.75, 0.5, 0.05)
_RTOS_MA = 9

#: Heat capacity in J/K of each zone, conductance to the skin zone and to ambient in W/K. Chosen so that 1.8 W in the AR1
#: gives time constants of about 25 s and 7 min, the order of magnitude of a head-worn computer (LiKamWa et al.,
#: "Draining our Glass", 2014).
HEAT_J_PER_K = (2.0, 1.2, 9.0, 9.0, 14.0)
TO_SKIN_W_PER_K = (0.060, 0.050, 0.030, 0.030, 0.0)
TO_AMBIENT_W_PER_K = (0.008, 0.006, 0.010, 0.010, 0.055)

SAMPLE_US = 1000

#: Charging: fast current of a pack, and what is allowed from which temperature on (share of it, voltage). The scheme is
#: JEITA's, 20 % when cool and 4.0 V when warm are defaults of TI's BQ25882.
CHARGE_MA = 140.0
CHARGE_REGIONS = (
    (-273.0, 0.0, 4450.0),
    (0.0, 0.2, 4450.0),
    (10.0, 1.0, 4450.0),
    (45.0, 1.0, 4000.0),
    (60.0, 0.0, 4000.0),
)
#: Pairs of zones whose channels are swapped by that size of the fault.
SWAPS = {1: (0, 4), 2: (0, 1), 3: (0, 2)}
#: What an open thermistor reads, 0.1 degC.
OPEN_DECIC = -550.0
#: Least bus voltage at which the displays keep their picture.
DISPLAY_MV = 3000.0
#: Least bus voltage at which the camera keeps its stream.
CAMERA_MV = 3000.0
#: Time constant with which an inrush dies away: what an inserted pack charges (100 uF through 0.25 ohm).
INRUSH_US = 25.0
_SECRET = b"quark virtual pack"


@dataclass
class Cell:
    """One pack. Currents in mA, positive discharges."""

    soc: float
    capacity_mah: float = 280.0
    r0_mohm: float = 180.0
    r1_mohm: float = 70.0
    tau_s: float = 20.0
    present: bool = True
    authentic: bool = True
    ma: float = 0.0
    sag_mv: float = 0.0
    pack_id: int = 0x51000001
    design_mah: float = 280.0
    full_mah: float = 280.0
    cycles: int = 12
    gauge_gain: float = 1.0
    gauge_mah: float | None = None

    def __post_init__(self) -> None:
        if self.gauge_mah is None:
            self.gauge_mah = self.soc * self.full_mah

    @property
    def ocv_mv(self) -> float:
        position = min(max(self.soc, 0.0), 1.0) * 10
        i = min(int(position), 9)
        return OCV_MV[i] + (OCV_MV[i + 1] - OCV_MV[i]) * (position - i)

    def r_mohm(self, temp_c: float) -> float:
        """Series resistance: doubles from 25 to 0 degC, the usual magnitude for Li-ion pouch cells."""
        return self.r0_mohm * float(2.0 ** ((25.0 - min(temp_c, 25.0)) / 25.0))

    @property
    def source_mv(self) -> float:
        return self.ocv_mv - self.sag_mv


@dataclass(frozen=True)
class Reading:
    """What the converters see at one instant. Left before right; zones in the order of `ZONES`."""

    time_us: int
    pack_mv: tuple[int, int]
    pack_ma: tuple[int, int]
    bus_mv: int
    bus_mv_min: int
    zone_decic: tuple[int, int, int, int, int]
    present: int
    authentic: int
    pack_ma_min: tuple[int, int] = (0, 0)
    switch_us: int = 0
    inrush_ma: int = 0
    inrush_ma2s: int = 0


@dataclass(frozen=True)
class Registers:
    """What is read over slow buses: gauges, authenticators, charger, and the AR1's own counters. Left before right."""

    present: tuple[int, int]
    soc_pct: tuple[int, int]
    remaining_mah: tuple[int, int]
    full_mah: tuple[int, int]
    design_mah: tuple[int, int]
    cycle_count: tuple[int, int]
    max_error_pct: tuple[int, int]
    pack_id: tuple[int, int]
    challenge: tuple[int, int]
    response: tuple[int, int]
    accepted: tuple[int, int]
    charger_state: int
    charge_ma_max: int
    sent_count: int
    lost_count: int
    latency_us_max: int
    wake_us_max: int
    hand_over_us_max: int
    frame_count: int
    dropped_count: int
    camera_frame_count: int
    camera_dropped_count: int


@dataclass
class Plant:
    """State of the model. `advance` returns the readings up to a time; commands take effect between two readings."""

    seed: int = 0
    load: str = "idle"
    ambient_c: float = 25.0
    switchover_us: float = 40.0
    bus_uf: float = 100.0
    uvlo_mv: int = 2900
    cells: list[Cell] = field(default_factory=lambda: [Cell(0.81), Cell(0.79, pack_id=0x51000002)])
    displays: int = 2
    charger: bool = False
    heat_scale: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    zone_offset_c: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    throttle_level: int = 0
    pack_enable: int = 3
    faults: dict[str, float] = field(default_factory=dict)
    time_us: int = 0
    bus_mv: float = 0.0
    brown_out: bool = False
    _dip_mv: float | None = None
    _switch_us: float = 0.0
    _inrush_ma: float = 0.0
    _inrush_ma2s: float = 0.0
    _lagging_c: float = 25.0
    _link: dict[str, float] = field(default_factory=lambda: dict.fromkeys(
        ("sent", "lost", "latency_us", "wake_us", "hand_over_us", "frames", "dropped", "camera_frames",
         "camera_dropped"), 0.0))  # fmt: skip
    _temps: list[float] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)
        self._temps = [self.ambient_c] * len(ZONES)
        self._lagging_c = self.ambient_c
        self._solve()

    # --- commands -----------------------------------------------------------------------------------------------------

    def eject(self, side: int) -> None:
        """Pull a pack. Until the other pack's switch has reacted, the bus capacitance feeds what this one carried:
        dip = I * t / C (TI SLVAE51A, eq. 1 and 2)."""
        cell = self.cells[side]
        if not cell.present:
            return
        carried_ma = max(cell.ma, 0.0)
        before_mv = self.bus_mv
        cell.present, cell.ma = False, 0.0
        self._solve()
        switch_us = self._fault("late_switchover", self.switchover_us) if carried_ma > 0 else 0.0
        dip_mv = carried_ma * switch_us / self.bus_uf / (1 - self._fault("aged_capacitor", 0.0) / 100)
        lowest = min(self.bus_mv, before_mv - dip_mv)
        self._dip_mv = lowest if self._dip_mv is None else min(self._dip_mv, lowest)
        self._switch_us = switch_us
        if lowest < DISPLAY_MV:
            self._link["dropped"] += 1 + (DISPLAY_MV - lowest) // 100
        self._link["dropped"] += self._fault("display_glitch", 0.0)
        if self.load == "camera":
            self._link["camera_dropped"] += self._fault("camera_glitch", 0.0)
            if lowest < CAMERA_MV:
                self._link["camera_dropped"] += 1 + (CAMERA_MV - lowest) // 100
        if lowest < self.uvlo_mv:
            self.brown_out = True

    def insert(self, side: int, soc: float | None = None) -> None:
        cell = self.cells[side]
        if soc is not None:
            cell.soc = soc
            cell.gauge_mah = soc * cell.full_mah
        cell.present, cell.sag_mv = True, 0.0
        step_mv = abs(cell.ocv_mv - self.bus_mv) if self.bus_mv > 0 else 200.0
        self._inrush_ma = self._fault("hard_insertion", 250.0 + step_mv / self._resistance(side) * 100.0)
        self._inrush_ma2s = self._inrush_ma**2 * self._fault("long_inrush", INRUSH_US) / 2e6
        self._solve()

    def set_load(self, load: str) -> None:
        before, self.load = self.load, load
        link = self._link
        if before == "sleep" and load != "sleep":
            wake = 1000 * self._fault("slow_wake", 180.0) * self._random.uniform(0.9, 1.1)
            link["wake_us"] = max(link["wake_us"], wake)
        if before != load:
            over = 1000 * self._fault("slow_hand_over", 25.0) * self._random.uniform(0.8, 1.2)
            link["hand_over_us"] = max(link["hand_over_us"], over)
        self._solve()

    def set_charger(self, *, on: bool) -> None:
        self.charger = on
        self._solve()

    def set_ambient(self, ambient_c: float, *, soaked: bool = False) -> None:
        """``soaked``: as after hours at that temperature."""
        self.ambient_c = ambient_c
        if soaked:
            self._temps = [ambient_c] * len(ZONES)
            self._lagging_c = ambient_c

    def switch_fault(self, name: str, size: float | None) -> None:
        """Switch a fault on with a size, or off with None. What it does to the packs themselves is done here."""
        if size is None:
            self.faults.pop(name, None)
        else:
            self.faults[name] = size
        left = self.cells[0]
        healthy = 280.0
        lost, wrong = self._fault("weak_cell", 0.0) / 100, self._fault("wrong_capacity", 0.0) / 100
        left.full_mah = healthy * (1 - lost)
        left.capacity_mah = left.full_mah * (1 - wrong)
        left.cycles = 12 if not lost else 600
        left.gauge_mah = left.soc * left.full_mah
        left.gauge_gain = 1 + self._fault("drifting_gauge", 0.0) / 100
        self._solve()

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, until_us: int, every_us: int = SAMPLE_US) -> list[Reading]:
        """Move on; one reading each ``every_us``. Slow states move once a call (so call it every 10 to 500 ms)."""
        count = (until_us - self.time_us) // every_us
        if count <= 0:
            return []
        span_s = count * every_us / 1e6
        self._move_cells(span_s)
        self._move_heat(span_s)
        self._move_counters(span_s)
        self._solve()
        out = [self._read(self.time_us + (k + 1) * every_us) for k in range(count)]
        self.time_us += count * every_us
        return out

    def registers(self) -> Registers:
        """Read the slow buses. What is held there between two reads starts anew."""
        here = [c.present for c in self.cells]

        def of(values: Iterable[float]) -> tuple[int, int]:
            left, right = (int(v) if p else 0 for v, p in zip(values, here, strict=True))
            return left, right

        charge = [self._random.getrandbits(32) for _ in self.cells]
        answers = [self._answer(i, c) for i, c in enumerate(charge)]
        ids = [
            c.pack_id + (self.time_us // 1_000_000 if self._counterfeit(i) == 3 else 0)
            for i, c in enumerate(self.cells)
        ]
        right = [a == _response(i, c) for a, i, c in zip(answers, ids, charge, strict=True)]
        k = self._link
        out = Registers(
            of(here), of(100 * (c.gauge_mah or 0.0) / c.full_mah for c in self.cells),
            of(c.gauge_mah or 0.0 for c in self.cells), of(c.full_mah for c in self.cells),
            of(c.design_mah for c in self.cells), of(c.cycles for c in self.cells), of((2, 2)),
            of(ids), of(charge), of(answers), of(right),
            2 if any(c.ma < -1 for c in self.cells) and self.charger else int(self.charger), round(CHARGE_MA),
            int(k["sent"]), int(k["lost"]), int(k["latency_us"]), int(k["wake_us"]), int(k["hand_over_us"]),
            int(k["frames"]), int(k["dropped"]), int(k["camera_frames"]), int(k["camera_dropped"]),
        )  # fmt: skip
        k["latency_us"] = k["wake_us"] = k["hand_over_us"] = 0.0
        return out

    def _counterfeit(self, side: int) -> int:
        return int(self._fault("counterfeit_pack", 0.0)) if side == 0 else 0

    def _answer(self, side: int, challenge: int) -> int:
        kind = self._counterfeit(side)
        if kind == 1:
            return 0
        cell = self.cells[side]
        if kind == 2:
            return _response(cell.pack_id, 7)  # recorded once from a real pack
        shift = self.time_us // 1_000_000 if kind == 3 else 0
        return _response(cell.pack_id + shift, challenge)

    @property
    def load_ma(self) -> float:
        ar1 = LOADS_MA[self.load] - _RTOS_MA
        saved = (1 - THROTTLE_SHARE[min(self.throttle_level, 3)]) * (1 - self._fault("missing_throttle", 0.0))
        return _RTOS_MA + ar1 * (1 - saved)

    def temperatures(self) -> list[float]:
        """Of the zones, in degC."""
        return [round(t, 1) for t in self._temps]

    def _fault(self, name: str, healthy: float) -> float:
        return self.faults.get(name, healthy)

    def _resistance(self, side: int) -> float:
        r = self.cells[side].r_mohm(self._temps[2 + side])
        return r + (self._fault("high_resistance", 0.0) if side == 0 else 0.0)

    def _solve(self) -> None:
        """Bus voltage and currents: each pack feeds through an ideal diode, so none is ever charged by the other."""
        feeding = [i for i, c in enumerate(self.cells) if c.present and (self.pack_enable >> i) & 1]
        load = self.load_ma
        for c in self.cells:
            c.ma = 0.0
        if self.charger:
            self.bus_mv = 4450.0
            for i, c in enumerate(self.cells):
                c.ma = -self._charging_ma(i) if c.present else 0.0
            return
        while feeding:
            g = [1000.0 / self._resistance(i) for i in feeding]  # siemens: mA per mV
            v = (sum(self.cells[i].source_mv * k for i, k in zip(feeding, g, strict=True)) - load) / sum(g)
            backward = [i for i in feeding if self.cells[i].source_mv <= v]
            if not backward:
                for i, k in zip(feeding, g, strict=True):
                    self.cells[i].ma = (self.cells[i].source_mv - v) * k
                self.bus_mv = v
                self._leak_back(feeding)
                self.brown_out = self.brown_out or v < self.uvlo_mv
                return
            feeding = [i for i in feeding if i not in backward]
        self.bus_mv = 0.0
        self.brown_out = True

    def _leak_back(self, feeding: list[int]) -> None:
        """A switch that conducts backwards lets the bus charge the pack that rests."""
        most = self._fault("cross_charging", 0.0)
        for i, c in enumerate(self.cells):
            if most and c.present and i not in feeding:
                back = min(most, max(self.bus_mv - c.source_mv, 0.0) * 1000.0 / self._resistance(i))
                c.ma = -back
                self.cells[feeding[0]].ma += back

    def _charging_ma(self, side: int) -> float:
        """Constant current, then constant voltage, within the region of the cell's temperature."""
        temp = self._temps[2 + side]
        share, mv = next((s, v) for t, s, v in reversed(CHARGE_REGIONS) if temp >= t)
        share, mv = (self._fault("hot_charging", share), 4450.0) if "hot_charging" in self.faults else (share, mv)
        c = self.cells[side]
        return max(min(share * CHARGE_MA, (mv - c.source_mv) * 1000.0 / self._resistance(side)), 0.0)

    def _move_counters(self, span_s: float) -> None:
        k = self._link
        if self.load != "sleep":
            lossy = self._fault("lossy_link", 0.0) / 100
            asked = 20 * span_s
            k["sent"] += asked
            k["lost"] += sum(self._random.random() < lossy for _ in range(max(round(asked), 1))) if lossy else 0
            slow = 1000 * self._fault("slow_link", 3.0)
            k["latency_us"] = max(k["latency_us"], slow * self._random.uniform(0.6, 1.4))
        if self.load in ("display", "camera") and self.displays:
            k["frames"] += 90 * span_s
        if self.load == "camera":
            k["camera_frames"] += 30 * span_s

    def _move_cells(self, span_s: float) -> None:
        for c in self.cells:
            c.gauge_mah = min(max((c.gauge_mah or 0.0) - c.ma * c.gauge_gain * span_s / 3600.0, 0.0), c.full_mah)
            target = c.ma * c.r1_mohm / 1000.0
            c.sag_mv += (target - c.sag_mv) * min(span_s / c.tau_s, 1.0)
            c.soc = min(max(c.soc - c.ma * span_s / 3600.0 / c.capacity_mah, 0.0), 1.0)

    def _move_heat(self, span_s: float) -> None:
        t = self._temps
        volts = self.bus_mv / 1000.0
        watts = [0.0] * len(ZONES)
        watts[0] = (self.load_ma - _RTOS_MA) / 1000.0 * volts
        watts[1] = _RTOS_MA / 1000.0 * volts
        for side in (0, 1):
            watts[2 + side] = (self.cells[side].ma / 1000.0) ** 2 * self._resistance(side) / 1000.0
        spreader = 1 - self._fault("detached_spreader", 0.0) / 100
        flows = [TO_SKIN_W_PER_K[i] * self.heat_scale[i] * (t[i] - t[4]) for i in range(4)]
        flows[0] *= spreader
        for i in range(4):
            t[i] += (watts[i] - flows[i] - TO_AMBIENT_W_PER_K[i] * (t[i] - self.ambient_c)) / HEAT_J_PER_K[i] * span_s
        away = TO_AMBIENT_W_PER_K[4] * self.heat_scale[4] * (t[4] - self.ambient_c)
        t[4] += (sum(flows) - away) / HEAT_J_PER_K[4] * span_s
        lag_s = self._fault("lagging_thermistor", 0.0)
        self._lagging_c += (t[4] - self._lagging_c) * (min(span_s / lag_s, 1.0) if lag_s > 0 else 1.0)

    def _read(self, time_us: int) -> Reading:
        noise = self._random.gauss
        bus = self.bus_mv + noise(0.0, 0.7)
        lowest = bus - abs(noise(0.0, 0.7))
        if self._dip_mv is not None:
            lowest, self._dip_mv = min(lowest, self._dip_mv), None
        packs = [self._terminal_mv(i) + noise(0.0, 0.7) if c.present else 0.0 for i, c in enumerate(self.cells)]
        zones = self._sensed(time_us)
        z = [round(v) for v in zones]
        return Reading(
            time_us + int(1000 * self._fault("clock_jump", 0.0)),
            (_u16(packs[0]), _u16(packs[1])),
            (round(self.cells[0].ma), round(self.cells[1].ma)),
            _u16(bus),
            _u16(lowest),
            (z[0], z[1], z[2], z[3], z[4]),
            _bits(c.present for c in self.cells),
            _bits(c.present and c.authentic and not self._counterfeit(i) for i, c in enumerate(self.cells)),
            (round(self.cells[0].ma), round(self.cells[1].ma)),
            *self._captured(),
        )  # fmt: skip

    def _captured(self) -> tuple[int, int, int]:
        """What the power path's timer and holds caught since the reading before."""
        out = _u16(self._switch_us), _u16(self._inrush_ma), _u16(self._inrush_ma2s)
        self._switch_us = self._inrush_ma = self._inrush_ma2s = 0.0
        return out

    def _sensed(self, time_us: int) -> list[float]:
        """What the thermistors show, 0.1 degC."""
        noise = self._random.gauss
        true = [*self._temps[:4], self._lagging_c]
        zones = [10.0 * (t + o) + noise(0.0, 0.3) for t, o in zip(true, self.zone_offset_c, strict=True)]
        faults = self.faults
        if "offset_thermistor" in faults:
            zones[4] += faults["offset_thermistor"]
        if "spiking_thermistor" in faults and time_us // 600_000 % 75 == 3:
            zones[4] += faults["spiking_thermistor"]
        if "stuck_thermistor" in faults:
            zones[4] = faults["stuck_thermistor"]
        if "open_thermistor" in faults:
            zones[4] = OPEN_DECIC
        if "swapped_thermistors" in faults:
            a, b = SWAPS.get(int(faults["swapped_thermistors"]), SWAPS[1])
            zones[a], zones[b] = zones[b], zones[a]
        return zones

    def _terminal_mv(self, side: int) -> float:
        cell = self.cells[side]
        return cell.source_mv - cell.ma * self._resistance(side) / 1000.0


def _response(pack_id: int, challenge: int) -> int:
    """A pack's answer: it proves that the pack holds the secret, without telling it."""
    message = pack_id.to_bytes(8, "little") + challenge.to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2s(message, key=_SECRET, digest_size=4).digest(), "little") | 1


def _u16(mv: float) -> int:
    return min(max(round(mv), 0), 0xFFFF)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)
