"""Recordings: a file cut at any byte opens up to there, and says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.errors import InputWrong
from quarkctl.formats import recording
from quarkctl.formats.recording import Chunk, Reader

CHUNKS = [Chunk(1000 + i, bytes([i]) * (i + 1)) for i in range(20)]
META = {"device": "sim:x", "schema": dict(schemas.telemetry().sources)}
HEAD = recording.build_start(META)
FILE = HEAD + b"".join(map(recording.build_chunk, CHUNKS)) + recording.build_block(recording.END, b"")


def read(data: bytes) -> tuple[list[Chunk], Reader]:
    reader = Reader.open(data)
    return list(reader.chunks()), reader


def test_a_whole_file_is_complete() -> None:
    chunks, reader = read(FILE)
    assert chunks == CHUNKS and reader.ending == "complete"
    assert reader.schema().layout_hash == schemas.telemetry().layout_hash


@given(size=st.integers(0, len(FILE) - 1))
def test_a_cut_anywhere_loses_only_what_came_after(size: int) -> None:
    if size < len(HEAD):
        with pytest.raises(InputWrong):
            read(FILE[:size])
        return
    chunks, reader = read(FILE[:size])
    assert chunks == CHUNKS[: len(chunks)]
    assert reader.ending in ("open", "cut")
    lost = len(FILE[:size]) - reader.read_bytes
    assert lost < recording.HEAD.size + 8 + 20 or not chunks


@given(at=st.integers(len(HEAD), len(FILE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_nothing_false_is_read(at: int, bit: int) -> None:
    data = bytearray(FILE)
    data[at] ^= 1 << bit
    chunks, reader = read(bytes(data))
    assert chunks == CHUNKS[: len(chunks)] and len(chunks) < len(CHUNKS) + 1
    assert reader.ending != "complete"


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_recording_or_a_clear_error(data: bytes) -> None:
    for candidate in (data, recording.MAGIC + data, HEAD + data):
        try:
            read(candidate)
        except InputWrong:
            continue


def test_a_block_that_claims_to_be_huge_is_damage() -> None:
    _, reader = read(HEAD + recording.HEAD.pack(recording.DATA, 0xFFFF_FFFF, 0) + b"x")
    assert reader.ending == f"damaged at byte {len(HEAD)}"
