"""Recordings: a file cut at any byte opens up to there, and says so; behind damage, reading goes on."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.errors import InputWrong
from quarkctl.formats import recording
from quarkctl.formats.recording import Chunk, Reader

CHUNKS = [Chunk(1000 + i, bytes([i + 1]) * (i + 1), i % 2) for i in range(20)]
META = {"device": "sim:x", "schema": dict(schemas.telemetry().sources)}
HEAD = recording.build_start(META)
BLOCKS = [recording.build_reads([c]) for c in CHUNKS]
FILE = HEAD + b"".join(BLOCKS) + recording.build_block(recording.END, b"")


def read(data: bytes) -> tuple[list[Chunk], Reader]:
    reader = Reader.open(io.BytesIO(data).read)
    out = []
    for r in reader.reads():
        starts = [0, *r.ends]
        out += [
            Chunk(stamp, r.data[at:end], r.line)
            for at, end, stamp in zip(starts, r.ends, r.stamps, strict=False) if r.data[at:end]
        ]  # fmt: skip
    return out, reader


def test_a_whole_file_is_complete() -> None:
    chunks, reader = read(FILE)
    assert chunks == CHUNKS and reader.ending == "complete" and not reader.damage
    assert reader.schema().layout_hash == schemas.telemetry().layout_hash


def test_many_reads_share_a_block_and_keep_their_times() -> None:
    same = [Chunk(c.host_ns, c.data) for c in CHUNKS]
    chunks, reader = read(HEAD + recording.build_reads(same))
    assert chunks == same and reader.ending == "open"


@given(size=st.integers(0, len(FILE) - 1))
def test_a_cut_anywhere_loses_only_what_came_after(size: int) -> None:
    if size < len(HEAD):
        with pytest.raises(InputWrong):
            read(FILE[:size])
        return
    chunks, reader = read(FILE[:size])
    assert reader.ending in ("open", "cut")
    wire = b"".join(c.data for c in chunks)
    assert b"".join(c.data for c in CHUNKS).startswith(wire)
    block = recording.HEAD.size + recording.READS.size + recording.READ.size
    whole, at = 0, len(HEAD)
    for c in CHUNKS:  # every byte of wire that is in the file is read
        whole += max(min(size - at - block, len(c.data)), 0)
        at += block + len(c.data)
    assert len(wire) == whole


@given(at=st.integers(len(HEAD), len(FILE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_at_most_one_block_and_is_named(at: int, bit: int) -> None:
    data = bytearray(FILE)
    data[at] ^= 1 << bit
    chunks, reader = read(bytes(data))
    strange = [c for c in chunks if c not in CHUNKS]
    assert len(strange) <= 1 and all(c.host_ns == 0 for c in strange), "what is damaged has no time"
    assert len(chunks) - len(strange) >= len(CHUNKS) - 1
    assert reader.ending.startswith("damaged at byte ") or reader.ending == "cut"


@given(at=st.integers(0, 3999), bit=st.integers(0, 7))
def test_of_a_damaged_block_everything_but_the_damage_is_read(at: int, bit: int) -> None:
    wire = bytes(range(250)) * 16
    block = bytearray(recording.build_reads([Chunk(7, wire[k : k + 100]) for k in range(0, len(wire), 100)]))
    block[len(block) - len(wire) + at] ^= 1 << bit
    chunks, reader = read(HEAD + bytes(block) + BLOCKS[0])
    assert [c.host_ns for c in chunks] == [0, CHUNKS[0].host_ns]
    assert sum(a != b for a, b in zip(chunks[0].data, wire, strict=True)) == 1
    assert reader.damage == [(len(HEAD), len(HEAD) + len(block))]


@given(data=st.binary(max_size=300), at=st.integers(0, 20))
def test_any_bytes_are_a_recording_or_a_clear_error(data: bytes, at: int) -> None:
    for candidate in (
        data,
        recording.MAGIC + data,
        HEAD + data,
        HEAD + b"".join(BLOCKS[:at]) + data + FILE[len(HEAD) :],
    ):
        try:
            chunks, _ = read(candidate)
        except InputWrong:
            continue
        if candidate.endswith(FILE[len(HEAD) :]):
            assert chunks[-len(CHUNKS) :] == CHUNKS


def test_a_block_that_claims_to_be_huge_is_damage() -> None:
    _, reader = read(HEAD + recording.HEAD.pack(recording.SYNC, recording.DATA, 0xFFFF_FFFF, 0) + b"x" * 99)
    assert reader.ending == f"damaged at byte {len(HEAD)}"


def test_metadata_that_is_nested_without_end_is_no_traceback() -> None:
    nested = recording.build_block(recording.META, b"[" * 100_000)
    with pytest.raises(InputWrong, match="no JSON object"):
        read(recording.MAGIC + nested)


def test_a_recording_of_the_wire_of_a_recording_is_no_confusion() -> None:
    chunks, reader = read(HEAD + recording.build_reads([Chunk(1, FILE)]) + recording.build_block(recording.END, b""))
    assert chunks == [Chunk(1, FILE)] and reader.ending == "complete"
