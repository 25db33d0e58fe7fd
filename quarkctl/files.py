"""Files read by pieces and written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.formats.segments import Segment, Zeros, pieces

_ZEROS = bytes(1 << 20)
#: A write takes memory for the page cache in pieces of its own size. Free memory in larger pieces than this is what
#: virtual machines have given back to their host: taking it again costs two to six times the copy (measured).
_WRITE_BYTES = 64 << 10


class File:
    """An open file as a `Source`: a slice reads just that. Threads may share it; it never maps memory, so a file that
    shrinks while it is read is an error and not a crash."""

    def __init__(self, path: Path) -> None:
        """Raises InputWrong when the file cannot be opened or has no fixed size."""
        self.path = path
        try:
            # not to wait for whoever writes into a pipe
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
            kind = os.fstat(self.fd).st_mode
            self._size = os.lseek(self.fd, 0, os.SEEK_END) if stat.S_ISREG(kind) or stat.S_ISBLK(kind) else -1
        except OSError as error:
            raise InputWrong(f"cannot read {path}: {error.strerror}") from error
        if self._size < 0:
            os.close(self.fd)
            raise InputWrong(
                f"cannot read {path}: it is no file but a {_kind_of(kind)}", hint="write it into a file first"
            )

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: slice, /) -> bytes:
        start, stop, _ = at.indices(self._size)
        size = max(stop - start, 0)
        try:
            data = os.pread(self.fd, size, start)
            while len(data) < size:
                more = os.pread(self.fd, size - len(data), start + len(data))
                if not more:
                    raise InputWrong(f"{self.path} shrank while it was read")
                data += more
        except OSError as error:
            raise InputWrong(f"cannot read {self.path}: {error.strerror}") from error
        return data

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill ``views``, one after the other, from ``offset`` on. Raises InputWrong where the file ends before."""
        left = sum(map(len, views))
        try:
            while left:
                count = os.preadv(self.fd, views, offset)
                if not count:
                    raise InputWrong(f"{self.path} shrank while it was read")
                left, offset = left - count, offset + count
                if left:
                    views = _behind(views, count)
        except OSError as error:
            raise InputWrong(f"cannot read {self.path}: {error.strerror}") from error

    def will_need(self, offset: int, size_bytes: int) -> None:
        """That is read next: the system may fetch it meanwhile."""
        if size_bytes > 0 and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fd, offset, size_bytes, os.POSIX_FADV_WILLNEED)

    def is_hole(self, start: int, stop: int) -> bool:
        """Whether the file system holds nothing there: all of it reads as zeros. False where it cannot tell."""
        if not hasattr(os, "SEEK_DATA"):
            return False
        try:
            return os.lseek(self.fd, start, os.SEEK_DATA) >= stop
        except OSError as error:  # ENXIO: nothing up to the end
            return error.errno == errno.ENXIO and stop <= self._size

    def fingerprint(self) -> str:
        """Changes when the content does, as far as the file system tells."""
        status = os.fstat(self.fd)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"

    def __reduce__(self) -> tuple[Callable[..., File], tuple[Path, tuple[int, int, int]]]:
        """Another process opens it again, if it is still the same file."""
        return _again, (self.path.absolute(), self._identity())

    def _identity(self) -> tuple[int, int, int]:
        st = os.fstat(self.fd)
        return st.st_dev, st.st_ino, st.st_size

    def close(self) -> None:
        """Also twice: its number may belong to somebody else by then."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _behind(views: Sequence[memoryview], size_bytes: int) -> list[memoryview]:
    """What is left of them behind so many bytes."""
    left = []
    for view in views:
        left.append(view[size_bytes:])
        size_bytes = max(size_bytes - len(view), 0)
    return left


def _kind_of(mode: int) -> str:
    names = {stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket", stat.S_ISDIR: "folder", stat.S_ISCHR: "character device"}
    return next((name for holds, name in names.items() if holds(mode)), "thing without a size")


def _again(path: Path, identity: tuple[int, int, int]) -> File:
    file = File(path)
    if file._identity() != identity:
        file.close()
        raise InputWrong(f"{path} was replaced while it was read", hint="again, when nobody writes it")
    return file


class Into:
    """A file that pieces are put into at their offsets from ``base`` on, from any process."""

    def __init__(self, path: Path, base: int = 0) -> None:
        self._path, self._base = path, base
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def __call__(self, at: int, piece: bytes, /) -> None:
        put(self._fd, piece, self._base + at)

    def __reduce__(self) -> tuple[type[Into], tuple[Path, int]]:
        return Into, (self._path.absolute(), self._base)

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is gone when it does not.

    ``durable``: it is on the disk when this returns, whatever becomes of the power. Raises HostUnfit, also for an OSError
    of the block.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)  # a rename is on disk only when its folder is
    except OSError as error:
        hint = "is the disk full?" if error.errno == errno.ENOSPC else ""
        raise HostUnfit(f"cannot write {path}: {error.strerror}", hint) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, segments: Iterable[Segment]) -> int:
    """Write segments into a new file, zeros as holes. Returns the bytes written."""
    path.unlink(missing_ok=True)
    with path.open("xb", buffering=0) as file:
        at = append(file.fileno(), 0, segments, holes=True)
        os.ftruncate(file.fileno(), at)
    return at


def write_at(path: Path, pieces_at: Iterable[tuple[int, bytes | memoryview]]) -> None:
    """Write pieces into a new file, each at its offset."""
    path.unlink(missing_ok=True)
    with path.open("xb", buffering=0) as file:
        for at, piece in pieces_at:
            put(file.fileno(), piece, at)


def append(fd: int, at: int, segments: Iterable[Segment], *, holes: bool = False) -> int:
    """Write segments into an open file from offset ``at`` on; returns the offset behind them.

    ``holes``: nothing is there yet, so zeros in what is copied need not be written either. Plain reads and writes:
    copy_file_range would also copy zeros, which are half of many images.
    """
    for s in segments:
        if isinstance(s, Zeros):
            at += s.size
        else:
            for p in pieces([s]):
                if not (holes and len(p) <= len(_ZEROS) and p == _ZEROS[: len(p)]):
                    put(fd, p, at)
                at += len(p)
    return at


def put(fd: int, data: bytes | memoryview, at: int) -> None:
    """Write all of ``data`` at offset ``at``, whoever else writes to the file."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view[: _WRITE_BYTES - at % _WRITE_BYTES], at)
        view, at = view[done:], at + done
