"""Bytes of an image for the AR1, wherever a piece of them begins and ends."""

from __future__ import annotations

import struct
import tempfile
from itertools import repeat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from quarkctl.flash.ar1_image import Image

BLOCK = 16
CHUNKS = st.lists(
    st.tuples(st.sampled_from([0xCAC1, 0xCAC2, 0xCAC3]), st.integers(1, 5), st.binary(min_size=4, max_size=4)),
    min_size=1,
    max_size=20,
)


@given(CHUNKS, st.integers(1, 60), st.data())
def test_pieces_of_a_sparse_image_are_what_it_expands_to(
    chunks: list[tuple[int, int, bytes]], piece_bytes: int, data: st.DataObject
) -> None:
    expanded, body = b"", b""
    for number, (kind, blocks, word) in enumerate(chunks):
        size = blocks * BLOCK
        raw = bytes((number + n * n) % 251 for n in range(size))
        inside = {0xCAC1: raw, 0xCAC2: word, 0xCAC3: b""}[kind]
        body += struct.pack("<2H2I", kind, 0, blocks, 12 + len(inside)) + inside
        expanded += {0xCAC1: raw, 0xCAC2: word * (size // 4), 0xCAC3: bytes(size)}[kind]
    header = struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, BLOCK, len(expanded) // BLOCK, len(chunks), 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.simg"
        path.write_bytes(header + body)
        image = Image(path)
        for extent in image.extents:
            low = data.draw(st.integers(0, extent.size_bytes - 1))
            size = data.draw(st.integers(1, extent.size_bytes - low))
            buffer = memoryview(bytearray(piece_bytes))
            got = b"".join(bytes(p) for p in image.pieces(extent.offset + low, size, repeat(buffer)))
            assert got == expanded[extent.offset + low :][:size]
        image.close()
