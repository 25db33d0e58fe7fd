"""Data on its way to a device: bytes and ranges of files, sent in pieces that suit a link."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from quarkctl.files import File
from quarkctl.link import Link

#: One write: large enough that the gaps between them do not matter, small enough for progress and Ctrl-C.
PIECE_BYTES = 1 << 20
#: What the kernel copies in one go from a file into a socket.
_KERNEL_BYTES = 8 << 20


@dataclass(frozen=True)
class FileRange:
    """A part of a file that is sent as it is."""

    file: File
    offset: int
    size_bytes: int


Part = bytes | FileRange


@runtime_checkable
class FileLink(Protocol):
    """A link that can send a part of a file without bringing it into this process."""

    def write_file(self, fd: int, offset: int, size_bytes: int) -> None: ...


def send(link: Link, parts: Iterable[Part], moved: Callable[[int], None]) -> int:
    """Send everything, small parts joined. ``moved`` gets the total after each write, which is also returned."""
    joined = bytearray()
    total = 0

    def flush() -> None:
        nonlocal total
        if joined:
            link.write(memoryview(bytes(joined)))
            total += len(joined)
            joined.clear()
            moved(total)

    for part in parts:
        if isinstance(part, bytes):
            joined += part
        elif part.size_bytes >= PIECE_BYTES and isinstance(link, FileLink):
            flush()
            for at, size in _steps(part, _KERNEL_BYTES):
                link.write_file(part.file.fd, at, size)
                total += size
                moved(total)
        else:
            for at, size in _steps(part, PIECE_BYTES):
                joined += part.file[at : at + size]
                if len(joined) >= PIECE_BYTES:
                    flush()
        if len(joined) >= PIECE_BYTES:
            flush()
    flush()
    return total


def _steps(part: FileRange, step: int) -> Iterable[tuple[int, int]]:
    end = part.offset + part.size_bytes
    return ((at, min(step, end - at)) for at in range(part.offset, end, step))
