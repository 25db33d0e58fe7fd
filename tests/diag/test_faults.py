"""A sample of the fault matrix (`make bench-diag` runs all of it), and evidence that was spoilt on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.diag import checks
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.formats.account import Counts, Loss
from quarkctl.sim.faults import FAULTS
from tests.diag import kept, matrix, truths
from tests.diag.virtual import Unit, charge_run, day_run, judge, profile, swap_run


@pytest.mark.parametrize("story", matrix.STORIES, ids=lambda s: s.fault)
def test_every_fault_is_found_and_named_at_the_size_it_promises(story: matrix.Story) -> None:
    cell = matrix.cell(story, story.sizes[0], [3])
    assert (cell.found, cell.named) == (1, 1), cell.wrong


def test_every_fault_of_the_virtual_glasses_has_a_story_and_promises_its_first_size() -> None:
    told = {s.fault for s in matrix.STORIES}
    assert set(FAULTS) - told == {"frozen_converter"}  # that is missing evidence, see below
    for s in matrix.STORIES:
        assert s.sizes[0] >= FAULTS[s.fault].least or s.fault == "throttle_without_hysteresis"
        assert set(s.codes) <= set(checks.CHECKS)


def test_healthy_units_of_both_products_raise_no_alarm() -> None:
    assert matrix.false_alarms([77, 78]) == (0, {})
    for run in (swap_run, day_run):
        found = judge(run(5, board="g1-virtual"))
        assert not [f for f in found if f.verdict is Verdict.FAIL]
        assert [f.note for f in found if f.code == "DSP-001"] == ["this product has no displays"]


@pytest.fixture(scope="module")
def day() -> Evidence:
    return day_run(11).evidence()


@pytest.fixture(scope="module")
def swap() -> Evidence:
    return swap_run(11).evidence()


def run(evidence: Evidence, *words: str, asked: bool = False) -> list[Finding]:
    return checks.run(evidence, profile("s1-virtual")[1], checks.select("all", words), asked=asked)


def without(evidence: Evidence, *messages: str) -> Evidence:
    return replace(evidence, tables={n: t for n, t in evidence.tables.items() if n not in messages})


@pytest.mark.parametrize(
    "message", ["power", "battery", "thermal", "gauge", "pack_auth", "ar1_link", "display", "charger"]
)
def test_a_recording_without_a_message_passes_nothing_that_needs_it(day: Evidence, message: str) -> None:
    codes = {"power": "PWR-002", "battery": "PWR-006", "thermal": "THM-007", "gauge": "PWR-019", "pack_auth": "PWR-018",
             "ar1_link": "LNK-001", "display": "DSP-001", "charger": "PWR-017"}  # fmt: skip
    for f in run(without(day, message), codes[message], asked=True):
        assert f.verdict is Verdict.INVALID and f.note


def test_a_missing_sensor_is_a_fault_of_it_and_no_evidence_for_others(day: Evidence) -> None:
    t = day.tables["thermal"].copy()
    t["zone_decic"][:, 4] = -32768
    spoilt = replace(day, tables={**day.tables, "thermal": t})
    assert run(spoilt, "SEN-002")[0].verdict is Verdict.FAIL
    assert run(spoilt, "THM-007")[0].verdict is Verdict.INVALID
    assert run(spoilt, "THM-001")[0].verdict is Verdict.PASS  # the AR1's own sensor is there


def test_losses_make_the_minimum_unknown_and_the_gauge_take_what_is_whole(day: Evidence) -> None:
    keep = np.ones(len(day.tables["power"]), bool)
    keep[500:505] = False
    at = int(day.tables["power"]["time_us"][500])
    loss = Loss("lost", 1, 0, 9, at, at + 5_000_000, 0, 0)
    tables = {n: t[(t["time_us"] < at) | (t["time_us"] > at + 5_000_000)] for n, t in day.tables.items()}
    spoilt = replace(day, tables=tables, losses=[loss], counts=Counts(received=100, lost=9))
    assert run(spoilt, "PWR-002")[0].verdict is Verdict.INVALID
    assert run(spoilt, "PWR-005")[0].verdict is Verdict.FAIL
    assert {f.verdict for f in run(spoilt, "PWR-008")} == {Verdict.PASS}
    whole, holed = run(day, "PWR-020")[0], run(spoilt, "PWR-020")[0]
    assert holed.u and whole.u and holed.u > whole.u and "may hide" in holed.note


@pytest.mark.parametrize(("fault", "verdict"), [("", Verdict.PASS), ("drifting_gauge", Verdict.FAIL)])
def test_frames_that_come_late_now_and_then_leave_the_gauge_its_verdict(fault: str, verdict: Verdict) -> None:
    u = Unit(6)
    if fault:
        u.fault(fault, 10.0)
    e = u.run([(700, "camera", 0.2)]).evidence()
    t = e.tables["battery"]
    late = np.arange(len(t)) % 200
    holed = replace(e, tables={**e.tables, "battery": t[(late < 30) | (late > 32)]})
    whole, found = run(e, "PWR-008")[0], run(holed, "PWR-008")[0]
    assert found.verdict is verdict and found.u and whole.u and found.u >= whole.u


def test_a_clock_that_runs_back_is_not_called_kept() -> None:
    u = swap_run(4).fault("clock_jump", -2000.0).run([(12, "idle", 0.1)])
    found = judge(u, ["PWR-013"])
    assert found[0].verdict is Verdict.FAIL


def test_a_short_record_gives_no_thermal_prediction(swap: Evidence) -> None:
    f = run(swap, "THM-001", asked=True)[0]
    assert f.verdict is Verdict.INVALID and "record longer" in f.note


def test_a_frozen_converter_proves_nothing() -> None:
    e = without(swap_run(3).evidence(), "power", "battery", "thermal", "pack_removed", "takeover")
    found = checks.run(e, profile("s1-virtual")[1], checks.select("battery", ["PWR-002", "PWR-003", "PWR-006"]))
    assert {f.verdict for f in found} == {Verdict.INVALID}


def test_charging_in_the_heat_is_judged_by_its_own_region() -> None:
    def hot(fault: bool) -> list[Finding]:
        u = Unit(2, ambient_c=52.0)
        for c in u.plant.cells:
            c.soc, c.gauge_mah = 0.7, 196.0
        if fault:
            u.fault("hot_charging", 1.0)
        u.plant.charger = True
        return judge(u.run([(60, "idle", 1.0)]), ["PWR-017"])

    assert {f.verdict for f in hot(False)} == {Verdict.PASS}
    bad = hot(True)
    assert {f.verdict for f in bad} == {Verdict.FAIL} and "allowed 4000 mV" in bad[0].note
    assert {f.verdict for f in judge(charge_run(2), ["PWR-017"])} == {Verdict.PASS}


def test_a_limit_that_the_project_has_not_set_is_skipped_with_its_value(swap: Evidence) -> None:
    _, limits = profile("s1-virtual")
    unset = replace(limits.limits["droop_mv"], usl=None)
    f = checks.run(swap, replace(limits, limits={**limits.limits, "droop_mv": unset}), checks.select("all", ["droop"]))[
        0
    ]
    assert f.verdict is Verdict.SKIP and f.value and "has set no droop_mv" in f.note
    gone = {n: x for n, x in limits.limits.items() if n != "droop_mv"}
    f = checks.run(swap, replace(limits, limits=gone), checks.select("all", ["droop"]))[0]
    assert f.verdict is Verdict.SKIP and "has no droop_mv" in f.note


@settings(max_examples=25)
@given(st.data())
def test_no_damage_to_the_columns_makes_a_check_crash(data: st.DataObject) -> None:
    """Rows that vanish, repeat or hold any number at all: a verdict, never an exception."""
    evidence = swap_run(1).evidence()
    r = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    tables: dict[str, Any] = {}
    for name, whole in evidence.tables.items():
        kind = data.draw(st.sampled_from(["keep", "drop", "cut", "noise", "one", "same time"]))
        t = whole.copy()
        if kind == "cut":
            t = whole[: int(r.integers(0, len(t) + 1))]
        elif kind == "noise":
            for field in t.dtype.names[4:]:
                info = np.iinfo(t[field].dtype)
                t[field] = r.integers(info.min, info.max, t[field].shape, dtype=t[field].dtype, endpoint=True)
        elif kind == "one":
            t = whole[:1]
        elif kind == "same time":
            t["time_us"] = 5
        if kind != "drop":
            tables[name] = t
    found = run(replace(evidence, tables=tables))
    assert checks.verdict(found) in Verdict
    for f in found:
        assert f.verdict is Verdict.PASS or f.note or f.value is not None


@pytest.mark.parametrize("sweep", truths.SWEEPS, ids=lambda s: f"{s.code}-{s.tested}")
def test_no_verdict_is_pass_where_the_truth_is_beyond_the_limit_by_more_than_the_guard_band(
    sweep: truths.Sweep,
) -> None:
    out = truths.sweep(sweep, [1, 2])
    assert out.runs == 2 and not out.wrong


def test_every_limit_has_truths_around_it_or_says_why_not() -> None:
    assert {s.code for s in truths.SWEEPS} | set(truths.WITHOUT) == set(checks.CHECKS)


def test_simulations_that_were_stopped_go_on_where_they_were(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    assert list(store.all([("a", 1)], len, 1)) == [(("a", 1), 2)]
    with store.path.open("a") as file:
        file.write('{"job": ["b", 2], "resu')  # killed while it wrote
    again = kept.Kept(tmp_path)
    assert sorted(again.all([("a", 1), ("b", 2)], len, 1)) == [(("a", 1), 2), (("b", 2), 2)]
    assert again.results == {'["a", 1]': 2}
