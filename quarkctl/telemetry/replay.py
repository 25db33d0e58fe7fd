"""A recording as a device: a pseudo-terminal that says what was recorded, at the pace at which it came."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.formats.recording import Reader, Reads


class Replay:
    """One end of a pseudo-terminal; ``port`` is the path of the other. Silent until somebody opens it."""

    def __init__(self) -> None:
        try:
            import tty

            self._master, slave = os.openpty()
        except (ImportError, OSError) as error:
            raise HostUnfit("this system has no pseudo-terminals") from error
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)

    def wait_for_reader(self, stop: Callable[[], bool]) -> bool:
        """True when somebody has the port open."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while not stop():
            if not any(e & select.POLLHUP for _, e in poll.poll(0)):
                return True
            select.select([], [], [], 0.05)
        return False

    def play(self, path: Path, line: int, speed: float, stop: Callable[[], bool]) -> Iterator[int]:
        """Bytes said so far, after each read of the recording. ``speed`` 0 is as fast as it is taken."""
        began, first, said = time.monotonic(), 0, 0
        with path.open("rb") as file:
            for reads in Reader.open(file.read).reads():
                if reads.line != line:
                    continue
                for stamp, data in _each(reads):
                    first = first or stamp
                    if speed:
                        self._pause(began + (stamp - first) / 1e9 / speed, stop)
                    if stop() or not self._write(data, stop):
                        return
                    said += len(data)
                    yield said

    def linger(self, stop: Callable[[], bool]) -> None:
        """Until the reader has taken everything and closed the port."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while not stop() and not any(e & select.POLLHUP for _, e in poll.poll(0)):
            self._drain(0.05)

    def close(self) -> None:
        os.close(self._master)

    def _pause(self, until: float, stop: Callable[[], bool]) -> None:
        while not stop() and (left := until - time.monotonic()) > 0:
            self._drain(min(left, 0.1))

    def _drain(self, seconds: float) -> None:
        """What the reader says (commands) is taken and not answered."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            try:
                os.read(self._master, 65536)
            except OSError:  # nobody has it open
                select.select([], [], [], min(seconds, 0.05))

    def _write(self, data: bytes, stop: Callable[[], bool]) -> bool:
        """False when the reader went away."""
        view = memoryview(data)
        while view and not stop():
            poll = select.poll()
            poll.register(self._master, select.POLLOUT)
            events = poll.poll(100)
            if any(e & select.POLLHUP for _, e in events):
                return False
            if events:
                try:
                    view = view[os.write(self._master, view[:4096]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True


def _each(reads: Reads) -> Iterator[tuple[int, bytes]]:
    at = 0
    for end, stamp in zip(reads.ends, reads.stamps, strict=True):
        if reads.data[at:end]:
            yield stamp, reads.data[at:end]
        at = end


def check(path: Path, line: int) -> None:
    """Raises InputWrong when there is nothing to replay."""
    try:
        with path.open("rb") as file:
            if not any(r.line == line for r in Reader.open(file.read).reads()):
                raise InputWrong(f"{path} has no line {line}")
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    except InputWrong as error:
        raise InputWrong(error.message if str(path) in error.message else f"{path}: {error.message}") from error
