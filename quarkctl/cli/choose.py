"""Which device is meant. Never a guess: one that fits, or an error that lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from quarkctl.errors import DeviceAmbiguous, DeviceMissing
from quarkctl.link.serial_port import SerialOpener, list_serial
from quarkctl.sim import control, folder

#: Line rate for ports whose board is not known yet.
DEFAULT_BAUD = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """A device of this computer. ``identity`` stays the same over resets."""

    identity: str
    board: str
    serial: str
    port: str
    description: str
    resolve: Callable[[], str]

    def opener(self) -> SerialOpener:
        return SerialOpener(self.identity, self.resolve, DEFAULT_BAUD)

    def __str__(self) -> str:
        return f"{self.identity} ({self.description})"


def candidates() -> list[Candidate]:
    """Virtual glasses first, then USB serial ports."""
    found = [
        Candidate(f"sim:{i.name}", i.board, i.serial, i.port, f"{i.board}, {i.serial}", partial(control.port, i.name))
        for i in folder.running()
    ]
    for d in list_serial():
        identity = f"usb:{d.serial}" if d.serial else f"usb:{d.location}"
        where = partial(_path, d.serial, d.path)
        found.append(Candidate(identity, "", d.serial, d.path, f"{d.product}, {d.path}", where))
    return found


def _path(serial: str, last: str) -> str:
    """Where the port with this serial number is now; names change when a device comes back."""
    return next((d.path for d in list_serial() if serial and d.serial == serial), last)


def choose(device: str) -> SerialOpener:
    """The device that the user means, or the only one. Raises DeviceMissing, DeviceAmbiguous."""
    if device.startswith("/"):
        return SerialOpener(device, lambda: device, DEFAULT_BAUD)
    if device.startswith("sim:"):
        name = device.removeprefix("sim:")
        control.port(name)  # says at once if it is not there
        return SerialOpener(device, lambda: control.port(name), DEFAULT_BAUD)
    found = candidates()
    if device:
        fitting = [c for c in found if device in (c.identity, c.serial, c.port)]
        if not fitting:
            there = ", ".join(str(c) for c in found) or "nothing"
            raise DeviceMissing(f"there is no device {device!r}", hint=f"there is: {there}")
        found = fitting
    if not found:
        raise DeviceMissing(
            "no device found", hint="plug glasses in, or start virtual ones: quarkctl sim start; then quarkctl devices"
        )
    if len(found) > 1:
        listed = ", ".join(str(c) for c in found)
        raise DeviceAmbiguous(f"{len(found)} devices fit: {listed}", hint=f"choose one: --device {found[0].identity}")
    return found[0].opener()
