"""Places of keys in TOML: of every form in which a key can be written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.formats.toml_places import Path, place

TEXT = """\
# a = 0
a = 1 # = b
"b c" = [ 1, "x, ]", [2,
  3], { d = \'}\', e.f = { g = 1979-05-27 07:32:00 } } ]
  long = \"\"\"
a = 2 \\" [x]
\"\"\"\"
[ t . "u.v" ]
w = { x = [], y = {}, z = "\\"=" }
[[n]]
[[n]]
k = true
[n.m]
k = 1
[[n.o]]
'p' = \'\'\'
[q]\'\'\'
"""
PLACES: dict[Path, tuple[int, int]] = {
    ("a",): (2, 1), ("b c",): (3, 1), ("b c", 0): (3, 11), ("b c", 1): (3, 14), ("b c", 2): (3, 22), ("b c", 2, 1): (4, 3),
    ("b c", 3): (4, 7), ("b c", 3, "d"): (4, 9), ("b c", 3, "e"): (4, 18), ("b c", 3, "e", "f", "g"): (4, 26),
    ("long",): (5, 3), ("t",): (8, 3), ("t", "u.v"): (8, 3), ("t", "u.v", "w"): (9, 1), ("t", "u.v", "w", "y"): (9, 15),
    ("t", "u.v", "w", "z"): (9, 23), ("n", 0): (10, 3), ("n", 1): (11, 3), ("n", 1, "k"): (12, 1), ("n", 1, "m"): (13, 2),
    ("n", 1, "m", "k"): (14, 1), ("n", 1, "o", 0, "p"): (16, 1), ("n", 1, "not there"): (11, 3), ("nothing",): (1, 1),
}  # fmt: skip


@pytest.mark.parametrize("path", PLACES, ids=str)
def test_a_key_is_found_in_every_form(path: Path) -> None:
    tomllib.loads(TEXT)
    assert place(TEXT, path) == PLACES[path]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ",".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _paths(value: Any, path: Path = ()) -> list[Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in inner for p in _paths(v, (*path, k)))]


VALUES = st.recursive(
    st.integers(-9, 9) | st.text(st.sampled_from("ab[]{}=,#\"\\'"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["k", "l", "m"]), VALUES, min_size=1))
def test_what_stands_at_a_place_is_the_key(values: dict[str, Any]) -> None:
    text = "".join(f"{k} = {_toml(v)}\n" for k, v in values.items())
    assert tomllib.loads(text) == values
    lines = text.splitlines()
    for path in _paths(values)[1:]:
        line, column = place(text, path)
        if isinstance(path[-1], str):
            assert lines[line - 1][column - 1 :].startswith(f"{path[-1]} =")


@given(st.text(st.sampled_from("ab=[]{}\"'#.,\n 1"), max_size=40))
def test_any_text_has_an_end(text: str) -> None:
    assert place(text, ("a", "b")) >= (1, 1)
