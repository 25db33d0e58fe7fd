"""Limits files and the judgement of a value: every mistake is named with its line, and no unit is ever guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import boards
from quarkctl.diag import checks, limits
from quarkctl.diag.finding import Verdict, judge
from quarkctl.diag.limits import Limit
from quarkctl.errors import InputWrong, UsageWrong

TEXT = boards.limits_text("s1-virtual")[1]
LIMITS = limits.parse("s1-virtual.toml", TEXT, checks.UNITS)


@pytest.mark.parametrize("board", ["s1-virtual", "g1-virtual"])
def test_the_limits_of_every_board_are_whole_and_in_the_units_of_the_checks(board: str) -> None:
    parsed = limits.parse(*boards.limits_text(board), checks.UNITS)
    assert parsed.sku == board
    missing = set(checks.UNITS) - set(parsed.limits)
    assert missing == (set() if board.startswith("s1") else {"display_dropped_count"})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('unit = "mV"\n', "", "limit bus_mv_min: unit is missing"),
        ("lsl = 3100", "lsl = nan", "must be a finite number"),
        ("lsl = 3100", "lsl = 3100\nusl = 3000", "is above usl"),
        ("lsl = 80\n", "", "limit soh_pct: needs lsl or usl"),
        ('guard = "ilac-g8"', 'guard = "vibes"', "is none of"),
        ('label = "P"', 'label = "X"', "label 'X' is none of"),
        ("u = 20", "u = -1", "missing or negative"),
        ("u = 20", "tolerance = 20", "unknown key 'tolerance'"),
        ("version = 3", 'version = "2"', "integer version"),
        ("version = 3", "version = ", "limits.toml"),
        ('revision = "a"', "", "revision of the board"),
        ('revision = "a"', 'revision = "a"\ncolour = "red"', "unknown key 'colour'"),
        ("[limit.bus_mv_min]", "[limit.bus_mv_mim]", "limit bus_mv_mim: nothing measures that"),
        ('unit = "mV"\nlsl = 3100', 'unit = "V"\nlsl = 3.1', "is in 'V', the measurement in 'mV'"),
    ],
)
def test_a_mistake_in_the_limits_is_named(old: str, new: str, told: str) -> None:
    assert old in TEXT
    with pytest.raises(InputWrong) as error:
        limits.parse("limits.toml", TEXT.replace(old, new, 1), checks.UNITS)
    assert told in error.value.message


def test_a_mistake_is_told_with_its_line() -> None:
    text = TEXT.replace('unit = "mV"\nlsl = 3100', 'unit = "V"\nlsl = 3.1')
    line = text[: text.index('unit = "V"')].count("\n") + 1
    with pytest.raises(InputWrong, match=f"limits.toml:{line}: limit bus_mv_min"):
        limits.parse("limits.toml", text, checks.UNITS)


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    try:
        limits.parse("x.toml", text, checks.UNITS)
    except InputWrong as error:
        assert "x.toml" in error.message


def test_a_limit_of_the_project_that_is_not_set_yet_is_known_as_such() -> None:
    text = 'version = 1\nsku = "x"\nrevision = "a"\n[limit.droop_mv]\nunit = "mV"\nu = 1\nguard = "none"\n'
    text += 'source = "project"\nlabel = "P"\n'
    assert not limits.parse("x", text, checks.UNITS).limits["droop_mv"].is_set


def test_an_override_needs_the_unit_and_is_kept_for_the_report() -> None:
    changed = LIMITS.override("bus_mv_min.lsl=3000 mV")
    assert changed.limits["bus_mv_min"].lsl == 3000 and LIMITS.limits["bus_mv_min"].lsl == 3100
    assert changed.overrides == ("bus_mv_min.lsl=3000 mV",) and "1 override" in changed.title
    assert changed.limits["bus_mv_min"].as_dict()["override"] == "bus_mv_min.lsl=3000 mV"


@pytest.mark.parametrize(
    ("text", "told"),
    [("bus_mv_min.lsl=3000", "without a unit"),
     ("bus_mv_min.lsl=3 V", "3 is in 'V'"), ("bus_mv_min.lsl=x mV", "cannot read"),
     ("bus_mv_min.top=1 mV", "has no 'top'"), ("nothing.lsl=1 mV", "has no limit 'nothing'"),
     ("soc_error_pct.lsl=9 %", "would be above usl"), ("bus_mv_min.lsl=1e999 mV", "finite"), ("", "cannot read")],
)  # fmt: skip
def test_a_wrong_override_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageWrong) as error:
        LIMITS.override(text)
    assert told in error.value.message


def limit(lsl: float | None, usl: float | None, u: float = 0.0, guard: str = "ilac-g8", w: float = 0.0) -> Limit:
    return Limit("x", "mV", lsl, usl, u, guard, w, "test", "P")


def test_a_value_on_the_limit_is_inside_it() -> None:
    one = LIMITS.limits["reset_count"]
    assert judge(0, 0, one).verdict is Verdict.PASS and judge(1, 0, one).verdict is Verdict.FAIL


def test_the_uncertainty_of_the_algorithm_joins_that_of_the_instrument() -> None:
    j = judge(100.0, 4.0, limit(None, 104.9, u=3.0))
    assert j.u == pytest.approx(5.0) and j.verdict is Verdict.MARGINAL
    assert judge(100.0, 4.0, limit(None, 105.1, u=3.0)).verdict is Verdict.PASS


def test_where_the_guard_band_leaves_no_room_only_a_clear_fault_is_a_verdict() -> None:
    narrow = limit(None, 0.2, u=1.0)
    assert judge(0.0, 0.0, narrow, floor=0.0).verdict is Verdict.INVALID
    assert judge(0.9, 0.0, narrow, floor=0.0).verdict is Verdict.INVALID
    assert judge(1.3, 0.0, narrow, floor=0.0).verdict is Verdict.FAIL
    assert judge(10.0, 0.0, limit(9.0, 11.0, u=1.5)).verdict is Verdict.INVALID


@pytest.mark.parametrize(("value", "u"), [(math.nan, 0.0), (5.0, math.nan), (5.0, math.inf)])
def test_what_is_no_number_or_has_no_bound_is_never_a_pass(value: float, u: float) -> None:
    assert judge(value, u, limit(None, 10.0)).verdict is Verdict.INVALID


@given(st.floats(-1e6, 1e6), st.floats(0, 1e5), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_pass_is_always_inside_by_the_uncertainty(value: float, u: float, lsl: float, width: float) -> None:
    j = judge(value, u, limit(lsl, lsl + width))
    if j.verdict is Verdict.PASS:
        assert value - u >= lsl - 1e-9 and value + u <= lsl + width + 1e-9
