"""Sahara: how a Qualcomm boot ROM asks for images, tells who it is, and gives its memory away.

Source: the protocol as implemented by linux-msm/qdl (BSD-3-Clause); versions 1 to 3. Little endian; each packet is u32
command, u32 length of the whole packet, body.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from quarkctl.errors import ProtocolError

HEADER = struct.Struct("<II")
#: No packet with a fixed layout is longer.
PACKET_MAX = 0x30
VERSION_MAX = 3
#: Image id of the Firehose programmer.
PROGRAMMER_ID = 13
#: More regions than any memory dump has.
REGION_COUNT_MAX = 4096


class Command(IntEnum):
    HELLO = 0x01
    HELLO_RESPONSE = 0x02
    READ_DATA = 0x03
    END_OF_IMAGE = 0x04
    DONE = 0x05
    DONE_RESPONSE = 0x06
    RESET = 0x07
    RESET_RESPONSE = 0x08
    MEMORY_DEBUG = 0x09
    MEMORY_READ = 0x0A
    COMMAND_READY = 0x0B
    SWITCH_MODE = 0x0C
    EXECUTE = 0x0D
    EXECUTE_RESPONSE = 0x0E
    EXECUTE_DATA = 0x0F
    MEMORY_DEBUG_64 = 0x10
    MEMORY_READ_64 = 0x11
    READ_DATA_64 = 0x12
    RESET_STATE = 0x13


class Mode(IntEnum):
    IMAGE_PENDING = 0
    IMAGE_COMPLETE = 1
    MEMORY_DEBUG = 2
    COMMAND = 3


class Client(IntEnum):
    """What command mode can be asked for."""

    SERIAL = 0x01
    HARDWARE_ID = 0x02
    KEY_HASH = 0x03
    CHIP_ID_V3 = 0x0A


#: {command: (layout of the body, names of its fields)}; reserved words have no name.
LAYOUTS: Mapping[Command, tuple[str, tuple[str, ...]]] = {
    Command.HELLO: ("<4I24x", ("version", "compatible", "limit_bytes", "mode")),
    Command.HELLO_RESPONSE: ("<4I24x", ("version", "compatible", "status", "mode")),
    Command.READ_DATA: ("<3I", ("image", "offset", "size_bytes")),
    Command.READ_DATA_64: ("<3Q", ("image", "offset", "size_bytes")),
    Command.END_OF_IMAGE: ("<2I", ("image", "status")),
    Command.DONE: ("<", ()),
    Command.DONE_RESPONSE: ("<I", ("complete",)),
    Command.RESET: ("<", ()),
    Command.RESET_RESPONSE: ("<", ()),
    Command.RESET_STATE: ("<", ()),
    Command.COMMAND_READY: ("<", ()),
    Command.SWITCH_MODE: ("<I", ("mode",)),
    Command.EXECUTE: ("<I", ("client",)),
    Command.EXECUTE_RESPONSE: ("<2I", ("client", "size_bytes")),
    Command.EXECUTE_DATA: ("<I", ("client",)),
    Command.MEMORY_DEBUG: ("<2I", ("address", "size_bytes")),
    Command.MEMORY_READ: ("<2I", ("address", "size_bytes")),
    Command.MEMORY_DEBUG_64: ("<2Q", ("address", "size_bytes")),
    Command.MEMORY_READ_64: ("<2Q", ("address", "size_bytes")),
}

#: Status of END_OF_IMAGE, in words.
STATUS = {
    0x00: "success", 0x01: "invalid command", 0x02: "protocol mismatch", 0x03: "invalid target protocol",
    0x04: "invalid host protocol", 0x05: "invalid packet size", 0x06: "unexpected image id", 0x07: "invalid header size",
    0x08: "invalid data size", 0x09: "invalid image type", 0x0A: "invalid transmit length", 0x0B: "invalid receive length",
    0x0C: "general transmit or receive error", 0x0D: "read of data failed", 0x0E: "unsupported number of program headers",
    0x0F: "invalid program header size", 0x10: "several shared segments", 0x11: "uninitialised program header location",
    0x12: "invalid destination address", 0x13: "invalid image header data size", 0x14: "invalid ELF header",
    0x15: "unknown host error", 0x16: "receive timeout", 0x17: "transmit timeout", 0x18: "invalid host mode",
    0x19: "invalid memory read", 0x1A: "invalid data size of a read", 0x1B: "memory debug not supported",
    0x1C: "invalid mode switch", 0x1D: "execution of a command failed", 0x1E: "invalid command parameter",
    0x1F: "unsupported command", 0x20: "unknown command", 0x21: "image authentication failed",
    0x22: "hash table authentication failed", 0x23: "memory is not initialised", 0x24: "hash verification failed",
}  # fmt: skip
#: Those that mean: this programmer is not signed for this device.
WRONG_SIGNATURE = frozenset({0x21, 0x22, 0x24})


@dataclass(frozen=True)
class Packet:
    command: Command
    fields: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.fields[name]


def build(command: Command, **fields: int) -> bytes:
    """One packet; the names of its fields are in LAYOUTS."""
    layout, names = LAYOUTS[command]
    body = struct.pack(layout, *(fields[n] for n in names))
    return HEADER.pack(command, HEADER.size + len(body)) + body


def parse(data: bytes) -> tuple[Packet, bytes] | None:
    """The first packet and what follows it; None while it is not whole. Raises ProtocolError for anything else."""
    if len(data) < HEADER.size:
        return None
    number, size = HEADER.unpack_from(data)
    if number not in Command.__members__.values() or not HEADER.size <= size <= PACKET_MAX:
        raise ProtocolError(f"the device sent {data[:16].hex(' ')}: no Sahara packet")
    command = Command(number)
    layout, names = LAYOUTS[command]
    if size != HEADER.size + struct.calcsize(layout):
        raise ProtocolError(f"the device sent a Sahara {command.name} of {size} bytes")
    if len(data) < size:
        return None
    return Packet(command, dict(zip(names, struct.unpack_from(layout, data, HEADER.size), strict=True))), data[size:]


@dataclass(frozen=True)
class Region:
    """A piece of memory that a crashed device offers."""

    name: str
    file_name: str
    address: int
    size_bytes: int
    kind: int


_REGION_32 = struct.Struct("<3I20s20s")
_REGION_64 = struct.Struct("<3Q20s20s")


def parse_regions(table: bytes, *, wide: bool) -> list[Region]:
    """The table of a memory dump: entries of 64 bytes (``wide``) or 52 bytes (32-bit devices; unverified).

    Raises ProtocolError for a table that is no whole number of entries, and for file names that leave their folder.
    """
    layout = _REGION_64 if wide else _REGION_32
    if not table or len(table) % layout.size or len(table) // layout.size > REGION_COUNT_MAX:
        raise ProtocolError(f"the device's table of memory regions has {len(table)} bytes, entries have {layout.size}")
    regions = []
    for kind, address, size, name, file_name in layout.iter_unpack(table):
        file = _text(file_name)
        if not file or file in (".", "..") or not all(c.isalnum() or c in "._-+ " for c in file):
            raise ProtocolError(f"the device names a memory region {file!r}: not the name of a file")
        regions.append(Region(_text(name), file, address, size, kind))
    return regions


def build_regions(regions: list[Region], *, wide: bool) -> bytes:
    layout = _REGION_64 if wide else _REGION_32
    return b"".join(
        layout.pack(r.kind, r.address, r.size_bytes, r.name.encode(), r.file_name.encode()) for r in regions
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("ascii", "replace")


@dataclass(frozen=True)
class ChipInfo:
    """What command mode tells. Numbers that a device does not give are None; ``key_hash`` is empty then."""

    serial: int | None = None
    chip_id: int | None = None
    oem_id: int | None = None
    model_id: int | None = None
    key_hash: bytes = b""


_CHIP_V3 = struct.Struct("<36xIHHH")


def parse_chip_info(answers: Mapping[Client, bytes]) -> ChipInfo:
    """Answers of command mode by what was asked. Short answers are left out, not guessed."""
    serial = chip = oem = model = None
    raw = answers.get(Client.SERIAL, b"")
    if len(raw) >= 4:
        serial = int.from_bytes(raw[:4], "little")
    raw = answers.get(Client.HARDWARE_ID, b"")
    if len(raw) >= 8:
        value = int.from_bytes(raw[:8], "little")
        chip, oem, model = value >> 32, (value >> 16) & 0xFFFF, value & 0xFFFF
    raw = answers.get(Client.CHIP_ID_V3, b"")
    if len(raw) >= _CHIP_V3.size:
        chip, oem, model, other = _CHIP_V3.unpack_from(raw)
        oem = oem or other
    return ChipInfo(serial, chip, oem, model, _first_hash(answers.get(Client.KEY_HASH, b"")))


def _first_hash(raw: bytes) -> bytes:
    """The hash is repeated for each root certificate: once is enough."""
    for size in (32, 48, 64):
        if len(raw) >= size and len(raw) % size == 0 and raw == raw[:size] * (len(raw) // size):
            return raw[:size]
    return raw
