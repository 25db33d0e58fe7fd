"""Which device is meant. Never a guess: one that fits, or an error that lists them."""

from __future__ import annotations

from functools import partial

from quarkctl.errors import DeviceMissing
from quarkctl.link import Opener, ar1, identity, names
from quarkctl.link.identity import Device, Finder
from quarkctl.link.serial_port import SerialOpener
from quarkctl.sim import control, folder
from quarkctl.sim.ar1 import control as ar1_control

#: Methods of the application processor.
AR1_METHODS = ("fastboot", "edl", "ramdump")
#: Of the serial port of its system; a USB port takes any.
AR1_BAUD = 1_000_000


def devices() -> list[Device]:
    """Virtual glasses first, then USB serial ports."""
    stations = names.load().values()
    virtual = [
        Device(
            f"sim:{i.name}", i.port, f"{i.board}, {i.serial}", partial(control.port, i.name),
            board=i.board, serial=i.serial, methods=("smp",),
            names=tuple(s.name for s in stations if i.name == s.sim or i.serial == s.serial),
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
    word = _meant(word)
    if method in (ar1.LOADER, ar1.SYSTEM):
        return _ar1_way(word, method, allow_remote=allow_remote)
    network = ar1.network_device(word, allow_remote=allow_remote)
    if network:
        return identity.choose([network], network.identity, method).opener()
    if word.startswith("sim:") and method in AR1_METHODS:
        ar1_control.state(word.removeprefix("sim:"))
    elif word.startswith("sim:") and word.endswith("/ar1"):
        ar1_control.state(word.removeprefix("sim:").removesuffix("/ar1"))
    elif word.startswith("sim:"):
        control.port(word.removeprefix("sim:"))  # says at once if it is not there, and why
    found = devices()
    if "://" in word:
        return Device(word, word, "", lambda: word).opener()
    if word.startswith("/") and not any(d.is_called(word) for d in found):
        return Device(word, word, "", lambda: word).opener()
    return identity.choose(found, word, method).opener()


def _meant(word: str) -> str:
    """Of virtual glasses the pair, where the word is their serial number or a station of theirs: it holds for both chips."""
    station = names.load().get(word)
    if station and station.sim:
        return station.word
    serials = (word, station.serial) if station and station.serial else (word,)
    return next((f"sim:{i.name}" for i in folder.running() if word and i.serial in serials), word)


def other_chip(opener: Opener) -> Opener | None:
    """The AR1's own line of virtual glasses whose microcontroller this is, while its system runs. Of real glasses nobody
    knows which ports are a pair: there it must be named."""
    name = opener.identity.removeprefix("sim:")
    if name == opener.identity or name.endswith("/ar1"):
        return None
    try:
        ar1_control.port(name)
    except DeviceMissing:
        return None
    return choose(f"{opener.identity}/ar1")


def methods_of(word: str) -> tuple[str, ...]:
    """Flash methods that the devices take that the word may mean, in the modes in which they are now."""
    network = ar1.network_device(word)
    found = [network] if network else devices()
    return tuple(m for d in found if network or not word or d.is_called(word) for m in d.methods)


def _ar1_way(word: str, way: str, *, allow_remote: bool) -> Opener:
    """To an AR1 in whatever mode it is: its boot loader, or the serial port that its system has under the same number.

    Without a word the only one that is in fastboot. Raises DeviceMissing, DeviceAmbiguous.
    """
    if word.startswith("sim:"):
        name = word.removeprefix("sim:").removesuffix("/ar1")
        ar1_control.state(name)  # says at once if it is not there, and why
        if way == ar1.LOADER:
            return ar1_control.LoaderWay(name)
        return SerialOpener(f"sim:{name}/ar1", partial(ar1_control.port, name), AR1_BAUD)
    found = ar1.network_device(word, allow_remote=allow_remote)
    if found is None:
        serial = Finder(word)
        there = [d for d in ar1.usb_devices() if ar1.FASTBOOT in d.methods]
        if word and not any(d.is_called(word) for d in there) and serial():  # its system runs
            return ar1.UsbWay(word, "") if way == ar1.LOADER else SerialOpener(word, serial, AR1_BAUD)
        found = identity.choose(there, word, ar1.FASTBOOT)
    return found.opener() if way == ar1.LOADER else SerialOpener(found.identity, Finder(found.identity), AR1_BAUD)
