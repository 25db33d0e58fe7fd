"""Recordings (``.qrec``): the raw wire bytes of one or more lines, with everything needed to read them again.

A file is the magic and then blocks: sync (4 bytes), kind u8, size u32, CRC-32 u32 over kind, size and body, body (little
endian). Blocks are only ever appended. A file cut at any byte opens up to there; behind damage, reading goes on at the
next block that is whole. Kinds:

1  metadata, JSON, first: tool, device, lines, layout hash, texts of all schemas
2  reads of one line: line u8, count u32, then (receive time u64 ns, size u32) for each, then their bytes
3  end: the recorder stopped by itself
4  note, JSON: what the recorder wants to be known, such as a start of the device or bytes that it had to drop
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats import schema

MAGIC = b"QKREC2\r\n"
SYNC = b"\xa5QK\x02"
HEAD = struct.Struct("<4sBII")
READS = struct.Struct("<BI")
READ = struct.Struct("<QI")
META, DATA, END, NOTE = 1, 2, 3, 4
KINDS = (META, DATA, END, NOTE)
#: What `Reader` makes of reads whose CRC is wrong; in no file.
_SPOILT = 0
#: No block is larger; the recorder's are far smaller.
BLOCK_MAX = 2 << 20
#: Read from a file at a time.
READ_BYTES = 1 << 20
#: What memory is counted in: reading, decoding and exporting take at most three of these, however large the file.
CHUNK_BYTES = 8 << 20
#: Damaged places that are listed; more are only counted.
_DAMAGE_MAX = 1000


@dataclass(frozen=True)
class Chunk:
    """Bytes of one read of a line and when they came."""

    host_ns: int
    data: bytes
    line: int = 0


@dataclass(frozen=True)
class Reads:
    """Several reads of one line: read k ends at ``data[ends[k]]`` and came at ``stamps[k]`` (ns)."""

    line: int
    data: bytes
    ends: Sequence[int]
    stamps: Sequence[int]


def looks_like(data: bytes) -> bool:
    return data.startswith(MAGIC)


def build_block(kind: int, body: bytes) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(struct.pack("<BI", kind, len(body))))
    return HEAD.pack(SYNC, kind, len(body), crc) + body


def build_start(meta: Mapping[str, Any]) -> bytes:
    return MAGIC + build_block(META, json.dumps(meta, sort_keys=True).encode())


def build_note(note: Mapping[str, Any]) -> bytes:
    return build_block(NOTE, json.dumps(note, sort_keys=True).encode())


def build_reads(chunks: Sequence[Chunk]) -> bytes:
    """One block; the chunks are of one line and in order."""
    head = READS.pack(chunks[0].line, len(chunks))
    table = b"".join(READ.pack(c.host_ns, len(c.data)) for c in chunks)
    return build_block(DATA, b"".join((head, table, *(c.data for c in chunks))))


@dataclass
class Reader:
    """Reads a recording through ``read(size)``, a piece at a time.

    After the iteration ``ending`` tells how the file ends: ``complete``, ``open`` (cut between blocks, or the recorder was
    killed), ``cut`` (in a block), or ``damaged at byte N`` for the first of the places in ``damage`` ((from, to) each).
    """

    read: Callable[[int], bytes]
    meta: Mapping[str, Any] = field(default_factory=dict)
    notes: list[Mapping[str, Any]] = field(default_factory=list)
    ending: str = ""
    read_bytes: int = 0
    damage: list[tuple[int, int]] = field(default_factory=list)
    _buffer: bytes = b""
    _at: int = 0
    _base: int = 0
    _ended: bool = False

    @staticmethod
    def open(read: Callable[[int], bytes]) -> Reader:
        """Raises InputWrong when this is no recording or its metadata is not whole."""
        reader = Reader(read)
        if not reader._fill(len(MAGIC)) or not looks_like(reader._buffer):
            if MAGIC.startswith(reader._buffer[: len(MAGIC)]) and reader._buffer:
                raise InputWrong("the recording is cut off in its metadata: nothing was recorded")
            raise InputWrong("not a recording: the magic number is missing")
        reader._at = len(MAGIC)
        first = reader._next()
        if first is None or first[0] != META or reader.damage or reader.ending:
            raise InputWrong("the recording is cut off in its metadata: nothing was recorded")
        meta = _json(first[1])
        if meta is None:
            raise InputWrong("the recording's metadata is no JSON object")
        reader.meta = meta
        return reader

    def schema(self) -> schema.Schema:
        """The message sets that the recording was made with."""
        sets = self.meta.get("schema")
        if not isinstance(sets, dict) or not sets or not all(isinstance(v, str) for v in sets.values()):
            raise InputWrong("the recording carries no schema")
        return schema.parse(sets)

    def reads(self) -> Iterator[Reads]:
        """All reads in the order of the file, about a block at a time. Of a block that is cut or damaged, what is there:
        frames carry their own CRC. What is damaged has one read without a receive time (0)."""
        while (block := self._next()) is not None:
            kind, body = block
            if kind == _SPOILT:
                spoilt = _spoilt(body)
                if spoilt.data:
                    yield spoilt
            elif kind == DATA:
                reads = _reads(body)
                if reads is None:
                    self._damaged(self._base + self._at - len(body), self._base + self._at)
                elif reads.data:
                    yield reads
            elif kind == NOTE:
                note = _json(body)
                if note is not None and len(self.notes) < _DAMAGE_MAX:
                    self.notes.append(note)
            elif kind == END:
                self.ending = self.ending or "complete"
                if self._fill(1):
                    self._damaged(self._base + self._at, self._base + self._at + 1)
                    self.ending = f"damaged at byte {self.damage[0][0]}"
                return
        self.ending = self.ending or "open"

    def _next(self) -> tuple[int, bytes] | None:
        """The next whole block, or what is left of a data block that is cut; None at the end of the file."""
        lost_from = -1
        while True:
            if not self._fill(HEAD.size):
                if len(self._buffer) > self._at and not self.ending:
                    self.ending = "cut"
                self._lost(lost_from, len(self._buffer))
                return None
            sync, kind, size, crc = HEAD.unpack_from(self._buffer, self._at)
            if sync == SYNC and kind in KINDS and size <= BLOCK_MAX:
                whole = self._fill(HEAD.size + size)
                body = self._buffer[self._at + HEAD.size : self._at + HEAD.size + size]
                if whole and zlib.crc32(body, zlib.crc32(struct.pack("<BI", kind, size))) == crc:
                    self._lost(lost_from, self._at)
                    self._at += HEAD.size + size
                    self.read_bytes = self._base + self._at
                    return kind, body
                if whole and kind == DATA and self._followed(HEAD.size + size):
                    self._lost(lost_from, self._at)
                    self._damaged(self._base + self._at, self._base + self._at + HEAD.size + size)
                    self._at += HEAD.size + size
                    return _SPOILT, body
                if not whole and SYNC not in body:
                    self._lost(lost_from, self._at)
                    self.ending = self.ending or "cut"
                    self._at = len(self._buffer)
                    return (kind, body) if kind == DATA and body else None
            if lost_from < 0:
                lost_from = self._base + self._at
            self._seek_sync()

    def _followed(self, size: int) -> bool:
        """Whether a block that does not hold its CRC ends where it says: there is the next, or the end of the file."""
        if not self._fill(size + len(SYNC)):
            return len(self._buffer) - self._at == size
        return self._buffer.startswith(SYNC, self._at + size)

    def _seek_sync(self) -> None:
        """Go to the next place that may begin a block."""
        self._at += 1
        while (found := self._buffer.find(SYNC, self._at)) < 0:
            self._at = max(len(self._buffer) - len(SYNC) + 1, self._at)
            if not self._fill(len(self._buffer) - self._at + 1):
                self._at = len(self._buffer)
                return
        self._at = found

    def _lost(self, start: int, end: int) -> None:
        if start >= 0:
            self._damaged(start, self._base + end)

    def _damaged(self, start: int, end: int) -> None:
        if len(self.damage) < _DAMAGE_MAX:
            self.damage.append((start, end))
        self.ending = f"damaged at byte {self.damage[0][0]}"

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes from here on; False if the file ends before."""
        while len(self._buffer) - self._at < size and not self._ended:
            self._base += self._at
            self._buffer, self._at = self._buffer[self._at :], 0  # first let go of what was read
            data = self.read(READ_BYTES)
            self._ended = not data
            self._buffer += data
        return len(self._buffer) - self._at >= size


def _spoilt(body: bytes) -> Reads:
    """What a block holds whose CRC is wrong. Its times and sizes may be, so they are not used."""
    line, count = READS.unpack_from(body) if len(body) >= READS.size else (0, 0)
    data = body[READS.size + min(count * READ.size, len(body)) :]
    return Reads(line, data, [len(data)], [0])


def _reads(body: bytes) -> Reads | None:
    """A body, or the beginning of one; None when it contradicts itself."""
    import numpy as np

    if len(body) < READS.size:
        return Reads(0, b"", (), ())
    line, count = READS.unpack_from(body)
    if count * READ.size > BLOCK_MAX:
        return None
    table = np.frombuffer(body, [("stamp", "<u8"), ("size", "<u4")], count=min(count, (len(body) - READS.size) // READ.size),
                          offset=READS.size)  # fmt: skip
    data = body[READS.size + count * READ.size :]
    ends = np.cumsum(table["size"], dtype=np.int64)
    if len(table) == count and count and ends[-1] < len(data):
        return None
    return Reads(line, data, ends.tolist(), np.minimum(table["stamp"], 2**63 - 1).tolist())


def _json(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
