"""An image for the AR1's storage, raw or Android sparse: its extents, its bytes, its digests. Never whole in memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.formats import sparse
from quarkctl.formats.sparse import Chunk, Kind

#: What is hashed at once: stays in the processor's cache.
_HASH_BYTES = 128 << 10
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Extent:
    """A contiguous part of the storage that the image writes, in bytes from the beginning of its place."""

    offset: int
    size_bytes: int


@lru_cache(16)
def _filled(fill: int, phase: int, size_bytes: int) -> bytes:
    """A part of a FILL chunk that begins ``phase`` bytes into the word."""
    return (fill.to_bytes(4, "little") * (size_bytes // 4 + 2))[phase : phase + size_bytes]


class Image:
    """An open image file. ``skip_bytes`` of a raw file are left out at its beginning."""

    def __init__(self, path: Path, *, skip_bytes: int = 0, may_be_sparse: bool = True) -> None:
        """Raises InputWrong for a file that cannot be read, is empty, or is a damaged sparse image."""
        self.path = path
        self.file = File(path)
        self.sparse: sparse.Sparse | None = None
        try:
            if may_be_sparse and sparse.looks_like(self.file):
                self.sparse = sparse.parse(self.file)
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

    @cached_property
    def _written(self) -> list[Chunk]:
        return [c for c in self.sparse.chunks if c.kind is not Kind.DONT_CARE] if self.sparse else []

    @cached_property
    def _starts(self) -> list[int]:
        return [c.first_block for c in self._written]

    @cached_property
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

    def pieces(
        self, offset: int, size_bytes: int, buffers: Iterable[memoryview], *, pad_to: int = 0
    ) -> Iterator[memoryview]:
        """Bytes of an extent, or of a part of it, each piece in the next of ``buffers``; the last one is what is left.

        ``pad_to``: zeros follow until so many bytes were given.
        """
        total, at = max(pad_to, size_bytes), 0
        for buffer in buffers:
            view = buffer[: total - at]
            real = max(min(len(view), size_bytes - at), 0)
            self._fill(offset + at, view[:real])
            if real < len(view):
                view[real:] = bytes(len(view) - real)
            at += len(view)
            yield view
            if at >= total:
                return

    def _fill(self, offset: int, view: memoryview) -> None:
        if self.sparse is None:
            self.file.read_into(view, self.skip_bytes + offset)
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

        def part(chunk: Chunk, low: int, high: int) -> bytes | memoryview:
            inside = low - chunk.first_block * block_bytes
            if chunk.kind is Kind.RAW:
                return data[chunk.offset + inside - base :][: high - low]
            return _filled(chunk.fill, inside % 4, high - low)

        first_end = min((chunks[0].first_block + chunks[0].blocks) * block_bytes, end)
        parts = [part(chunks[0], offset, first_end)]
        parts += [  # whole ones: the quick way for many
            data[(at := c.offset - base) : at + c.blocks * block_bytes]
            if c.kind is Kind.RAW
            else _filled(c.fill, 0, c.blocks * block_bytes)
            for c in chunks[1:-1]
        ]
        if len(chunks) > 1:
            parts.append(part(chunks[-1], chunks[-1].first_block * block_bytes, end))
        view[:] = b"".join(parts)

    def digest(self, offset: int, size_bytes: int, *, pad_to: int = 0) -> bytes:
        """SHA-256 of what an extent, or a part of one, leaves on the storage."""
        total = hashlib.sha256()
        buffer = memoryview(bytearray(min(_HASH_BYTES, max(size_bytes, pad_to))))
        for piece in self.pieces(offset, size_bytes, repeat(buffer), pad_to=pad_to):
            total.update(piece)
        return total.digest()

    def fingerprint(self) -> str:
        """Changes when the file does, as far as the file system tells; reading gigabytes only for that takes too long."""
        status = self.path.stat()
        return f"{self.path.name} {status.st_size} {status.st_mtime_ns} {status.st_ino} {self.skip_bytes}"

    def close(self) -> None:
        self.file.close()
