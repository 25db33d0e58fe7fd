"""One build in one folder at a time. Asked before anything heavy is imported, so it imports little."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quarkctl.errors import HostUnfit

LOCK = ".lock"


@contextmanager
def only_one(folder: str) -> Iterator[None]:
    """Nobody else builds into ``folder`` meanwhile. Raises HostUnfit when somebody does."""
    with open(os.path.join(folder, LOCK), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostUnfit(f"another build writes into {folder}", hint="wait for it, or --out elsewhere") from error
        yield


@contextmanager
def in_turn(folder: str, told: Callable[[], None]) -> Iterator[None]:
    """As `only_one`, but waits for the other build after ``told``. The lock goes with its process, however that ends."""
    with open(os.path.join(folder, LOCK), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            told()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
