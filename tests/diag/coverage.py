"""How often the stated 95 % interval holds the truth, over simulated measurements. Tests take some, `make bench` 1,000."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from quarkctl.diag import charge_state, foster, resistance
from quarkctl.diag.estimate import Estimate
from quarkctl.diag.ocv import Table

OCV = Table(tuple(k / 10 for k in range(11)), (3300, 3560, 3660, 3720, 3770, 3830, 3920, 4020, 4130, 4270, 4430), 0.0)


def share(runs: Iterable[tuple[Estimate | None, float]]) -> tuple[float, float]:
    """Share of intervals that hold the truth, and the mean half width."""
    hits, widths = [], []
    for found, truth in runs:
        assert found is not None
        hits.append(abs(found.value - truth) <= found.u)
        widths.append(found.u)
    return float(np.mean(hits)), float(np.mean(widths))


def passive_dcir(seed: int) -> tuple[Estimate | None, float]:
    """A load that steps at random, 200 samples at 10 Hz."""
    r = np.random.default_rng(seed)
    truth = float(r.uniform(120, 400))
    level = np.repeat(r.choice([12.0, 85.0, 260.0, 480.0], 12) + r.uniform(-5, 5, 12), 17)
    mv = np.round(4000 - level * truth / 1000 + r.normal(0, 0.7, len(level)))
    t = np.arange(len(level)) * 0.1
    return resistance.passive(t, np.round(level), mv, np.ones(len(t), bool), 56.0), truth


def active_dcir(seed: int) -> tuple[Estimate | None, float]:
    """Two pulses of 1 C."""
    r = np.random.default_rng(seed)
    truth = float(r.uniform(120, 400))
    ma = np.concatenate([np.repeat([56.0, 280.0], [110, 13])] * 2)
    mv = np.round(4000 - ma * truth / 1000 + r.normal(0, 0.7, len(ma)))
    t = np.arange(len(ma)) * 0.1
    return resistance.active(t, ma, mv, np.ones(len(t), bool), 280.0), truth


def rested_soc(seed: int) -> tuple[Estimate | None, float]:
    """A table that is off by a normal 2.5 mV (u = 5 mV), and a rest of two minutes."""
    r = np.random.default_rng(seed)
    truth = float(r.uniform(0.15, 0.95))
    n = 610
    mv = np.round(OCV.mv_of(truth) + r.normal(0, 2.5) + r.normal(0, 0.7, n))
    t = np.arange(n) * 0.2001
    table = Table(OCV.soc, OCV.mv, 5.0)
    found = charge_state.rests(t, np.zeros(n), mv, np.ones(n, bool), table, 280.0, 250.0)
    return found[0].soc, truth


def gauge_gain(seed: int) -> tuple[Estimate | None, float]:
    """A register in whole mAh that counts too much by up to 10 %, converter noise of 2 mA."""
    r = np.random.default_rng(seed)
    truth = float(r.uniform(0.9, 1.1))
    n = 1200
    true_ma = 200 + 60 * np.sin(np.arange(n) / 40 + r.uniform(0, 6))
    t = np.arange(n) * 0.5
    flowed = charge_state.counted(t, true_ma)
    register = np.floor(250.0 + r.uniform(0, 1) - truth * flowed)
    ma = np.round(true_ma + r.normal(0, 2, n))
    return charge_state.gain(charge_state.counted(t, ma), register, charge_state.count_noise(t, ma)), truth


def heat(taus: float, seed: int, *, pulses: bool = False) -> tuple[Estimate | None, float]:
    """Steady temperature of R = 6 + 14 K/W, tau = 25 + 420 s, noise 0.1 C rms rounded to 0.1 C, one sample a second."""
    r = np.random.default_rng(seed)
    t = np.arange(1.0, taus * 420.0)
    watts = np.where(t > 30, 1.2, 0.05)
    if pulses:
        watts = np.where((t // r.integers(90, 300)) % 2 == 0, 1.2, 0.3) * (t > 30) + 0.05
    rise = foster.responses(watts, 1.0, np.array([25.0, 420.0])) @ np.array([6.0, 14.0])
    temp = np.round((25 + rise + r.normal(0, 0.1, len(t))) * 10) / 10
    model = foster.choose(foster.bins(t, temp, t, watts), golden_tau_s=420.0)
    return (model.steady(1.2) if model else None), 25 + 1.2 * 20


STUDIES: dict[str, Callable[[int], tuple[Estimate | None, float]]] = {
    "DCIR, passive": passive_dcir,
    "DCIR, active": active_dcir,
    "state of charge at rest": rested_soc,
    "gauge gain": gauge_gain,
    "steady temperature, 2 tau": lambda seed: heat(2.0, seed),
    "steady temperature, pulses": lambda seed: heat(3.0, seed, pulses=True),
}
