"""Ports of a virtual USB host: what is plugged where, and who uses it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from quarkctl.sim.usb_device import UsbDevice

#: More at once than that are not heard.
CLIENTS_MAX = 64


def receive(channel: socket.socket, size_bytes: int) -> bytearray:
    """Exactly so many bytes. Raises EOFError when the other end closes before, OSError."""
    data = bytearray(size_bytes)
    view, done = memoryview(data), 0
    while done < size_bytes:
        count = channel.recv_into(view[done:])
        if not count:
            raise EOFError
        done += count
    return data


class Clients:
    """Everybody who connects to ``listener`` is served by a call of ``serve``, each in a thread of its own."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None], name: str) -> None:
        self._listener = listener
        self._serve = serve
        self._name = name
        self._room = threading.BoundedSemaphore(CLIENTS_MAX)
        threading.Thread(target=self._accept, name=f"{name} server", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                channel, _ = self._listener.accept()
                if not self._room.acquire(blocking=False):
                    channel.close()
                    continue
                threading.Thread(target=self._client, args=(channel,), name=f"{self._name} client", daemon=True).start()

    def _client(self, channel: socket.socket) -> None:
        try:
            with channel, suppress(EOFError, OSError):
                self._serve(channel)
        finally:
            self._room.release()

    def close(self) -> None:
        """Nobody new is served."""
        with suppress(OSError):  # closing alone does not wake a thread in accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Port:
    """One port. A device is plugged and pulled by the machine that owns the port, and used by one client at a time.

    When a client lets go of a device that it had started, ``renew`` makes a fresh one in its place: what a bus reset does.
    """

    def __init__(self, number: int = 1) -> None:
        self.number = number
        #: Another one at each plug, as on a real bus.
        self.address = number + 1
        self.renew: Callable[[], UsbDevice | None] | None = None
        self._device: UsbDevice | None = None
        self._user: object = None
        self._lock = threading.Lock()
        self._watchers: list[Callable[[UsbDevice | None, UsbDevice | None], None]] = []

    @property
    def device(self) -> UsbDevice | None:
        return self._device

    def watch(self, watcher: Callable[[UsbDevice | None, UsbDevice | None], None]) -> None:
        """Tell what was pulled and what was plugged, from now on."""
        self._watchers.append(watcher)

    def plug(self, device: UsbDevice | None) -> None:
        """Pull what is plugged, and plug ``device``, if any."""
        with self._lock:
            before, self._device = self._device, device
            self._user = None
            if device:
                self.address = self.address % 120 + 1
        if before:
            before.unplug()
        for watcher in self._watchers:
            watcher(before, device)

    def take(self, user: object) -> UsbDevice | None:
        """What is plugged now, for this user alone; None while somebody else uses it.

        Not what was seen in the port before: it may have been pulled or renewed meanwhile.
        """
        with self._lock:
            if self._device is None or self._user not in (None, user):
                return None
            self._user = user
            return self._device

    def give_back(self, user: object) -> None:
        with self._lock:
            if self._user is not user:
                return
            self._user = None
            before = self._device
            if before is None or self.renew is None:
                return
            self._device = self.renew()
        before.unplug()
