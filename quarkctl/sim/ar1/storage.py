"""Storage of the virtual AR1: one sparse file per LUN, with the faults of real media."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_PIECE = 1 << 20


class MediaError(Exception):
    """The medium failed at this sector."""


class PowerLost(Exception):
    """The power went in the middle of a write: nothing after it happens."""


class Storage:
    """``lun_bytes`` tells size and number of the LUNs. Everything is counted in bytes; sectors are the protocols' matter.

    ``bad`` holds (lun, sector) that cannot be written; ``worn`` tells of any other if it cannot. ``pace`` is called with
    the size of each piece that moves: it makes media slow. ``discard``: data is taken and forgotten, to measure the way.
    """

    def __init__(self, folder: Path, sector_bytes: int, lun_bytes: Sequence[int]) -> None:
        self.sector_bytes = sector_bytes
        self.lun_bytes = tuple(lun_bytes)
        self.bad: set[tuple[int, int]] = set()
        self.worn: Callable[[int, int], bool] | None = None
        self.pace: Callable[[int], None] | None = None
        self.written_bytes = 0
        self.discard = False
        self._cut_at = 0
        self._cut: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._files: list[int] = []
        self.paths = [folder / f"lun{n}.img" for n in range(len(self.lun_bytes))]
        for path, size in zip(self.paths, self.lun_bytes, strict=True):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(fd, size)
            self._files.append(fd)

    def cut_after(self, size_bytes: int, action: Callable[[], None]) -> None:
        """Let the power fail when so many bytes more are written, in the middle of whatever is written then."""
        with self._lock:
            self._cut_at, self._cut = self.written_bytes + size_bytes, action

    def write(self, lun: int, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Raises MediaError, PowerLost, IndexError for a place that does not exist."""
        self._check(lun, offset, len(data))
        if self.pace:
            self.pace(len(data))
        first, last = offset // self.sector_bytes, (offset + len(data) - 1) // self.sector_bytes
        for bad_lun, sector in self.bad:
            if bad_lun == lun and first <= sector <= last:
                raise MediaError(f"write error at sector {sector} of LUN {lun}")
        for sector in range(first, last + 1) if self.worn else ():
            if self.worn and self.worn(lun, sector):
                raise MediaError(f"write error at sector {sector} of LUN {lun}")
        with self._lock:
            cut, room = self._cut, self._cut_at - self.written_bytes
            lost = cut is not None and len(data) >= room
            view = memoryview(data)[:room] if lost else memoryview(data)
            self.written_bytes += len(view)
            if lost:
                self._cut = None
        if not self.discard:
            self._write_all(self._files[lun], view, offset)
        if lost and cut:
            cut()
            raise PowerLost

    @staticmethod
    def _write_all(fd: int, view: memoryview, offset: int) -> None:
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def read(self, lun: int, offset: int, size_bytes: int) -> bytes:
        self._check(lun, offset, size_bytes)
        data = os.pread(self._files[lun], size_bytes, offset)
        while len(data) < size_bytes:
            more = os.pread(self._files[lun], size_bytes - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, "the file of a LUN is too short")
            data += more
        return data

    def erase(self, lun: int, offset: int, size_bytes: int) -> None:
        """Erased sectors read zero, as unmapped blocks of UFS do. Holes in the file: erasing costs nothing."""
        self._check(lun, offset, size_bytes)
        while size_bytes:
            count = min(size_bytes, 256 * _PIECE)
            self._punch(lun, offset, count)
            offset, size_bytes = offset + count, size_bytes - count

    def _punch(self, lun: int, offset: int, size_bytes: int) -> None:
        at = offset
        fd = self._files[lun]
        while at < offset + size_bytes:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only holes follow
                    return
                raise
            end = min(os.lseek(fd, start, os.SEEK_HOLE), offset + size_bytes)
            at = start
            while at < end:
                count = min(_PIECE, end - at)
                self._write_all(fd, memoryview(bytes(count)), at)
                at += count

    def digest(self, lun: int, offset: int, size_bytes: int) -> bytes:
        """SHA-256 of a range."""
        total = hashlib.sha256()
        for at in range(offset, offset + size_bytes, _PIECE):
            total.update(self.read(lun, at, min(_PIECE, offset + size_bytes - at)))
        return total.digest()

    def _check(self, lun: int, offset: int, size_bytes: int) -> None:
        if not 0 <= lun < len(self.lun_bytes) or offset < 0 or offset + size_bytes > self.lun_bytes[lun]:
            raise IndexError(f"LUN {lun}, {size_bytes} bytes at {offset}: outside the storage")

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files.clear()
