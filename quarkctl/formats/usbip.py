"""USB/IP: USB transfers over TCP.

Source: Linux ``Documentation/usb/usbip_protocol.rst``, version 1.1.1. Big endian. A connection lists devices, or imports
one and then carries its transfers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PORT = 3240
VERSION = 0x0111
REQUEST = struct.Struct(">HHI")
LIST_REQUEST, LIST_REPLY = 0x8005, 0x0005
IMPORT_REQUEST, IMPORT_REPLY = 0x8003, 0x0003
COUNT = struct.Struct(">I")
BUS_ID_BYTES = 32
INTERFACE = struct.Struct(">BBBx")
_DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
DEVICE_BYTES = _DEVICE.size

#: Each packet of an imported device has 48 bytes before its data.
HEADER_BYTES = 48
_BASIC = struct.Struct(">IIIII")
_SUBMIT = struct.Struct(">IiiiI8s")
_SUBMIT_REPLY = struct.Struct(">iiiii8x")
SUBMIT, UNLINK, SUBMIT_REPLY, UNLINK_REPLY = 1, 2, 3, 4
#: Transfer flag: end data that is a multiple of the packet size with a zero-length packet.
ZERO_PACKET = 0x40
_DIRECTION_IN = 0x200


@dataclass(frozen=True)
class ExportedDevice:
    """One device of a list."""

    bus_id: str
    bus: int
    address: int
    speed: int
    vendor_id: int
    product_id: int
    release: int
    interface_count: int
    path: str = ""

    @property
    def device_id(self) -> int:
        return self.bus << 16 | self.address


def parse_device(record: bytes) -> ExportedDevice:
    """A record of DEVICE_BYTES."""
    path, bus_id, bus, address, speed, vendor, product, release, *_, count = _DEVICE.unpack(record)
    return ExportedDevice(_text(bus_id), bus, address, speed, vendor, product, release, count, _text(path))


def build_device(device: ExportedDevice) -> bytes:
    return _DEVICE.pack(
        device.path.encode(), device.bus_id.encode(), device.bus, device.address, device.speed, device.vendor_id,
        device.product_id, device.release, 0, 0, 0, 1, 1, device.interface_count,
    )  # fmt: skip


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")


@dataclass(frozen=True)
class Transfer:
    """A request. ``setup`` is the setup packet of a control transfer."""

    sequence: int
    endpoint: int
    incoming: bool
    size_bytes: int
    setup: bytes = bytes(8)
    zero_packet: bool = False


@dataclass(frozen=True)
class Unlink:
    """Give up the transfer ``target``."""

    sequence: int
    target: int


def build_submit(transfer: Transfer, device_id: int) -> bytes:
    flags = (_DIRECTION_IN if transfer.incoming else 0) | (ZERO_PACKET if transfer.zero_packet else 0)
    return _BASIC.pack(SUBMIT, transfer.sequence, device_id, int(transfer.incoming), transfer.endpoint) + _SUBMIT.pack(
        flags, transfer.size_bytes, 0, -1, 0, transfer.setup
    )


def build_unlink(unlink: Unlink, device_id: int) -> bytes:
    return _BASIC.pack(UNLINK, unlink.sequence, device_id, 0, 0) + struct.pack(">I24x", unlink.target)


def parse_request(header: bytes | bytearray | memoryview) -> Transfer | Unlink | None:
    """What a client wants; None for anything else."""
    command, sequence, _, direction, endpoint = _BASIC.unpack_from(header)
    if command == SUBMIT:
        flags, size, _, _, _, setup = _SUBMIT.unpack_from(header, _BASIC.size)
        return Transfer(sequence, endpoint, bool(direction), size, setup, bool(flags & ZERO_PACKET))
    if command == UNLINK:
        return Unlink(sequence, *struct.unpack_from(">I", header, _BASIC.size))
    return None


@dataclass(frozen=True)
class Answer:
    """Of a transfer (``status`` is 0 or minus errno, ``size_bytes`` what moved), or of an unlink."""

    command: int
    sequence: int
    status: int
    size_bytes: int = 0


def build_answer(answer: Answer) -> bytes:
    head = _BASIC.pack(answer.command, answer.sequence, 0, 0, 0)
    if answer.command == UNLINK_REPLY:
        return head + struct.pack(">i24x", answer.status)
    return head + _SUBMIT_REPLY.pack(answer.status, answer.size_bytes, 0, 0, 0)


def parse_answer(header: bytes | bytearray) -> Answer | None:
    command, sequence, *_ = _BASIC.unpack_from(header)
    if command not in (SUBMIT_REPLY, UNLINK_REPLY):
        return None
    status, size = struct.unpack_from(">ii", header, _BASIC.size)
    return Answer(command, sequence, status, size if command == SUBMIT_REPLY else 0)
