"""The schema language: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.errors import InputWrong
from quarkctl.formats import schema
from quarkctl.formats.schema import Field, Message

GOOD = """
set = "demo"
doc = "A set."
[enum.colour]
type = "u8"
values = { red = 1, green = 2 }
[[message]]
type = 0x30
name = "demo"
fields = [
  { name = "colour", type = "u8", enum = "colour" },
  { name = "level_mv", type = "i16", count = 2, unit = "mV" },
  { name = "state", type = "u8", bits = [{ name = "low", width = 3 }, { name = "high", width = 5 }] },
]
"""


def parse(text: str = GOOD) -> schema.Schema:
    return schema.parse({"demo": text})


def test_values_come_back_with_names() -> None:
    s = parse()
    m = s.messages["demo"]
    raw = s.pack(m, {"colour": 2, "level_mv": [-5, 7], "state": 0b10110_011})
    assert raw == bytes([2, 0xFB, 0xFF, 7, 0, 0b10110_011])
    named = s.named(m, s.unpack(m, raw))
    assert named == {"colour": "green", "level_mv": [-5, 7], "state": {"low": 3, "high": 22}}


def test_an_unknown_enum_value_stays_a_number() -> None:
    s = parse()
    assert s.named(s.messages["demo"], {"colour": 99, "level_mv": [0, 0], "state": 0})["colour"] == 99


def test_the_layout_hash_ignores_prose_and_set_order_but_nothing_else() -> None:
    base = parse().layout_hash
    assert parse(GOOD.replace("A set.", "Other words.")).layout_hash == base
    for old, new in [("level_mv", "level_uv"), ("i16", "u16"), ("count = 2", "count = 3"), ("green = 2", "green = 3"),
                     ("0x30", "0x31"), ("width = 3", "width = 2")]:  # fmt: skip
        assert parse(GOOD.replace(old, new)).layout_hash != base, new
    texts = dict(schemas.telemetry().sources)
    backwards = dict(reversed(texts.items()))
    assert schema.parse(backwards).layout_hash == schemas.telemetry().layout_hash


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('type = "i16"', 'type = "i17"', "demo.toml line 12: demo.level_mv: type 'i17' is none of u8, i8"),
        ('name = "level_mv"', 'name = "class"', "line 12: demo.class: 'class' cannot be a name"),
        ('name = "level_mv"', 'name = "time_us"', "line 12: demo.time_us: 'time_us' is what every frame has already"),
        ('name = "level_mv"', "name = 7", "line 7: demo: field without name: 7 cannot be a name"),
        ("count = 2", "count = -1", "line 12: demo.level_mv: count must be"),
        ("count = 2", "count = true", "line 12: demo.level_mv: count must be"),
        ('enum = "colour"', 'enum = "shape"', "line 11: demo.colour: no enum 'shape'"),
        ("green = 2", "green = 1", "line 4: enum colour: a value occurs twice"),
        ("green = 2", "green = 300", "line 4: enum colour: values must be integers that fit into u8"),
        ("values = { red = 1, green = 2 }", "values = [1, 2]", "line 4: enum colour: values must be a table"),
        ("width = 5", "width = 6", "line 13: demo.state: the bits do not fit"),
        ("width = 5", 'width = "5"', "line 13: demo.state: bit high: width must be 1 to 64"),
        ('name = "high"', 'name = "low"', "line 13: demo.state: 'low' is defined twice"),
        ("type = 0x30", "type = 0x09", "line 7: demo: type must be 1 to 255, and not one of"),
        ("type = 0x30", "type = 0x300", "line 7: demo: type must be 1 to 255"),
        ('unit = "mV"', 'units = "mV"', "line 12: demo.level_mv: unknown key 'units'"),
        ('unit = "mV"', "unit = 1", "line 12: demo.level_mv: unit must be a text"),
        ('set = "demo"', 'set = "other"', "demo.toml line 1: set is 'other', must be 'demo' like its file"),
        ('set = "demo"', "set = ", "demo.toml line 2: no TOML"),
        ('set = "demo"', "set = " + "[" * 100_000, "demo.toml line 1: no TOML: nested too deep"),
        ('name = "state"', 'name = "colour"', "line 13: demo.colour: 'colour' is defined twice"),
        ("[[message]]\ntype = 0x30", "[[record]]\ntype = 0x30", "line 7: demo: unknown key 'type'"),
        ("[[message]]", "[message]", "[[message]] must be a list of tables"),
        ("[[message]]", "[[block]]", "line 7: demo: samples must be 1 to 255"),
        ("type = 0x30", "type = 0x30\nsamples = 3", "line 7: demo: unknown key 'samples'"),
        ("[enum.colour]", "[[enum.colour]]", "line 4: enum colour: colour must be a table"),
        ("fields = [", "fields = 3\nother = [", "line 7: demo: unknown key 'other'"),
    ],
)
def test_a_mistake_is_named_with_its_file_line_and_place(old: str, new: str, told: str) -> None:
    with pytest.raises(InputWrong) as error:
        parse(GOOD.replace(old, new, 1))
    assert told in error.value.message


def test_a_type_that_is_taken_names_who_has_it() -> None:
    second = GOOD.replace('"demo"', '"other"').replace("colour]", "shade]").replace('enum = "colour"', 'enum = "shade"')
    with pytest.raises(InputWrong, match=r"other\.toml line 7: other: type 0x30 is taken by demo"):
        schema.parse({"demo": GOOD, "other": second})


def test_a_block_holds_its_fields_once_a_sample() -> None:
    text = GOOD.replace("[[message]]", "[[block]]\nsamples = 3")
    m = parse(text).messages["demo"]
    assert [f.name for f in m.fields][:4] == ["first_index", "first_us", "period_ns", "count"]
    assert m.size_bytes == 4 + 8 + 4 + 1 + 3 * (1 + 2 * 2 + 1)
    raw = parse(text).pack(m, {"count": 2, "level_mv": [[1, -1], [2, -2]]})
    assert parse(text).unpack(m, raw)["level_mv"] == [[1, -1], [2, -2], [0, 0]]


def test_a_payload_of_the_wrong_length_is_refused() -> None:
    s = parse()
    with pytest.raises(InputWrong, match="has 6 bytes, not 5"):
        s.unpack(s.messages["demo"], bytes(5))


@given(at=st.integers(0, len(GOOD)), size=st.integers(0, 30), text=st.text(max_size=20))
def test_a_changed_schema_is_a_schema_or_a_clear_error(at: int, size: int, text: str) -> None:
    try:
        parse(GOOD[:at] + text + GOOD[at + size :])
    except InputWrong as error:
        assert error.message.startswith("demo.toml line ")


@given(text=st.text(max_size=200))
def test_any_text_is_a_schema_or_a_clear_error(text: str) -> None:
    try:
        schema.parse({"demo": text})
    except InputWrong as error:
        assert error.message.startswith("demo.toml")


def field_values(f: Field) -> st.SearchStrategy[Any]:
    if f.type == "char":
        return st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=f.count)
    bits = 8 * schema.SIZES[f.type]
    low, high = (0, 2**bits - 1) if f.type[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    one: st.SearchStrategy[Any] = st.floats(width=32, allow_nan=False) if f.type == "f32" else st.integers(low, high)
    for size in filter(None, (f.count, f.samples)):
        one = st.lists(one, min_size=size, max_size=size)
    return one


def message_values(m: Message) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({f.name: field_values(f) for f in m.fields})


@given(data=st.data())
def test_every_value_of_every_message_survives_the_round_trip(data: st.DataObject) -> None:
    s = schemas.telemetry()
    m = data.draw(st.sampled_from(list(s.messages.values())))
    values = data.draw(message_values(m))
    assert s.unpack(m, s.pack(m, values)) == values
