"""Telemetry of a live device."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

from quarkctl.errors import LinkTimeout, QuarkError
from quarkctl.formats.recording import Chunk
from quarkctl.link import Link

#: A device says hello every second: silence for longer means that there is none, or another line rate.
SILENCE_S = 3.0


def chunks(link: Link, stop: Callable[[], bool], *, silence_s: float = SILENCE_S) -> Iterator[Chunk]:
    """What the link delivers, stamped at the return of the read, until ``stop()``.

    Stamps are wall-clock time that never steps: that of the first read, and from there on the monotonic clock. Raises
    LinkTimeout when nothing at all comes for ``silence_s``.
    """
    last = time.monotonic()
    base_ns = time.time_ns() - time.monotonic_ns()
    while not stop():
        data = link.read(0.1)
        if data:
            last = time.monotonic()
            yield Chunk(base_ns + time.monotonic_ns(), data)
        elif time.monotonic() - last > silence_s:
            raise LinkTimeout(
                f"{link.name} is silent for {silence_s:.0f} s",
                hint="does the device run, and is this its telemetry port? `quarkctl devices` lists what is there",
            )


class Until:
    """A stop condition: a number of seconds from now (None: never)."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.requested = False

    @property
    def left_s(self) -> float | None:
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def __call__(self) -> bool:
        return self.requested or (self._end is not None and time.monotonic() >= self._end)


def merged(
    links: Sequence[Link], stop: Callable[[], bool], *, lost: Callable[[int, QuarkError], None] | None = None
) -> Generator[Chunk, None, None]:
    """`chunks` of several lines, each with its number; an error of one ends all.

    With ``lost`` only the first line must talk: another one may be silent, and is given up when it ends, which ``lost`` is
    told.
    """
    if len(links) == 1:
        yield from chunks(links[0], stop)
        return
    arrived: queue.Queue[Chunk | QuarkError | None] = queue.Queue(maxsize=10_000)
    ended = threading.Event()

    def read(number: int, link: Link) -> None:
        patience_s = math.inf if lost and number else SILENCE_S
        try:
            for chunk in chunks(link, lambda: stop() or ended.is_set(), silence_s=patience_s):
                arrived.put(replace(chunk, line=number))
        except QuarkError as error:
            if lost and number:
                lost(number, error)
            else:
                arrived.put(error)
        arrived.put(None)

    threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in enumerate(links)]
    for thread in threads:
        thread.start()
    left = len(threads)
    try:
        while left:
            item = arrived.get()
            if isinstance(item, QuarkError):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        ended.set()
        for thread in threads:
            thread.join(2.0)
