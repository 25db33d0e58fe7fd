"""Virtual devices for unmodified programs on a computer without USB: the peer of ``libumockdev-preload``.

A client runs with ``LD_PRELOAD`` and ``UMOCKDEV_DIR``; it then sees this folder as its /sys and /dev, and its usbfs calls
arrive here on unix sockets. Source: the wire protocol between libumockdev-preload 0.17 and umockdev's own testbed, and
Linux ``include/uapi/linux/usbdevice_fs.h`` for 64-bit little-endian machines.
"""

from __future__ import annotations

import errno
import shutil
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path

from quarkctl.errors import HostUnfit
from quarkctl.sim.usb_device import Transfer, UsbDevice
from quarkctl.sim.usb_host import Clients, Port, receive

_LIBRARY_PATTERNS = ("/usr/lib/*-linux-gnu/libumockdev-preload.so.0", "/usr/lib64/libumockdev-preload.so.0")

_MESSAGE = struct.Struct("=QQQ")
_IOCTL, _READ, _WRITE = 1, 7, 8
_DONE, _RUN, _READ_MEMORY, _WRITE_MEMORY = 3, 4, 5, 6

#: Requests of usbfs.
_CONTROL, _BULK = 0xC0185500, 0xC0185502
_SUBMIT, _DISCARD, _REAP, _REAP_NOW = 0x8038550A, 0x550B, 0x4008550C, 0x4008550D
_CLAIM, _CLAIM_DISCONNECT, _RELEASE = 0x8004550F, 0x8108551B, 0x80045510
_SET_CONFIGURATION, _SET_INTERFACE, _RESET_ENDPOINT, _CLEAR_HALT, _RESET = (
    0x80045505, 0x80085504, 0x80045503, 0x80045515, 0x5514,
)  # fmt: skip
_CAPABILITIES, _SPEED, _CONNECT_INFO = 0x8004551A, 0x551F, 0x40085511
_GET_DRIVER, _DRIVER_IOCTL = 0x41045508, 0xC0105512
#: Zero packets, no limit of 16 KiB, reap after disconnect.
_CAPABILITY_BITS = 0x01 | 0x04 | 0x10
_URB_ZERO_PACKET = 0x40
_URB_CONTROL = 2
#: libusb polls a descriptor that is always writable: it must not spin while something is under way.
_REAP_WAIT_S = 0.002


def library() -> Path:
    """The preload library. Raises HostUnfit."""
    for pattern in _LIBRARY_PATTERNS:
        for path in Path("/").glob(pattern.lstrip("/")):
            return path
    raise HostUnfit("umockdev is not installed", hint="on Debian or Ubuntu: apt-get install umockdev")


