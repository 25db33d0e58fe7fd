"""Data on its way to a device: bytes and ranges of files, sent in pieces that suit a link."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quarkctl.files import File
from quarkctl.link import Link

#: One write: large enough that the gaps between them do not matter, small enough for progress and Ctrl-C.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRange:
    """A part of a file that is sent as it is."""

    file: File
    offset: int
    size_bytes: int


Part = bytes | FileRange


def send(link: Link, parts: Iterable[Part], moved: Callable[[int], None]) -> int:
    """Send everything in pieces of one size. ``moved`` gets the total after each write, which is also returned."""
    # Used again for each piece, it stays in the processor's cache; an array is what pyusb takes without copying.
    buffer = memoryview(array.array("B", bytes(PIECE_BYTES)))
    total = held = 0
    for part in parts:
        done, size_bytes = 0, len(part) if isinstance(part, bytes) else part.size_bytes
        while done < size_bytes:
            view = buffer[held : held + size_bytes - done]
            if isinstance(part, bytes):
                view[:] = part[done : done + len(view)]
            else:
                part.file.read_into([view], part.offset + done)
                part.file.will_need(part.offset + done + len(view), min(size_bytes - done - len(view), PIECE_BYTES))
            done, held = done + len(view), held + len(view)
            if held == PIECE_BYTES:
                link.write(buffer)
                total, held = total + held, 0
                moved(total)
    if held:
        link.write(buffer[:held])
        total += held
        moved(total)
    return total
