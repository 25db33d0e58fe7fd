"""An image for the AR1's storage, raw or Android sparse: its extents, its bytes, its digests. Never whole in memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.formats import sparse
from quarkctl.formats.sparse import Chunk, Kind

#: What is hashed at once: stays in the processor's cache.
_HASH_BYTES = 256 << 10
_BLOCK_BYTES = 4096
#: RAW chunks with not more than that between them in the file are read together, up to what the system takes at once.
_BETWEEN_BYTES = 4096
_VECTORS_MAX = 1000
_CORNER = memoryview(bytearray(_BETWEEN_BYTES))


@dataclass(frozen=True)
class Extent:
    """A contiguous part of the storage that the image writes, in bytes from the beginning of its place."""

    offset: int
    size_bytes: int


@dataclass
class _Piece:
    """How a piece of a sparse image is put into its buffer: reads of the file from an offset on, and repeated words."""

    reads: list[tuple[int, list[memoryview]]] = field(default_factory=list)
    fills: list[tuple[memoryview, bytes]] = field(default_factory=list)

    def make(self, file: File, further: int) -> None:
        """``further``: so many bytes behind where the file was read for it first."""
        for offset, views in self.reads:
            file.read_into(views, offset + further)
        for view, data in self.fills:
            view[:] = data


@lru_cache(16)
def _filled(fill: int, phase: int, size_bytes: int) -> bytes:
    """A part of a FILL chunk that begins ``phase`` bytes into the word."""
    return (fill.to_bytes(4, "little") * (size_bytes // 4 + 2))[phase : phase + size_bytes]


class Image:
    """An open image file. ``skip_bytes`` of a raw file are left out at its beginning."""

    def __init__(
        self, path: Path, *, skip_bytes: int = 0, may_be_sparse: bool = True, file: File | None = None
    ) -> None:
        """``file``: it is open already. Raises InputWrong for one that cannot be read, is empty, or is a damaged sparse
        image."""
        self.path = path
        self.file = file or File(path)
        self.sparse: sparse.Sparse | None = None
        try:
            if may_be_sparse and sparse.looks_like(self.file):
                self.sparse = sparse.parse(self.file)
                if skip_bytes:
                    raise InputWrong("the beginning of a sparse image cannot be left out")
            elif len(self.file) <= skip_bytes:
                raise InputWrong("the file is empty" if not len(self.file) else f"it has only {len(self.file)} bytes")
        except InputWrong as error:
            self.file.close()
            raise InputWrong(f"{path.name}: {error.message}", error.hint) from error
        self.skip_bytes = skip_bytes
        self.block_bytes = self.sparse.block_bytes if self.sparse else _BLOCK_BYTES
        self.size_bytes = self.sparse.size_bytes if self.sparse else len(self.file) - skip_bytes
        #: The last piece that was made where chunks take turns: buffer, place in the turn and size; how often they did; it.
        self._last: tuple[tuple[object, ...], int, _Piece] | None = None

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
            if self.sparse is None and real == len(view):
                self.file.will_need(self.skip_bytes + offset + at + real, min(real, size_bytes - at - real))
            if real < len(view):
                view[real:] = bytes(len(view) - real)
            at += len(view)
            yield view
            if at >= total:
                return

    def _fill(self, offset: int, view: memoryview) -> None:
        if self.sparse is None:
            self.file.read_into([view], self.skip_bytes + offset)
            return
        if not view:
            return
        turns = self._turns_at(offset, len(view))
        if turns is None:
            self._piece(offset, view).make(self.file, 0)
            return
        times, within = divmod(offset - turns.first.first_block * self.block_bytes, turns.blocks * self.block_bytes)
        which = (id(view.obj), turns, within, len(view))
        last = self._last
        if last is None or last[0] != which:
            last = self._last = which, times, self._piece(offset, view)
        last[2].make(self.file, (times - last[1]) * turns.stride)

    def _turns_at(self, offset: int, size_bytes: int) -> sparse.Turns | None:
        """Those that all of it belongs to, if there are any."""
        found = self.sparse.turns if self.sparse else ()
        number = bisect_right(found, offset // self.block_bytes, key=lambda t: t.first.first_block) - 1
        inside = number >= 0 and offset + size_bytes <= found[number].end_block * self.block_bytes
        return found[number] if inside else None

    def _piece(self, offset: int, view: memoryview) -> _Piece:
        block_bytes, size = self.block_bytes, len(view)
        made = _Piece()
        first = bisect_right(self._starts, offset // block_bytes) - 1
        last = bisect_right(self._starts, (offset + size - 1) // block_bytes)
        # Chunks may be as small as a block, and there may be a hundred thousand: many RAW ones are one read, which puts
        # each into its place and what stands between them in the file into a corner.
        into: list[memoryview] = []
        source = end = 0
        raw = Kind.RAW
        for kind, first_block, blocks, data, fill in self._written[first:last]:
            low, inside = first_block * block_bytes - offset, 0
            high = low + blocks * block_bytes
            if low < 0 or high > size:  # only the first and the last
                low, inside, high = max(low, 0), max(-low, 0), min(high, size)
            if kind is not raw:
                made.fills.append((view[low:high], _filled(fill, inside % 4, high - low)))
                continue
            at = data + inside
            if into and 0 <= at - end <= _BETWEEN_BYTES and len(into) < _VECTORS_MAX:
                into.append(_CORNER[: at - end])
                into.append(view[low:high])
            else:
                into, source = [view[low:high]], at
                made.reads.append((source, into))
            end = at + high - low
        return made

    def digest(self, offset: int, size_bytes: int, *, pad_to: int = 0) -> bytes:
        """SHA-256 of what an extent, or a part of one, leaves on the storage."""
        total = hashlib.sha256()
        buffer = memoryview(bytearray(min(_HASH_BYTES, max(size_bytes, pad_to))))
        for piece in self.pieces(offset, size_bytes, repeat(buffer), pad_to=pad_to):
            total.update(piece)
        return total.digest()

    def fingerprint(self) -> str:
        """Changes when the file does, as far as the file system tells; reading gigabytes only for that takes too long."""
        return f"{self.path.name} {self.file.fingerprint()} {self.skip_bytes}"

    def close(self) -> None:
        self.file.close()
