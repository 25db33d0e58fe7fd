"""The physical model: currents add up, heat flows, faults do what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.sim.loads import LOADS_MA
from quarkctl.sim.plant import OCV_MV, SAMPLE_US, Cell, Plant


@given(
    load=st.sampled_from(sorted(LOADS_MA)), soc=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    present=st.sampled_from([(True, True), (True, False), (False, True)]),
)  # fmt: skip
def test_the_packs_carry_exactly_the_load_and_none_charges_the_other(
    load: str, soc: tuple[float, float], present: tuple[bool, bool]
) -> None:
    plant = Plant(load=load, cells=[Cell(s, present=p) for s, p in zip(soc, present, strict=True)])
    assert sum(c.ma for c in plant.cells) == pytest.approx(plant.load_ma, rel=1e-9)
    assert all(c.ma >= 0 for c in plant.cells)
    assert all(c.ma == 0 for c in plant.cells if not c.present)
    assert plant.bus_mv <= max(c.ocv_mv for c in plant.cells if c.present)


def test_the_fuller_pack_carries_more() -> None:
    plant = Plant(load="camera", cells=[Cell(0.9), Cell(0.88)])
    assert plant.cells[0].ma > plant.cells[1].ma > 0
    uneven = Plant(load="camera", cells=[Cell(0.9), Cell(0.3)])
    assert uneven.cells[1].ma == 0


def test_samples_come_at_one_kilohertz_whatever_the_steps() -> None:
    plant = Plant()
    times = [r.time_us for until in (700, 5_300, 5_400, 30_000) for r in plant.advance(until)]
    assert times == list(range(SAMPLE_US, 30_001, SAMPLE_US))


def test_the_same_seed_gives_the_same_readings() -> None:
    assert Plant(seed=3).advance(50_000) == Plant(seed=3).advance(50_000)
    assert Plant(seed=3).advance(50_000) != Plant(seed=4).advance(50_000)


def test_a_removal_dips_by_current_times_time_over_capacitance() -> None:
    plant = Plant(load="camera")
    plant.advance(20_000)
    carried, before = plant.cells[0].ma, plant.bus_mv
    plant.eject(0)
    reading = plant.advance(21_000)[0]
    assert reading.bus_mv_min == pytest.approx(before - carried * plant.switchover_us / plant.bus_uf, abs=3)
    assert reading.present == 2 and not plant.brown_out
    assert plant.advance(22_000)[0].bus_mv_min > reading.bus_mv_min + 20


def test_a_late_switchover_browns_out() -> None:
    plant = Plant(load="camera", faults={"late_switchover": 700.0})
    plant.advance(20_000)
    plant.eject(0)
    assert plant.brown_out


def test_pulling_both_packs_ends_everything() -> None:
    plant = Plant()
    plant.eject(0)
    plant.eject(1)
    assert plant.bus_mv == 0 and plant.brown_out


def test_charge_is_used_up_by_current_times_time() -> None:
    plant = Plant(load="camera", cells=[Cell(0.8), Cell(0.8)])
    for k in range(1, 3601):
        plant.advance(k * 1_000_000 // 10)  # six minutes in steps of 100 ms
    used_mah = sum((0.8 - c.soc) * c.capacity_mah for c in plant.cells)
    assert used_mah == pytest.approx(480 * 0.1, rel=0.01)


def test_the_ar1_heats_up_and_throttling_cools_it() -> None:
    plant = Plant(load="camera")
    for k in range(1, 1201):
        plant.advance(k * 50_000)
    hot = plant.temperatures()
    assert hot[0] > 35 and hot[0] > hot[4] > 25
    plant.throttle_level = 3
    for k in range(1201, 2401):
        plant.advance(k * 50_000)
    assert plant.temperatures()[0] < hot[0]
    assert plant.load_ma < 50


@given(soc=st.floats(-1, 2))
def test_the_open_circuit_voltage_rises_with_charge_and_stays_in_its_table(soc: float) -> None:
    assert OCV_MV[0] <= Cell(soc).ocv_mv <= OCV_MV[-1]
    assert Cell(soc).ocv_mv <= Cell(soc + 0.01).ocv_mv


def test_a_cold_cell_resists_more() -> None:
    assert Cell(0.5).r_mohm(0) == pytest.approx(2 * Cell(0.5).r_mohm(25))


@pytest.mark.parametrize("fault", ["stuck_thermistor", "offset_thermistor"])
def test_a_thermistor_fault_shows_in_its_own_zone_only(fault: str) -> None:
    good, bad = Plant(seed=1), Plant(seed=1, faults={fault: 410.0 if fault.startswith("stuck") else 60.0})
    a, b = good.advance(1000)[0], bad.advance(1000)[0]
    assert a.zone_decic[:4] == b.zone_decic[:4]
    assert b.zone_decic[4] == (410 if fault.startswith("stuck") else a.zone_decic[4] + 60)
