"""DTBO images: a table of device trees.

Source: AOSP system/libufdt, ``utils/src/dt_table.h``. Big endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Record, Source
from quarkctl.formats.segments import Segment, Span

MAGIC = 0xD7B7AB1E
HEADER = Record(
    "DTBO header", ">",
    "magic:I total_size:I header_size:I entry_size:I entry_count:I entries_offset:I page_size:I version:I",
)  # fmt: skip
ENTRY = Record("DTBO entry", ">", "dt_size:I dt_offset:I id:I rev:I custom:4I")
COMPRESSION = {0: "none", 1: "zlib", 2: "gzip"}
#: More than any image has; bounds the memory that a hostile header can ask for together with the file's size.
_ENTRY_COUNT_MAX = 65536


@dataclass(frozen=True)
class Entry:
    """A device tree blob and what a boot loader chooses it by."""

    data: Segment
    id: int = 0
    rev: int = 0
    custom: tuple[int, int, int, int] = (0, 0, 0, 0)


def build(entries: Sequence[Entry], page_size: int = 2048, version: int = 0) -> list[Segment]:
    """Header, table, then the blobs without padding. Raises InputWrong for an id and revision that stand twice."""
    keys = [(e.id, e.rev, e.custom) for e in entries]
    for key in keys:
        if keys.count(key) > 1:
            raise InputWrong(
                f"dtbo: two device trees have id {key[0]:#x} and revision {key[1]:#x}", hint="a boot loader takes one"
            )
    at = HEADER.size + len(entries) * ENTRY.size
    table = b""
    for e in entries:
        table += ENTRY.build(dt_size=len(e.data), dt_offset=at, id=e.id, rev=e.rev, custom=e.custom)
        at += len(e.data)
    head = HEADER.build(
        magic=MAGIC, total_size=at, header_size=HEADER.size, entry_size=ENTRY.size, entry_count=len(entries),
        entries_offset=HEADER.size, page_size=page_size, version=version,
    )  # fmt: skip
    return [head + table, *(e.data for e in entries)]


def looks_like(data: Source) -> bool:
    return bytes(data[:4]) == MAGIC.to_bytes(4, "big")


def parse(data: Source) -> list[Entry]:
    """All entries; blobs may be shared, but not overlap partly. Raises Damaged with field and offset."""
    h = HEADER.parse(data)
    if h.magic != MAGIC:
        raise HEADER.wrong("magic", 0, f"is {h.magic:#010x}")
    if h.total_size > len(data):
        raise HEADER.wrong("total_size", 0, f"is {h.total_size}, the file has {len(data)} bytes")
    if h.entry_size < ENTRY.size:
        raise HEADER.wrong("entry_size", 0, f"is {h.entry_size}, less than {ENTRY.size}")
    if h.entry_count > _ENTRY_COUNT_MAX or h.entries_offset + h.entry_count * h.entry_size > h.total_size:
        raise HEADER.wrong("entry_count", 0, f"is {h.entry_count}: the table ends behind {h.total_size} bytes")
    out, spans = [], set()
    for n in range(h.entry_count):
        at = h.entries_offset + n * h.entry_size
        e = ENTRY.parse(data, at)
        if e.dt_offset + e.dt_size > h.total_size:
            raise ENTRY.wrong("dt_size", at, f"is {e.dt_size} from {e.dt_offset:#x} on: behind {h.total_size} bytes")
        spans.add((e.dt_offset, e.dt_offset + e.dt_size, at))
        out.append(Entry(Span(data, e.dt_offset, e.dt_size), e.id, e.rev, e.custom))
    ordered = sorted(spans)
    for (a, b, _), (c, d, at) in pairwise(ordered):
        if c < b and (a, b) != (c, d):
            raise ENTRY.wrong("dt_offset", at, f"is {c:#x}, inside another blob that ends at {b:#x}")
    return out
