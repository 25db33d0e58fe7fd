"""One computation beside the transfers: hashing releases the interpreter, and so does waiting for a device."""

from __future__ import annotations

import array
import queue
import threading
from collections.abc import Callable, Iterator
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
    piece is valid until the next one is asked for. Where there are not more pieces than buffers, all are ``kept``.
    """

    def __init__(
        self, make: Callable[[Iterator[memoryview]], Iterator[memoryview]], piece_bytes: int, total_bytes: int
    ) -> None:
        self.kept: list[memoryview] = []
        self._keep = total_bytes <= _PIECES_HELD * piece_bytes
        self._free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._piece_bytes = piece_bytes
        self._make = make
        self._made: Background[None] | None = None

    def _buffers(self) -> Iterator[memoryview]:
        made = 0
        while True:
            if made < _PIECES_HELD and self._free.empty():
                made += 1
                yield memoryview(array.array("B", bytes(self._piece_bytes)))  # which pyusb takes without copying
            elif (buffer := self._free.get()) is not None:
                yield buffer
            else:
                return

    def start(self) -> None:
        """Begin now, beside something else that takes time; else with the first piece that is asked for."""
        if self._made is None:
            self._made = Background(self._run)

    def _run(self) -> None:
        try:
            for piece in self._make(self._buffers()):
                self._ready.put(piece)
        finally:
            self._ready.put(None)

    def __iter__(self) -> Iterator[memoryview]:
        """Raises what making them raised."""
        self.start()
        while (piece := self._ready.get()) is not None:
            yield piece
            if self._keep:
                self.kept.append(piece)
            else:
                self._free.put(memoryview(piece.obj))
        if self._made:
            self._made.result()

    def close(self) -> None:
        """Nobody wants the rest."""
        self._free.put(None)
        if self._made:
            self._made.join()
