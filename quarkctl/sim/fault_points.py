"""Places at which a test may break a virtual device: counted, and broken at the n-th passing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable


class Points:
    """Counts passings of named places. ``arm(n, action)`` runs the action once, at the n-th passing of any of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._at = 0
        self._only = ""
        self._action: Callable[[], None] | None = None

    @property
    def passed(self) -> int:
        return self.counts.total()

    def arm(self, at: int, action: Callable[[], None], only: str = "") -> None:
        """Count from now on."""
        with self._lock:
            self.counts.clear()
            self._at, self._action, self._only = at, action, only

    @property
    def fired(self) -> bool:
        """The action has run."""
        return self._at > 0 and self._action is None

    def hit(self, name: str) -> None:
        action = None
        with self._lock:
            if self._only and name != self._only:
                return
            self.counts[name] += 1
            if self._action and self.counts.total() == self._at:
                action, self._action = self._action, None
        if action:
            action()
