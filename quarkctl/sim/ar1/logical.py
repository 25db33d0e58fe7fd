"""Logical partitions inside ``super``: what fastbootd reads and changes. Its own reader of LP metadata.

Source: AOSP ``system/core/fs_mgr/liblp/include/liblp/metadata_format.h``, version 10. Little endian; sizes in sectors of
512 bytes. Only slot 0 is kept: the virtual AR1 has one set of logical partitions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from quarkctl.sim.ar1.partitions import Partition
from quarkctl.sim.ar1.storage import Storage

_SECTOR = 512
_GEOMETRY = struct.Struct("<II32sIII")
_GEOMETRY_MAGIC = 0x616C4467
_HEADER = struct.Struct("<IHHI32sI32s12I")
_HEADER_MAGIC = 0x414C5030
_PARTITION = struct.Struct("<36sIIII")
_EXTENT = struct.Struct("<QIQI")
_RESERVED = 4096
_BLOCK = 4096
_METADATA_MAX = 1 << 20
_LINEAR = 0


class LogicalError(Exception):
    """The table is damaged, or a change does not fit."""


@dataclass
class _Entry:
    name: str
    attributes: int
    group: int
    #: (sectors, kind, first sector, device) each.
    extents: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(e[0] for e in self.extents) * _SECTOR


class Logical:
    """The table of one super partition."""

    def __init__(self, storage: Storage, place: Partition, raw: bytes, copies: int) -> None:
        self._storage, self._place = storage, place
        self._copies = copies
        self._raw = raw
        self._entries: list[_Entry] = []
        self._parse(raw)

    @classmethod
    def read(cls, storage: Storage, place: Partition) -> Logical:
        """An empty table where there is none."""
        for copy in (0, 1):
            geometry = storage.read(place.lun, place.offset + _RESERVED + copy * _BLOCK, _BLOCK)
            size, slots = _geometry(geometry)
            if not slots:
                continue
            for at in (_RESERVED + 2 * _BLOCK, _RESERVED + 2 * _BLOCK + size * slots):
                raw = storage.read(place.lun, place.offset + at, size)
                if _whole(raw):
                    return cls(storage, place, raw, slots)
        return cls(storage, place, b"", 0)

    @classmethod
    def install(cls, storage: Storage, place: Partition, image: bytes, *, wipe: bool) -> None:
        """Take a new table from an image of an empty super partition (output of lpmake). Raises LogicalError."""
        size, slots = _geometry(image[_RESERVED : _RESERVED + _BLOCK])
        end = _RESERVED + 2 * _BLOCK + 2 * size * slots
        if not slots or len(image) < end or not _whole(image[_RESERVED + 2 * _BLOCK :][:size]):
            raise LogicalError("the image holds no table of logical partitions")
        if not wipe and cls.read(storage, place)._entries:
            raise LogicalError("there are logical partitions: wipe them explicitly")
        storage.write(place.lun, place.offset + _RESERVED, image[_RESERVED:end])

    def _parse(self, raw: bytes) -> None:
        try:
            self._take(raw)
        except struct.error:
            raise LogicalError("the table of logical partitions is cut short") from None

    def _take(self, raw: bytes) -> None:
        if not raw:
            return
        tables = _HEADER.unpack_from(raw)[7:]
        base = _HEADER.unpack_from(raw)[3]
        partitions_at, partitions, partition_bytes, extents_at, extents, extent_bytes = tables[:6]
        if partition_bytes != _PARTITION.size or extent_bytes != _EXTENT.size:
            raise LogicalError("unknown sizes of entries")
        for k in range(partitions):
            name, attributes, first, count, group = _PARTITION.unpack_from(
                raw, base + partitions_at + k * _PARTITION.size
            )
            if first + count > extents:
                raise LogicalError("extents outside their table")
            entry = _Entry(name.split(b"\0")[0].decode("ascii", "replace"), attributes, group)
            entry.extents = [
                _EXTENT.unpack_from(raw, base + extents_at + j * _EXTENT.size) for j in range(first, first + count)
            ]
            self._entries.append(entry)

    def sizes(self) -> dict[str, int]:
        return {e.name: e.size_bytes for e in self._entries}

    def extents(self, name: str) -> list[tuple[int, int]]:
        """(offset on the LUN, size) of each piece, in bytes."""
        return [
            (self._place.offset + first * _SECTOR, count * _SECTOR)
            for count, kind, first, _ in self._find(name).extents
            if kind == _LINEAR
        ]

    def piece(self, name: str, offset: int, size_bytes: int) -> bytes:
        """Bytes of a logical partition. Raises IndexError for what lies outside of it, or of super."""
        data, end = b"", self._place.offset + self._place.size_bytes
        for start, size in self.extents(name):
            count = min(size_bytes - len(data), max(size - offset, 0))
            if count and start + offset + count > end:
                raise IndexError(name)
            data += self._storage.read(self._place.lun, start + offset, count) if count else b""
            offset = max(offset - size, 0)
        if len(data) != size_bytes:
            raise IndexError(name)
        return data

    def writer(self, name: str) -> Callable[[int, memoryview], None]:
        pieces = self.extents(name)

        def write(offset: int, data: memoryview) -> None:
            for start, size in pieces:
                if offset < size and data:
                    part = data[: size - offset]
                    self._storage.write(self._place.lun, start + offset, part)
                    data, offset = data[len(part) :], offset + len(part)
                offset = max(offset - size, 0)

        return write

    def _find(self, name: str) -> _Entry:
        for entry in self._entries:
            if entry.name == name:
                return entry
        raise LogicalError(f"there is no logical partition {name}")

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, name: str, size_bytes: int) -> None:
        if not self._raw:
            raise LogicalError("super holds no table of logical partitions")
        if not 0 < len(name) <= 36 or not name.replace("_", "a").isalnum() or name in self.sizes():
            raise LogicalError(f"{name!r} exists already or cannot be a name")
        self._entries.append(_Entry(name, 0, 0))
        self._grow(self._entries[-1], size_bytes)
        self._store()

    def delete(self, name: str) -> None:
        self._entries.remove(self._find(name))
        self._store()

    def resize(self, name: str, size_bytes: int) -> None:
        entry = self._find(name)
        wanted = -(-size_bytes // _SECTOR)
        kept = []
        for extent in entry.extents:
            count = min(extent[0], wanted)
            if count:
                kept.append((count, *extent[1:]))
            wanted -= count
        entry.extents = kept
        self._grow(entry, wanted * _SECTOR)
        self._store()

    def _grow(self, entry: _Entry, size_bytes: int) -> None:
        """First free place that is large enough, in steps of a block."""
        wanted = -(-size_bytes // _BLOCK) * _BLOCK // _SECTOR
        if not wanted:
            return
        at = (_RESERVED + 2 * _BLOCK + 2 * len(self._raw) * self._copies + _BLOCK - 1) // _BLOCK * _BLOCK // _SECTOR
        used = sorted((first, count) for e in self._entries for count, kind, first, _ in e.extents if kind == _LINEAR)
        for first, count in used:
            if first - at >= wanted:
                break
            at = max(at, -(-(first + count) * _SECTOR // _BLOCK) * _BLOCK // _SECTOR)
        if (at + wanted) * _SECTOR > self._place.size_bytes:
            raise LogicalError(f"super has no room for {size_bytes} bytes more")
        entry.extents.append((wanted, _LINEAR, at, 0))

    def _store(self) -> None:
        """Both copies, the primary last: one of them is always whole."""
        fields = list(_HEADER.unpack_from(self._raw))
        base, tables = fields[3], fields[7:]
        groups_at, groups, group_bytes, devices_at, devices, device_bytes = tables[6:12]
        group_table = self._raw[base + groups_at :][: groups * group_bytes]
        device_table = self._raw[base + devices_at :][: devices * device_bytes]
        partition_table, extent_table, count = b"", b"", 0
        for e in self._entries:
            partition_table += _PARTITION.pack(e.name.encode(), e.attributes, count, len(e.extents), e.group)
            extent_table += b"".join(_EXTENT.pack(*x) for x in e.extents)
            count += len(e.extents)
        parts = (partition_table, extent_table, group_table, device_table)
        rows = (len(self._entries), count, groups, devices)
        sizes = (_PARTITION.size, _EXTENT.size, group_bytes, device_bytes)
        at, descriptors = 0, []
        for part, row, size in zip(parts, rows, sizes, strict=True):
            descriptors += [at, row, size]
            at += len(part)
        body = b"".join(parts)
        fields[4], fields[5], fields[6], fields[7:] = bytes(32), len(body), hashlib.sha256(body).digest(), descriptors
        header = _HEADER.pack(*fields) + self._raw[_HEADER.size : base]
        header = header[:12] + hashlib.sha256(header).digest() + header[44:]
        if base + len(body) > len(self._raw):
            raise LogicalError("the table is full")
        whole = (header + body).ljust(len(self._raw), b"\0")
        first = self._place.offset + _RESERVED + 2 * _BLOCK
        for at in (first + len(whole) * self._copies, first):
            self._storage.write(self._place.lun, at, whole)
        self._raw = whole


def _geometry(block: bytes) -> tuple[int, int]:
    """Largest size of a table and number of slots; zeros for no geometry."""
    if len(block) < _GEOMETRY.size:
        return 0, 0
    magic, size, checksum, metadata_max, slots, _ = _GEOMETRY.unpack_from(block)
    if magic != _GEOMETRY_MAGIC or not _GEOMETRY.size <= size <= len(block):
        return 0, 0
    if hashlib.sha256(block[:8] + bytes(32) + block[40:size]).digest() != checksum:
        return 0, 0
    return (metadata_max, slots) if 0 < metadata_max <= _METADATA_MAX and 0 < slots <= 4 else (0, 0)


def _whole(raw: bytes) -> bool:
    if len(raw) < _HEADER.size:
        return False
    magic, major, _, header_bytes, checksum, tables_bytes, tables_checksum, *_ = _HEADER.unpack_from(raw)
    if magic != _HEADER_MAGIC or major != 10 or not _HEADER.size <= header_bytes <= len(raw) - tables_bytes:
        return False
    header = raw[:12] + bytes(32) + raw[44:header_bytes]
    tables = raw[header_bytes : header_bytes + tables_bytes]
    return (hashlib.sha256(header).digest(), hashlib.sha256(tables).digest()) == (checksum, tables_checksum)
