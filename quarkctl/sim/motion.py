"""What the inertial sensor of virtual glasses feels: a wearer who walks and looks around.

Deterministic: a sample depends on the seed and its time alone. Axes are those of the frame: right, up, back.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

#: Samples that wait for the firmware: half a second at the fastest rate.
FIFO_SAMPLES = 512
RATE_HZ_MAX = 1000
#: (hertz, degrees) of turning the head: nod about the right axis, look about the up axis, tilt about the back axis.
_TURNS = ((0.31, 6.0), (0.13, 25.0), (0.9, 1.5))
#: Steps a second, and how far they lift the head (mg, peak).
_STEP_HZ, _STEP_MG = 1.8, 180.0
_NOISE_MG, _NOISE_DDPS = 2.0, 1.5
_NOISES = 1021


@dataclass(frozen=True, slots=True)
class Inertial:
    """One sample of the sensor (protocols/plant.toml)."""

    time_us: int
    accel_mg: tuple[int, int, int]
    gyro_ddps: tuple[int, int, int]


@dataclass
class Motion:
    """The sensor and what moves it. ``rate_hz`` 0: off."""

    seed: int
    rate_hz: int = 0
    _next: int = 0
    _start_us: int = 0
    _noise: list[float] = field(init=False)

    def __post_init__(self) -> None:
        r = random.Random(self.seed)  # noqa: S311 - noise
        self._noise = [r.gauss(0.0, 1.0) for _ in range(_NOISES)]

    @property
    def period_ns(self) -> int:
        return 1_000_000_000 // self.rate_hz if self.rate_hz else 0

    def switch(self, rate_hz: int, now_us: int) -> None:
        """From now on at this rate."""
        self.rate_hz, self._start_us, self._next = rate_hz, now_us, 0

    def advance(self, now_us: int) -> tuple[int, list[Inertial]]:
        """Samples since the last call, up to now: how many were lost because the FIFO holds no more, and the others."""
        if not self.rate_hz or now_us < self._time_us(self._next):
            return 0, []
        end = ((now_us - self._start_us) * 1000 + 999) // self.period_ns + 1
        while self._time_us(end - 1) > now_us:
            end -= 1
        lost = max(end - self._next - FIFO_SAMPLES, 0)
        made = [self.at(self._time_us(number)) for number in range(self._next + lost, end)]
        self._next = end
        return lost, made

    def _time_us(self, number: int) -> int:
        return self._start_us + number * self.period_ns // 1000

    def at(self, time_us: int) -> Inertial:
        """What the sensor says at this plant time."""
        t = time_us / 1e6
        angles, rates = [], []
        for hz, degrees in _TURNS:
            w = 2 * math.pi * hz
            angles.append(math.radians(degrees) * math.sin(w * t))
            rates.append(10 * degrees * w * math.cos(w * t))
        nod, _, tilt = angles
        up = 1000.0 + _STEP_MG * math.sin(2 * math.pi * _STEP_HZ * t)
        accel = (-up * math.sin(tilt), up * math.cos(nod) * math.cos(tilt), up * math.sin(nod))
        noise = [self._noise[(time_us // 7 + 131 * axis) % _NOISES] for axis in range(6)]
        a = [round(v + _NOISE_MG * n) for v, n in zip(accel, noise[:3], strict=True)]
        g = [round(v + _NOISE_DDPS * n) for v, n in zip(rates, noise[3:], strict=True)]
        return Inertial(time_us, (a[0], a[1], a[2]), (g[0], g[1], g[2]))
