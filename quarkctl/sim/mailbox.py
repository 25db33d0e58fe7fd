"""Shared memory between plant and firmware: protocols/plant.toml in a memory-mapped file."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from quarkctl import schemas
from quarkctl.sim.plant import Reading

#: Offset of the mailbox in the memory file, and of its parts in the mailbox.
FILE_OFFSET = 0x0800_0000
STATUS_OFFSET = 0x60
RING_OFFSET = 0x80
RING_SAMPLES = 1024
SIZE = RING_OFFSET + RING_SAMPLES * 32
NO_CAUSE = 0xFFFF_FFFF

_SAMPLE = struct.Struct("<QHHhhHHhhhhhBB")
_WORD = struct.Struct("<I")


@dataclass(frozen=True)
class Status:
    """What the firmware decided."""

    read_index: int
    heartbeat: int
    throttle_level: int
    pack_enable: int


class Mailbox:
    """Writer's side. The index is published by one aligned 32-bit store after the samples; on x86 and on Arm hosts with
    the interpreter lock's barriers that is enough order for a reader that polls every few milliseconds."""

    def __init__(self, memory_file: Path) -> None:
        schema = schemas.plant()
        if schema.messages["plant_sample"].size_bytes != _SAMPLE.size:
            raise AssertionError("plant_sample changed: adapt _SAMPLE")
        self._schema = schema
        with memory_file.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, offset=FILE_OFFSET)
        self._index = memoryview(self._map).cast("I")
        control = schema.messages["plant_control"]
        self._cause_offset = sum(f.size_bytes for f in control.fields[:-1])

    def reset(self, serial: str, ar1_version: int) -> None:
        """Before power is applied: identity, what the AR1 runs, fresh randomness, an empty ring."""
        self._map[0:RING_OFFSET] = bytes(RING_OFFSET)
        entropy = [int.from_bytes(os.urandom(4), "little") for _ in range(2)]
        fields = {
            "layout_hash": self._schema.layout_hash,
            "entropy": entropy,
            "serial": serial,
            "ar1_version": ar1_version,
            "reset_cause": NO_CAUSE,
        }
        raw = self._schema.pack(self._schema.messages["plant_control"], fields)
        self._map[: len(raw)] = raw

    def set_reset_cause(self, cause: int) -> None:
        _WORD.pack_into(self._map, self._cause_offset, cause)

    def write(self, readings: list[Reading]) -> None:
        index = self._index[0]
        for r in readings:
            at = RING_OFFSET + index % RING_SAMPLES * _SAMPLE.size
            _SAMPLE.pack_into(
                self._map, at, r.time_us, *r.pack_mv, *r.pack_ma, r.bus_mv, r.bus_mv_min, *r.zone_decic, r.present,
                r.authentic,
            )  # fmt: skip
            index = (index + 1) & 0xFFFF_FFFF
        self._index[0] = index

    def status(self) -> Status:
        read_index, heartbeat, throttle, enable = struct.unpack_from("<IIBB", self._map, STATUS_OFFSET)
        return Status(read_index, heartbeat, throttle, enable)

    def close(self) -> None:
        self._index.release()
        self._map.close()
