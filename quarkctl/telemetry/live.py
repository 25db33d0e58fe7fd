"""Telemetry of a live device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from quarkctl.errors import LinkTimeout
from quarkctl.formats.recording import Chunk
from quarkctl.formats.schema import Schema
from quarkctl.formats.stream import Decoder, Sample
from quarkctl.link import Link

#: A device says hello every second: silence for longer means that there is none, or another line rate.
SILENCE_S = 3.0


def chunks(link: Link, stop: Callable[[], bool], *, silence_s: float = SILENCE_S) -> Iterator[Chunk]:
    """What the link delivers, stamped at the return of the read, until ``stop()``.

    Raises LinkTimeout when nothing at all comes for ``silence_s``.
    """
    last = time.monotonic()
    while not stop():
        data = link.read(0.1)
        if data:
            last = time.monotonic()
            yield Chunk(time.time_ns(), data)
        elif time.monotonic() - last > silence_s:
            raise LinkTimeout(
                f"{link.name} is silent for {silence_s:.0f} s",
                hint="does the device run, and is this its telemetry port? `quarkctl devices` lists what is there",
            )


def samples(link: Link, schema: Schema, stop: Callable[[], bool]) -> Iterator[tuple[Sample, Decoder]]:
    """Decoded messages with the decoder that counts."""
    decoder = Decoder(schema)
    for chunk in chunks(link, stop):
        for sample in decoder.feed(chunk.data, chunk.host_ns):
            yield sample, decoder


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
