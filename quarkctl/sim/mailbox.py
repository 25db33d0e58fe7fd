"""Shared memory between plant and firmware: protocols/plant.toml in a memory-mapped file."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from quarkctl import schemas
from quarkctl.sim.motion import FIFO_SAMPLES, Inertial
from quarkctl.sim.plant import Reading, Registers

#: Offset of the mailbox in the memory file, and of its parts in the mailbox.
FILE_OFFSET = 0x0800_0000
STATUS_OFFSET = 0x60
RING_OFFSET = 0x80
RING_SAMPLES = 1024
SLOW_OFFSET = 0xB000
MOTION_OFFSET = 0xB100
INERTIAL_OFFSET = 0xB120
SIZE = INERTIAL_OFFSET + FIFO_SAMPLES * 20
NO_VALUE = 0xFFFF_FFFF

_SAMPLE = struct.Struct("<QHHhhHHhhhhhBBhhHHH")
_INERTIAL = struct.Struct("<Q6h")
_WORD = struct.Struct("<I")


@dataclass(frozen=True)
class Status:
    """What the firmware decided."""

    read_index: int
    heartbeat: int
    throttle_level: int
    pack_enable: int
    slow_ack: int


class Mailbox:
    """Writer's side. The index is published by one aligned 32-bit store after the samples; on x86 and on Arm hosts with
    the interpreter lock's barriers that is enough order for a reader that polls every few milliseconds."""

    def __init__(self, memory_file: Path) -> None:
        schema = schemas.plant()
        for name, packed in (("plant_sample", _SAMPLE), ("plant_inertial", _INERTIAL)):
            if schema.messages[name].size_bytes != packed.size:
                raise AssertionError(f"{name} changed: adapt its Struct")
        self._schema = schema
        with memory_file.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, offset=FILE_OFFSET)
        self._index = memoryview(self._map).cast("I")
        control = schema.messages["plant_control"]
        names = [f.name for f in control.fields]
        self._cause_offset = sum(f.size_bytes for f in control.fields[: names.index("reset_cause")])
        self._slow_version = 0

    def reset(self, serial: str, ar1_version: int, hysteresis_decic: int = NO_VALUE) -> None:
        """Before power is applied: identity, what the AR1 runs, fresh randomness, calibration, an empty ring."""
        self._map[0:RING_OFFSET] = bytes(RING_OFFSET)
        self._map[SLOW_OFFSET:SIZE] = bytes(SIZE - SLOW_OFFSET)
        self._slow_version = 0
        entropy = [int.from_bytes(os.urandom(4), "little") for _ in range(2)]
        fields = {
            "layout_hash": self._schema.layout_hash,
            "entropy": entropy,
            "serial": serial,
            "ar1_version": ar1_version,
            "reset_cause": NO_VALUE,
            "hysteresis_decic": hysteresis_decic,
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
                r.authentic, *r.pack_ma_min, r.switch_us, r.inrush_ma,
                r.inrush_ma2s,
            )  # fmt: skip
            index = (index + 1) & 0xFFFF_FFFF
        self._index[0] = index

    def set_motion_period(self, period_ns: int) -> None:
        """0: the inertial sensor is off."""
        _WORD.pack_into(self._map, MOTION_OFFSET + 4, period_ns)

    def write_motion(self, lost: int, samples: list[Inertial]) -> None:
        index = self._index[MOTION_OFFSET // 4] + lost & 0xFFFF_FFFF
        for s in samples:
            at = INERTIAL_OFFSET + index % FIFO_SAMPLES * _INERTIAL.size
            _INERTIAL.pack_into(self._map, at, s.time_us, *s.accel_mg, *s.gyro_ddps)
            index = (index + 1) & 0xFFFF_FFFF
        self._index[MOTION_OFFSET // 4] = index

    @property
    def slow_due(self) -> bool:
        """The firmware has read what was written last."""
        return self.status().slow_ack == self._slow_version & 0xFFFF

    def write_slow(self, registers: Registers) -> None:
        """A reader takes it only when both versions are the same before and after."""
        self._slow_version = (self._slow_version + 1) & 0xFFFF_FFFF
        r = registers
        fields = {
            "version": self._slow_version, "gauge_soc_pct": r.soc_pct, "max_error_pct": r.max_error_pct,
            "remaining_mah": r.remaining_mah, "full_mah": r.full_mah, "design_mah": r.design_mah,
            "cycle_count": r.cycle_count, "pack_id": r.pack_id, "challenge": r.challenge, "response": r.response,
            "accepted": r.accepted, "pack_present": r.present[0] | r.present[1] << 1, "charger_state": r.charger_state,
            "charge_ma_max": r.charge_ma_max, "sent_count": r.sent_count, "lost_count": r.lost_count,
            "latency_us_max": r.latency_us_max, "wake_us_max": r.wake_us_max, "hand_over_us_max": r.hand_over_us_max,
            "frame_count": r.frame_count, "dropped_count": r.dropped_count,
            "camera_frame_count": r.camera_frame_count, "camera_dropped_count": r.camera_dropped_count,
            "version_end": self._slow_version,
        }  # fmt: skip
        raw = self._schema.pack(self._schema.messages["plant_slow"], fields)
        _WORD.pack_into(self._map, SLOW_OFFSET, self._slow_version)
        self._map[SLOW_OFFSET + 4 : SLOW_OFFSET + len(raw)] = raw[4:]

    def status(self) -> Status:
        return Status(*struct.unpack_from("<IIBBH", self._map, STATUS_OFFSET))

    def close(self) -> None:
        self._index.release()
        self._map.close()
