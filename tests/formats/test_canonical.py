from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import canonical, dsse
from quarkctl.formats.dsse import Envelope

values = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text().filter(lambda t: t.isprintable()), values, max_size=4)


@given(objects)
def test_what_is_built_is_read_back(value: dict[str, object]) -> None:
    try:
        data = canonical.build(value)
    except UnicodeEncodeError:  # lone surrogates are no text
        return
    assert canonical.parse(data, "it") == value


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', '{"b":1,"a":1}', '{"a": 1}', '{"a":1.0}', '{"a":1e3}', '{"a":NaN}', '{"a":-0}', '{"a":01}',
     '{"a":"\\u0041"}', '{"a":9007199254740992}', '{"a":1}\n', "[1]", "", "{", '{"a":"\\ud800"}', "[" * 100000,
     '{"a":' + "9" * 5000 + "}"],
)  # fmt: skip
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(InputWrong):
        canonical.parse(text.encode(), "it")


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for parse in (canonical.parse, dsse.parse):
        try:
            parse(data, "it")
        except InputWrong:
            continue


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    """The example of DSSE's protocol.md."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=64), st.dictionaries(st.sampled_from(["aa", "bb", "cc"]), st.binary(max_size=80)))
def test_envelopes_are_read_back(payload: bytes, signatures: dict[str, bytes]) -> None:
    envelope = Envelope("application/x", payload, signatures)
    assert dsse.parse(dsse.build(envelope), "it") == envelope