class Testbed:
    """A folder that clients take for /sys and /dev, with the devices of some ports."""

    def __init__(self, root: Path, ports: list[Port]) -> None:
        self.root = root
        for folder in ("sys/bus/usb/devices", "sys/class", "sys/devices", "dev/bus/usb/001", "ioctl/dev/bus/usb/001"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._sequence = 0
        self._slots: dict[int, _Slot] = {}
        self._ports = ports
        for port in ports:
            port.watch(partial(self._changed, port))
            if port.device:
                self._plug(port, port.device)

    def environment(self) -> dict[str, str]:
        """What a client needs besides its own."""
        return {"LD_PRELOAD": str(library()), "UMOCKDEV_DIR": str(self.root)}

    def _changed(self, port: Port, _before: UsbDevice | None, after: UsbDevice | None) -> None:
        slot = self._slots.pop(port.number, None)
        if slot:
            self._unplug(slot)
        if after:
            self._plug(port, after)

    def _plug(self, port: Port, device: UsbDevice) -> None:
        slot = _Slot(self.root, port, device)
        self._slots[port.number] = slot
        slot.publish()
        self._announce("add", slot)

    def _unplug(self, slot: _Slot) -> None:
        slot.withdraw()
        self._announce("remove", slot)

    def close(self) -> None:
        for slot in self._slots.values():
            slot.withdraw()
        self._slots.clear()

    def _announce(self, action: str, slot: _Slot) -> None:
        """A hot-plug event, as udev sends it, to every monitor of every client."""
        self._sequence += 1
        values = {
            "ACTION": action,
            "DEVPATH": f"/{slot.path}",
            "SUBSYSTEM": "usb",
            "SEQNUM": self._sequence,
            **slot.event,
        }
        body = b"".join(f"{k}={v}\0".encode() for k, v in values.items())
        header = b"libudev\0" + struct.pack(">I", 0xFEEDCAFE) + struct.pack("=III", 40, 40, len(body))
        header += struct.pack(">IIII", _murmur2(b"usb"), _murmur2(b"usb_device"), 0, 0)
        for monitor in self.root.glob("event[0-9]*"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_RAW) as channel, suppress(OSError):
                channel.connect(str(monitor))
                channel.send(header + body)


class _Slot:
    """A plugged device in the folder: files, node, and the socket that takes its calls."""

    def __init__(self, root: Path, port: Port, device: UsbDevice) -> None:
        self.port = port
        self.device = device
        self.number = port.address
        self.gone = False
        self._root = root
        name = f"1-{port.number}"
        self.path = f"devices/pci0000:00/0000:00:14.0/usb1/{name}"
        self._links = {name: self.path, f"{name}:1.0": f"{self.path}/{name}:1.0"}
        self._node = root / f"dev/bus/usb/001/{self.number:03}"
        self._listener = socket.socket(socket.AF_UNIX)
        d = device.descriptor
        self._product = f"{d.vendor_id:x}/{d.product_id:x}/{device.release:x}"
        self.event = {
            "DEVTYPE": "usb_device", "DEVNAME": f"/dev/bus/usb/001/{self.number:03}", "PRODUCT": self._product,
            "BUSNUM": "001", "DEVNUM": f"{self.number:03}", "MAJOR": 189, "MINOR": self.number - 1,
        }  # fmt: skip

    def publish(self) -> None:
        device, d, name = self.device, self.device.descriptor, f"1-{self.port.number}"
        folder = self._root / "sys" / self.path
        interface = folder / f"{name}:1.0"
        interface.mkdir(parents=True)
        descriptors = device.device_descriptor + device.configuration_descriptor
        (folder / "descriptors").write_bytes(descriptors)
        about = {
            "busnum": "1", "devnum": str(self.number), "devpath": str(self.port.number),
            "speed": "5000" if d.packet_bytes == 1024 else "480", "bConfigurationValue": "1", "bNumConfigurations": "1",
            "bNumInterfaces": " 1", "idVendor": f"{d.vendor_id:04x}", "idProduct": f"{d.product_id:04x}",
            "manufacturer": d.manufacturer, "product": d.product,
            "uevent": f"MAJOR=189\nMINOR={self.number - 1}\nDEVNAME=bus/usb/001/{self.number:03}\nDEVTYPE=usb_device\n"
            f"PRODUCT={self._product}\nTYPE=0/0/0\nBUSNUM=001\nDEVNUM={self.number:03}",
        }  # fmt: skip
        if d.serial:
            about["serial"] = d.serial
        kind = d.interface
        about_interface = {
            "bInterfaceNumber": "00", "bAlternateSetting": " 0", "bInterfaceClass": f"{kind[0]:02x}",
            "bInterfaceSubClass": f"{kind[1]:02x}", "bInterfaceProtocol": f"{kind[2]:02x}", "bNumEndpoints": "02",
            "uevent": "DEVTYPE=usb_interface",
        }  # fmt: skip
        for where, files in ((folder, about), (interface, about_interface)):
            for file, text in files.items():
                (where / file).write_text(text + "\n")
        (folder / "subsystem").symlink_to("../../../../../bus/usb")
        (interface / "subsystem").symlink_to("../../../../../../bus/usb")
        # The socket comes before the node: a client that finds a node without a socket ends.
        self._listener.bind(str(self._root / f"ioctl/dev/bus/usb/001/{self.number:03}"))
        self._listener.listen()
        self._clients = Clients(self._listener, lambda channel: _Client(channel, self).run(), f"usbfs {self.number}")
        self._node.write_bytes(descriptors)
        for link, target in self._links.items():
            (self._root / "sys/bus/usb/devices" / link).symlink_to(f"../../../{target}")

    def withdraw(self) -> None:
        self.gone = True
        for link in self._links:
            (self._root / "sys/bus/usb/devices" / link).unlink(missing_ok=True)
        self._node.unlink(missing_ok=True)
        shutil.rmtree(self._root / "sys" / self.path, ignore_errors=True)
        self._clients.close()
        (self._root / f"ioctl/dev/bus/usb/001/{self.number:03}").unlink(missing_ok=True)


class _Client:
    """One open descriptor of one client."""

    def __init__(self, connection: socket.socket, slot: _Slot) -> None:
        self._socket = connection
        self._slot = slot
        self._claimed = False
        self._changed = threading.Condition()
        self._done: deque[tuple[int, Transfer]] = deque()
        self._under_way: dict[int, Transfer] = {}

    @property
    def _device(self) -> UsbDevice:
        return self._slot.port.device if self._slot.port.device and not self._slot.gone else self._slot.device

    def run(self) -> None:
        try:
            while True:
                kind, first, second = _MESSAGE.unpack(self._receive(_MESSAGE.size))
                if kind == _IOCTL:
                    self._ioctl(first & 0xFFFFFFFF, second)
                elif kind in (_READ, _WRITE):
                    self._socket.sendall(_MESSAGE.pack(_RUN, 0, 0))
                    _, result, error = _MESSAGE.unpack(self._receive(_MESSAGE.size))
                    self._socket.sendall(_MESSAGE.pack(_DONE, result, error))
        finally:
            for transfer in list(self._under_way.values()):
                self._device.unlink(transfer)
            if self._claimed:
                self._slot.port.give_back(self)

    # --- the client's memory ------------------------------------------------------------------------------------------

    def _receive(self, size_bytes: int) -> bytearray:
        return receive(self._socket, size_bytes)

    def _load(self, address: int, size_bytes: int) -> bytearray:
        self._socket.sendall(_MESSAGE.pack(_READ_MEMORY, address, size_bytes))
        return self._receive(size_bytes)

    def _store(self, address: int, data: bytes | memoryview) -> None:
        self._socket.sendall(_MESSAGE.pack(_WRITE_MEMORY, address, len(data)))
        self._socket.sendall(data)

    def _finish(self, result: int = 0) -> None:
        self._socket.sendall(_MESSAGE.pack(_DONE, result, 0))

    def _fail(self, code: int) -> None:
        self._socket.sendall(_MESSAGE.pack(_DONE, (1 << 64) - 1, code))

    # --- requests -----------------------------------------------------------------------------------------------------

    def _ioctl(self, request: int, argument: int) -> None:
        if self._slot.gone and request not in (_REAP, _REAP_NOW):
            self._fail(errno.ENODEV)
        elif request in (_REAP, _REAP_NOW):
            self._reap(argument, wait=request == _REAP)
        elif request == _SUBMIT:
            self._submit(argument)
        elif request in (_CONTROL, _BULK):
            self._synchronous(request, argument)
        elif request == _DISCARD:
            self._discard(argument)
        elif request in (_CLAIM, _CLAIM_DISCONNECT):
            self._claim()
        elif request == _RELEASE:
            self._claimed = False
            self._slot.port.give_back(self)
            self._finish()
        elif request in (_CLEAR_HALT, _RESET_ENDPOINT):
            self._device.clear_halt(int.from_bytes(self._load(argument, 4), "little"))
            self._finish()
        elif request in (_SET_CONFIGURATION, _SET_INTERFACE, _RESET):
            self._finish()
        elif request == _CAPABILITIES:
            self._store(argument, struct.pack("=I", _CAPABILITY_BITS))
            self._finish()
        elif request == _SPEED:
            self._finish(self._device.descriptor.speed)
        elif request == _CONNECT_INFO:
            self._store(argument, struct.pack("=IBxxx", self._slot.number, 0))
            self._finish()
        elif request in (_GET_DRIVER, _DRIVER_IOCTL):
            self._fail(errno.ENODATA)  # no kernel driver is bound
        else:
            self._fail(errno.ENOTTY)

    def _claim(self) -> None:
        if not self._slot.port.take(self):
            self._fail(errno.EBUSY)
            return
        self._claimed = True
        self._device.start()
        self._finish()

    def _synchronous(self, request: int, argument: int) -> None:
        raw = bytes(self._load(argument, 24))
        setup = b""
        if request == _CONTROL:
            kind, _, _, _, size, timeout_ms, address = struct.unpack("=BBHHHI4xQ", raw)
            endpoint, incoming, setup = 0, bool(kind & 0x80), raw[:8]
        else:
            end, size, timeout_ms, address = struct.unpack("=III4xQ", raw)
            endpoint, incoming = end & 15, bool(end & 0x80)
        data = memoryview(self._load(address, size)) if size and not incoming else b""
        ended = threading.Event()
        transfer = Transfer(endpoint, incoming, size, lambda _: ended.set(), data, setup)
        self._device.submit(transfer)
        if not ended.wait(timeout_ms / 1000 if timeout_ms else None):
            if self._device.unlink(transfer):
                self._fail(errno.ETIMEDOUT)
                return
            ended.wait()
        if transfer.status:
            self._fail(errno.ENODEV if transfer.status == -errno.ESHUTDOWN else -transfer.status)
            return
        if incoming and transfer.actual:
            self._store(address, b"".join(transfer.pieces))
        self._finish(transfer.actual)

    def _submit(self, argument: int) -> None:
        kind, end, _, flags, address, size = struct.unpack_from("=BB2xiI4xQi", self._load(argument, 56))
        if kind == _URB_CONTROL:
            raw = bytes(self._load(address, size))
            endpoint, incoming, setup, size = 0, bool(raw[0] & 0x80), raw[:8], size - 8
            data: bytes | memoryview = raw[8:]
        else:
            endpoint, incoming, setup = end & 15, bool(end & 0x80), b""
            data = memoryview(self._load(address, size)) if size and not incoming else b""

        def done(transfer: Transfer) -> None:
            with self._changed:
                self._done.append((argument, transfer))
                self._changed.notify()

        transfer = Transfer(endpoint, incoming, size, done, data, setup, bool(flags & _URB_ZERO_PACKET))
        self._under_way[argument] = transfer
        self._device.submit(transfer)
        self._finish()

    def _discard(self, argument: int) -> None:
        transfer = self._under_way.get(argument)
        if transfer is None or not self._device.unlink(transfer):
            self._fail(errno.EINVAL)
            return
        transfer.status = -errno.ENOENT
        with self._changed:
            self._done.append((argument, transfer))
        self._finish()

    def _reap(self, result: int, *, wait: bool) -> None:
        with self._changed:
            if not self._done and (self._under_way or wait):
                self._changed.wait(None if wait else _REAP_WAIT_S)
            reaped = self._done.popleft() if self._done else None
        if reaped is None:
            self._fail(errno.ENODEV if self._slot.gone else errno.EAGAIN)
            return
        argument, transfer = reaped
        del self._under_way[argument]
        (address,) = struct.unpack("=Q", self._load(argument + 16, 8)) if transfer.pieces else (0,)
        if transfer.pieces and transfer.actual:
            self._store(address + (0 if transfer.endpoint else 8), b"".join(transfer.pieces))
        self._store(argument + 4, struct.pack("=i", transfer.status))
        self._store(argument + 28, struct.pack("=i", transfer.actual))
        self._store(result, struct.pack("=Q", argument))
        self._finish()


def _murmur2(data: bytes) -> int:
    """MurmurHash2 with seed 0, with which udev's monitors filter."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    value, at = len(data), 0
    while len(data) - at >= 4:
        word = int.from_bytes(data[at : at + 4], "little") * factor & mask
        value = (value * factor & mask) ^ ((word ^ (word >> 24)) * factor & mask)
        at += 4
    if at < len(data):
        value = (value ^ int.from_bytes(data[at:], "little")) * factor & mask
    value = (value ^ (value >> 13)) * factor & mask
    return value ^ (value >> 15)
