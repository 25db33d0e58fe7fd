"""Record glasses, over one line or several, while something is done to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType

from quarkctl.errors import QuarkError
from quarkctl.events import Event, Level, Progress
from quarkctl.link import Link, Opener

#: (seconds from the start of listening, what to do then, words for it)
Act = tuple[float, Callable[[], None], str]


def record(
    ways: Sequence[Opener], beside: Opener | None, path: Path, seconds: float, acts: Sequence[Act], progress: Progress
) -> None:
    """A recording of the first of ``ways``, which must talk, and of the others. ``beside`` is evidence and no condition.

    Raises what opening raises, LinkTimeout and LinkLost of the first, HostUnfit, and what an act raises.
    """
    from quarkctl import schemas
    from quarkctl.sim.control import host_waits
    from quarkctl.telemetry import live
    from quarkctl.telemetry.host import Noting
    from quarkctl.telemetry.recorder import Recorder

    names = [w.identity for w in ways]

    def note(text: str) -> None:
        progress(Event(names[0], "listen", Level.NOTE, text))

    def lost(line: int, error: QuarkError) -> None:
        note(f"{names[line]}: {error.message}; judged without what would have come")

    with ExitStack() as stack:
        links: list[Link] = []
        for way in ways:
            links.append(way.open())
            stack.callback(links[-1].close)
        if beside:
            try:
                links.append(beside.open())
                stack.callback(links[-1].close)
                names.append(beside.identity)
            except QuarkError as error:
                note(f"judged without the AR1's own line: {error.message}")
        progress(Event(names[0], "listen", Level.START, f"{' and '.join(names)}, {seconds:g} s"))
        recorder = Recorder(path, schemas.telemetry(), names)
        stack.callback(recorder.close)
        host = Noting(recorder, partial(host_waits, names[0]))
        stack.callback(partial(host.step, last=True))
        acting = stack.enter_context(Acting(acts, note))
        until = live.Until(seconds)
        chunks = live.merged(links, lambda: until() or acting.failed is not None, lost=lost)
        stack.callback(chunks.close)
        for chunk in chunks:
            recorder.write(chunk)
            host.step()
            progress(Event(names[0], "listen", Level.PROGRESS, "", eta_s=until.left_s))
        acting.check()
    progress(Event(names[0], "listen", Level.DONE, f"{recorder.wire_bytes / 1000:.1f} kB"))


class Acting:
    """Does each act at its time, in a thread of its own: glasses that fall silent must not stay without their pack.

    However it ends, packs that are still out are put back in: acts whose words end with "in" are done all the same.
    """

    def __init__(self, acts: Sequence[Act], note: Callable[[str], None]) -> None:
        self._todo = list(acts)
        self._note = note
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acting", daemon=True)
        self.failed: QuarkError | None = None

    def check(self) -> None:
        """Raises what an act raised."""
        if self.failed:
            raise self.failed

    def __enter__(self) -> Acting:
        if self._todo:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        for _, act, words in self._todo:
            if words.endswith(" in"):
                act()

    def _run(self) -> None:
        began = time.monotonic()
        while self._todo and not self._ended.wait(max(began + self._todo[0][0] - time.monotonic(), 0.0)):
            _, act, words = self._todo[0]
            try:
                act()
            except QuarkError as error:
                self.failed = error
                return
            self._todo.pop(0)
            self._note(words)
