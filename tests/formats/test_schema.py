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
        ('type = "i16"', 'type = "i17"', "demo.toml: demo.level_mv: type 'i17' is none of"),
        ('name = "level_mv"', 'name = "class"', "'class' cannot be a field name"),
        ("count = 2", "count = -1", "count must be"),
        ('enum = "colour"', 'enum = "shape"', "no enum 'shape'"),
        ("green = 2", "green = 1", "a value occurs twice"),
        ("green = 2", "green = 300", "must be integers that fit into u8"),
        ("width = 5", "width = 6", "the bits do not fit"),
        ("type = 0x30", "type = 0x09", "type must be 1 to 255, and not one of"),
        ("type = 0x30", "type = 0x300", "type must be 1 to 255"),
        ('unit = "mV"', 'units = "mV"', "unknown key 'units'"),
        ('set = "demo"', 'set = "other"', "must be 'demo' like its file"),
        ('set = "demo"', "set = ", "demo.toml:"),
        ('name = "state"', 'name = "colour"', "defined twice"),
        ("[[message]]\ntype = 0x30", "[[record]]\ntype = 0x30", "a record has no type"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, told: str) -> None:
    with pytest.raises(InputWrong) as error:
        parse(GOOD.replace(old, new, 1))
    assert told in error.value.message


def test_a_payload_of_the_wrong_length_is_refused() -> None:
    s = parse()
    with pytest.raises(InputWrong, match="has 6 bytes, not 5"):
        s.unpack(s.messages["demo"], bytes(5))


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
    one = st.integers(low, high)
    return st.lists(one, min_size=f.count, max_size=f.count) if f.count else one


def message_values(m: Message) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({f.name: field_values(f) for f in m.fields})


@given(data=st.data())
def test_every_value_of_every_message_survives_the_round_trip(data: st.DataObject) -> None:
    s = schemas.telemetry()
    m = data.draw(st.sampled_from(list(s.messages.values())))
    values = data.draw(message_values(m))
    assert s.unpack(m, s.pack(m, values)) == values
