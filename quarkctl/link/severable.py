"""A way to a device that another thread can cut off: whoever reads or writes there ends at once, and not at its time-out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quarkctl.errors import LinkLost
from quarkctl.link import Link, Opener
from quarkctl.link.lock import Lock

#: How long a reader may not notice.
_LOOK_S = 0.2


@dataclass(frozen=True)
class SeverableOpener:
    """While ``severed`` is set, its links raise LinkLost; they are good again when it is cleared."""

    opener: Opener
    severed: threading.Event

    @property
    def identity(self) -> str:
        return self.opener.identity

    @property
    def resolve(self) -> Callable[[], str]:
        return self.opener.resolve

    def hold(self) -> Lock:
        return self.opener.hold()

    def open(self) -> Link:
        return SeverableLink(self.opener.open(), self.severed)


class SeverableLink:
    """What else the link can do (control lines) it can here too."""

    def __init__(self, link: Link, severed: threading.Event) -> None:
        self._link = link
        self._severed = severed

    @property
    def name(self) -> str:
        return self._link.name

    def read(self, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        while True:
            self._look()
            left = max(until - time.monotonic(), 0.0)
            data = self._link.read(min(left, _LOOK_S))
            if data or left <= _LOOK_S:
                return data

    def write(self, data: bytes | memoryview) -> None:
        self._look()
        self._link.write(data)

    def close(self) -> None:
        self._link.close()

    def _look(self) -> None:
        if self._severed.is_set():
            raise LinkLost(f"{self.name} was let go of: the work was stopped")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)
