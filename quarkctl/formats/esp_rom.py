"""Serial protocol of the ESP32 family's ROM loader and flasher stub: SLIP packets around requests and answers.

Source: Espressif, "Serial Protocol" (esptool documentation). All integers are little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
HEADER = struct.Struct("<BBHI")
#: Largest packet that a loader sends or takes: a block of 16 KiB of the stub, with headers, everything escaped.
PACKET_MAX = 2 * (0x4000 + 64)
CHECKSUM_SEED = 0xEF


class Command(IntEnum):
    FLASH_BEGIN = 0x02
    FLASH_DATA = 0x03
    FLASH_END = 0x04
    MEM_BEGIN = 0x05
    MEM_END = 0x06
    MEM_DATA = 0x07
    SYNC = 0x08
    WRITE_REG = 0x09
    READ_REG = 0x0A
    SPI_SET_PARAMS = 0x0B
    SPI_ATTACH = 0x0D
    CHANGE_BAUDRATE = 0x0F
    FLASH_DEFL_BEGIN = 0x10
    FLASH_DEFL_DATA = 0x11
    FLASH_DEFL_END = 0x12
    SPI_FLASH_MD5 = 0x13
    GET_SECURITY_INFO = 0x14
    ERASE_FLASH = 0xD0
    ERASE_REGION = 0xD1


@dataclass(frozen=True)
class Request:
    command: int
    data: bytes
    checksum: int


def checksum(data: bytes) -> int:
    """Of the payload of MEM_DATA, FLASH_DATA and FLASH_DEFL_DATA, without their 16-byte head."""
    value = CHECKSUM_SEED
    for byte in data:
        value ^= byte
    return value


def parse_request(packet: bytes) -> Request | None:
    """One packet without SLIP; None when it is no request."""
    if len(packet) < HEADER.size:
        return None
    direction, command, size, check = HEADER.unpack_from(packet)
    if direction != 0 or size != len(packet) - HEADER.size:
        return None
    return Request(command, packet[HEADER.size :], check)


def build_response(command: int, value: int, data: bytes, status: bytes) -> bytes:
    """One packet with SLIP. ``status`` has 4 bytes from the ROM, 2 from the stub; the first is 0 for success."""
    body = data + status
    return build_packet(HEADER.pack(1, command, len(body), value) + body)


def build_packet(body: bytes) -> bytes:
    escaped = body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + escaped + b"\xc0"


@dataclass
class PacketReader:
    """Cuts a stream into SLIP packets. Holds at most `PACKET_MAX` bytes; what is longer or badly escaped is dropped."""

    _rest: bytearray = field(default_factory=bytearray)
    bad_count: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        out = []
        *whole, rest = (self._rest + data).split(b"\xc0")
        for packet in whole:
            if not packet:
                continue
            if len(packet) > PACKET_MAX or b"\xdb" in packet.replace(b"\xdb\xdc", b"").replace(b"\xdb\xdd", b""):
                self.bad_count += 1
                continue
            out.append(bytes(packet.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")))
        self._rest = bytearray(rest[: PACKET_MAX + 1])
        return out
