"""One computation beside the transfers: hashing releases the interpreter, and so does waiting for a device."""

from __future__ import annotations

import array
import queue
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
_PIECES_HELD = 4


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

    def join(self) -> None:
        """Wait until it ended, well or not."""
        self._thread.join()

    def result(self) -> T:
        self._thread.join()
        if self._error:
            raise self._error
        return self._result[0]


class Feed:
    """Pieces on their way to a device, made ahead of it in a thread. Iterate once; close when it ended, or was given up.

    ``make`` gets the buffers to make them in, one after the other, and gives each back filled. There are only a few: a
    piece is valid until the next one is asked for.
    """

    def __init__(self, make: Callable[[Iterator[memoryview]], Iterator[memoryview]], piece_bytes: int) -> None:
        self._free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        for _ in range(_PIECES_HELD):
            # Arrays are what pyusb takes without copying.
            self._free.put(memoryview(array.array("B", bytes(piece_bytes))))
        self._made = Background(lambda: self._run(make(self._buffers())))

    def _buffers(self) -> Iterator[memoryview]:
        while (buffer := self._free.get()) is not None:
            yield buffer

    def _run(self, pieces: Iterator[memoryview]) -> None:
        try:
            for piece in pieces:
                self._ready.put(piece)
        finally:
            self._ready.put(None)

    def __iter__(self) -> Iterator[memoryview]:
        """Raises what making them raised."""
        while (piece := self._ready.get()) is not None:
            yield piece
            self._free.put(memoryview(piece.obj))
        self._made.result()

    def close(self) -> None:
        """Nobody wants the rest."""
        self._free.put(None)
        self._made.join()


K = TypeVar("K", bound=Hashable)


class Ahead(Generic[K, T]):
    """Values that are computed in the background in the order of their keys, from the first question on; ``[key]`` waits
    for one. What nobody asks for costs nothing."""

    def __init__(self, compute: Callable[[K], T], keys: Sequence[K]) -> None:
        self._compute = compute
        self._keys = keys
        self._known: dict[K, T] = {}
        self._changed = threading.Condition()
        self._failed = False
        self._all: Background[None] | None = None

    def start(self) -> None:
        """Begin now, beside something else that takes time."""
        if self._all is None:
            self._all = Background(self._run)

    def _run(self) -> None:
        try:
            for key in self._keys:
                value = self._compute(key)
                with self._changed:
                    self._known[key] = value
                    self._changed.notify_all()
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def __getitem__(self, key: K) -> T:
        """Raises what computing it raised, and KeyError for what is not among the keys."""
        self.start()
        with self._changed:
            while key not in self._known and not self._failed:
                self._changed.wait()
        if key not in self._known and self._all:
            self._all.result()
        return self._known[key]
