"""Computations beside the transfers: hashing releases the interpreter, and so does waiting for a device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar, cast

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

    def join(self) -> None:
        """Wait until it ended, well or not."""
        self._thread.join()

    def result(self, timeout_s: float | None = None) -> T:
        """Raises TimeoutError where it does not end in time; it goes on, and nobody asks any more."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError
        if self._error:
            raise self._error
        return self._result[0]


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
