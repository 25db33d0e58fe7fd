"""Bytes of an image for the AR1, wherever a piece of them begins and ends."""

from __future__ import annotations

import struct
import tempfile
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.flash.ar1_image import Image
from quarkctl.formats import sparse

BLOCK = 16
CHUNKS = st.lists(
    st.tuples(st.sampled_from([0xCAC1, 0xCAC2, 0xCAC3]), st.integers(1, 5), st.binary(min_size=4, max_size=4)),
    min_size=1,
    max_size=20,
)


def simg(chunks: list[tuple[int, int, bytes]]) -> tuple[bytes, bytes]:
    """A sparse file of chunks (kind, blocks, word), and what it expands to."""
    expanded, body = b"", b""
    for number, (kind, blocks, word) in enumerate(chunks):
        size = blocks * BLOCK
        raw = bytes((number + n * n) % 251 for n in range(size))
        inside = {0xCAC1: raw, 0xCAC2: word, 0xCAC3: b""}[kind]
        body += struct.pack("<2H2I", kind, 0, blocks, 12 + len(inside)) + inside
        expanded += {0xCAC1: raw, 0xCAC2: word * (size // 4), 0xCAC3: bytes(size)}[kind]
    header = struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, BLOCK, len(expanded) // BLOCK, len(chunks), 0)
    return header + body, expanded


@given(CHUNKS, st.integers(1, 60), st.data())
def test_pieces_of_a_sparse_image_are_what_it_expands_to(
    chunks: list[tuple[int, int, bytes]], piece_bytes: int, data: st.DataObject
) -> None:
    raw, expanded = simg(chunks)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.simg"
        path.write_bytes(raw)
        image = Image(path)
        for extent in image.extents:
            low = data.draw(st.integers(0, extent.size_bytes - 1))
            size = data.draw(st.integers(1, extent.size_bytes - low))
            buffer = memoryview(bytearray(piece_bytes))
            got = b"".join(bytes(p) for p in image.pieces(extent.offset + low, size, repeat(buffer)))
            assert got == expanded[extent.offset + low :][:size]
        image.close()


@pytest.mark.parametrize("piece_bytes", [16, 24, 32, 50, 64, 96, 1000])
def test_pieces_are_right_where_chunks_take_turns_in_several_ways(
    tmp_path: Path, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "_AHEAD_BYTES", 200)  # each reading begins with a search for what repeats itself
    ways = [(0xCAC1, 1, b"...."), (0xCAC2, 1, b"abcd")], [(0xCAC1, 1, b"...."), (0xCAC2, 1, b"efgh")], \
        [(0xCAC2, 3, b"ijkl"), (0xCAC1, 2, b"....")], [(0xCAC1, 1, b"...."), (0xCAC3, 2, b"")]  # fmt: skip
    raw, expanded = simg([chunk for way in ways for chunk in way * 40])
    (tmp_path / "x.simg").write_bytes(raw)
    image = Image(tmp_path / "x.simg")
    assert image.sparse and len(image.sparse.turns) >= len(ways)
    buffer = memoryview(bytearray(piece_bytes))
    for extent in image.extents:
        got = b"".join(bytes(p) for p in image.pieces(extent.offset, extent.size_bytes, repeat(buffer)))
        assert got == expanded[extent.offset :][: extent.size_bytes]
    image.close()
