"""Progress inside a transfer, as events: often enough to watch, rarely enough to cost nothing."""

from __future__ import annotations

import time

from quarkctl.events import Event, Level, Progress
from quarkctl.flash.plan import Step

_EVERY_S = 0.1
#: The first bytes tell of the device's start, not of how fast it goes on: no guess before this part of all.
_GUESS_FROM = 100


class Meter:
    """Bytes of one step."""

    def __init__(self, progress: Progress, device: str, step: Step, total_bytes: int) -> None:
        self._progress = progress
        self._device = device
        self._step = step
        self.total_bytes = total_bytes
        self._began = time.monotonic()
        self._told = self._began
        self._skipped = 0
        self._text = ""
        self.done_bytes = 0

    def label(self, text: str) -> None:
        self._text = text

    def skip(self, size_bytes: int) -> None:
        """Bytes that need not be moved: they do not count for the rate."""
        self._skipped += size_bytes
        self.at(self.done_bytes + size_bytes)

    def at(self, done_bytes: int) -> None:
        self.done_bytes = done_bytes
        now = time.monotonic()
        if now - self._told < _EVERY_S:
            return
        self._told = now
        moved = done_bytes - self._skipped
        guess = moved > 0 and moved * _GUESS_FROM >= self.total_bytes - self._skipped
        eta = (now - self._began) / moved * (self.total_bytes - done_bytes) if guess else None
        self._progress(
            Event(self._device, self._step.name, Level.PROGRESS, self._text, done_bytes, self.total_bytes, eta)
        )
