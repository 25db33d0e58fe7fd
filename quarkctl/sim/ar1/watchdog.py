"""The watchdog of the running system, in time that the system had: a busy computer must not look like a hung guest."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from quarkctl.sim.host import waited_ns

#: A look that comes later than that was late itself (a stopped process, a suspended computer): no more is counted for it.
_LOOK_MAX_S = 2.0


class Watchdog:
    """Bites when a process said nothing for ``limit_s`` in which it ran or could have run.

    Not counted: what its threads spent waiting for a processor of the host (Linux: ``/proc/PID/task/*/schedstat``, second
    number, ns), and looks that came late. Elsewhere plain time is counted."""

    def __init__(self, pid: int, limit_s: float) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._limit_s = limit_s
        self._counted_s = 0.0
        self._looked_s = time.monotonic()
        self._heard_s = 0.0
        self._waited_ns = self._waits()

    def look(self, heard_s: float) -> bool:
        """True: it bites. ``heard_s``: when the system was heard last; any change of it starts anew."""
        now_s, before = time.monotonic(), self._waited_ns
        self._waited_ns = self._waits()
        # The thread that was held up most: the others may have nothing to do.
        waited_s = max((ns - before.get(task, 0) for task, ns in self._waited_ns.items()), default=0) / 1e9
        self._counted_s += max(min(now_s - self._looked_s, _LOOK_MAX_S) - waited_s, 0.0)
        self._looked_s = now_s
        if heard_s != self._heard_s:
            self._heard_s, self._counted_s = heard_s, 0.0
        return self._counted_s > self._limit_s

    def _waits(self) -> dict[str, int]:
        found = {}
        with suppress(OSError):
            for task in self._tasks.iterdir():
                if (waited := waited_ns(task)) is not None:
                    found[task.name] = waited
        return found
