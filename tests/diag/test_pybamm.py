"""Cells and heat from PyBaMM, a model that shares nothing with ours: the truth is its own noise-free solution."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quarkctl.diag import charge_state, foster, resistance
from quarkctl.diag.ocv import Table
from tests.traces import make_pybamm

FOLDER = Path(make_pybamm.__file__).parent


def trace(name: str, folder: Path = FOLDER) -> tuple[dict[str, Any], dict[str, Any]]:
    with (folder / f"{name}.csv").open() as file:
        names = file.readline().strip().split(",")
        rows = np.loadtxt(file, delimiter=",")
    return dict(zip(names, rows.T, strict=True)), json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["pybamm_pulses_chen", "pybamm_pulses_marquis"])
def test_the_resistance_of_a_physical_cell_is_found_within_the_stated_uncertainty(name: str) -> None:
    t, truth = trace(name)
    good = np.ones(len(t["ma"]), bool)
    active = resistance.active(t["time_s"], t["ma"], t["mv"], good, truth["capacity_mah"])
    assert active and active.n == 5
    assert abs(active.value - truth["active_mohm"]) <= active.u + 0.01 * truth["active_mohm"]
    passive = resistance.passive(t["time_s"], t["ma"], t["mv"], good, 0.2 * truth["capacity_mah"])
    assert passive and passive.n >= 9
    assert abs(passive.value - truth["passive_mohm"]) <= passive.u + 0.01 * truth["passive_mohm"]
    assert passive.u < 0.02 * truth["passive_mohm"] + 0.2


def test_the_state_of_charge_of_a_rested_physical_cell_is_found() -> None:
    t, truth = trace("pybamm_rest_chen")
    table = Table(tuple(k / 10 for k in range(11)), tuple(truth["ocv_mv"]), 5.0)
    good = np.ones(len(t["ma"]), bool)
    found = charge_state.rests(t["time_s"], t["ma"], t["mv"], good, table, truth["capacity_mah"], 25.0)
    first = [r for r in found if t["time_s"][r.last] <= 5400]
    last = [r for r in found if t["time_s"][r.first] >= 7200]
    assert first and last
    assert min(t["time_s"][r.first] for r in found) > 1800 + 300, "still relaxing, and yet called rested"
    for rest, soc in ((first[-1], truth["soc_first"]), (last[-1], truth["soc_last"])):
        assert rest.soc.value == pytest.approx(soc, abs=rest.soc.u + 0.004)


def test_the_capacity_follows_from_two_rests_and_the_charge_between() -> None:
    t, truth = trace("pybamm_rest_chen")
    table = Table(tuple(k / 10 for k in range(11)), tuple(truth["ocv_mv"]), 5.0)
    good = np.ones(len(t["ma"]), bool)
    found = charge_state.rests(t["time_s"], t["ma"], t["mv"], good, table, truth["capacity_mah"], 25.0)
    a = next(r for r in reversed(found) if t["time_s"][r.last] <= 5400)
    b = found[-1]
    c = charge_state.count(
        t["time_s"][a.last : b.last], t["ma"][a.last : b.last], np.zeros(b.last - a.last - 1, bool), (0, 0)
    )
    between = truth["soc_first"] - truth["soc_last"]
    full = c.mah / between
    assert c.mah / (a.soc.value - b.soc.value) == pytest.approx(full, rel=0.03)


def test_the_heat_path_of_a_physical_cell_is_found() -> None:
    t, truth = trace("pybamm_heat_chen")
    record = foster.bins(t["time_s"], t["temp_c"], t["time_s"], t["watts"])
    model = foster.choose(record, golden_tau_s=truth["tau_s"])
    assert model
    r = model.resistance()
    assert r.value == pytest.approx(truth["k_per_w"], abs=r.u + 0.02 * truth["k_per_w"])
    assert model.tau_s[-1] == pytest.approx(truth["tau_s"], rel=0.1)


def test_the_recorded_traces_are_what_the_script_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_pybamm, "FOLDER", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyBaMM's own business
        make_pybamm.TRACES["pybamm_heat_chen"]()
    old, truth = trace("pybamm_heat_chen")
    new, again = trace("pybamm_heat_chen", tmp_path)
    assert again == pytest.approx(truth, rel=1e-6)
    assert new["temp_c"] == pytest.approx(old["temp_c"], abs=0.11)
    assert new["watts"] == pytest.approx(old["watts"], rel=0.01, abs=1e-4)
