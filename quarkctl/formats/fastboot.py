"""fastboot: commands, replies, and their framing over TCP and UDP.

Source: AOSP ``system/core/fastboot/README.md`` (protocol version 0.4; TCP handshake ``FB01``; UDP version 1). Over USB a
command is one bulk transfer of ASCII; a reply starts with four letters. Over TCP each message has a big-endian u64
length before it. Over UDP each host packet is answered by exactly one device packet with its id and sequence number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from quarkctl.errors import ProtocolError, UsageWrong

#: Many boot loaders read a command into 64 bytes; the specification allows 4096.
COMMAND_MAX = 64
#: Longest reply of today's devices (64 in old ones).
REPLY_MAX = 256
#: A sparse piece is never larger, whatever a device offers: AOSP fastboot keeps the same bound.
DOWNLOAD_MAX = 1 << 30
#: USB interface class, subclass and protocol.
USB_INTERFACE = (0xFF, 0x42, 0x03)
PORT = 5554

TCP_HELLO = b"FB01"
TCP_LENGTH = struct.Struct(">Q")

UDP_HEADER = struct.Struct(">BBH")
UDP_INIT = struct.Struct(">HH")
UDP_VERSION = 1
#: Every device takes packets of this size; query and init are never larger.
UDP_PACKET_MIN = 512
UDP_CONTINUED = 1


class Kind(Enum):
    """First four letters of a reply."""

    OKAY = "OKAY"
    FAIL = "FAIL"
    DATA = "DATA"
    INFO = "INFO"
    TEXT = "TEXT"


@dataclass(frozen=True)
class Reply:
    """One reply. ``size_bytes`` is the length that DATA announces, 0 otherwise."""

    kind: Kind
    text: str = ""
    size_bytes: int = 0


def build_command(text: str) -> bytes:
    """A command as it goes on the wire. Raises UsageWrong where a boot loader could misread it."""
    if not text or not text.isascii() or not text.isprintable():
        raise UsageWrong(f"{text!r} cannot be a fastboot command: printable ASCII only")
    if len(text) > COMMAND_MAX:
        raise UsageWrong(
            f"the fastboot command {text[:24]!r}... has {len(text)} characters, boot loaders take {COMMAND_MAX}"
        )
    return text.encode()


def parse_reply(packet: bytes) -> Reply:
    """One reply. Raises ProtocolError with a hex dump for anything else."""
    try:
        kind = Kind(packet[:4].decode("ascii"))
    except ValueError:
        raise ProtocolError(
            f"the device answered {packet[:16].hex(' ')}{'...' if len(packet) > 16 else ''}: no fastboot reply",
            hint="is this a fastboot device? unplug it, plug it in again, and try once more",
        ) from None
    text = packet[4:REPLY_MAX].decode("utf-8", "replace").rstrip("\0")
    if kind is not Kind.DATA:
        return Reply(kind, text)
    if not re.fullmatch(r"[0-9a-fA-F]{8}", text):
        raise ProtocolError(f"the device announced data of length {text!r}: not eight hexadecimal digits")
    return Reply(kind, text, int(text, 16))


def build_reply(reply: Reply) -> bytes:
    if reply.kind is Kind.DATA:
        return f"DATA{reply.size_bytes:08x}".encode()
    return f"{reply.kind.value}{reply.text}".encode()[:REPLY_MAX]


def parse_number(text: str, *, bare_base: int = 10) -> int:
    """A number as boot loaders write them, with spaces or without: ``0x4000``, or ``4000`` in ``bare_base``.

    Sizes of partitions without a prefix are hexadecimal (old boot loaders), everything else is decimal: as AOSP's
    fastboot reads them. Raises ProtocolError.
    """
    word = text.strip()
    try:
        return int(word, 16 if word.lower().startswith("0x") else bare_base)
    except ValueError:
        raise ProtocolError(f"the device gave {text!r} where a number belongs") from None


def parse_variables(lines: Iterable[str]) -> dict[str, str]:
    """The lines of ``getvar all``. Names contain colons (``partition-size:boot_a: 0x..``): the last one separates."""
    found = {}
    for line in lines:
        name, colon, value = line.rpartition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def parse_tcp_hello(data: bytes) -> int:
    """Protocol version of the other end of a TCP connection. Raises ProtocolError."""
    if not re.fullmatch(rb"FB[0-9]{2}", data):
        raise ProtocolError(
            f"the other end says {data!r}: that is not fastboot over TCP",
            hint="is the port right? the usual one is 5554",
        )
    return int(data[2:])


class UdpId(IntEnum):
    ERROR = 0
    QUERY = 1
    INIT = 2
    FASTBOOT = 3


@dataclass(frozen=True)
class UdpPacket:
    id: UdpId
    sequence: int
    data: bytes = b""
    continued: bool = False


def build_udp(packet: UdpPacket) -> bytes:
    return UDP_HEADER.pack(packet.id, UDP_CONTINUED if packet.continued else 0, packet.sequence & 0xFFFF) + packet.data


def parse_udp(datagram: bytes) -> UdpPacket | None:
    """None for anything that is no fastboot packet."""
    if len(datagram) < UDP_HEADER.size:
        return None
    kind, flags, sequence = UDP_HEADER.unpack_from(datagram)
    if kind not in UdpId.__members__.values():
        return None
    return UdpPacket(UdpId(kind), sequence, bytes(datagram[UDP_HEADER.size :]), bool(flags & UDP_CONTINUED))
