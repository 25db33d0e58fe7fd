"""Computations beside the transfers: hashing releases the interpreter, and so does waiting for a device."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, TypeVar, cast

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

    def result(self) -> T:
        self._thread.join()
        if self._error:
            raise self._error
        return self._result[0]


class Hasher:
    """SHA-256 beside the transfers: of what is sent, cut into windows. Holds a few pieces at most."""

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_HELD)
        self._digests = Background(self._run)

    def tee(self, pieces: Iterable[memoryview]) -> Iterator[memoryview]:
        """The same pieces, of which each is hashed too; windows end between pieces."""
        for piece in pieces:
            self._pieces.put(bytes(piece))
            yield piece

    def result(self) -> list[bytes]:
        """Digests of all windows, the last one as long as it came."""
        self._pieces.put(None)
        return self._digests.result()

    def _run(self) -> list[bytes]:
        digests: list[bytes] = []
        total, size = hashlib.sha256(), 0
        while (piece := self._pieces.get()) is not None:
            total.update(piece)
            size += len(piece)
            if size >= self._window_bytes:
                digests.append(total.digest())
                total, size = hashlib.sha256(), 0
        return [*digests, total.digest()] if size else digests


def ahead(items: Iterable[T], held: int) -> Generator[T, None, None]:
    """The same items in the same order, made in the background while those before them are used.

    What making one raises is raised in its place. When the caller stops early, at most ``held`` items were made in vain.
    """
    made: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(held)
    wanted = threading.Event()
    wanted.set()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None, False))
                if not wanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the item is wanted
            made.put((None, error, True))
        else:
            made.put((None, None, True))

    threading.Thread(target=make, name="ahead", daemon=True).start()
    try:
        while True:
            item, error, last = made.get()
            if error:
                raise error
            if last:
                return
            yield cast(T, item)
    finally:
        wanted.clear()
        with suppress(queue.Empty):  # the maker may wait for room
            while True:
                made.get_nowait()


K = TypeVar("K", bound=Hashable)


class Ahead(Generic[K, T]):
    """Values that are computed in the background in the order of their keys, from the first question on; ``[key]`` waits
    for one. What nobody asks for costs nothing."""

    def __init__(self, compute: Callable[[K], T], keys: Sequence[K]) -> None:
        self._compute = compute
        self._keys = keys
        self._all: Background[dict[K, T]] | None = None
        self._known: dict[K, T] = {}

    def know(self, key: K, value: T) -> None:
        """It was computed on the way."""
        self._known[key] = value

    def start(self) -> None:
        """Begin now, beside something else that takes time."""
        if self._all is None:
            missing = [k for k in self._keys if k not in self._known]
            self._all = Background(lambda: {k: self._compute(k) for k in missing})

    def __getitem__(self, key: K) -> T:
        if key in self._known:
            return self._known[key]
        self.start()
        if self._all is None:  # start has set it
            raise KeyError(key)
        return self._all.result()[key]
