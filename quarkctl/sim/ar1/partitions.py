"""Partition tables as the virtual AR1's boot loader reads and changes them: its own reader of GPT, and the A/B slots in it.

Source: UEFI specification 2.10, chapter 5.3; attribute bits 48 to 55 as qcom-ptool writes them (use on a real AR1 is
unverified): priority 48-49, active 50, retry count 51-53, successful 54, unbootable 55.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from quarkctl.sim.ar1.storage import Storage

_HEADER = struct.Struct("<8sIIII QQQQ 16s QIII")
_ENTRY_BYTES = 128
_ENTRY_COUNT_MAX = 1024
_ENTRY_SECTORS_4096 = 4
_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_SPACE = uuid.UUID("6f1c9a8e-6b0f-5d6e-9b37-6d0b7c2c7a11")

ACTIVE, SUCCESSFUL, UNBOOTABLE = 1 << 50, 1 << 54, 1 << 55
_PRIORITY_SHIFT, _RETRY_SHIFT = 48, 51
_SLOT_BITS = 0xFF << _PRIORITY_SHIFT
RETRY_MAX = 7
SLOTS = ("a", "b")


class Partitions(Protocol):
    """Bytes of partitions by their full name."""

    def size_bytes(self, name: str) -> int | None:
        """None for one that does not exist."""
        ...

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        """Raises IndexError for what lies outside."""
        ...


@dataclass(frozen=True)
class Partition:
    """Place on storage, in bytes."""

    name: str
    lun: int
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Slot:
    """A/B state of one slot, from the attributes of its boot partition."""

    active: bool = False
    successful: bool = False
    unbootable: bool = False
    retry_count: int = 0
    priority: int = 2

    @classmethod
    def of(cls, bits: int) -> Slot:
        return cls(
            bool(bits & ACTIVE), bool(bits & SUCCESSFUL), bool(bits & UNBOOTABLE), bits >> _RETRY_SHIFT & RETRY_MAX,
            bits >> _PRIORITY_SHIFT & 3,
        )  # fmt: skip

    @property
    def bits(self) -> int:
        flags = (ACTIVE if self.active else 0) | (SUCCESSFUL if self.successful else 0)
        flags |= UNBOOTABLE if self.unbootable else 0
        return flags | self.priority << _PRIORITY_SHIFT | self.retry_count << _RETRY_SHIFT

    @property
    def bootable(self) -> bool:
        return not self.unbootable and (self.successful or self.retry_count > 0)


#: Slot a as it leaves the factory.
FACTORY = Slot(active=True, retry_count=RETRY_MAX, priority=3)


class Table:
    """The GPT of one LUN. ``load`` takes the primary, or the backup where the primary is damaged."""

    def __init__(self, storage: Storage, lun: int, header: bytes, entries: bytearray, *, damaged: bool = False) -> None:
        self._storage = storage
        self.lun = lun
        self._header = header
        self.entries = entries
        #: The primary was not whole: this is the backup.
        self.damaged = damaged

    @classmethod
    def load(cls, storage: Storage, lun: int) -> Table | None:
        """None where there is no whole table."""
        sector = storage.sector_bytes
        found = cls._read(storage, lun, sector)
        if found is None:
            found = cls._read(storage, lun, storage.lun_bytes[lun] - sector)
            if found:
                found.damaged = True
        return found

    def repair(self) -> bool:
        """Write both copies anew where they differ or one is damaged. Returns whether it was necessary."""
        other = self._read(self._storage, self.lun, self._storage.lun_bytes[self.lun] - self._storage.sector_bytes)
        if not self.damaged and other is not None and other.entries == self.entries:
            return False
        self.store()
        return True

    @classmethod
    def _read(cls, storage: Storage, lun: int, at: int) -> Table | None:
        sector = storage.sector_bytes
        raw = storage.read(lun, at, sector)
        fields = _HEADER.unpack_from(raw)
        signature, size, crc, array_at, count, entry_bytes, array_crc = (
            fields[0], fields[2], fields[3], fields[10], fields[11], fields[12], fields[13],
        )  # fmt: skip
        if signature != b"EFI PART" or not _HEADER.size <= size <= sector or entry_bytes != _ENTRY_BYTES:
            return None
        if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc or not 0 < count <= _ENTRY_COUNT_MAX:
            return None
        if array_at * sector + count * _ENTRY_BYTES > storage.lun_bytes[lun]:
            return None
        entries = storage.read(lun, array_at * sector, count * _ENTRY_BYTES)
        if zlib.crc32(entries) != array_crc:
            return None
        return cls(storage, lun, raw[:size], bytearray(entries))

    def partitions(self) -> Iterable[Partition]:
        sector = self._storage.sector_bytes
        for at in range(0, len(self.entries), _ENTRY_BYTES):
            entry = self.entries[at : at + _ENTRY_BYTES]
            if not any(entry[:16]):
                continue
            first, last = struct.unpack_from("<QQ", entry, 32)
            if not first <= last < self._storage.lun_bytes[self.lun] // sector:
                continue
            name = bytes(entry[56:128]).decode("utf-16-le", "replace").split("\0")[0]
            yield Partition(name, self.lun, first * sector, (last - first + 1) * sector)

    def attributes(self, name: str) -> int | None:
        at = self._find(name)
        return None if at is None else int.from_bytes(self.entries[at + 48 : at + 56], "little")

    def set_attributes(self, name: str, value: int) -> None:
        """Only in memory: ``store`` writes."""
        at = self._find(name)
        if at is not None:
            self.entries[at + 48 : at + 56] = value.to_bytes(8, "little")

    def _find(self, name: str) -> int | None:
        wanted = name.encode("utf-16-le").ljust(72, b"\0")
        for at in range(0, len(self.entries), _ENTRY_BYTES):
            if any(self.entries[at : at + 16]) and self.entries[at + 56 : at + 128] == wanted:
                return at
        return None

    def store(self) -> None:
        """The copy first that was not read: at any moment one of the two is whole, the old one or the new one."""
        sector = self._storage.sector_bytes
        sectors = self._storage.lun_bytes[self.lun] // sector
        fields = list(_HEADER.unpack_from(self._header))
        array_sectors = -(-len(self.entries) // sector)
        backup, primary = (sectors - 1, 1, sectors - 1 - array_sectors), (1, sectors - 1, 2)
        for my, other, array_at in (primary, backup) if self.damaged else (backup, primary):
            fields[2], fields[3], fields[5], fields[6], fields[10] = 92, 0, my, other, array_at
            fields[11], fields[13] = len(self.entries) // _ENTRY_BYTES, zlib.crc32(self.entries)
            fields[3] = zlib.crc32(_HEADER.pack(*fields))
            self._storage.write(self.lun, array_at * sector, self.entries.ljust(array_sectors * sector, b"\0"))
            self._storage.write(self.lun, my * sector, _HEADER.pack(*fields).ljust(sector, b"\0"))
        self.damaged = False


def make(storage: Storage, lun: int, layout: Iterable[tuple[str, int]]) -> Table:
    """What the factory wrote: ``layout`` names partitions and their sizes in bytes, in order. Deterministic."""
    sector = storage.sector_bytes
    sectors = storage.lun_bytes[lun] // sector
    array_sectors = _ENTRY_SECTORS_4096 if sector == 4096 else 32
    entries = bytearray(array_sectors * sector)
    at = 2 + array_sectors
    for index, (name, size) in enumerate(layout):
        last = at + -(-size // sector) - 1
        unique = uuid.uuid5(_SPACE, f"{lun}/{name}")
        kind = uuid.uuid5(_SPACE, name) if name[-2:] in ("_a", "_b") else _TYPE
        start = index * _ENTRY_BYTES
        bits = {"boot_a": FACTORY.bits, "boot_b": Slot().bits}.get(name, 0)
        entries[start : start + _ENTRY_BYTES] = struct.pack(
            "<16s16sQQQ72s", kind.bytes_le, unique.bytes_le, at, last, bits, name.encode("utf-16-le")
        )
        at = last + 1
    usable_last = sectors - 2 - array_sectors
    if at > usable_last + 1:
        raise ValueError(f"the layout of LUN {lun} needs {at * sector} bytes")
    disk = uuid.uuid5(_SPACE, f"disk {lun}")
    header = _HEADER.pack(
        b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 2 + array_sectors, usable_last, disk.bytes_le, 2,
        len(entries) // _ENTRY_BYTES, _ENTRY_BYTES, 0,
    )  # fmt: skip
    table = Table(storage, lun, header, entries)
    protective = bytearray(sector)
    protective[446:462] = struct.pack("<8BII", 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, min(sectors - 1, 0xFFFFFFFF))
    protective[510:512] = b"\x55\xaa"
    storage.write(lun, 0, protective)
    table.store()
    return table


class Disk:
    """All partitions of the storage by name, and the slots. Reads the tables anew at each construction."""

    def __init__(self, storage: Storage) -> None:
        self._tables = [t for lun in range(len(storage.lun_bytes)) if (t := Table.load(storage, lun))]
        self.partitions = {p.name: p for t in self._tables for p in t.partitions()}

    @property
    def has_slots(self) -> bool:
        return "boot_a" in self.partitions and "boot_b" in self.partitions

    def slot(self, slot: str) -> Slot:
        """A table that knows nothing of slots is taken for a factory's: slot a, with all its tries."""
        bits = {s: self._attributes(f"boot_{s}") for s in SLOTS}
        mine = bits[slot]
        if mine is None:
            return Slot(unbootable=True)
        if slot == SLOTS[0] and not any((b or 0) & _SLOT_BITS for b in bits.values()):
            return FACTORY
        return Slot.of(mine)

    def _attributes(self, name: str) -> int | None:
        return next((bits for t in self._tables if (bits := t.attributes(name)) is not None), None)

    def set_slots(self, **states: Slot) -> None:
        """Change slots, both in one write of the table: they cannot contradict each other after a cut."""
        for table in self._tables:
            known = {slot: bits for slot in states if (bits := table.attributes(f"boot_{slot}")) is not None}
            for slot, bits in known.items():
                table.set_attributes(f"boot_{slot}", bits & ~_SLOT_BITS | states[slot].bits)
            if known:
                table.store()

    def repair(self) -> list[int]:
        """Write damaged tables anew; returns their LUNs."""
        return [t.lun for t in self._tables if t.repair()]

    @property
    def order(self) -> list[str]:
        """The slots in the order in which the boot loader tries them."""
        states = {s: self.slot(s) for s in SLOTS} if self.has_slots else {}
        return sorted(states, key=lambda s: (-states[s].priority, not states[s].active, s))

    @property
    def current_slot(self) -> str:
        """The one that the next start takes; empty without slots."""
        return next((s for s in self.order if self.slot(s).bootable), self.order[0] if self.has_slots else "")

    def activate(self, slot: str, tries: int = RETRY_MAX) -> None:
        """Make ``slot`` the next to start, with so many tries."""
        other = other_slot(slot)
        there = replace(self.slot(other), active=False, priority=2)
        self.set_slots(**{slot: Slot(active=True, retry_count=tries, priority=3), other: there})

    def settle(self, slot: str) -> None:
        """Make ``slot`` the next to start as it is, and take the other one's tries away."""
        other = other_slot(slot)
        there = replace(self.slot(other), active=False, priority=1, retry_count=0)
        self.set_slots(**{slot: replace(self.slot(slot), active=True, priority=3), other: there})


def other_slot(slot: str) -> str:
    return "b" if slot == "a" else "a"
