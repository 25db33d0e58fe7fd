"""Where the application processor is: on USB in one of its modes, behind USB/IP, or in the network.

The serial number of fastboot and that of emergency download differ (the storage's and the SoC's). Which belong together
is learnt when a device that we know changes its mode on the same port, and kept.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quarkctl import state
from quarkctl.errors import DeviceMissing, LinkError, UsageWrong
from quarkctl.formats import fastboot, firehose, usbip
from quarkctl.link import Link, lock
from quarkctl.link.identity import Device
from quarkctl.link.lock import Lock
from quarkctl.link.tcp import TcpLink
from quarkctl.link.udp import UdpLink
from quarkctl.link.usb import UsbDevice, UsbLink, pick, scan

#: A restart into another mode takes this long at most.
RESTART_S = 60.0
_POLL_S = 0.1
_EDL_SERIAL = re.compile(r"_SN:([0-9A-Fa-f]+)")
_EDL_PROTOCOLS = frozenset({0x10, 0x11, 0x13, 0xFF})

FASTBOOT, EDL, DUMP = "fastboot", "edl", "dump"
#: What an update asks for beside flash methods: its two ways to an AR1, whichever mode that is in at the moment.
LOADER, SYSTEM = "ar1 boot loader", "ar1 system"
#: {mode: flash methods that it takes}
METHODS_OF_MODE: dict[str, tuple[str, ...]] = {
    FASTBOOT: ("fastboot",), "fastbootd": ("fastboot",), EDL: ("edl",), DUMP: ("ramdump",),
}  # fmt: skip


def mode_of(device: UsbDevice) -> str:
    """Which of the AR1's modes a USB device is in; empty for anything else."""
    kind = device.interface_class
    if kind == fastboot.USB_INTERFACE:
        return FASTBOOT
    if kind[:2] == (0xFF, 0xFF) and kind[2] in _EDL_PROTOCOLS:
        if device.usb_id == firehose.EDL_USB_ID:
            return EDL
        if device.usb_id in firehose.DUMP_USB_IDS:
            return DUMP
    return ""


#: How to come from one mode to another, for hints.
_WAYS = {
    FASTBOOT: "leave it by its power key, or quarkctl ar1 power reset; then start it into fastboot",
    EDL: "quarkctl ar1 reboot edl, or its test points",
    DUMP: "it waits with the memory of a crashed system: quarkctl ar1 ramdump",
}


def mode_of_link(link: Link) -> str:
    """Networks carry fastboot only."""
    return mode_of(link.found) if isinstance(link, UsbLink) else FASTBOOT


def expect(link: Link, *modes: str) -> None:
    """Raises LinkError, and closes the link, where the device is in another mode: not a byte may be said to it then."""
    found = mode_of_link(link)
    if found in modes:
        return
    link.close()
    raise LinkError(f"{link.name} is in {found or 'no known mode'}, not in {' or '.join(modes)}", hint=_WAYS[modes[0]])


def serial_of(device: UsbDevice) -> str:
    """Emergency download has no serial number descriptor: the SoC's is in the product's name."""
    match = _EDL_SERIAL.search(device.product)
    return device.serial or (match[1].upper() if match else "")


# --- which serial numbers belong together -----------------------------------------------------------------------------


