"""The container of a release bundle: a ZIP file that can be written in one way only.

Source: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3 (layout), 4.5.3 (ZIP64). Members are stored, not compressed, follow
each other without gaps, have their sizes and CRC-32 in front, the date 1980-01-01 and mode 0644; ZIP64 fields appear
only where a number needs them. So every header is a function of name, size and CRC of the members, and a reader has
nothing to interpret: it builds the bytes that must be there and compares. Whatever ZIP readers disagree about (two names
for one member, other sizes in the directory, overlaps, gaps, comments, trailing data) differs from those bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from quarkctl.errors import InputWrong

LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END64 = struct.Struct("<IQHHIIQQQQ")
LOCATOR64 = struct.Struct("<IIQI")
END = struct.Struct("<IHHHHIIH")

LOCAL_MAGIC = 0x04034B50
CENTRAL_MAGIC = 0x02014B50
END64_MAGIC = 0x06064B50
LOCATOR64_MAGIC = 0x07064B50
END_MAGIC = 0x06054B50

NAME_BYTES_MAX = 200
MEMBERS_MAX = 4096
_DATE = 0x0021  # 1980-01-01
_UNIX = 3 << 8
_MODE = 0o100644 << 16
_PLAIN, _ZIP64 = 20, 45
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+/")


@dataclass(frozen=True)
class Entry:
    """What a header is made of."""

    name: str
    size_bytes: int
    crc32: int


def check_names(names: Sequence[str]) -> None:
    """Names that mean one file on every system: relative, plain ASCII, no two alike but for case. Raises InputWrong."""
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")
        odd = set(name) - _NAME_CHARACTERS
        if odd or not 0 < len(name) <= NAME_BYTES_MAX or any(p.strip(".") == "" or p.endswith(".") for p in parts):
            raise InputWrong(f"{name[:NAME_BYTES_MAX]!r} is no name for a member of a bundle")
        if name.casefold() in seen:
            raise InputWrong(f"two members are called {name}")
        seen.add(name.casefold())
    for name in names:
        folders = name.casefold().split("/")[:-1]
        if any("/".join(folders[: k + 1]) in seen for k in range(len(folders))):
            raise InputWrong(f"{name} lies in a folder that is a member itself")


def local_header(entry: Entry) -> bytes:
    """What stands in front of a member's bytes."""
    name = entry.name.encode("ascii")
    large = entry.size_bytes >= _FULL32
    extra = struct.pack("<HHQQ", 1, 16, entry.size_bytes, entry.size_bytes) if large else b""
    size = _FULL32 if large else entry.size_bytes
    return (
        LOCAL.pack(
            LOCAL_MAGIC, _ZIP64 if large else _PLAIN, 0, 0, 0, _DATE, entry.crc32, size, size, len(name), len(extra)
        )
        + name
        + extra
    )


def local_header_bytes(name: str, size_bytes: int) -> int:
    """Length of a local header whose CRC is not known yet."""
    return LOCAL.size + len(name.encode("ascii")) + (20 if size_bytes >= _FULL32 else 0)


def parse_local_header(fixed: bytes, rest: bytes) -> Entry:
    """The entry of a header: ``fixed`` is its first 30 bytes, ``rest`` what `rest_bytes` says. Raises InputWrong."""
    fields = LOCAL.unpack(fixed)
    name_bytes, extra_bytes = fields[9], fields[10]
    name = rest[:name_bytes].decode("ascii", "replace")
    size = fields[8]
    if extra_bytes:
        size = struct.unpack_from("<Q", rest, name_bytes + 4)[0] if extra_bytes == 20 else 0
    entry = Entry(name, size, fields[6])
    check_names([name])
    if local_header(entry) != fixed + rest:
        raise InputWrong(f"the header of {name} is not one that a bundle has")
    return entry


def rest_bytes(fixed: bytes) -> int:
    """How many bytes belong to a local header after its first 30. Raises InputWrong when it is none."""
    fields = LOCAL.unpack(fixed)
    if fields[0] != LOCAL_MAGIC:
        raise InputWrong("a member's header is missing where it must be")
    if fields[9] > NAME_BYTES_MAX or fields[10] not in (0, 20):
        raise InputWrong("a member's header is longer than any of a bundle")
    return int(fields[9] + fields[10])


def directory(entries: Sequence[Entry]) -> bytes:
    """What follows the last member: the central directory and the end records."""
    out = bytearray()
    offset = 0
    for e in entries:
        out += _central_header(e, offset)
        offset += len(local_header(e)) + e.size_bytes
    size, count = len(out), len(entries)
    if offset >= _FULL32 or size >= _FULL32 or count >= _FULL16:
        out += END64.pack(END64_MAGIC, END64.size - 12, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, offset)
        out += LOCATOR64.pack(LOCATOR64_MAGIC, 0, offset + size, 1)
    count, size, offset = min(count, _FULL16), min(size, _FULL32), min(offset, _FULL32)
    out += END.pack(END_MAGIC, 0, 0, count, count, size, offset, 0)
    return bytes(out)


def _central_header(entry: Entry, offset: int) -> bytes:
    name = entry.name.encode("ascii")
    large, far = entry.size_bytes >= _FULL32, offset >= _FULL32
    numbers = ([entry.size_bytes, entry.size_bytes] if large else []) + ([offset] if far else [])
    extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    version = _ZIP64 if numbers else _PLAIN
    size = _FULL32 if large else entry.size_bytes
    return (
        CENTRAL.pack(
            CENTRAL_MAGIC, _UNIX | version, _ZIP64 if large else _PLAIN, 0, 0, 0, _DATE, entry.crc32, size, size,
            len(name), len(extra), 0, 0, 0, _MODE, _FULL32 if far else offset,
        )
        + name
        + extra
    )  # fmt: skip


def looks_like(data: bytes) -> bool:
    """The first bytes of any ZIP file that starts with a member."""
    return len(data) >= 4 and int.from_bytes(data[:4], "little") == LOCAL_MAGIC
