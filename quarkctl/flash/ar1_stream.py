"""A component of a bundle on its way through fastboot: cut into downloads while it comes, once, from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from quarkctl.errors import InputWrong, QuarkError
from quarkctl.flash.chip import Pieces
from quarkctl.formats import sparse
from quarkctl.formats.bundle import Component, Manifest
from quarkctl.formats.segments import Span, Zeros
from quarkctl.formats.sparse import Chunk, Kind, Sparse

_BLOCK_BYTES = 4096
_ZEROS_BYTES = 1 << 20


class _Shape:
    """Stands for the bytes of a stream: it is known how many there are, not yet which."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __getitem__(self, at: slice, /) -> bytes:
        raise TypeError("a stream is read from front to back")


@dataclass
class Download:
    """What is sent in one go. ``image`` None: the component as it is.

    A bundle that turns out to be damaged in the middle leaves a device that waits for the rest: it gets zeros, and
    ``failure`` says that they must not be flashed.
    """

    stream: Stream
    size_bytes: int
    image: Sparse | None = None
    failure: QuarkError | None = field(default=None, init=False)

    def parts(self) -> Iterator[bytes]:
        sent = 0
        try:
            for part in self._parts():
                sent += len(part)
                yield part
        except QuarkError as error:
            self.failure = error
            for at in range(sent, self.size_bytes, _ZEROS_BYTES):
                yield bytes(min(_ZEROS_BYTES, self.size_bytes - at))

    def _parts(self) -> Iterator[bytes]:
        if self.image is None:
            yield from self.stream.take(self.size_bytes)
            return
        for segment in sparse.build(self.image):
            if isinstance(segment, Span):
                yield from self.stream.take(segment.size)
            else:
                yield bytes(segment.size) if isinstance(segment, Zeros) else segment


class Stream:
    """The verified bytes of one component."""

    def __init__(self, component: Component, pieces: Pieces, manifest: Manifest) -> None:
        self._component = component
        self._runs = [(e.offset_bytes, manifest.member(e.member).size_bytes) for e in component.extents]
        self._pieces = pieces
        self._held = b""

    def downloads(self, limit_bytes: int) -> list[Download]:
        """In the order in which they must be taken. Raises InputWrong where not even a block fits."""
        size = self._component.size_bytes
        if self._runs == [(0, size)] and size <= limit_bytes:
            return [Download(self, size)]
        chunks: list[Chunk] = []
        at = 0
        for offset, length in self._runs:
            if offset % _BLOCK_BYTES:
                raise InputWrong(f"{self._component.target}: data at byte {offset} begins inside of a block")
            chunks.append(Chunk(Kind.RAW, offset // _BLOCK_BYTES, -(-length // _BLOCK_BYTES), at))
            at += length
        tail = -at % _BLOCK_BYTES
        if tail and any(length % _BLOCK_BYTES for _, length in self._runs[:-1]):
            raise InputWrong(f"{self._component.target}: data ends inside of a block")
        whole = Sparse(_Shape(at), _BLOCK_BYTES, -(-size // _BLOCK_BYTES), tuple(chunks), tail)
        pieces = sparse.split(whole, limit_bytes)
        return [Download(self, p.file_bytes, replace(p)) for p in pieces]

    def take(self, size_bytes: int) -> Iterator[bytes]:
        """The next bytes. Raises what the source raises, InputWrong where it ends early."""
        left = size_bytes
        while left:
            if not self._held:
                found = next(self._pieces, None)
                if found is None:
                    raise InputWrong(f"{self._component.target} ends {left} bytes too early")
                self._held = found[1]
            part, self._held = self._held[:left], self._held[left:]
            left -= len(part)
            yield part
