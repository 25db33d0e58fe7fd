"""From wire bytes to samples, with a count of everything that did not become one."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarkctl.errors import LayoutMismatch
from quarkctl.formats.frame import HELLO_TYPE, Frame, Kind, Splitter, parse
from quarkctl.formats.schema import Message, Schema, Value

#: Missing sequence numbers that are remembered, in case their frames come late.
_WINDOW = 1024
#: Frames may overtake each other by less than this.
_REORDER_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One message as it was received. ``values`` are raw integers and texts (`Schema.named` names enums and bits);
    ``boot`` counts the device's starts that this decoder saw, from 0; ``host_ns`` is when the bytes arrived (0 unknown).
    """

    message: Message
    seq: int
    time_us: int
    boot: int
    values: dict[str, Value]
    host_ns: int = 0

    def number(self, name: str) -> int:
        value = self.values[name]
        if not isinstance(value, int):
            raise TypeError(f"{self.message.name}.{name} is no number")
        return value

    def numbers(self, name: str) -> list[int]:
        value = self.values[name]
        if not isinstance(value, list):
            raise TypeError(f"{self.message.name}.{name} is no array")
        return value

    def text(self, name: str) -> str:
        return str(self.values[name])


@dataclass
class Counts:
    """What became of the frames of one stream.

    ``lost``: gaps in the sequence that nothing filled later. ``corrupt``: runs that were no whole frame; part of what
    is lost. ``unknown``: whole frames of a type that the schema does not have.
    """

    received: int = 0
    lost: int = 0
    corrupt: int = 0
    unknown: int = 0
    duplicate: int = 0
    reordered: int = 0
    boots: int = 0
    smp_lines: int = 0

    def as_dict(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames ``count`` missing in front of device time ``time_us`` of start ``boot``."""

    boot: int
    time_us: int
    count: int


@dataclass
class Decoder:
    """Feed it wire bytes of one device; it returns samples and SMP lines and keeps the counts.

    Raises LayoutMismatch when a hello frame names a layout other than the schema's: every later frame would fail its
    CRC, and guessing is worse than stopping.
    """

    schema: Schema
    counts: Counts = field(default_factory=Counts)
    gaps: list[Gap] = field(default_factory=list)
    hello: Sample | None = None
    smp_lines: list[bytes] = field(default_factory=list)
    _splitter: Splitter = field(default_factory=Splitter)
    _boot_id: int | None = None
    _next_seq: int | None = None
    _missing: dict[int, int] = field(default_factory=dict)
    _boot: int = -1
    _time_us: int = 0
    _opened: bool = False

    def feed(self, data: bytes, host_ns: int = 0) -> list[Sample]:
        out = []
        for kind, item in self._splitter.feed(data):
            if kind is Kind.SMP_LINE:
                self.counts.smp_lines += 1
                self.smp_lines.append(item)
                continue
            frame = parse(item, self.schema.crc_seed)
            if frame is None:
                # The very first run may be the tail of a frame that began before we listened.
                if self._opened:
                    self.counts.corrupt += 1
                self._opened = True
                continue
            self._opened = True
            sample = self._take(frame, host_ns)
            if sample:
                out.append(sample)
        return out

    def _take(self, frame: Frame, host_ns: int) -> Sample | None:
        message = self.schema.by_type.get(frame.type)
        if frame.type == HELLO_TYPE:
            self._check_layout(frame)
        if message is None or len(frame.payload) != message.size_bytes:
            self.counts.unknown += 1
            self._account(frame, None)
            return None
        values = self.schema.unpack(message, frame.payload)
        boot_id = values["boot_id"] if frame.type == HELLO_TYPE else None
        if not self._account(frame, boot_id if isinstance(boot_id, int) else None):
            return None
        self.counts.received += 1
        sample = Sample(message, frame.seq, frame.time_us, max(self._boot, 0), values, host_ns)
        if frame.type == HELLO_TYPE:
            self.hello = sample
        return sample

    def _check_layout(self, frame: Frame) -> None:
        theirs = int.from_bytes(frame.payload[:2], "little")
        if len(frame.payload) >= 2 and theirs != self.schema.layout_hash:
            raise LayoutMismatch(
                f"the device speaks message layout {theirs:#06x}, this quarkctl {self.schema.layout_hash:#06x}",
                hint="use the quarkctl of that firmware's release, or flash firmware built from this source",
            )

    def _account(self, frame: Frame, boot_id: int | None) -> bool:
        """Sequence bookkeeping; False for a duplicate, which is not handed on."""
        if boot_id is not None and self._boot_id is not None:
            restarted = boot_id != self._boot_id
        else:  # the start has no name yet, or this frame does not say it: then time that ran back tells
            slack_us = _REORDER_US if boot_id is None else 0
            restarted = frame.time_us + slack_us < self._time_us
        if boot_id is not None or restarted:
            self._boot_id = boot_id
        if restarted or self._next_seq is None:
            self._boot += 1
            self.counts.boots = self._boot + 1
            self._missing.clear()
            self._next_seq = (frame.seq + 1) & 0xFFFF
            self._time_us = frame.time_us
            return True
        self._time_us = max(self._time_us, frame.time_us)
        ahead = (frame.seq - self._next_seq) & 0xFFFF
        if ahead < 0x8000:
            if ahead:
                self.counts.lost += ahead
                self.gaps.append(Gap(self._boot, frame.time_us, ahead))
                for k in range(min(ahead, _WINDOW)):
                    self._missing[(self._next_seq + k) & 0xFFFF] = frame.time_us
                while len(self._missing) > _WINDOW:
                    del self._missing[next(iter(self._missing))]
            self._next_seq = (frame.seq + 1) & 0xFFFF
            return True
        if self._missing.pop(frame.seq, None) is not None:
            self.counts.lost -= 1
            self.counts.reordered += 1
            return True
        self.counts.duplicate += 1
        return False
