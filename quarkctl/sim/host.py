"""How long the host let virtual glasses wait for a processor: what they measured meanwhile is partly the host's.

The kernel counts, for every thread, the time in which it could have run and did not (second number of
/proc/PID/task/TID/schedstat, Linux).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
#: Stretches that are remembered, of about a second each.
_KEPT = 7200
#: Shorter waits are what every computer has, and below what anything here resolves.
_LEAST_MS = 5.0


class Waits:
    """Of all threads of this process and of those that it started. Where no kernel counts, there are none."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._kept: deque[tuple[int, float, bool]] = deque(maxlen=_KEPT)

    def measure(self, *, ar1: bool) -> None:
        """What was waited since the call before. ``ar1``: one runs meanwhile, so the link between the chips is measured
        and not a number of the plant's."""
        now = {str(task): waited for task in _tasks(os.getpid()) if (waited := waited_ns(task)) is not None}
        ms = sum(waited - self._before.get(task, 0) for task, waited in now.items()) / 1e6
        if self._before and ms >= _LEAST_MS:
            self._kept.append((time.time_ns(), round(ms, 3), ar1))
        self._before = now

    def since(self, time_ns: int) -> list[tuple[int, float, bool]]:
        """(wall clock in ns at its end, ms of all threads together, ``ar1``) of each stretch in which something waited."""
        return [row for row in self._kept if row[0] >= time_ns]


def _tasks(pid: int) -> Iterator[Path]:
    """Folders of the threads of a process and of its descendants."""
    try:
        own = list((_PROC / str(pid) / "task").iterdir())
    except OSError:  # it ended meanwhile
        return
    yield from own
    for task in own:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tasks(int(child))


def waited_ns(task: Path) -> int | None:
    """``task``: folder of a thread in /proc. None where nobody counts, or it ended."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
