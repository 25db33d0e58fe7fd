"""One computation beside the transfers: hashing releases the interpreter, and so does waiting for a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs at once; ``result`` waits for it, and raises what it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is wanted
            self._error = error

    def result(self) -> T:
        self._thread.join()
        if self._error:
            raise self._error
        return self._result[0]


K = TypeVar("K", bound=Hashable)


class Ahead(Generic[K, T]):
    """Values that are computed in the background in the order of their keys, from the first question on; ``[key]`` waits
    for one. What nobody asks for costs nothing."""

    def __init__(self, compute: Callable[[K], T], keys: Sequence[K]) -> None:
        self._compute = compute
        self._keys = keys
        self._all: Background[dict[K, T]] | None = None

    def start(self) -> None:
        """Begin now, beside something else that takes time."""
        if self._all is None:
            self._all = Background(lambda: {k: self._compute(k) for k in self._keys})

    def __getitem__(self, key: K) -> T:
        self.start()
        if self._all is None:  # start has set it
            raise KeyError(key)
        return self._all.result()[key]
