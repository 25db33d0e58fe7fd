"""An image for the AR1's storage, raw or Android sparse: its extents, its bytes, its digests. Never whole in memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.formats import sparse
from quarkctl.formats.sparse import Chunk, Kind

#: How much of a file is read ahead: chunk headers lie scattered in it.
_AHEAD_BYTES = 1 << 20
_BLOCK_BYTES = 4096
#: From so many chunks on they are not copied one by one.
_GATHER_COUNT = 32


class ReadAhead:
    """A `quarkctl.formats.record.Source` that reads large pieces for many small slices in order."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._at = 0
        self._held = memoryview(b"")

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, at: slice, /) -> bytes | memoryview:
        start, stop, _ = at.indices(len(self._file))
        if not self._at <= start <= stop <= self._at + len(self._held):
            size = max(stop - start, _AHEAD_BYTES)
            self._held = memoryview(self._file[start : start + size])
            self._at = start
        return self._held[start - self._at : max(stop, start) - self._at]


@dataclass(frozen=True)
class Extent:
    """A contiguous part of the storage that the image writes, in bytes from the beginning of its place."""

    offset: int
    size_bytes: int


def _filled(chunk: Chunk, inside: int, size_bytes: int) -> bytes:
    """A part of a FILL chunk."""
    if not chunk.fill:
        return bytes(size_bytes)
    return (chunk.fill.to_bytes(4, "little") * (size_bytes // 4 + 2))[inside % 4 : inside % 4 + size_bytes]


class Image:
    """An open image file. ``skip_bytes`` of a raw file are left out at its beginning."""

    def __init__(
        self, path: Path, *, skip_bytes: int = 0, may_be_sparse: bool = True, file: File | None = None
    ) -> None:
        """``file``: it is open already. Raises InputWrong for one that cannot be read, is empty, or is a damaged sparse
        image."""
        self.path = path
        self.file = file or File(path)
        self._ahead = ReadAhead(self.file)
        self.sparse: sparse.Sparse | None = None
        try:
            if may_be_sparse and sparse.looks_like(self.file):
                self.sparse = sparse.parse(self._ahead)
                if skip_bytes:
                    raise InputWrong(f"{path} is sparse: its beginning cannot be left out")
            elif len(self.file) <= skip_bytes:
                raise InputWrong(
                    f"{path} is empty" if not len(self.file) else f"{path} has only {len(self.file)} bytes"
                )
        except InputWrong as error:
            self.file.close()
            raise InputWrong(f"{path.name}: {error.message}", error.hint) from error
        self.skip_bytes = skip_bytes
        self.block_bytes = self.sparse.block_bytes if self.sparse else _BLOCK_BYTES
        self.size_bytes = self.sparse.size_bytes if self.sparse else len(self.file) - skip_bytes
        self._written = [c for c in self.sparse.chunks if c.kind is not Kind.DONT_CARE] if self.sparse else []
        self._starts = [c.first_block for c in self._written]

    def extents(self) -> list[Extent]:
        """What is written, neighbours joined; holes are left out."""
        if self.sparse is None:
            return [Extent(0, self.size_bytes)]
        joined: list[Extent] = []
        begin = end = 0
        for chunk in self._written:
            first, size = chunk.first_block * self.block_bytes, chunk.blocks * self.block_bytes
            if first != end or (not joined and not end):
                if end > begin:
                    joined.append(Extent(begin, end - begin))
                begin = first
            end = first + size
        if end > begin:
            joined.append(Extent(begin, end - begin))
        return joined

    def pieces(self, offset: int, size_bytes: int, piece_bytes: int, *, pad_to: int = 0) -> Iterator[memoryview]:
        """Bytes of an extent, or of a part of it, in pieces of ``piece_bytes`` (the last one is what is left).

        ``pad_to``: zeros follow until so many bytes were given. A piece is valid until the next one is asked for.
        """
        total = max(pad_to, size_bytes)
        buffer = memoryview(bytearray(min(piece_bytes, total)))
        for at in range(0, total, piece_bytes):
            view = buffer[: min(piece_bytes, total - at)]
            real = max(min(len(view), size_bytes - at), 0)
            self._fill(offset + at, view[:real])
            if real < len(view):
                view[real:] = bytes(len(view) - real)
            yield view

    def _fill(self, offset: int, view: memoryview) -> None:
        if self.sparse is None:
            start = self.skip_bytes + offset
            view[:] = self.file[start : start + len(view)]
            return
        if not view:
            return
        block_bytes, end = self.block_bytes, offset + len(view)
        first = bisect_right(self._starts, offset // block_bytes) - 1
        chunks = self._written[first : bisect_right(self._starts, (end - 1) // block_bytes)]
        raw = [c for c in chunks if c.kind is Kind.RAW]
        # One read for all of them: chunks may be as small as a block, and there may be a hundred thousand.
        base, data = 0, memoryview(b"")
        if raw:
            base = raw[0].offset + max(offset - raw[0].first_block * block_bytes, 0)
            left = (raw[-1].first_block + raw[-1].blocks) * block_bytes - end
            data = memoryview(self.file[base : raw[-1].offset + raw[-1].blocks * block_bytes - max(left, 0)])
        if len(chunks) >= _GATHER_COUNT and not (offset % block_bytes or len(view) % block_bytes):
            self._gather(chunks, view, offset // block_bytes, data, base)
            return
        for chunk in chunks:
            start = chunk.first_block * block_bytes
            low, high = max(start, offset), min(start + chunk.blocks * block_bytes, end)
            if chunk.kind is Kind.RAW:
                at = chunk.offset + low - start - base
                view[low - offset : high - offset] = data[at : at + high - low]
            else:
                view[low - offset : high - offset] = _filled(chunk, low - start, high - low)

    def _gather(self, chunks: list[Chunk], view: memoryview, first_block: int, data: memoryview, base: int) -> None:
        """Many small chunks at once: blocks of RAW ones are rows of the file, picked by their offsets."""
        import numpy as np

        size = self.block_bytes
        end_block = first_block + len(view) // size
        low = np.maximum(np.array([c.first_block for c in chunks]), first_block)
        high = np.minimum(np.array([c.first_block + c.blocks for c in chunks]), end_block)
        owner = np.repeat(np.arange(len(chunks)), high - low)
        block = np.arange(first_block, end_block)
        is_raw = np.array([c.kind is Kind.RAW for c in chunks])[owner]
        out = np.frombuffer(view, np.uint8).reshape(-1, size)
        fill = np.array([c.fill for c in chunks], "<u4")[owner[~is_raw]]
        out.view("<u4")[~is_raw] = fill[:, None]
        if len(data) >= size:
            starts = (
                np.array([c.offset - c.first_block * size for c in chunks])[owner[is_raw]] + block[is_raw] * size - base
            )
            out[is_raw] = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), size)[starts]

    def digest(self, offset: int, size_bytes: int, *, pad_to: int = 0) -> bytes:
        """SHA-256 of what an extent, or a part of one, leaves on the storage."""
        total = hashlib.sha256()
        for piece in self.pieces(offset, size_bytes, _AHEAD_BYTES, pad_to=pad_to):
            total.update(piece)
        return total.digest()

    def fingerprint(self) -> str:
        """Changes when the file does, as far as the file system tells; reading gigabytes only for that takes too long."""
        return f"{self.path.name} {self.file.fingerprint()} {self.skip_bytes}"

    def close(self) -> None:
        self.file.close()
