"""Who has a device or its port."""

from __future__ import annotations

import os
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
    except OSError:
        return []
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            fds = list((entry / "fd").iterdir())
        except OSError:
            continue
        if any(_same_device(fd, device) for fd in fds):
            found.append(Holder(int(entry.name), command_of(int(entry.name))))
    return found


def _same_device(fd: Path, device: int) -> bool:
    try:
        return str(fd.readlink()).startswith("/dev/") and fd.stat().st_rdev == device
    except OSError:
        return False


def command_of(pid: int) -> str:
    """The first words of a process's command line; "a process" where nobody tells."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "a process"
    return " ".join([Path(words[0]).name, *words[1:3]]).strip() or "a process"
