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
