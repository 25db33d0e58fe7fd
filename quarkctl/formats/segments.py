"""An output as a list of segments, so that nothing is copied before it is written.

A segment is ``bytes``, a `Span` (a part of some input) or `Zeros`. The writer (`quarkctl.files.write`) copies spans
piece by piece and leaves zeros as holes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from quarkctl.formats.record import Source

_STEP = 1 << 20


@dataclass(frozen=True)
class Span:
    """``size`` bytes of a source, from ``offset`` on."""

    source: Source
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class Zeros:
    size: int

    def __len__(self) -> int:
        return self.size


Segment = bytes | Span | Zeros


def size(segments: Iterable[Segment]) -> int:
    """Bytes of all segments together."""
    return sum(s.size if isinstance(s, Span | Zeros) else len(s) for s in segments)


def whole(source: Source) -> Span:
    return Span(source, 0, len(source))


def pieces(segments: Iterable[Segment]) -> Iterable[bytes | memoryview]:
    """The bytes of all segments, in order, at most 1 MiB at a time."""
    for s in segments:
        if isinstance(s, bytes):
            yield s
        elif isinstance(s, Zeros):
            for at in range(0, s.size, _STEP):
                yield bytes(min(_STEP, s.size - at))
        else:
            for at in range(s.offset, s.offset + s.size, _STEP):
                yield s.source[at : min(at + _STEP, s.offset + s.size)]


def joined(segments: Iterable[Segment]) -> bytes:
    """All bytes at once, for what is small."""
    return b"".join(bytes(p) for p in pieces(segments))


def digest(segments: Iterable[Segment], algorithm: str = "sha256", salt: bytes = b"") -> bytes:
    """Hash of salt and all bytes."""
    h = hashlib.new(algorithm, salt)
    for p in pieces(segments):
        h.update(p)
    return h.digest()


class Joined:
    """Segments as one source: what is made of parts can be read like a file before it is written."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._parts: list[tuple[int, Segment]] = []
        at = 0
        for s in segments:
            if len(s):
                self._parts.append((at, s))
                at += len(s)
        self._size = at

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: slice, /) -> bytes:
        start, stop, _ = at.indices(self._size)
        out = []
        for begin, s in self._parts[self._first(start) :]:
            if begin >= stop:
                break
            low, high = max(start - begin, 0), min(stop - begin, len(s))
            if low >= high:
                continue
            if isinstance(s, Span):
                out.append(bytes(s.source[s.offset + low : s.offset + high]))
            else:
                out.append(bytes(high - low) if isinstance(s, Zeros) else s[low:high])
        return out[0] if len(out) == 1 else b"".join(out)

    def _first(self, offset: int) -> int:
        from bisect import bisect_right

        return max(bisect_right(self._parts, offset, key=lambda p: p[0]) - 1, 0)
