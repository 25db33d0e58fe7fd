"""Ports of a virtual USB host: what is plugged where, and who uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from quarkctl.sim.usb_device import UsbDevice


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

    def take(self, user: object) -> bool:
        """False while somebody else uses the device."""
        with self._lock:
            if self._device is None or self._user not in (None, user):
                return False
            self._user = user
            return True

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
