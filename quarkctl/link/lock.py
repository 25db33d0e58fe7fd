"""One process a device: a lock by identity, which names who holds it.

The name of a port is order, not identity: it changes at every reset of a device, so the port cannot be what is locked.
The lock is the kernel's (flock): it is free the moment its process is gone, however it went. What is written in the file
is only for the person who is refused. Within one process it may be taken again: a flash holds its device while the link
below it is closed and opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from quarkctl import state
from quarkctl.errors import DeviceBusy, HostUnfit
from quarkctl.link.holder import Holder, command_of

#: Somebody who only looks who holds a lock (`holder_of`) has it for a moment; that must refuse nobody.
_GRACE_S = 0.2
_POLL_S = 0.02
_COMMAND_CHARS = 120

#: {identity: (lock file, how often this process took it)}
_held: dict[str, tuple[IO[str], int]] = {}


class Lock:
    """A device that is ours until `release`, or until this process ends."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._released = False

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        file, count = _held[self.identity]
        if count > 1:
            _held[self.identity] = (file, count - 1)
            return
        del _held[self.identity]
        with contextlib.suppress(OSError):
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the same open file
        file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold(identity: str, wait_s: float = 0.0) -> Lock:
    """Take the device. Raises DeviceBusy, which names the holder, when it is not free within ``wait_s``."""
    if identity in _held:
        file, count = _held[identity]
        _held[identity] = (file, count + 1)
        return Lock(identity)
    file = _open(identity)
    until = time.monotonic() + max(wait_s, _GRACE_S)
    while not _try(file, fcntl.LOCK_EX):
        if time.monotonic() >= until:
            who = _read(file)
            file.close()
            raise DeviceBusy(
                f"{identity} is held by {who or 'another process'}",
                hint="wait for it" + (f", or end it: kill {who.pid}" if who else "") + "; or choose another device",
            )
        time.sleep(_POLL_S)
    said = {"pid": os.getpid(), "command": _own_command(), "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "identity": identity}  # fmt: skip
    with contextlib.suppress(OSError):  # a full disk costs the name of the holder, and not the lock
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(said).encode())
    _held[identity] = (file, 1)
    return Lock(identity)


def holder_of(identity: str) -> Holder | None:
    """Who has the device now; None when nobody has."""
    if identity in _held:
        return Holder(os.getpid(), _own_command())
    path = _path(identity)
    try:
        file = path.open("r+", encoding="utf-8")
    except OSError:
        return None
    with file:
        return None if _try(file, fcntl.LOCK_SH) else _read(file) or Holder(0, "another process")


def all_held() -> list[tuple[str, Holder]]:
    """(identity, who has it) of every device that somebody has now."""
    out = []
    for path in sorted((state.root() / "locks").glob("*.lock")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open("r", encoding="utf-8") as file:
            if not _try(file, fcntl.LOCK_SH):
                identity = str(json.loads(file.read(4096))["identity"])
                out.append((identity, _read(file) or Holder(0, "another process")))
    return out


def _path(identity: str) -> Path:
    return state.root() / "locks" / f"{state.file_name(identity)}.lock"


def _open(identity: str) -> IO[str]:
    state.folder("locks")
    path = _path(identity)
    try:
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}") from error


def _try(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise HostUnfit(
            f"cannot lock {file.name}: {error.strerror}", hint="set QUARKCTL_STATE_DIR to a folder of a local disk"
        ) from error
    return True


def _read(file: IO[str]) -> Holder | None:
    """What the holder wrote; None where it has not yet, or where that process is gone."""
    try:
        file.seek(0)
        said = json.loads(file.read(4096))
        found = Holder(int(said["pid"]), str(said["command"]), str(said["since"]))
        os.kill(found.pid, 0)
    except PermissionError:  # it lives, and is somebody else's
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _own_command() -> str:
    """This command in one line, as the refused person would type it."""
    program = Path(sys.argv[0]).name
    if program in ("main.py", "__main__.py") and "quarkctl" in sys.argv[0]:
        program = "quarkctl"
    words = " ".join([program, *sys.argv[1:]]) if program not in ("", "-c") else command_of(os.getpid())
    return " ".join(words.split())[:_COMMAND_CHARS]
