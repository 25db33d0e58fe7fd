"""Write a bundle in one pass: every image is read once; two threads hash it while a third writes it.

The manifest stands in front and holds the hashes of what comes after it. Its length is known before they are (hashes have
fixed lengths), so room is left for it and it is put there at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from quarkctl import files
from quarkctl.errors import InputWrong
from quarkctl.events import Event, Level, Progress
from quarkctl.formats import archive
from quarkctl.formats.archive import Entry
from quarkctl.formats.bundle import CHUNK_BYTES, Member

#: Whole chunks, and enough work for each thread that handing it over does not count.
BLOCK_BYTES = 4 * CHUNK_BYTES
#: Read and written, not hashed yet: the threads need not keep step.
_BLOCKS_HELD = 4


@dataclass(frozen=True)
class Content:
    """A member to be written: ``blocks`` gives its bytes in blocks of `BLOCK_BYTES`, the last may be shorter."""

    name: str
    size_bytes: int
    blocks: Callable[[], Iterator[bytes]]


def of_file(name: str, path: Path) -> Content:
    """A whole file. Raises InputWrong."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error

    def blocks() -> Iterator[bytes]:
        try:
            with path.open("rb", buffering=0) as file:
                left = size
                while left and (data := _read(file, min(BLOCK_BYTES, left))):
                    left -= len(data)
                    yield data
        except OSError as error:
            raise InputWrong(f"cannot read {path}: {error.strerror}") from error

    return Content(name, size, blocks)


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    while 0 < len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


@contextlib.contextmanager
def output(path: Path) -> Iterator[Output]:
    """A bundle that is being written: it appears under its name when the block ends well. Raises HostUnfit.

    It is not waited for until it is on the disk: a file that lost its end in a power cut is no bundle, and is noticed.
    """
    with files.replacing(path, durable=False) as temporary, temporary.open("wb+", buffering=0) as file:
        yield Output(path.name, file.fileno())


@dataclass(frozen=True)
class Output:
    """Written here and there; what is behind `end` is cut off."""

    name: str
    fd: int

    def put(self, at: int, data: bytes) -> None:
        files.put(self.fd, data, at)

    def move(self, start: int, end: int, to: int) -> None:
        """Shift what lies between two offsets; the parts may overlap."""
        step = BLOCK_BYTES
        ats = list(range(start, end, step))
        for at in ats if to < start else reversed(ats):
            self.put(at - start + to, os.pread(self.fd, min(step, end - at), at))

    def end(self, size: int) -> None:
        os.ftruncate(self.fd, size)


def payload(output: Output, at: int, contents: Sequence[Content], progress: Progress) -> tuple[list[Member], int]:
    """Write the images from an offset on. Returns what they are, and the offset behind the last.

    Raises InputWrong when a file changes its size meanwhile, HostUnfit.
    """
    total = sum(c.size_bytes for c in contents)
    members: list[Member] = []
    done = 0
    with ThreadPoolExecutor(1, "whole") as whole_thread, ThreadPoolExecutor(1, "chunks") as chunks_thread:
        for content in contents:
            whole, parts = hashlib.sha256(), _Parts()
            count = 0
            start = at + archive.local_header_bytes(content.name, content.size_bytes)
            under_way: deque[tuple[Future[None], ...]] = deque()
            for data in content.blocks():
                under_way.append((whole_thread.submit(whole.update, data), chunks_thread.submit(parts.update, data)))
                output.put(start + count, data)
                count += len(data)
                progress(Event(output.name, "write", Level.PROGRESS, "", done + count, total))
                if len(under_way) > _BLOCKS_HELD:
                    _wait(under_way.popleft())
            while under_way:
                _wait(under_way.popleft())
            if count != content.size_bytes:
                raise InputWrong(f"{content.name} changed its size while it was read", hint="build again")
            member = Member(content.name, count, parts.crc, whole.digest(), bytes(parts.chunks))
            output.put(at, archive.local_header(member.entry))
            members.append(member)
            done += count
            at = start + count
    return members, at


class _Parts:
    """The hash of each chunk, and the CRC-32 of all."""

    def __init__(self) -> None:
        self.chunks = bytearray()
        self.crc = 0

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(data), CHUNK_BYTES):
            self.chunks += hashlib.sha256(view[at : at + CHUNK_BYTES]).digest()
        self.crc = zlib.crc32(data, self.crc)


def _wait(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()


def head(parts: Sequence[tuple[str, bytes]]) -> tuple[bytes, list[Entry]]:
    """The small members in front, ready to be written."""
    out = bytearray()
    entries = []
    for name, data in parts:
        entry = Entry(name, len(data), zlib.crc32(data))
        entries.append(entry)
        out += archive.local_header(entry) + data
    return bytes(out), entries
