"""rig.toml and plans: what is wrong is named with line and column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import rig_file, toml_text
from quarkctl.formats.rig_file import Power, Swap

WHOLE = """\
[rig]
name = "lab-a"
history = "postgresql://ci@db/rig"
retries = 2

[station.bench-1]
serial = "QS1-0042"
board = "s1"
tags = ["camera", "cold"]
power = { uhubctl = "1-1", port = 3 }
swap = { command = ["swapper", "--do", "{action}", "--side={side}"] }

[station."hub.2"]
port = "1-1.4"
power = { command = ["relay", "{action}", "7"] }

[station.virtual]
sim = "s1"
"""


def test_a_whole_file_is_read() -> None:
    rig = rig_file.parse("rig.toml", WHOLE)
    assert (rig.name, rig.history, rig.policy.retries) == ("lab-a", "postgresql://ci@db/rig", 2)
    assert [s.word for s in rig.stations.values()] == ["QS1-0042", "1-1.4", "sim:s1"]
    bench = rig.stations["bench-1"]
    assert (bench.board, bench.tags, bench.power) == ("s1", ("camera", "cold"), Power("uhubctl", ("1-1", "3")))
    assert rig.stations["hub.2"].power == Power("command", ("relay", "{action}", "7"))
    assert not rig.stations["hub.2"].swap
    assert rig.stations["virtual"].power == Power("sim", ("s1",))
    assert rig.stations["virtual"].swap == Swap("sim", ("s1",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[station.a]\nserial = 5\n", r"rig.toml line 2, column 1: station.a.serial must be text"),
        ("\n[station.a]\n", r"line 2, column 2: station.a needs one of serial, port and sim, and has none"),
        ('[station.a]\nserial = "x"\nport = "1-1"\n', "line 1, column 2: .*and has serial and port"),
        (
            '[station.a]\nserial = "x"\n[station.b]\nserial = "x"\n',
            r"line 3, column 2: station.b is the same device as",
        ),
        ('[station.a]\nsim = "x"\n  tag = "y"\n', r"line 3, column 3: station.a.tag is not known here"),
        ('[station.a]\nsim = "x"\ntags = ["a", 5]\n', "line 3, column 1: station.a.tags must be a list of texts"),
        (
            '[station.a]\nsim = "x"\npower = { uhubctl = "1", port = "2" }\n',
            "line 3, column 26: .*must be a whole number",
        ),
        ('[station.a]\nsim = "x"\npower = { command = ["relay"] }\n', r"line 3, column 11: .*does not say \{action\}"),
        ('[station.a]\nsim = "x"\n[station.a.power]\nport = 2\n', "line 3, column 2: station.a.power needs one of"),
        ('[station.a]\nsim = "x"\nswap.command = []\n', "line 3, column 1: station.a.swap.command is empty"),
        ('[station.a]\nsim = "x"\n[rig]\nretries = -1\n', "line 4, column 1: rig.retries is -1, the least is 0"),
        ("[rig]\ndeadline_s = inf\n", "line 2, column 1: rig.deadline_s is inf"),
        ("[rig]\nretries = true\n", "line 2, column 1: rig.retries must be a whole number"),
        ('[station."a b"]\nsim = "x"\n', "line 1, column 2: station.a b cannot be a name"),
        ("station = 5\n", "line 1, column 1: station must be a table"),
        ("[station]\na = 5\n", r"line 2, column 1: station.a must be a table: \[station.a\]"),
        ("[stations.a]\n", "line 1, column 2: stations is not known here"),
        ("[station.a]\nserial = \n", "line 2, column 10: invalid value"),
        ('[station.a]\nserial = "x', "line 2, column 12: unterminated string"),
        ("a=" + "[" * 5000, "nested too deep|line 1"),
    ],
)
def test_a_mistake_is_named_with_line_and_column(text: str, told: str) -> None:
    with pytest.raises(InputWrong, match=told):
        rig_file.parse("rig.toml", text)


def test_tables_of_an_array_are_told_apart() -> None:
    text = '[[step]]\ndo = "a"\n[[step]]\ndo = "b"\n  [step.inner]\n  x = 1\n'
    steps = toml_text.parse("f", text).tables("step")
    with pytest.raises(InputWrong, match=r"f line 4, column 1: step.2.do must be a number"):
        steps[1].number("do")
    with pytest.raises(InputWrong, match=r"f line 6, column 3: step.2.inner.x must be text"):
        steps[1].table("inner").text("x")


@given(st.text(alphabet=st.sampled_from("[]station.rig\"=\n {}#a1,'\\"), max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        rig_file.parse("rig.toml", text)
    except InputWrong as error:
        assert error.message.startswith("rig.toml")


@given(st.text(max_size=60), st.lists(st.text(max_size=4) | st.integers(0, 3), max_size=4))
def test_every_place_is_inside_the_text(text: str, path: list[str | int]) -> None:
    line, column = toml_text.place(text, tuple(path))
    lines = text.splitlines() or [""]
    assert 1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1
