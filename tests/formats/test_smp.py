"""SMP messages and console lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.formats import smp


def test_an_echo_request_is_a_line_that_others_send() -> None:
    message = smp.build_message(smp.Op.WRITE, smp.Group.OS, smp.Os.ECHO, 0, {"d": "hi"})
    assert message.hex() == "0a0000060000" + "0000" + "a1616462" + "6869"
    lines = smp.build_lines(message)
    assert lines[:2] == b"\x06\x09" and lines.endswith(b"\n")


@given(message=st.binary(max_size=3000))
def test_lines_have_the_wire_size_that_is_announced(message: bytes) -> None:
    lines = smp.build_lines(message)
    assert len(lines) == smp.wire_bytes(len(message))
    assert all(len(line) <= 127 for line in lines.splitlines(keepends=True))
    assert all(len(line) % 4 == 3 for line in lines.splitlines(keepends=True))


@given(message=st.binary(min_size=1, max_size=600), drop=st.integers(0, 20))
def test_a_lost_line_loses_the_message_and_nothing_else(message: bytes, drop: int) -> None:
    lines = smp.build_lines(message).splitlines()
    reader = smp.LineReader()
    kept = [line for i, line in enumerate(lines) if i != drop % len(lines)]
    assert all(reader.feed(line) is None for line in kept)
    got = [reader.feed(line) for line in lines]
    assert got[-1] == message


@given(lines=st.lists(st.binary(max_size=130), max_size=20))
def test_any_lines_are_survived(lines: list[bytes]) -> None:
    reader = smp.LineReader()
    for line in lines:
        reader.feed(b"\x06\x09" + line)
        reader.feed(b"\x04\x14" + line)


@given(data=st.binary(max_size=300))
def test_any_message_is_parsed_or_refused(data: bytes) -> None:
    smp.parse_message(data)
    smp.parse_message(smp.HEADER.pack(0x09, 0, len(data), 0, 0, 0) + data)


@pytest.mark.parametrize(
    "bomb",
    [b"\x81" * 20_000, b"\x9f" * 20_000, b"\xbf\x61a" * 5_000, b"\x9b\x7f" + b"\xff" * 7,
     b"\x5b\0\0\0" + b"\xff" * 5, b"\xd8\x1c" * 5_000],
    ids=["nested arrays", "endless arrays", "nested maps", "huge array", "huge string", "tags"],
)  # fmt: skip
def test_a_cbor_bomb_is_refused(bomb: bytes) -> None:
    head = smp.HEADER.pack(0x09, 0, len(bomb), 0, 0, 0)
    assert smp.parse_message(head + bomb) is None


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({"rc": 0}, ""),
        ({}, ""),
        ({"rc": 8}, "not supported"),
        ({"rc": 6, "rsn": "a trial is running"}, "a trial is running (wrong state)"),
        ({"err": {"group": 1, "rc": 3}}, "invalid value"),
        ({"rc": 77}, "error 77"),
        ({"err": "x"}, ""),
    ],
)
def test_errors_are_told_in_the_devices_words(payload: dict[str, object], told: str) -> None:
    assert smp.Response(1, 0, 0, 0, payload).error == told


PLAIN = st.recursive(
    st.one_of(
        st.integers(-(2**64), 2**64 - 1),
        st.binary(max_size=40),
        st.text(max_size=20),
        st.booleans(),
        st.none(),
        st.floats(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(body=st.dictionaries(st.text(max_size=6), PLAIN, max_size=5))
def test_every_plain_map_is_read_back(body: dict[str, object]) -> None:
    import cbor2

    raw = cbor2.dumps(body)
    parsed = smp.parse_message(smp.HEADER.pack(0x09, 0, len(raw), 0, 0, 0) + raw)
    assert parsed is not None and cbor2.dumps(dict(parsed.payload)) == raw


def test_maps_of_indefinite_length_are_read() -> None:
    """MCUboot writes them."""
    raw = bytes.fromhex("bf62726300636f66661904006566697273749f0102ffff")
    parsed = smp.parse_message(smp.HEADER.pack(0x0B, 0, len(raw), 1, 5, 1) + raw)
    assert parsed and parsed.payload == {"rc": 0, "off": 1024, "first": [1, 2]}


@given(messages=st.lists(st.binary(max_size=300), max_size=4), cuts=st.lists(st.integers(1, 50), max_size=30))
def test_console_and_raw_readers_find_messages_whatever_the_pieces(messages: list[bytes], cuts: list[int]) -> None:
    framed = [smp.HEADER.pack(0x09, 0, len(m), 0, 0, 0) + m for m in messages]
    for reader, wire in (
        (smp.ConsoleReader(), b"".join(b"log: x\r\n> " + smp.build_lines(m) for m in framed)),
        (smp.RawReader(), b"".join(framed)),
    ):
        got, at = [], 0
        for cut in [*cuts, len(wire)]:
            got += reader.feed(wire[at : at + cut])
            at += cut
        assert got == framed


@given(data=st.lists(st.binary(max_size=400), max_size=10))
def test_readers_survive_any_bytes(data: list[bytes]) -> None:
    for reader in (smp.ConsoleReader(), smp.RawReader()):
        for piece in data:
            reader.feed(piece)
        reader.silence()
        message = smp.HEADER.pack(0x09, 0, 1, 0, 0, 0) + b"\xa0"
        assert reader.feed(message if isinstance(reader, smp.RawReader) else b"\n" + smp.build_lines(message)) == [
            message
        ]
