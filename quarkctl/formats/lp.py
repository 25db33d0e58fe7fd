"""Logical partitions: the metadata of a super image, versions 10.0 to 10.2.

Source: AOSP system/core/fs_mgr/liblp, ``include/liblp/metadata_format.h``. Little endian; sizes of extents in sectors
of 512 bytes. Layout: 4096 reserved bytes, geometry twice, then the metadata of all slots, then a backup of the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Record, Source, rounded, text
from quarkctl.formats.segments import Segment, Span, Zeros

SECTOR_BYTES = 512
RESERVED_BYTES = 4096
GEOMETRY_BYTES = 4096
GEOMETRY_MAGIC = 0x616C4467
HEADER_MAGIC = 0x414C5030
GEOMETRY = Record(
    "LP geometry", "<", "magic:I struct_size:I checksum:32s metadata_max_size:I slot_count:I logical_block_size:I"
)
HEADER = Record(
    "LP metadata header", "<",
    "magic:I major:H minor:H header_size:I header_checksum:32s tables_size:I tables_checksum:32s partitions:3I "
    "extents:3I groups:3I block_devices:3I",
)  # fmt: skip
_FLAGS = Record("LP metadata header", "<", "flags:I reserved:124x")
_PARTITION = Record("LP partition", "<", "name:36s attributes:I first_extent:I num_extents:I group_index:I")
_EXTENT = Record("LP extent", "<", "num_sectors:Q target_type:I target_data:Q target_source:I")
_GROUP = Record("LP group", "<", "name:36s flags:I maximum_size:Q")
_DEVICE = Record(
    "LP block device", "<",
    "first_logical_sector:Q alignment:I alignment_offset:I size:Q partition_name:36s flags:I",
)  # fmt: skip
_TABLES = (("partitions", _PARTITION), ("extents", _EXTENT), ("groups", _GROUP), ("block_devices", _DEVICE))

PARTITION_ATTRIBUTES = {"readonly": 1, "slot_suffixed": 2, "updated": 4, "disabled": 8}
HEADER_FLAGS = {"virtual_ab": 1, "overlays_active": 2}
LINEAR, ZERO = 0, 1
#: More is no partition but a hostile number: lengths of Python objects have 63 bits.
_PARTITION_BYTES_MAX = 1 << 60
_METADATA_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Extent:
    """``sectors`` sectors: LINEAR from ``start`` (a sector of block device ``device``) on, or ZERO."""

    sectors: int
    kind: int = LINEAR
    start: int = 0
    device: int = 0


@dataclass(frozen=True)
class Partition:
    name: str
    group: int
    extents: tuple[Extent, ...] = ()
    attributes: int = 1

    @property
    def size_bytes(self) -> int:
        return sum(e.sectors for e in self.extents) * SECTOR_BYTES


@dataclass(frozen=True)
class Group:
    """A group of partitions; ``size_bytes_max`` 0 means no limit."""

    name: str
    size_bytes_max: int = 0
    flags: int = 0


@dataclass(frozen=True)
class Device:
    """A block device that holds extents. Sizes in bytes, ``first_sector`` in sectors of 512 bytes."""

    name: str
    size_bytes: int
    first_sector: int
    alignment_bytes: int = 1 << 20
    alignment_offset: int = 0
    flags: int = 0


@dataclass(frozen=True)
class Metadata:
    """One slot's metadata. ``problems``: what a reader could read past, such as a broken primary copy."""

    minor: int
    partitions: tuple[Partition, ...]
    groups: tuple[Group, ...]
    devices: tuple[Device, ...]
    flags: int = 0
    metadata_bytes_max: int = 65536
    slot_count: int = 2
    problems: tuple[str, ...] = ()

    @property
    def first_logical_byte(self) -> int:
        """Where data may start: behind geometry and all copies of the metadata."""
        return RESERVED_BYTES + 2 * GEOMETRY_BYTES + 2 * self.metadata_bytes_max * self.slot_count

    def read(self, super_image: Source, partition: Partition) -> list[Segment]:
        """What a partition holds, as segments of a super image of one block device."""
        return [
            Zeros(e.sectors * SECTOR_BYTES) if e.kind == ZERO
            else Span(super_image, e.start * SECTOR_BYTES, e.sectors * SECTOR_BYTES)
            for e in partition.extents
        ]  # fmt: skip


