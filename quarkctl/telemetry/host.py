"""What the host of virtual glasses made them wait, noted beside what they measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from quarkctl.telemetry.recorder import Recorder

#: A recorder notes it that often; a recorder that is killed knows no more.
_NOTED_S = 300.0


class Noting:
    """Notes of a recording, one in a while and one at its end. ``waits`` is asked for what came since a moment (ns of the
    wall clock)."""

    def __init__(self, recorder: Recorder, waits: Callable[[int], Sequence[object]]) -> None:
        self._recorder, self._waits = recorder, waits
        self._since_ns, self._due_s = time.time_ns(), time.monotonic() + _NOTED_S

    def step(self, *, last: bool = False) -> None:
        if not last and time.monotonic() < self._due_s:
            return
        rows = self._waits(self._since_ns)
        self._since_ns, self._due_s = time.time_ns(), time.monotonic() + _NOTED_S
        if rows:
            self._recorder.note({"note": "host", "waits": rows})
