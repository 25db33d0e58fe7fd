"""Whose turn it is: runs that want the same device get it in the order in which they came.

A run takes one number when it begins, and stands with it in the queue of every device that it wants. The file of a place
in a queue is locked by the kernel for as long as its run lives, so a run that died does not hold up the others. Turns
order runs among each other; who has the device is still told by its lock (`quarkctl.link.lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from quarkctl import state
from quarkctl.errors import HostUnfit


class Ticket:
    """The number of one run, and the queues in which it stands."""

    def __init__(self) -> None:
        self._number = _next_number()
        self._places: dict[str, tuple[Path, IO[str]]] = {}

    def stand(self, identity: str) -> None:
        """Queue for a device; again is nothing."""
        if identity in self._places:
            return
        path = _queue(identity) / f"{self._number:012d}"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _gate():
                file = path.open("a")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
        self._places[identity] = (path, file)

    def ahead(self, identity: str) -> int:
        """How many living runs stand before us. Places of dead ones are removed on the way."""
        count = 0
        before = [p for p in _queue(identity).iterdir() if p.name < f"{self._number:012d}"]
        with _gate() if before else contextlib.nullcontext():
            for path in before:
                with contextlib.suppress(FileNotFoundError), path.open("r") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        count += 1
                    else:
                        path.unlink(missing_ok=True)
        return count

    def leave(self, identity: str) -> None:
        place = self._places.pop(identity, None)
        if place:
            path, file = place
            path.unlink(missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_UN)  # a worker that was forked meanwhile has the same open file
            file.close()

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for identity in list(self._places):
            self.leave(identity)


def _queue(identity: str) -> Path:
    return state.root() / "queue" / state.file_name(identity)


@contextlib.contextmanager
def _gate() -> Iterator[None]:
    """Between making a place and locking it nobody may take it for that of a dead run."""
    with (state.folder("queue") / "gate").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _next_number() -> int:
    path = state.folder("queue") / "number"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                number = int(file.read() or "0") + 1
            except ValueError:
                number = 1
            file.seek(0)
            file.truncate()
            file.write(str(number))
            return number
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error
