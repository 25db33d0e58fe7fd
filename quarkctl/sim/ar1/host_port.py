"""The running system's serial port at the host: the cable of `sim.cable` in a thread of its own."""

from __future__ import annotations

import os
import queue
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Future

from quarkctl.sim.cable import Cable

#: Somebody who opens the port is noticed after that time.
_STEP_S = 0.05


class HostPort:
    """Every method may be called from any thread; the cable itself lives in one."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._cable = Cable(self._selector)
        self._todo: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._wake_r, self._wake_w = os.pipe()
        self._selector.register(self._wake_r, selectors.EVENT_READ, lambda _: os.read(self._wake_r, 64))
        self._attached = 0
        self._attached_s = 0.0
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ar1 host port", daemon=True)
        self._thread.start()

    @property
    def port(self) -> str:
        """Path of the terminal; empty while the cable is out."""
        return self._cable.port

    @property
    def heard(self) -> bool:
        """The attached system has said something."""
        return self._cable.heard_s > self._attached_s

    @property
    def heard_s(self) -> float:
        """When the system was heard last, or attached, on the clock of `time.monotonic`."""
        return self._cable.heard_s

    def attach(self, guest_port: str) -> int:
        """Connect to a system's terminal, instead of the one before. Returns what `detach` takes."""

        def action() -> None:
            self._attached += 1
            self._cable.attach(guest_port)
            self._attached_s = self._cable.heard_s

        self._do(action)
        return self._attached

    def detach(self, attached: int) -> None:
        """Unless another system was attached meanwhile."""
        self._do(lambda: self._cable.detach() if attached == self._attached else None)

    def plug(self) -> None:
        self._do(self._cable.plug)

    def unplug(self) -> None:
        self._do(self._cable.unplug)

    def close(self) -> None:
        with self._gate:
            self._todo.put((self._cable.close, Future()))
            self._closed = True
            os.write(self._wake_w, b"!")
        self._thread.join()
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _do(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        with self._gate:
            if self._closed:  # a system may end after its port was closed
                return
            self._todo.put((action, done))
            os.write(self._wake_w, b"!")
        done.result()

    def _run(self) -> None:
        while not (self._closed and self._todo.empty()):
            for key, events in self._selector.select(_STEP_S):
                if self._selector.get_map().get(key.fd) is key:  # not dropped by a handler before it
                    key.data(events)
            while not self._todo.empty():
                action, done = self._todo.get()
                try:
                    action()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)
            if not self._closed:
                self._cable.step()
