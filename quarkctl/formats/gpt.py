"""GUID partition tables with sectors of 512 or 4096 bytes, one table for each LUN.

Source: UEFI specification 2.10, chapter 5. Attribute bits 48 to 55 as Qualcomm's partition tool writes them for A/B slots
(qcom-ptool, ``ptool.py``); whether AR1's boot loader uses them is not known here. Tables always have room for 128
entries of 128 bytes, which is 4 sectors of 4096 bytes or 32 of 512.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Record, Source

SIGNATURE = b"EFI PART"
HEADER = Record(
    "GPT header", "<",
    "signature:8s revision:I header_size:I header_crc32:I reserved:I my_lba:Q alternate_lba:Q first_usable_lba:Q "
    "last_usable_lba:Q disk_guid:16s entries_lba:Q entry_count:I entry_size:I entries_crc32:I",
)  # fmt: skip
ENTRY = Record("GPT entry", "<", "type_guid:16s guid:16s first_lba:Q last_lba:Q attributes:Q name:72s")
ENTRY_COUNT = 128
#: Where the protective MBR says how many sectors follow it.
MBR_SECTORS_AT = 446 + 12
#: More entries than any table has; bounds what a hostile header can ask for.
_ENTRY_COUNT_MAX = 4096
SECTOR_BYTES = (512, 4096)

#: {name: (lowest bit, number of bits)}
ATTRIBUTES = {
    "system": (0, 1), "priority": (48, 2), "active": (50, 1), "retry_count": (51, 3), "successful": (54, 1),
    "unbootable": (55, 1), "read_only": (60, 1), "hidden": (62, 1), "no_automount": (63, 1),
}  # fmt: skip


def attributes(**values: int) -> int:
    """Attribute bits from named values, such as ``priority=3, active=1``. Raises InputWrong."""
    out = 0
    for name, value in values.items():
        low, width = ATTRIBUTES[name]
        if not 0 <= value < 1 << width:
            raise InputWrong(f"GPT attribute {name} is {value}, it has room for 0 to {(1 << width) - 1}")
        out |= value << low
    return out


def attribute_values(bits: int) -> dict[str, int]:
    """The named values of attribute bits, without those that are 0."""
    found = {name: (bits >> low) & ((1 << width) - 1) for name, (low, width) in ATTRIBUTES.items()}
    return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Partition:
    """Sectors ``first_lba`` to ``last_lba``, both included."""

    name: str
    type_guid: UUID
    guid: UUID
    first_lba: int
    last_lba: int
    attributes: int = 0

    @property
    def sectors(self) -> int:
        return self.last_lba - self.first_lba + 1


@dataclass(frozen=True)
class Table:
    """The partitions of a disk (LUN) of ``sectors`` sectors. ``problems``: what was wrong and could be read past."""

    sector_bytes: int
    sectors: int
    disk_guid: UUID
    partitions: tuple[Partition, ...]
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def array_sectors(self) -> int:
        return ENTRY_COUNT * ENTRY.size // self.sector_bytes

    @property
    def first_usable(self) -> int:
        return 2 + self.array_sectors

    @property
    def last_usable(self) -> int:
        return self.sectors - 2 - self.array_sectors

    def partition(self, name: str) -> Partition:
        """Raises InputWrong for a name that is not there."""
        for p in self.partitions:
            if p.name == name:
                return p
        raise InputWrong(
            f"there is no partition {name}", hint=f"there are {', '.join(p.name for p in self.partitions)}"
        )


def check(table: Table) -> None:
    """What must hold before a table is written. Raises InputWrong naming partition, value and limit."""
    if table.sector_bytes not in SECTOR_BYTES:
        raise InputWrong(f"GPT: sectors of {table.sector_bytes} bytes", hint="512 (eMMC) or 4096 (UFS)")
    if len(table.partitions) > ENTRY_COUNT:
        raise InputWrong(f"GPT: {len(table.partitions)} partitions, a table has room for {ENTRY_COUNT}")
    seen: dict[Any, str] = {}
    for p in table.partitions:
        if not p.name or len(p.name.encode("utf-16-le")) > 72:
            raise InputWrong(f"GPT: the name {p.name!r} must have 1 to 36 UTF-16 units")
        if not table.first_usable <= p.first_lba <= p.last_lba <= table.last_usable:
            raise InputWrong(
                f"GPT: {p.name} takes sectors {p.first_lba} to {p.last_lba}; usable are {table.first_usable} to "
                f"{table.last_usable}",
                hint="make the disk larger or the partition smaller",
            )
        for what in (p.name, p.guid):
            if what in seen:
                raise InputWrong(f"GPT: {p.name} and {seen[what]} both have {what}")
            seen[what] = p.name
    for _, problem in overlaps(table.partitions):
        raise InputWrong(f"GPT: {problem}")


def overlaps(partitions: Sequence[Partition]) -> list[tuple[int, str]]:
    """(number of the partition, what its first sector does) for each that begins inside another one."""
    out = []
    reach: Partition | None = None
    for n, p in sorted(enumerate(partitions), key=lambda found: found[1].first_lba):
        if reach and p.first_lba <= reach.last_lba:
            out.append((n, f"{p.name} starts at sector {p.first_lba}, {reach.name} ends at {reach.last_lba}"))
        if reach is None or p.last_lba > reach.last_lba:
            reach = p
    return out


def build(table: Table) -> tuple[bytes, bytes]:
    """Main table (protective MBR, header, entries) and backup (entries, header), each a number of whole sectors.

    Raises InputWrong when the table does not hold together (`check`).
    """
    check(table)
    entries = b"".join(
        ENTRY.build(
            type_guid=p.type_guid.bytes_le, guid=p.guid.bytes_le, first_lba=p.first_lba, last_lba=p.last_lba,
            attributes=p.attributes, name=p.name.encode("utf-16-le"),
        )
        for p in table.partitions
    ).ljust(ENTRY_COUNT * ENTRY.size, b"\0")  # fmt: skip
    size, last = table.sector_bytes, table.sectors - 1
    main = _header(table, entries, 1, last, 2)
    backup = _header(table, entries, last, 1, last - table.array_sectors)
    return _mbr(table.sectors).ljust(size, b"\0") + main.ljust(size, b"\0") + entries, entries + backup.ljust(
        size, b"\0"
    )


def _header(table: Table, entries: bytes, my_lba: int, alternate_lba: int, entries_lba: int) -> bytes:
    def made(crc: int) -> bytes:
        return HEADER.build(
            signature=SIGNATURE, revision=0x10000, header_size=HEADER.size, header_crc32=crc, my_lba=my_lba,
            alternate_lba=alternate_lba, first_usable_lba=table.first_usable, last_usable_lba=table.last_usable,
            disk_guid=table.disk_guid.bytes_le, entries_lba=entries_lba, entry_count=ENTRY_COUNT, entry_size=ENTRY.size,
            entries_crc32=zlib.crc32(entries),
        )  # fmt: skip

    return made(zlib.crc32(made(0)))


def _mbr(sectors: int) -> bytes:
    entry = bytes((0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF)) + (1).to_bytes(4, "little")
    entry += min(sectors - 1, 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def sector_bytes_of(data: Source) -> int:
    """Sector size of a disk or main table by where its header stands; 0 where there is none."""
    return next((s for s in SECTOR_BYTES if bytes(data[s : s + 8]) == SIGNATURE), 0)


def backup_sector_bytes_of(data: Source) -> int:
    """Sector size of a backup table (a file that ends with its header); 0 where there is none."""
    return next((s for s in SECTOR_BYTES if len(data) >= s and bytes(data[len(data) - s :][:8]) == SIGNATURE), 0)


def parse(data: Source, sector_bytes: int = 0) -> Table:
    """Read the table of a disk, or a main table alone. Header and entries must have the CRC that they claim.

    Raises Damaged with field and offset; overlaps and the like are told in `Table.problems`.
    """
    size = sector_bytes or sector_bytes_of(data)
    if size not in SECTOR_BYTES:
        raise Damaged("GPT header", "signature", 512, "and at offset 0x1000 is missing")
    header = HEADER.parse(data, size)
    return _parse(data, size, size, header, header.entries_lba * size)


def parse_backup(data: Source, sector_bytes: int = 0) -> Table:
    """Read the backup table that ends a disk, or a backup table alone. Raises Damaged."""
    size = sector_bytes or backup_sector_bytes_of(data)
    if size not in SECTOR_BYTES or len(data) < size:
        raise Damaged("GPT header", "signature", len(data), "(in the last sector) is missing")
    at = len(data) - size
    header = HEADER.parse(data, at)
    return _parse(data, size, at, header, at - (header.my_lba - header.entries_lba) * size)


def _parse(data: Source, size: int, at: int, h: Any, entries_at: int) -> Table:
    if h.signature != SIGNATURE:
        raise HEADER.wrong("signature", at, f"is {h.signature!r}, not {SIGNATURE!r}")
    if not HEADER.size <= h.header_size <= size:
        raise HEADER.wrong("header_size", at, f"is {h.header_size}, not {HEADER.size} to {size}")
    raw = bytearray(data[at : at + h.header_size])
    raw[16:20] = bytes(4)
    if zlib.crc32(raw) != h.header_crc32:
        raise HEADER.wrong("header_crc32", at, f"is {h.header_crc32:#010x}, the header has {zlib.crc32(raw):#010x}")
    if h.entry_size < ENTRY.size or h.entry_size % 8 or h.entry_size > size:
        raise HEADER.wrong("entry_size", at, f"is {h.entry_size}, not {ENTRY.size} or a multiple")
    if h.entry_count > _ENTRY_COUNT_MAX:
        raise HEADER.wrong("entry_count", at, f"is {h.entry_count}, more than {_ENTRY_COUNT_MAX}")
    array_bytes = h.entry_count * h.entry_size
    if entries_at < 0 or entries_at + array_bytes > len(data):
        raise HEADER.wrong(
            "entries_lba", at, f"is {h.entries_lba}: entries would end behind the {len(data)} bytes there are"
        )
    array = bytes(data[entries_at : entries_at + array_bytes])
    if zlib.crc32(array) != h.entries_crc32:
        raise HEADER.wrong(
            "entries_crc32", at, f"is {h.entries_crc32:#010x}, the entries have {zlib.crc32(array):#010x}"
        )
    found: list[Partition] = []
    problems: list[str] = []
    places = []
    for n in range(h.entry_count):
        e = ENTRY.parse(array, n * h.entry_size)
        if e.type_guid == bytes(16):
            continue
        p = Partition(
            e.name.decode("utf-16-le", "replace").partition("\0")[0], UUID(bytes_le=e.type_guid), UUID(bytes_le=e.guid),
            e.first_lba, e.last_lba, e.attributes,
        )  # fmt: skip
        if not h.first_usable_lba <= p.first_lba <= p.last_lba <= h.last_usable_lba:
            field = "first_lba" if not h.first_usable_lba <= p.first_lba <= h.last_usable_lba else "last_lba"
            told = (
                f"is {getattr(p, field)}: {p.name} takes sectors {p.first_lba} to {p.last_lba}; usable are "
                f"{h.first_usable_lba} to {h.last_usable_lba}"
            )
            problems.append(ENTRY.wrong(field, entries_at + n * h.entry_size, told).message)
        found.append(p)
        places.append(entries_at + n * h.entry_size)
    problems += [ENTRY.wrong("first_lba", places[n], f"does not hold: {told}").message for n, told in overlaps(found)]
    sectors = max(h.my_lba, h.alternate_lba) + 1
    return Table(size, sectors, UUID(bytes_le=h.disk_guid), tuple(found), tuple(problems))
