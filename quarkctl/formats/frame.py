"""Telemetry frames, and the serial line that they share with SMP.

A frame is ``00 COBS(header payload crc32) 00`` (protocols/stream.toml). SMP console lines stand between frames and start
with ``06 09`` or ``04 14``, which no frame does. `Splitter` tells the two apart; `parse` reads one frame.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from enum import Enum

HEADER = struct.Struct("<BBHQ")
CRC_BYTES = 4
HELLO_TYPE = 0x01
#: Longest frame before COBS that the firmware encodes: its groups stay below 0xff, so that many decode in one go.
FAST_MAX = 253
PAYLOAD_MAX = FAST_MAX - HEADER.size - CRC_BYTES
#: A run without delimiter longer than this is noise.
RUN_MAX = 64 * 1024

SMP_FIRST = b"\x06\x09"
SMP_NEXT = b"\x04\x14"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame whose CRC held. ``source`` is the chip (low four bits) and the low bits of the boot id; ``time_us`` the
    device's time since its reset."""

    type: int
    source: int
    seq: int
    time_us: int
    payload: bytes


def build(frame: Frame, crc_seed: int) -> bytes:
    """Wire bytes with both delimiters; ``crc_seed`` is `Schema.crc_seed` (hello frames ignore it)."""
    from cobs import cobs

    raw = HEADER.pack(frame.type, frame.source, frame.seq, frame.time_us) + frame.payload
    crc = zlib.crc32(raw, seed_of(frame.type, crc_seed))
    return b"\0" + bytes(cobs.encode(raw + crc.to_bytes(CRC_BYTES, "little"))) + b"\0"


def seed_of(kind: int, crc_seed: int) -> int:
    """Start value of the CRC of a frame of this type."""
    return 0 if kind == HELLO_TYPE else crc_seed


def unwrap(run: bytes, crc_seed: int) -> bytes | None:
    """Header, payload and CRC of one run between delimiters; None when it is not a whole frame of this layout."""
    from cobs import cobs

    try:
        raw = bytes(cobs.decode(run))
    except cobs.DecodeError:
        return None
    if len(raw) < HEADER.size + CRC_BYTES:
        return None
    crc = zlib.crc32(memoryview(raw)[:-CRC_BYTES], seed_of(raw[0], crc_seed))
    return raw if crc == int.from_bytes(raw[-CRC_BYTES:], "little") else None


def parse(run: bytes, crc_seed: int) -> Frame | None:
    """One run between delimiters, without them; None when it is not a whole frame of this layout."""
    raw = unwrap(run, crc_seed)
    if raw is None:
        return None
    kind, source, seq, time_us = HEADER.unpack_from(raw)
    return Frame(kind, source, seq, time_us, raw[HEADER.size : -CRC_BYTES])


class Kind(Enum):
    RUN = "run"
    """Bytes between two delimiters: a frame, if it is whole."""
    SMP_LINE = "smp_line"
    """One SMP console line with its marker, without the newline."""


@dataclass
class Splitter:
    """Cuts a byte stream into runs and SMP lines. Holds at most `RUN_MAX` bytes."""

    _rest: bytearray = field(default_factory=bytearray)
    dropped_bytes: int = 0

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Everything that `data` completed, in order. Empty runs (two delimiters in a row) are left out."""
        out: list[tuple[Kind, bytes]] = []
        rest = self._rest
        rest += data
        at = 0
        while at < len(rest):
            if rest[at] == 0:
                at += 1
                continue
            end = rest.find(0, at)
            head = rest[at : at + 2]
            if head in (SMP_FIRST, SMP_NEXT):
                line_end = rest.find(b"\n", at, end if end >= 0 else len(rest))
                if line_end >= 0:
                    out.append((Kind.SMP_LINE, bytes(rest[at:line_end]).rstrip(b"\r")))
                    at = line_end + 1
                    continue
            if end < 0:
                break
            out.append((Kind.RUN, bytes(rest[at:end])))
            at = end + 1
        del rest[:at]
        if len(rest) > RUN_MAX:
            self.dropped_bytes += len(rest)
            rest.clear()
        return out
