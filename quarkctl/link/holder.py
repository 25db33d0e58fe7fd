"""Who has a device or its port."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process. ``since`` is local time of day with date, empty where it is not known."""

    pid: int
    command: str
    since: str = ""

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return f"{self.command} (pid {self.pid}){since}"


def openers_of(path: str) -> list[Holder]:
    """Other processes with this port open, as far as /proc shows them; empty on systems without /proc.

    Locks bind only those who ask for them; this finds terminals and daemons that do not. A pseudo-terminal's own emulator
    does not count: it holds the other end.
    """
    try:
        device = Path(path).stat().st_rdev
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [Holder(pid, command_of(pid)) for pid in pids if pid != os.getpid() and _has_open(pid, device)]


def _has_open(pid: int, device: int) -> bool:
    """Asked for each process at each opening of a port, of thousands of descriptors: strings, since paths take twice as
    long. Only what lies in /dev is looked at: a look at a file of a dead network share would not return."""
    folder = f"/proc/{pid}/fd/"
    try:
        fds = os.listdir(folder)
    except OSError:
        return False
    for fd in fds:
        try:
            name = os.readlink(folder + fd)
            if not name.startswith("/dev/") or name == "/dev/null":
                continue
            status = os.stat(folder + fd)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == device:
                return True
        except OSError:
            continue
    return False


def command_of(pid: int) -> str:
    """The first words of a process's command line; "a process" where nobody tells."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "a process"
    return " ".join([Path(words[0]).name, *words[1:3]]).strip() or "a process"
