"""Recordings (``.qrec``): the raw wire bytes of one stream, with everything needed to read them again.

A file is the magic and then blocks: kind u8, size u32, CRC-32 u32 over kind, size and body, body (little endian). Blocks
are only ever appended, so a file cut at any byte opens up to there. Kinds: 1 metadata (JSON, first), 2 wire bytes with
the host's receive time (u64 ns) in front, 3 end (empty: the recorder stopped by itself).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats import schema

MAGIC = b"QKREC1\r\n"
HEAD = struct.Struct("<BII")
STAMP = struct.Struct("<Q")
META, DATA, END = 1, 2, 3
BLOCK_MAX = 16 << 20


@dataclass(frozen=True)
class Chunk:
    """Bytes of one read and when they came."""

    host_ns: int
    data: bytes


def looks_like(data: bytes) -> bool:
    return data.startswith(MAGIC)


def build_block(kind: int, body: bytes) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(struct.pack("<BI", kind, len(body))))
    return HEAD.pack(kind, len(body), crc) + body


def build_start(meta: Mapping[str, Any]) -> bytes:
    return MAGIC + build_block(META, json.dumps(meta, sort_keys=True).encode())


def build_chunk(chunk: Chunk) -> bytes:
    return build_block(DATA, STAMP.pack(chunk.host_ns) + chunk.data)


@dataclass
class Reader:
    """Reads a recording. After the iteration ``ending`` tells how the file ends: ``complete``, ``open`` (cut between
    blocks, or the recorder was killed), ``cut`` (in a block) or ``damaged at byte N``."""

    data: bytes
    meta: Mapping[str, Any]
    ending: str = ""
    read_bytes: int = 0

    @staticmethod
    def open(data: bytes) -> Reader:
        """Raises InputWrong when the file is no recording or its metadata is not whole."""
        if not looks_like(data):
            raise InputWrong("not a recording: the magic number is missing")
        for kind, body, _ in _blocks(data):
            if kind == META:
                try:
                    meta = json.loads(body)
                except ValueError as error:
                    raise InputWrong(f"the recording's metadata is no JSON: {error}") from error
                if not isinstance(meta, dict):
                    break
                return Reader(data, meta)
            break
        raise InputWrong("the recording is cut off in its metadata: nothing was recorded")

    def schema(self) -> schema.Schema:
        """The message sets that the recording was made with."""
        sets = self.meta.get("schema")
        if not isinstance(sets, dict) or not all(isinstance(v, str) for v in sets.values()):
            raise InputWrong("the recording carries no schema")
        return schema.parse(sets)

    def chunks(self) -> Iterator[Chunk]:
        self.ending = "open"
        for kind, body, end in _blocks(self.data):
            if kind == "":
                self.ending = str(body, "ascii")
                return
            self.read_bytes = end
            if kind == DATA and len(body) >= STAMP.size:
                yield Chunk(STAMP.unpack_from(body)[0], body[STAMP.size :])
            elif kind == END:
                self.ending = "complete"
                if end != len(self.data):
                    self.ending = f"damaged at byte {end}"
                return


def _blocks(data: bytes) -> Iterator[tuple[int | str, bytes, int]]:
    """(kind, body, end offset); a last tuple with kind "" says why reading stopped early."""
    at = len(MAGIC)
    while at < len(data):
        if len(data) - at < HEAD.size:
            yield "", b"cut", at
            return
        kind, size, crc = HEAD.unpack_from(data, at)
        body = data[at + HEAD.size : at + HEAD.size + size] if size <= BLOCK_MAX else b""
        if size > BLOCK_MAX or kind not in (META, DATA, END):
            yield "", f"damaged at byte {at}".encode(), at
            return
        if len(body) < size:
            yield "", b"cut", at
            return
        if zlib.crc32(body, zlib.crc32(struct.pack("<BI", kind, size))) != crc:
            yield "", f"damaged at byte {at}".encode(), at
            return
        at += HEAD.size + size
        yield kind, body, at
