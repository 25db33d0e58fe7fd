"""The physical half of the virtual glasses: two cells on one bus, a load, five thermal nodes.

Pure arithmetic: time is an argument, noise comes from a seed, nothing is read or written. Figures are defaults of the
virtual product (see the sources beside them), not facts about real glasses.
"""

from __future__ import annotations

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


@dataclass
class Plant:
    """State of the model. `advance` returns the readings up to a time; commands take effect between two readings."""

    seed: int = 0
    load: str = "idle"
    ambient_c: float = 25.0
    switchover_us: float = 40.0
    bus_uf: float = 100.0
    uvlo_mv: int = 2900
    cells: list[Cell] = field(default_factory=lambda: [Cell(0.81), Cell(0.79)])
    throttle_level: int = 0
    pack_enable: int = 3
    faults: dict[str, float] = field(default_factory=dict)
    time_us: int = 0
    bus_mv: float = 0.0
    brown_out: bool = False
    _dip_mv: float | None = None
    _temps: list[float] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)
        self._temps = [self.ambient_c] * len(ZONES)
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
        dip_mv = carried_ma * self._fault("late_switchover", self.switchover_us) / self.bus_uf
        lowest = min(self.bus_mv, before_mv - dip_mv)
        self._dip_mv = lowest if self._dip_mv is None else min(self._dip_mv, lowest)
        if lowest < self.uvlo_mv:
            self.brown_out = True

    def insert(self, side: int, soc: float | None = None) -> None:
        cell = self.cells[side]
        if soc is not None:
            cell.soc = soc
        cell.present, cell.sag_mv = True, 0.0
        self._solve()

    def set_load(self, load: str) -> None:
        self.load = load
        self._solve()

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, until_us: int) -> list[Reading]:
        """Move on; one reading each `SAMPLE_US`. Slow states move once a call (so call it every 10 to 50 ms)."""
        count = (until_us - self.time_us) // SAMPLE_US
        if count <= 0:
            return []
        span_s = count * SAMPLE_US / 1e6
        self._move_cells(span_s)
        self._move_heat(span_s)
        self._solve()
        out = [self._read(self.time_us + (k + 1) * SAMPLE_US) for k in range(count)]
        self.time_us += count * SAMPLE_US
        return out

    @property
    def load_ma(self) -> float:
        ar1 = LOADS_MA[self.load] - _RTOS_MA
        share = 1.0 if "missing_throttle" in self.faults else THROTTLE_SHARE[min(self.throttle_level, 3)]
        return _RTOS_MA + ar1 * share

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
        while feeding:
            g = [1000.0 / self._resistance(i) for i in feeding]  # siemens: mA per mV
            v = (sum(self.cells[i].source_mv * k for i, k in zip(feeding, g, strict=True)) - load) / sum(g)
            backward = [i for i in feeding if self.cells[i].source_mv <= v]
            if not backward:
                for i, k in zip(feeding, g, strict=True):
                    self.cells[i].ma = (self.cells[i].source_mv - v) * k
                self.bus_mv = v
                self.brown_out = self.brown_out or v < self.uvlo_mv
                return
            feeding = [i for i in feeding if i not in backward]
        self.bus_mv = 0.0
        self.brown_out = True

    def _move_cells(self, span_s: float) -> None:
        for c in self.cells:
            target = c.ma * c.r1_mohm / 1000.0
            c.sag_mv += (target - c.sag_mv) * min(span_s / c.tau_s, 1.0)
            c.soc = max(c.soc - c.ma * span_s / 3600.0 / c.capacity_mah, 0.0)

    def _move_heat(self, span_s: float) -> None:
        t = self._temps
        volts = self.bus_mv / 1000.0
        watts = [0.0] * len(ZONES)
        watts[0] = (self.load_ma - _RTOS_MA) / 1000.0 * volts
        watts[1] = _RTOS_MA / 1000.0 * volts
        for side in (0, 1):
            watts[2 + side] = (self.cells[side].ma / 1000.0) ** 2 * self._resistance(side) / 1000.0
        flows = [TO_SKIN_W_PER_K[i] * (t[i] - t[4]) for i in range(4)]
        for i in range(4):
            t[i] += (watts[i] - flows[i] - TO_AMBIENT_W_PER_K[i] * (t[i] - self.ambient_c)) / HEAT_J_PER_K[i] * span_s
        t[4] += (sum(flows) - TO_AMBIENT_W_PER_K[4] * (t[4] - self.ambient_c)) / HEAT_J_PER_K[4] * span_s

    def _read(self, time_us: int) -> Reading:
        noise = self._random.gauss
        bus = self.bus_mv + noise(0.0, 0.7)
        lowest = bus - abs(noise(0.0, 0.7))
        if self._dip_mv is not None:
            lowest, self._dip_mv = min(lowest, self._dip_mv), None
        packs = [self._terminal_mv(i) + noise(0.0, 0.7) if c.present else 0.0 for i, c in enumerate(self.cells)]
        zones = [10.0 * t for t in self._temps]
        if "offset_thermistor" in self.faults:
            zones[4] += self.faults["offset_thermistor"]
        if "stuck_thermistor" in self.faults:
            zones[4] = self.faults["stuck_thermistor"]
        z = [round(v) for v in zones]
        return Reading(
            time_us,
            (_u16(packs[0]), _u16(packs[1])),
            (round(self.cells[0].ma), round(self.cells[1].ma)),
            _u16(bus),
            _u16(lowest),
            (z[0], z[1], z[2], z[3], z[4]),
            _bits(c.present for c in self.cells),
            _bits(c.present and c.authentic and not (i == 0 and "counterfeit_pack" in self.faults)
                  for i, c in enumerate(self.cells)),
        )  # fmt: skip

    def _terminal_mv(self, side: int) -> float:
        cell = self.cells[side]
        return cell.source_mv - cell.ma * self._resistance(side) / 1000.0


def _u16(mv: float) -> int:
    return min(max(round(mv), 0), 0xFFFF)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)
