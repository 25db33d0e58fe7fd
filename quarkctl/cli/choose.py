"""Which device is meant. Never a guess: one that fits, or an error that lists them."""

from __future__ import annotations

from functools import partial

from quarkctl.link import Opener, ar1, identity, names
from quarkctl.link.identity import Device
from quarkctl.sim import control, folder
from quarkctl.sim.ar1 import control as ar1_control

#: Methods of the application processor.
AR1_METHODS = ("fastboot", "edl", "ramdump")


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
    return virtual + ar1_control.devices() + identity.serial_devices() + ar1.usb_devices()


def choose(word: str, method: str = "", *, allow_remote: bool = False) -> Opener:
    """The device that the user means, or the only one that ``method`` can flash.

    ``tcp:``, ``udp:`` and ``usbip:`` addresses are taken as they are; ``allow_remote``: also of other hosts by USB/IP.

    A path that belongs to no known device is taken as it is: an explicit port always wins.
    Raises DeviceMissing, DeviceAmbiguous.
    """
    network = ar1.network_device(word, allow_remote=allow_remote)
    if network:
        return identity.choose([network], network.identity, method).opener()
    if word.startswith("sim:") and method in AR1_METHODS:
        ar1_control.state(word.removeprefix("sim:"))
    elif word.startswith("sim:") and word.endswith("/ar1"):
        ar1_control.state(word.removeprefix("sim:").removesuffix("/ar1"))
    elif word.startswith("sim:"):
        control.port(word.removeprefix("sim:"))  # says at once if it is not there, and why
    found = [d for d in devices() if method or not _is_ar1(d) or word in (d.identity, d.port)]
    if "://" in word:
        return Device(word, word, "", lambda: word).opener()
    if word.startswith("/") and not any(d.is_called(word) for d in found):
        return Device(word, word, "", lambda: word).opener()
    return identity.choose(found, word, method).opener()


def _is_ar1(device: Device) -> bool:
    """The application processor of virtual glasses: a pair is one device, and without a method, or its own name, the
    microcontroller is meant."""
    return device.identity.startswith("sim:") and device.identity.endswith("/ar1")


def methods_of(word: str) -> tuple[str, ...]:
    """Flash methods that the devices take that the word may mean, in the modes in which they are now."""
    network = ar1.network_device(word)
    found = [network] if network else devices()
    return tuple(m for d in found if network or not word or d.is_called(word) for m in d.methods)
