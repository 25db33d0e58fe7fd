"""The reference models against what others published of things worn on the head. Sources and figures, as far as public
abstracts and articles give them; none holds a course of power and temperature that could be fitted.

- Electronics Cooling, 2025-07-09, "Thermal Design for Externally Worn Wearable Electronics", table 1: most for a Li-ion cell
  45 degC charging and 60 degC discharging, memory chips 95 to 105 degC at the junction.
- M. A. Rupp, Applied Ergonomics 114 (2024) 104128, doi:10.1016/j.apergo.2023.104128, abstract: sessions of 48 minutes at 28
  to 43 degC of the air in a headset; discomfort grows with it, and 36 degC are recommended as the most.
"""

from __future__ import annotations

import numpy as np
import pytest

from quarkctl.diag.product import ZONES
from quarkctl.sim.loads import LOADS_MA
from tests.diag.truths import network
from tests.diag.virtual import Unit, profile

BOARDS = ("s1-virtual", "g1-virtual")
FULL_W = max(LOADS_MA.values()) * 3.9e-3


def steady_c(board: str, watts: float, ambient_c: float) -> dict[str, float]:
    golden = profile(board)[0].golden
    return {zone: ambient_c + watts * sum(golden[zone].k_per_w) for zone in ZONES}


@pytest.mark.parametrize("board", BOARDS)
def test_cells_and_chips_stay_below_published_limits_where_the_skin_does(board: str) -> None:
    limit = profile(board)[1].limits["skin_c"].usl
    assert limit
    ambient = limit - (steady_c(board, FULL_W, 0.0)["skin"])
    at = steady_c(board, FULL_W, ambient)
    assert max(at["battery_left"], at["battery_right"]) < 60 and max(at["ar1"], at["rtos"]) < 95


@pytest.mark.parametrize("board", BOARDS)
def test_no_cell_is_charged_fully_above_the_published_limit(board: str) -> None:
    regions = profile(board)[0].jeita
    full = max(r.mv for r in regions)
    assert all(r.to_c <= 45 for r in regions if r.share == 1 and r.mv == full)


@pytest.mark.parametrize("board", BOARDS)
def test_full_power_in_a_warm_room_is_not_worn_for_long(board: str) -> None:
    """At 25 degC and full power the skin passes both the limit and what the study calls comfortable: so there is a throttle,
    and what the glasses do all day stays below."""
    assert steady_c(board, FULL_W, 25.0)["skin"] > 36
    assert steady_c(board, LOADS_MA["idle"] * 3.9e-3, 25.0)["skin"] < 36


def test_golden_units_are_the_network_of_the_plant() -> None:
    """What the board profiles say is what heat balance gives, so a check of one is a check of the other."""
    u = Unit(1)
    u.plant.heat_scale = (1.0,) * 5
    rise = np.linalg.solve(network(u), np.array([1.0, 0.0, 0.0, 0.0, 0.0]))
    for zone, k_per_w in zip(ZONES, rise, strict=True):
        assert sum(profile("s1-virtual")[0].golden[zone].k_per_w) == pytest.approx(k_per_w, rel=0.08), zone
