"""Plans and the choice of stations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import rig_file
from quarkctl.rig import plan
from quarkctl.rig.plan import Diag, Flash, PowerCycle, Soak, Swap, When
from tests.conftest import ROOT

PLAN = """\
name = "nightly"
repeat = 2
where = "tag=camera"

[[step]]
do = "flash"
what = "release.bin"

[[step]]
do = "swap"
side = "both"
count = 3
repeat = 2
where = ["board=s1*"]

[[step]]
do = "diag"
area = "battery"
checks = ["takeover"]
seconds = 5

[[step]]
do = "soak"
seconds = 3600
load = "camera"

[[step]]
do = "thermal"

[[step]]
name = "rescue"
do = "power-cycle"
when = "failed"
"""


def test_a_plan_is_read() -> None:
    made = plan.parse("nightly.toml", PLAN)
    assert [s.kind for s in made.steps] == [
        Flash(("release.bin",)), Swap("both", 3), Diag("battery", ("takeover",), 5.0), Soak(3600.0, "camera"),
        Soak(600.0, "", "thermal"), PowerCycle(),
    ]  # fmt: skip
    assert [s.name for s in made.steps] == ["flash", "swap", "diag", "soak", "thermal", "rescue"]
    assert made.steps[5].when is When.FAILED and made.repeat == 2


def test_repeats_are_written_out_for_the_stations_that_a_step_is_for() -> None:
    made = plan.parse("nightly.toml", PLAN)
    rig = rig_file.parse("rig.toml", '[station.a]\nsim="a"\nboard="s1"\n[station.b]\nsim="b"\nboard="g1"\n').stations
    one_round = ["flash", "swap", "swap", "diag", "soak", "thermal", "rescue"]
    assert [s.name for _, s in made.turns(rig["a"])] == 2 * one_round
    assert [turn for turn, _ in made.turns(rig["a"])] == 7 * [1] + 7 * [2]
    assert "swap" not in [s.name for _, s in made.turns(rig["b"])]


def test_the_documented_plan_is_one() -> None:
    text = (ROOT / "docs" / "rigs" / "nightly.toml").read_text()
    assert [s.name for s in plan.parse("nightly.toml", text).steps] == ["flash", "swap", "diag", "rescue"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1, column 1: the plan has no steps"),
        ('[[step]]\ndo = "dance"\n', "line 2, column 1: step.1.do is 'dance'"),
        ('[[step]]\ndo = "flash"\n', "line 1, column 3: step.1 needs what"),
        ('[[step]]\ndo = "flash"\nwhat = []\n', "line 3, column 1: step.1.what is empty"),
        ('[[step]]\ndo = "diag"\nwhat = "x"\n', "line 3, column 1: step.1.what is not known here"),
        ('[[step]]\ndo = "soak"\nseconds = "long"\n', "line 3, column 1: .*must be a number"),
        ('[[step]]\ndo = "swap"\nside = "up"\n', "line 3, column 1: .*is 'up'"),
        ('[[step]]\ndo = "power-cycle"\nwhen = "maybe"\n', "line 3, column 1: .*is 'maybe'"),
        ('[[step]]\ndo = "power-cycle"\n[[step]]\ndo = "diag"\nname = "power-cycle"\n', "line 5, column 1: .*earlier"),
        ('where = "x=1"\n[[step]]\ndo = "diag"\n', "line 1, column 1: where 'x=1' selects nothing"),
        ('repeat = 0\n[[step]]\ndo = "diag"\n', "line 1, column 1: repeat is 0, the least is 1"),
    ],
)
def test_a_mistake_in_a_plan_is_named_with_line_and_column(text: str, told: str) -> None:
    with pytest.raises(InputWrong, match=told):
        plan.parse("p.toml", text)


STATIONS = rig_file.parse(
    "rig.toml",
    '[station.bench-1]\nsim = "a"\ntags = ["camera", "cold"]\nboard = "s1"\n'
    '[station.bench-2]\nsim = "b"\ntags = ["camera"]\nboard = "g1"\n[station.shelf]\nsim = "c"\n',
).stations


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ([], ["bench-1", "bench-2", "shelf"]),
        (["bench-*"], ["bench-1", "bench-2"]),
        (["name=shelf,bench-2"], ["bench-2", "shelf"]),
        (["tag=camera"], ["bench-1", "bench-2"]),
        (["tag=camera", "board=s?"], ["bench-1"]),
        (["tag=c*d"], ["bench-1"]),
    ],
)
def test_stations_are_chosen_by_conditions_that_all_hold(where: list[str], names: list[str]) -> None:
    assert [s.name for s in plan.choose(STATIONS, where)] == names


@given(st.lists(st.text(max_size=12), max_size=3))
def test_a_choice_is_never_empty_and_never_silent(where: list[str]) -> None:
    try:
        assert plan.choose(STATIONS, where)
    except UsageWrong as error:
        assert error.hint
