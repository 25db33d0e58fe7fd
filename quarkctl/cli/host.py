"""What the host of virtual glasses made them wait: asked of them, and noted beside what they measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quarkctl.telemetry.recorder import Recorder

#: A recorder notes it that often; a recorder that is killed knows no more.
_NOTED_S = 300.0


def waits(identity: str, since_ns: int) -> list[tuple[int, float, bool]]:
    """(wall clock in ns, ms, whether the AR1 is real) of each second in which processes of these glasses waited; none for
    real ones."""
    from quarkctl.errors import QuarkError
    from quarkctl.sim import control

    if not identity.startswith("sim:"):
        return []
    try:
        rows = control.request(identity.removeprefix("sim:").removesuffix("/ar1"), command="host", since_ns=since_ns)
    except QuarkError:  # stopped meanwhile
        return []
    return [(int(at), float(ms), bool(ar1)) for at, ms, ar1 in rows["waits"]]


class Noting:
    """Notes of a recording, one in a while and one at its end."""

    def __init__(self, recorder: Recorder, identity: str) -> None:
        self._recorder, self._identity = recorder, identity
        self._since_ns, self._due_s = time.time_ns(), time.monotonic() + _NOTED_S

    def step(self, *, last: bool = False) -> None:
        if not last and time.monotonic() < self._due_s:
            return
        rows = waits(self._identity, self._since_ns)
        self._since_ns, self._due_s = time.time_ns(), time.monotonic() + _NOTED_S
        if rows:
            self._recorder.note({"note": "host", "waits": rows})