def _aliases() -> dict[str, str]:
    """{serial number in emergency download: serial number in fastboot}"""
    try:
        raw = json.loads((state.root() / "serials.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in raw.items()} if isinstance(raw, dict) else {}


def learn(edl_serial: str, fastboot_serial: str) -> None:
    """These two are one device."""
    if not edl_serial or not fastboot_serial or edl_serial == fastboot_serial:
        return
    known = _aliases()
    if known.get(edl_serial) == fastboot_serial:
        return
    known[edl_serial] = fastboot_serial
    path = state.folder(".") / "serials.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(known, indent=1), "utf-8")
    temporary.replace(path)


def identity_of(device: UsbDevice) -> str:
    """The same in every mode, as far as it was learnt."""
    serial = serial_of(device)
    return f"usb:{_aliases().get(serial, serial)}" if serial else f"usb:{device.port}"


# --- ways -------------------------------------------------------------------------------------------------------------


@dataclass
class UsbWay:
    """A device on a USB bus: this computer's, or one behind USB/IP (``backend`` makes pyusb's backend)."""

    identity: str
    port: str
    backend: Callable[[], Any] = lambda: None

    def hold(self) -> Lock:
        return lock.hold(self.identity)

    def resolve(self) -> str:
        return self.find().port

    def find(self) -> UsbDevice:
        """The device in whatever mode it is now: by what identifies it, else by where it was. Raises DeviceMissing."""
        found = [d for d in scan(self.backend()) if mode_of(d)]
        same = [d for d in found if identity_of(d) == self.identity]
        if not same:  # it changed its mode, and with it its serial number: the port is what stays
            same = [d for d in found if d.port == self.port]
        if len(same) > 1:
            same = [d for d in same if d.port == self.port] or same
        return pick(same, "")

    def open(self) -> Link:
        found = self.find()
        mode, serial = mode_of(found), serial_of(found)
        known = self.identity.removeprefix("usb:")
        if mode in (EDL, DUMP) and serial != known and self.identity != f"usb:{self.port}":
            learn(serial, known)
        return UsbLink(found, f"usb {found.port}")


@dataclass
class NetworkWay:
    """fastboot over TCP or UDP."""

    identity: str
    connect: Callable[[], Link]

    def hold(self) -> Lock:
        return lock.hold(self.identity)

    def resolve(self) -> str:
        return self.identity

    def open(self) -> Link:
        return self.connect()


Way = UsbWay | NetworkWay


def reopen(way: Any, wanted: Callable[[Link], bool], timeout_s: float = RESTART_S) -> Link:
    """Wait for the device to come back, in the mode that ``wanted`` recognises. Raises DeviceMissing with what is there."""
    from quarkctl.errors import ProtocolError

    deadline = time.monotonic() + timeout_s
    last = "nothing"
    while time.monotonic() < deadline:
        try:
            link: Link = way.open()
        except (LinkError, ProtocolError) as error:
            last = error.message
        else:
            try:
                if wanted(link):
                    return link
                last = f"{link.name} in another mode"
            except (LinkError, ProtocolError) as error:
                last = error.message
            link.close()
        time.sleep(_POLL_S)
    raise DeviceMissing(
        f"{way.identity} did not come back within {timeout_s:.0f} s: {last}",
        hint="look at its screen or console; under WSL attach it again (usbipd attach --auto-attach)",
    )


def network_device(word: str, *, allow_remote: bool = False) -> Device | None:
    """``tcp:HOST[:PORT]``, ``udp:HOST[:PORT]``, ``usbip:HOST[:PORT][/BUSID]``; None for any other word.

    Raises UsageWrong for a malformed one, DeviceMissing, DeviceAmbiguous (usbip).
    """
    kind, colon, rest = word.partition(":")
    if not colon or kind not in ("tcp", "udp", "usbip"):
        return None
    place, _, bus_id = rest.partition("/")
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+)(?::(\d{1,5}))?", place)
    if not match or (match[2] and not 0 < int(match[2]) < 65536):
        raise UsageWrong(f"{word!r} is no address", hint="tcp:HOST:PORT, udp:HOST:PORT, or usbip:HOST:PORT/BUSID")
    host = match[1].strip("[]")
    if kind == "usbip":
        return _usbip_device(host, int(match[2] or usbip.PORT), bus_id, allow_remote=allow_remote)
    port = int(match[2] or fastboot.PORT)
    identity = f"{kind}:{host}:{port}"

    def connect() -> Link:
        return TcpLink(host, port) if kind == "tcp" else UdpLink(host, port)

    way = NetworkWay(identity, connect)
    return Device(identity, f"{host}:{port}", f"fastboot over {kind.upper()}", lambda: identity, mode=FASTBOOT,
                  methods=METHODS_OF_MODE[FASTBOOT], way=way)  # fmt: skip


def _usbip_device(host: str, port: int, bus_id: str, *, allow_remote: bool) -> Device:
    from quarkctl.link.usbip import Backend, check_address, list_devices

    check_address(host, allow_remote=allow_remote)
    exported = {d.bus_id for d in list_devices(host, port)}
    every = Backend(host, port, allow_remote=allow_remote, bus_id=bus_id if bus_id in exported else "")
    found = [d for d in scan(every) if mode_of(d)]
    every.release_all()  # only looked at; it is imported anew when it is opened
    chosen = pick(found, bus_id)
    # From now on only this one: whoever flashes another device of the same server must not be kept from it.
    backend = Backend(host, port, allow_remote=allow_remote, bus_id=chosen.port)
    return _device(chosen, lambda: backend, f"usbip:{host}:{port}/")


def usb_devices() -> list[Device]:
    """Devices in fastboot, emergency download or memory dump on this computer's buses; empty without libusb."""
    from quarkctl.errors import HostUnfit

    try:
        found = [d for d in scan() if mode_of(d)]
    except HostUnfit:
        return []
    count = Counter(map(identity_of, found))
    return [_device(d, lambda: None, "", twin=count[identity_of(d)] > 1) for d in found]


def _device(found: UsbDevice, backend: Callable[[], Any], prefix: str, *, twin: bool = False) -> Device:
    """``twin``: another device has the same serial number, so only the port tells them apart."""
    identity, mode = f"usb:{found.port}" if twin else identity_of(found), mode_of(found)
    where = f"{prefix}{found.port}"
    return Device(
        identity, where, f"{mode}, {found.product}, port {where}", lambda: where, serial=serial_of(found),
        location=found.port, mode=mode, methods=METHODS_OF_MODE[mode], way=UsbWay(identity, found.port, backend),
    )  # fmt: skip
