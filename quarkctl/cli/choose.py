"""Which device is meant. Never a guess: one that fits, or an error that lists them."""

from __future__ import annotations

from functools import partial

from quarkctl.link import identity, names
from quarkctl.link.identity import Device
from quarkctl.link.serial_port import SerialOpener
from quarkctl.sim import control, folder


def devices() -> list[Device]:
    """Virtual glasses first, then USB serial ports."""
    stations = names.load().values()
    virtual = [
        Device(
            f"sim:{i.name}", i.port, f"{i.board}, {i.serial}", partial(control.port, i.name),
            board=i.board, serial=i.serial, methods=("smp",),
            names=tuple(s.name for s in stations if s.sim == i.name),
        )
        for i in folder.running()
    ]  # fmt: skip
    return virtual + identity.serial_devices()


def choose(word: str, method: str = "") -> SerialOpener:
    """The device that the user means, or the only one that ``method`` can flash.

    A path that belongs to no known device is taken as it is: an explicit port always wins.
    Raises DeviceMissing, DeviceAmbiguous.
    """
    if word.startswith("sim:"):
        control.port(word.removeprefix("sim:"))  # says at once if it is not there, and why
    found = devices()
    if "://" in word:
        return Device(word, word, "", lambda: word).opener()
    if word.startswith("/") and not any(d.is_called(word) for d in found):
        return Device(word, word, "", lambda: word).opener()
    return identity.choose(found, word, method).opener()
