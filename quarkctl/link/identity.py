"""Which device is which: what stays the same while ports come and go.

A USB device is its serial number, and the number of the interface where it has several (two UARTs of one chip). Where it
has no serial number, or shares it with another that is present (cheap bridges are all "0001"), it is the physical port
that it is plugged into. The name of its tty is never identity: it is the order of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quarkctl.errors import DeviceAmbiguous, DeviceMissing
from quarkctl.link import Opener, names
from quarkctl.link.serial_port import SerialOpener, SerialPort, list_ports

#: Flash methods that a plain serial port may lead to.
SERIAL_METHODS = ("smp", "esptool")


@dataclass(frozen=True)
class Device:
    """A device of this computer.

    ``port`` is where it is now, empty while it is unplugged; ``location`` the physical port (``1-1.2``, with interface
    ``1-1.2:1.0``); ``methods`` the flash methods that its present mode takes; ``resolve`` finds its port again; ``way``
    opens it where it is no serial port.
    """

    identity: str
    port: str
    description: str
    resolve: Callable[[], str]
    board: str = ""
    serial: str = ""
    location: str = ""
    mode: str = ""
    methods: Sequence[str] = SERIAL_METHODS
    baud: int = 1_000_000
    names: tuple[str, ...] = field(default=())
    way: Opener | None = None

    def opener(self) -> Opener:
        return self.way or SerialOpener(self.identity, self.resolve, self.baud)

    def is_called(self, word: str) -> bool:
        """Is the word its identity, serial number, physical port, path, or name in rig.toml?"""
        if word in (self.identity, self.serial, self.location, self.location.partition(":")[0], *self.names):
            return True
        return word.startswith("/") and bool(self.port) and Path(word).resolve() == Path(self.port).resolve()

    def __str__(self) -> str:
        return f"{self.identity} ({self.description})"


def serial_devices() -> list[Device]:
    """USB serial ports of this computer. Raises InputWrong for a damaged rig.toml."""
    ports = list_ports()
    stations = names.load()
    identities = identify(ports)
    return [
        Device(
            identity, p.path, f"{p.product}, {p.path}, port {p.location or '?'}", Finder(identity),
            serial=p.serial, location=p.location,
            names=tuple(s.name for s in stations.values() if s.serial == p.serial != "" or s.port == p.location != ""),
        )
        for identity, p in zip(identities, ports, strict=True)
    ]  # fmt: skip


def identify(ports: Sequence[SerialPort]) -> list[str]:
    """The identity of each port, all different."""
    strong = [_strong(p) for p in ports]
    count = Counter(strong)
    return [s if s and count[s] == 1 else f"usb:{p.location or p.path}" for s, p in zip(strong, ports, strict=True)]


def _strong(port: SerialPort) -> str:
    interface = port.location.partition(":")[2]
    return f"usb:{port.serial}{f':{interface}' if interface else ''}" if port.serial else ""


@dataclass(frozen=True)
class Finder:
    """Where the device with this identity is now. Raises DeviceMissing while it is nowhere."""

    identity: str

    def __call__(self) -> str:
        ports = list_ports()
        for identity, port in zip(identify(ports), ports, strict=True):
            if identity == self.identity:
                return port.path
        raise DeviceMissing(
            f"{self.identity} is not connected", hint="plug it in; `quarkctl devices` lists what is there"
        )


def called(found: Sequence[Device], word: str) -> list[Device]:
    """The devices that the word may mean where no flash method says which chip; where it is an identity, that one."""
    fitting = [d for d in found if d.is_called(word)]
    return talking([d for d in fitting if d.identity == word] or fitting)


def talking(found: Sequence[Device]) -> list[Device]:
    """Two chips of one pair may have one serial number. Where no flash method says which, it is not the one with modes (an
    application processor), if another is there."""
    serials = {d.serial for d in found if d.serial and not d.mode}
    return [d for d in found if not d.mode or d.serial not in serials]


def choose(found: Sequence[Device], word: str, method: str = "") -> Device:
    """The device that the user means, or the only one that fits. Never a guess.

    Raises DeviceMissing, DeviceAmbiguous; both list what there is.
    """
    if word:
        fitting = [d for d in found if d.is_called(word)]
        if not fitting:
            raise _missing(found, word)
        wrong_mode = [d for d in fitting if method and method not in d.methods]
        fitting = [d for d in fitting if d not in wrong_mode]
        if not fitting:
            d = next((d for d in wrong_mode if d.mode), wrong_mode[0])  # the chip that may take it in another mode
            mode = f" in mode {d.mode}" if d.mode else ""
            takes = f"it takes {', '.join(d.methods)}" if d.methods else "restart it into the mode that does"
            raise DeviceMissing(f"{d.identity}{mode} does not take {method}", hint=takes)
    else:
        fitting = [d for d in found if not method or method in d.methods]
        if not fitting:
            raise DeviceMissing(
                "no device found",
                hint="plug glasses in, or start virtual ones: quarkctl sim start; then quarkctl devices",
            )
    if len(fitting) > 1:  # of glasses with two chips, the identity names the microcontroller
        fitting = [d for d in fitting if d.identity == word] or fitting
        fitting = fitting if method else talking(fitting)
    if len(fitting) > 1:
        listed = ", ".join(str(d) for d in fitting)
        raise DeviceAmbiguous(
            f"{len(fitting)} devices fit: {listed}", hint=f"choose one: --device {fitting[0].identity}"
        )
    return fitting[0]


def _missing(found: Sequence[Device], word: str) -> DeviceMissing:
    station = names.load().get(word)
    if station:
        return DeviceMissing(f"{station} is not connected", hint="plug it in, or correct rig.toml")
    there = ", ".join(str(d) for d in found) or "nothing"
    return DeviceMissing(f"there is no device {word!r}", hint=f"there is: {there}")
