"""Folders whose paths are short enough for sockets. What a killed run left in them is cleared up by the next one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from quarkctl.errors import QuarkError
from quarkctl.sim import control
from quarkctl.sim import folder as glasses

_TMP, _SHM = Path("/tmp"), Path("/dev/shm")
#: Of the whole suite with two workers: 0.5 GiB of files at a time.
_ROOM_BYTES = 4 << 30
#: In each folder, locked for as long as its process lives. It appears locked.
_ALIVE = "alive"
_held: dict[Path, IO[str]] = {}


def fast() -> Path:
    """Where a file costs no disk, if there is room for tests and programs may be started there; else /tmp.

    What is proved is the same: nothing here takes the power from this computer. Everything that is written safely, journals
    above all, waits for a disk twice a step."""
    with suppress(OSError, ValueError):
        there = os.statvfs(_SHM)
        memory = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
        room = min(there.f_bavail * there.f_frsize, int(memory.group(1)) * 1024 if memory else 0)
        if room >= _ROOM_BYTES and not there.f_flag & os.ST_NOEXEC and os.access(_SHM, os.W_OK):
            return _SHM
    return _TMP


def make(prefix: str, parent: Path = _TMP) -> Path:
    """A folder of this process's own."""
    _clear_up(prefix, parent)
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    fresh = made / f"{_ALIVE}.new"
    _held[made] = fresh.open("w")
    fcntl.flock(_held[made], fcntl.LOCK_EX)
    fresh.rename(made / _ALIVE)
    return made


def remove(folder: Path, *, look: bool = False) -> list[str]:
    """Returns the names of virtual glasses that still ran in it, and are stopped now. ``look``: somebody may want to look
    into it, until the next run makes one."""
    left = _stop(folder)
    if not look:
        shutil.rmtree(folder, ignore_errors=True)
    if held := _held.pop(folder, None):
        held.close()
    return left


@contextmanager
def folder(prefix: str, parent: Path = _TMP) -> Iterator[str]:
    made = make(prefix, parent)
    try:
        yield str(made)
    finally:
        remove(made)


def _stop(state: Path) -> list[str]:
    before = os.environ.get("QUARKCTL_STATE_DIR")
    os.environ["QUARKCTL_STATE_DIR"] = str(state)
    try:
        left = [name for name, _ in glasses.everything()]
        for name in left:
            control.stop(name)
    finally:
        if before is None:
            del os.environ["QUARKCTL_STATE_DIR"]
        else:
            os.environ["QUARKCTL_STATE_DIR"] = before
    return left


def _clear_up(prefix: str, parent: Path) -> None:
    for alive in parent.glob(f"{prefix}*/{_ALIVE}"):
        with suppress(OSError, QuarkError):  # it runs, it is somebody else's, or its glasses do not stop
            if alive.lstat().st_uid == os.getuid():
                with alive.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(alive.parent)