# --- building


@dataclass(frozen=True)
class Content:
    """A partition to be placed: its bytes, its group, and the attributes it gets."""

    name: str
    group: str
    segments: Sequence[Segment] = ()
    attributes: int = 1


def place(
    contents: Sequence[Content],
    groups: Sequence[Group],
    size_bytes: int,
    *,
    minor: int,
    flags: int = 0,
    slot_count: int = 2,
    metadata_bytes_max: int = 65536,
    alignment_bytes: int = 1 << 20,
    device_name: str = "super",
) -> Metadata:
    """Metadata with every partition in one aligned extent, in the order given. Raises InputWrong naming size and limit."""
    groups = [Group("default"), *groups]
    index = {g.name: n for n, g in enumerate(groups)}
    if metadata_bytes_max % SECTOR_BYTES or not 0 < metadata_bytes_max <= _METADATA_BYTES_MAX:
        raise InputWrong(f"super: metadata_max_size {metadata_bytes_max}", hint="a multiple of 512, such as 65536")
    made = Metadata(minor, (), tuple(groups), (), flags, metadata_bytes_max, slot_count)
    at = rounded(made.first_logical_byte, alignment_bytes)
    device = Device(device_name, size_bytes, at // SECTOR_BYTES, alignment_bytes)
    partitions = []
    for c in contents:
        if c.group not in index:
            raise InputWrong(f"super: {c.name} is in the group {c.group}, which is not there", hint=", ".join(index))
        size = rounded(sum(len(s) for s in c.segments), 4096)
        extents = (Extent(size // SECTOR_BYTES, LINEAR, at // SECTOR_BYTES),) if size else ()
        partitions.append(Partition(c.name, index[c.group], extents, c.attributes))
        at = rounded(at + size, alignment_bytes)
    return replace(made, partitions=tuple(partitions), devices=(device,))


def check(m: Metadata) -> None:
    """What must hold before metadata is written. Raises InputWrong naming size, limit and cure."""
    if m.minor not in (0, 1, 2):
        raise InputWrong(f"super: metadata version 10.{m.minor}", hint="10.0, 10.1 or 10.2")
    if m.flags and m.minor < 2:
        raise InputWrong(f"super: header flags {m.flags:#x} need version 10.2, this is 10.{m.minor}")
    if not 1 <= m.slot_count <= 4:
        raise InputWrong(f"super: {m.slot_count} slots", hint="1 without A/B, 2 with A/B, 3 with virtual A/B")
    names = [p.name for p in m.partitions]
    for what, found in (("partition", names), ("group", [g.name for g in m.groups])):
        for name in found:
            if not name or len(name) > 35 or not name.isascii() or not name.replace("_", "a").isalnum():
                raise InputWrong(f"super: the {what} name {name!r}", hint="1 to 35 letters, digits and _")
            if found.count(name) > 1:
                raise InputWrong(f"super: two {what}s are called {name}")
    for p in m.partitions:
        if p.attributes & 12 and m.minor < 1:
            raise InputWrong(f"super: {p.name}: the attributes updated and disabled need version 10.1")
    for n, g in enumerate(m.groups):
        used = sum(p.size_bytes for p in m.partitions if p.group == n)
        if g.size_bytes_max and used > g.size_bytes_max:
            members = ", ".join(f"{p.name} {p.size_bytes}" for p in m.partitions if p.group == n)
            raise InputWrong(
                f"super: the group {g.name} holds {used} bytes ({members}), its maximum is {g.size_bytes_max}",
                hint=f"maximum_size = {used} or smaller partitions",
            )
    for _, _, problem in _extent_problems(m):
        raise InputWrong(f"super: {problem}", hint="make super larger or its partitions smaller")
    if len(_tables(m)) + _header_bytes(m.minor) > m.metadata_bytes_max:
        raise InputWrong(
            f"super: the metadata has {len(_tables(m)) + _header_bytes(m.minor)} bytes, metadata_max_size is "
            f"{m.metadata_bytes_max}"
        )


def _extent_problems(m: Metadata) -> list[tuple[int, int, str]]:
    """What does not hold of extents: number of the partition, number of its extent, and why."""
    out: list[tuple[int, int, str]] = []
    used: list[tuple[int, int, int, str, int, int]] = []
    for k, p in enumerate(m.partitions):
        for n, e in enumerate(p.extents):
            if e.kind != LINEAR:
                continue
            if e.device >= len(m.devices):
                out.append((k, n, f"{p.name} is on block device {e.device}, there are {len(m.devices)}"))
                continue
            d = m.devices[e.device]
            if e.start < d.first_sector or (e.start + e.sectors) * SECTOR_BYTES > d.size_bytes:
                told = (
                    f"{p.name} ends at byte {(e.start + e.sectors) * SECTOR_BYTES} and starts at {e.start * SECTOR_BYTES}; "
                    f"{d.name} has room from {d.first_sector * SECTOR_BYTES} to {d.size_bytes}"
                )
                out.append((k, n, told))
            used.append((e.device, e.start, e.start + e.sectors, p.name, k, n))
    used.sort()
    reach: tuple[int, int, int, str, int, int] | None = None
    for u in used:
        if reach and u[0] == reach[0] and u[1] < reach[2]:
            out.append((u[4], u[5], f"{u[3]} starts at sector {u[1]}, {reach[3]} ends at {reach[2]}"))
        if reach is None or u[0] != reach[0] or u[2] > reach[2]:
            reach = u
    return out


def _header_bytes(minor: int) -> int:
    return HEADER.size + (_FLAGS.size if minor >= 2 else 0)


def _tables(m: Metadata) -> bytes:
    out, first = b"", 0
    extents = b""
    for p in m.partitions:
        out += _PARTITION.build(
            name=p.name.encode(), attributes=p.attributes, first_extent=first if p.extents else 0,
            num_extents=len(p.extents), group_index=p.group,
        )  # fmt: skip
        first += len(p.extents)
        for e in p.extents:
            extents += _EXTENT.build(
                num_sectors=e.sectors, target_type=e.kind, target_data=e.start, target_source=e.device
            )
    out += extents
    for g in m.groups:
        out += _GROUP.build(name=g.name.encode(), flags=g.flags, maximum_size=g.size_bytes_max)
    for d in m.devices:
        out += _DEVICE.build(
            first_logical_sector=d.first_sector, alignment=d.alignment_bytes, alignment_offset=d.alignment_offset,
            size=d.size_bytes, partition_name=d.name.encode(), flags=d.flags,
        )  # fmt: skip
    return out


def build_metadata(m: Metadata) -> bytes:
    """One copy of the metadata: header and tables. Raises InputWrong (`check`)."""
    check(m)
    tables = _tables(m)
    counts = (len(m.partitions), sum(len(p.extents) for p in m.partitions), len(m.groups), len(m.devices))
    described, at = {}, 0
    for (name, record), count in zip(_TABLES, counts, strict=True):
        described[name] = (at, count, record.size)
        at += count * record.size

    def head(checksum: bytes) -> bytes:
        raw = HEADER.build(
            magic=HEADER_MAGIC, major=10, minor=m.minor, header_size=_header_bytes(m.minor), header_checksum=checksum,
            tables_size=len(tables), tables_checksum=hashlib.sha256(tables).digest(), **described,
        )  # fmt: skip
        return raw + (_FLAGS.build(flags=m.flags) if m.minor >= 2 else b"")

    return head(hashlib.sha256(head(b"")).digest()) + tables


def build_geometry(m: Metadata) -> bytes:
    def made(checksum: bytes) -> bytes:
        return GEOMETRY.build(
            magic=GEOMETRY_MAGIC, struct_size=GEOMETRY.size, checksum=checksum, metadata_max_size=m.metadata_bytes_max,
            slot_count=m.slot_count, logical_block_size=4096,
        )  # fmt: skip

    return made(hashlib.sha256(made(b"")).digest()).ljust(GEOMETRY_BYTES, b"\0")


def build(slots: Sequence[Metadata], contents: Sequence[Content]) -> list[Segment]:
    """A whole super image: the metadata of each slot twice, and every partition of the first slot in its place."""
    m = slots[0]
    geometry = build_geometry(m)
    copies = [build_metadata(s).ljust(m.metadata_bytes_max, b"\0") for s in slots]
    if len(copies) != m.slot_count:
        raise InputWrong(f"super: {len(copies)} slots of metadata, the geometry says {m.slot_count}")
    out: list[Segment] = [bytes(RESERVED_BYTES), geometry, geometry, *copies, *copies]
    at = m.first_logical_byte
    by_name = {c.name: c for c in contents}
    for p in m.partitions:
        if not p.extents:
            continue
        start = p.extents[0].start * SECTOR_BYTES
        if start > at:
            out.append(Zeros(start - at))
        size = sum(len(s) for s in by_name[p.name].segments)
        out += by_name[p.name].segments
        if p.size_bytes > size:
            out.append(Zeros(p.size_bytes - size))
        at = start + p.size_bytes
    if m.devices[0].size_bytes > at:
        out.append(Zeros(m.devices[0].size_bytes - at))
    return out


# --- parsing


def looks_like(data: Source) -> bool:
    return any(
        bytes(data[at : at + 4]) == GEOMETRY_MAGIC.to_bytes(4, "little")
        for at in (RESERVED_BYTES, RESERVED_BYTES + GEOMETRY_BYTES)
    )


def parse(data: Source, slot: int = 0) -> Metadata:
    """The metadata of a slot, from the first whole copy. Raises Damaged with field and offset when none is whole."""
    geometry, problems = _geometry(data)
    first = RESERVED_BYTES + 2 * GEOMETRY_BYTES
    size, slots = geometry.metadata_max_size, geometry.slot_count
    if not 0 <= slot < slots:
        raise InputWrong(f"super: there is no slot {slot}, only {slots}")
    for copy, at in (("primary", first + slot * size), ("backup", first + (slots + slot) * size)):
        try:
            return replace(_metadata(data, at, geometry), problems=tuple(problems))
        except Damaged as found:
            problems.append(f"the {copy} metadata of slot {slot} is broken: {found.message}")
            if copy == "backup":
                raise
    raise AssertionError


def _geometry(data: Source) -> tuple[Any, list[str]]:
    problems: list[str] = []
    for copy, at in (("first", RESERVED_BYTES), ("second", RESERVED_BYTES + GEOMETRY_BYTES)):
        try:
            return _one_geometry(data, at), problems
        except Damaged as found:
            problems.append(f"the {copy} geometry is broken: {found.message}")
            if copy == "second":
                raise
    raise AssertionError


def _one_geometry(data: Source, at: int) -> Any:
    g = GEOMETRY.parse(data, at)
    if g.magic != GEOMETRY_MAGIC:
        raise GEOMETRY.wrong("magic", at, f"is {g.magic:#010x}, not {GEOMETRY_MAGIC:#010x}")
    if g.struct_size != GEOMETRY.size:
        raise GEOMETRY.wrong("struct_size", at, f"is {g.struct_size}, not {GEOMETRY.size}")
    raw = bytearray(data[at : at + GEOMETRY.size])
    raw[8:40] = bytes(32)
    if hashlib.sha256(raw).digest() != g.checksum:
        raise GEOMETRY.wrong("checksum", at, "is not that of the geometry")
    if not g.slot_count or g.slot_count > 16:
        raise GEOMETRY.wrong("slot_count", at, f"is {g.slot_count}")
    if g.metadata_max_size % SECTOR_BYTES or not 0 < g.metadata_max_size <= _METADATA_BYTES_MAX:
        raise GEOMETRY.wrong("metadata_max_size", at, f"is {g.metadata_max_size}")
    return g


def _metadata(data: Source, at: int, geometry: Any) -> Metadata:
    h = HEADER.parse(data, at)
    if h.magic != HEADER_MAGIC:
        raise HEADER.wrong("magic", at, f"is {h.magic:#010x}, not {HEADER_MAGIC:#010x}")
    if h.major != 10 or h.minor > 2:
        raise HEADER.wrong("minor", at, f"is {h.major}.{h.minor}; 10.0 to 10.2 are known")
    if h.header_size != _header_bytes(h.minor):
        raise HEADER.wrong("header_size", at, f"is {h.header_size}, not {_header_bytes(h.minor)}")
    raw = bytearray(data[at : at + h.header_size])
    raw[12:44] = bytes(32)
    if hashlib.sha256(raw).digest() != h.header_checksum:
        raise HEADER.wrong("header_checksum", at, "is not that of the header")
    if h.header_size + h.tables_size > geometry.metadata_max_size:
        raise HEADER.wrong(
            "tables_size", at, f"is {h.tables_size}, more than metadata_max_size {geometry.metadata_max_size}"
        )
    base = at + h.header_size
    tables = bytes(data[base : base + h.tables_size])
    if hashlib.sha256(tables).digest() != h.tables_checksum:
        raise HEADER.wrong("tables_checksum", at, "is not that of the tables")
    rows: dict[str, list[Any]] = {}
    for name, record in _TABLES:
        offset, count, size = getattr(h, name)
        if size < record.size or offset + count * size > len(tables):
            raise HEADER.wrong(name, at, f"is {count} entries of {size} bytes from {offset} on, in {len(tables)} bytes")
        rows[name] = [record.parse(tables, offset + n * size) for n in range(count)]
    flags = _FLAGS.parse(data, at + HEADER.size).flags if h.minor >= 2 else 0
    starts = {name: (base + getattr(h, name)[0], getattr(h, name)[2]) for name, _ in _TABLES}
    return _resolved(h.minor, rows, flags, geometry, starts, len(data))


def _resolved(
    minor: int,
    rows: dict[str, list[Any]],
    flags: int,
    geometry: Any,
    starts: dict[str, tuple[int, int]],
    file_bytes: int,
) -> Metadata:
    """``starts``: offset and size of an entry of each table."""

    def wrong(name: str, n: int, field: str, told: str) -> Damaged:
        begin, size = starts[name]
        return dict(_TABLES)[name].wrong(field, begin + n * size, told)

    extents = [Extent(e.num_sectors, e.target_type, e.target_data, e.target_source) for e in rows["extents"]]
    partitions = []
    for n, p in enumerate(rows["partitions"]):
        if p.first_extent + p.num_extents > len(extents):
            told = f"of {text(p.name)} is {p.num_extents} from {p.first_extent} on, of {len(extents)} extents"
            raise wrong("partitions", n, "num_extents", told)
        if p.group_index >= len(rows["groups"]):
            raise wrong(
                "partitions", n, "group_index", f"of {text(p.name)} is {p.group_index}, of {len(rows['groups'])}"
            )
        mine = tuple(extents[p.first_extent : p.first_extent + p.num_extents])
        partitions.append(Partition(text(p.name), p.group_index, mine, p.attributes))
    made = Metadata(
        minor, tuple(partitions), tuple(Group(text(g.name), g.maximum_size, g.flags) for g in rows["groups"]),
        tuple(
            Device(text(d.partition_name), d.size, d.first_logical_sector, d.alignment, d.alignment_offset, d.flags)
            for d in rows["block_devices"]
        ), flags, geometry.metadata_max_size, geometry.slot_count,
    )  # fmt: skip
    firsts = [p.first_extent for p in rows["partitions"]]
    for k, n, problem in _extent_problems(made):
        raise wrong("extents", firsts[k] + n, "target_data", f"does not hold: {problem}")
    for k, part in enumerate(made.partitions):
        total = 0
        for n, e in enumerate(part.extents):
            total += e.sectors * SECTOR_BYTES
            if total > _PARTITION_BYTES_MAX:
                raise wrong(
                    "extents", firsts[k] + n, "num_sectors", f"is {e.sectors}: {part.name} would have {total} bytes"
                )
            end = (e.start + e.sectors) * SECTOR_BYTES
            if e.kind == LINEAR and e.device == 0 and end > file_bytes:
                told = f"is {e.start}: {part.name} ends at byte {end}, the file has {file_bytes}"
                raise wrong("extents", firsts[k] + n, "target_data", told)
    return made
