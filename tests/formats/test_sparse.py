"""Sparse images: scanned, built, split, read back, refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import sparse
from quarkctl.formats.record import Damaged
from quarkctl.formats.segments import joined
from quarkctl.formats.sparse import Kind
from tests.formats.samples import raw_image

#: Runs of blocks: zeros, a pattern, almost a pattern, noise.
RUNS = st.lists(st.tuples(st.sampled_from(["zero", "aa", "word", "almost", "noise"]), st.integers(1, 5)), max_size=12)


def image(runs: list[tuple[str, int]]) -> bytes:
    blocks = {
        "zero": bytes(4096), "aa": b"\xaa" * 4096, "word": b"\1\2\3\4" * 1024,
        "almost": b"\1\2\3\4" * 600 + b"\1\2\3\5" + b"\1\2\3\4" * 423, "noise": bytes(range(256)) * 16,
    }  # fmt: skip
    return b"".join(blocks[kind] * count for kind, count in runs)


def expand(s: sparse.Sparse, onto: bytes | None = None) -> bytes:
    """The image that a device holds after it was written over ``onto``."""
    out = bytearray(onto if onto is not None else bytes(s.size_bytes))
    for c in s.chunks:
        data = joined(s.read(c))
        if c.kind is not Kind.DONT_CARE:
            at = c.first_block * s.block_bytes
            out[at : at + c.blocks * s.block_bytes] = data
    return bytes(out)


@given(runs=RUNS, tail=st.binary(max_size=100))
def test_what_is_scanned_and_built_is_parsed_and_expands_to_the_same(runs: list[tuple[str, int]], tail: bytes) -> None:
    raw = image(runs) + tail
    built = joined(sparse.build(sparse.scan(raw)))
    assert len(built) == sparse.scan(raw).file_bytes
    parsed = sparse.parse(built)
    assert expand(parsed) == raw.ljust(-(-len(raw) // 4096) * 4096, b"\0")
    assert joined(sparse.build(parsed)) == built
    streamed = bytearray(len(built))
    for at, piece in sparse.stream(raw):
        streamed[at : at + len(piece)] = piece
    assert streamed == built


@settings(max_examples=60)
@given(runs=RUNS, limit=st.integers(28 + 36 + 4096, 60000))
def test_pieces_fit_and_make_the_same_image_in_any_order(runs: list[tuple[str, int]], limit: int) -> None:
    raw = image(runs)
    pieces = sparse.split(sparse.scan(raw), limit)
    held = bytes(b"?"[0] for _ in range(len(raw)))
    for piece in reversed(pieces):
        built = joined(sparse.build(piece))
        assert len(built) <= limit and piece.total_blocks == len(raw) // 4096
        held = expand(sparse.parse(built), held)
    assert held == raw
    files: dict[int, bytearray] = {}
    for n, at, data in sparse.stream_pieces(raw, limit):
        assert n in (len(files) - 1, len(files))  # one after the other
        file = files.setdefault(n, bytearray())
        file.extend(bytes(max(at + len(data) - len(file), 0)))
        file[at : at + len(data)] = data
    assert all(len(file) <= limit for file in files.values()) and len(files) <= len(pieces)
    assert sparse.Expanded(sparse.merged([sparse.parse(bytes(f)) for f in files.values()]))[:] == raw


def test_a_piece_too_small_for_one_block_is_refused() -> None:
    with pytest.raises(InputWrong, match="cannot hold a block"):
        sparse.split(sparse.scan(raw_image()), 4096)
    with pytest.raises(InputWrong, match="cannot hold a block"):
        next(sparse.stream_pieces(raw_image(), 4096))


def test_holes_become_dont_care_only_when_asked() -> None:
    s = sparse.scan(raw_image())
    assert not any(c.kind is Kind.DONT_CARE for c in s.chunks)
    assert [c.blocks for c in sparse.without_holes(s).chunks if c.kind is Kind.DONT_CARE] == [8, 10]


def build(**header: int) -> bytes:
    """A sparse file with one RAW, one FILL and one DONT_CARE chunk; header fields may be overwritten."""
    fields = {"magic": sparse.MAGIC, "major_version": 1, "minor_version": 0, "file_hdr_sz": 28, "chunk_hdr_sz": 12,
              "blk_sz": 4096, "total_blks": 6, "total_chunks": 3, "image_checksum": 0} | header  # fmt: skip
    chunk = sparse.CHUNK.build
    return (
        sparse.HEADER.build(**fields)
        + chunk(chunk_type=0xCAC1, chunk_sz=1, total_sz=12 + 4096) + b"r" * 4096
        + chunk(chunk_type=0xCAC2, chunk_sz=2, total_sz=16) + b"fill"
        + chunk(chunk_type=0xCAC3, chunk_sz=3, total_sz=12)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "field", "told"),
    [
        ({"total_blks": 7}, "total_blks", "the chunks have 6 blocks"),
        ({"total_blks": 5}, "chunk_sz", "chunks have 6 blocks, the header says 5"),
        ({"total_chunks": 2}, "total_blks", "the chunks have 3 blocks"),
        ({"total_chunks": 2**32 - 1}, "total_chunks", "more than"),
        ({"total_chunks": 4}, "chunk_type", "is cut off"),
        ({"blk_sz": 4095}, "blk_sz", "multiple of 4"),
        ({"blk_sz": 0}, "blk_sz", "multiple of 4"),
        ({"blk_sz": 512}, "blk_sz", "the sector of 4096"),
        ({"total_blks": 2**32 - 1}, "total_blks", "the target holds"),
        ({"file_hdr_sz": 27}, "file_hdr_sz", "less than 28"),
        ({"major_version": 2}, "major_version", "only 1"),
    ],
)
def test_a_header_that_lies_is_named_by_field(header: dict[str, int], field: str, told: str) -> None:
    with pytest.raises(Damaged, match=told) as error:
        sparse.parse(build(**header), sector_bytes=4096, size_bytes_max=1 << 20)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("at", "value", "told"),
    [(28, b"\xc5\xca", "vendor"), (28, b"\0\0", "no known kind"), (36, b"\xff\xff\xff\xff", "needs 4108"),
     (32, b"\xff\xff\xff\xff", "needs"), (28 + 12 + 4096 + 8, b"\x11", "needs 16")],
)  # fmt: skip
def test_a_chunk_that_lies_is_named_by_offset(at: int, value: bytes, told: str) -> None:
    raw = bytearray(build())
    raw[at : at + len(value)] = value
    with pytest.raises(Damaged, match=told) as error:
        sparse.parse(bytes(raw))
    assert error.value.offset in (28, 36, 28 + 12 + 4096 + 8)


def test_what_follows_the_last_chunk_is_an_error() -> None:
    with pytest.raises(Damaged, match="followed by 5 bytes"):
        sparse.parse(build() + b"extra")


#: Chunks of 16-byte blocks that repeat themselves: (pattern of kind, blocks and word; how often).
TURNS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from([*Kind]), st.integers(0, 3), st.sampled_from([b"\0\0\0\0", b"word"])),
            min_size=1, max_size=3,
        ),
        st.integers(1, 40),
    ),
    max_size=5,
)  # fmt: skip


def outcome(raw: bytes) -> object:
    try:
        return sparse.parse(raw).chunks
    except Damaged as error:
        return error.message


@given(TURNS, st.data())
def test_chunks_that_repeat_themselves_are_read_as_if_they_did_not(
    turns: list[tuple[list[tuple[Kind, int, bytes]], int]], data: st.DataObject
) -> None:
    chunks = [c for pattern, times in turns for c in pattern * times]
    body, blocks, at = b"", 0, []
    for kind, drawn, word in chunks:
        count = 0 if kind is Kind.CRC32 else drawn
        inside = {Kind.RAW: bytes(16 * count), Kind.DONT_CARE: b""}.get(kind, word)
        at.append(28 + len(body))
        body += sparse.CHUNK.build(chunk_type=kind, chunk_sz=count, total_sz=12 + len(inside)) + inside
        blocks += count
    raw = bytearray(
        sparse.HEADER.build(magic=sparse.MAGIC, major_version=1, file_hdr_sz=28, chunk_hdr_sz=12, blk_sz=16,
                            total_blks=blocks, total_chunks=len(chunks)) + body
    )  # fmt: skip
    if chunks and data.draw(st.booleans()):
        where = data.draw(st.sampled_from(at)) + data.draw(st.sampled_from([0, 4, 8, 9, 12]))
        raw[min(where, len(raw) - 1)] ^= data.draw(st.integers(1, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "_AHEAD_BYTES", data.draw(st.sampled_from([100, 1000, 1 << 16])))
        quickly = outcome(bytes(raw))
        patch.setattr(sparse, "_repeats", lambda *_: 0)
        assert quickly == outcome(bytes(raw))


def test_longer_headers_and_checksums_are_read_over() -> None:
    chunk = sparse.CHUNK.build
    raw = (
        sparse.HEADER.build(
            magic=sparse.MAGIC, major_version=1, file_hdr_sz=32, chunk_hdr_sz=16, blk_sz=4096, total_blks=1, total_chunks=2
        )
        + b"more" + chunk(chunk_type=0xCAC1, chunk_sz=1, total_sz=16 + 4096) + b"more" + b"r" * 4096
        + chunk(chunk_type=0xCAC4, total_sz=20) + b"more" + b"crc."
    )  # fmt: skip
    assert expand(sparse.parse(raw)) == b"r" * 4096


def test_img2simg_writes_the_same_file_and_simg2img_reads_ours(tmp_path: Path) -> None:
    raw = raw_image() + image([("almost", 3), ("word", 2), ("aa", 1), ("zero", 1), ("noise", 700)])
    (tmp_path / "raw").write_bytes(raw)
    subprocess.run(["img2simg", "raw", "theirs"], cwd=tmp_path, check=True, capture_output=True)
    ours = joined(sparse.build(sparse.scan(raw)))
    assert (tmp_path / "theirs").read_bytes() == ours
    for n, piece in enumerate(sparse.split(sparse.scan(raw), 1 << 20)):
        (tmp_path / f"piece{n}").write_bytes(joined(sparse.build(piece)))
    names = sorted(p.name for p in tmp_path.glob("piece*"))
    assert len(names) > 1
    subprocess.run(["simg2img", *names, "back"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "back").read_bytes() == raw
