"""From wire bytes to columns, with a count of everything that did not become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quarkctl.errors import LayoutMismatch
from quarkctl.formats import bulk, plan
from quarkctl.formats.account import Account, Counts, Loss
from quarkctl.formats.bulk import Frames
from quarkctl.formats.frame import HEADER, HELLO_TYPE, RUN_MAX, SMP_FIRST, SMP_NEXT
from quarkctl.formats.schema import Message, Schema, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["Batch", "Counts", "Decoder", "Gap", "Sample", "Table"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One message as it was received. ``values`` are raw integers and texts (`Schema.named` names enums and bits);
    ``boot`` counts the starts of its chip that this decoder saw, from 0; ``host_ns`` is when the bytes arrived (0
    unknown); ``chip`` is 1 for the microcontroller, 2 for the AR1 (enum chip)."""

    message: Message
    seq: int
    time_us: int
    boot: int
    values: dict[str, Value]
    host_ns: int = 0
    chip: int = 1

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


@dataclass(frozen=True)
class Table:
    """All samples of one message in one batch: arrays of one length, but ``arrived``, the receive times of all frames
    that were decoded together; ``place`` says which are these, the first of them being the ``base``-th of the batch."""

    schema: Schema
    message: Message
    rows: NDArray[Any]
    chip: NDArray[Any]
    boot: NDArray[Any]
    place: NDArray[Any]
    arrived: NDArray[Any]
    base: int = 0

    @property
    def order(self) -> NDArray[Any]:
        """Their place in the batch."""
        return self.place + self.base

    @property
    def host_ns(self) -> NDArray[Any]:
        times: NDArray[Any] = self.arrived[self.place]
        return times

    @property
    def seq(self) -> NDArray[Any]:
        return self.rows["seq"]

    @property
    def time_us(self) -> NDArray[Any]:
        return self.rows["time_us"]

    @cached_property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Every field, contiguous, under its name; bit words also by their parts (``pack_state.left_present``)."""
        return plan.columns(self.message, self.rows)

    def without_arrival(self) -> Table:
        """The same in less memory: the order and the times of coming are left out."""
        return replace(self, place=self.place[:0].copy(), arrived=self.arrived[:0].copy())

    def bare(self, *arrays: NDArray[Any]) -> Table:
        """The same with these rows, chips and starts, or with none, and without times of coming."""
        rows, chip, boot = arrays or (self.rows[:0].copy(), self.chip[:0].copy(), self.boot[:0].copy())
        return replace(self.without_arrival(), rows=rows, chip=chip, boot=boot)

    def newest(self) -> Iterator[Sample]:
        """The last of each chip; the very last comes last."""
        import numpy as np

        last = [int(np.flatnonzero(self.chip == chip)[-1]) for chip in set(self.chip.tolist())]
        for i in sorted(last):
            at = slice(i, i + 1)
            one = replace(self, rows=self.rows[at], chip=self.chip[at], boot=self.boot[at], place=self.place[at])
            yield from (sample for _, sample in one.samples())

    def samples(self) -> Iterator[tuple[int, Sample]]:
        """(order, sample), one object a message: for few."""
        names = [f.name for f in self.message.fields]
        fields = [self.rows[f"={name}"].tolist() for name in names]
        for f, values in zip(self.message.fields, fields, strict=True):
            if f.type == "char":
                values[:] = [v.split(b"\0", 1)[0].decode("utf-8", "replace") for v in values]
        heads = zip(
            self.order.tolist(), self.seq.tolist(), self.time_us.tolist(), self.boot.tolist(), self.host_ns.tolist(),
            self.chip.tolist(), strict=True,
        )  # fmt: skip
        for (order, seq, time_us, boot, host_ns, chip), values in zip(heads, zip(*fields, strict=True), strict=True):
            named = dict(zip(names, values, strict=True))
            yield order, Sample(self.message, seq, time_us, boot, named, host_ns, chip)


@dataclass(frozen=True)
class Pairs:
    """Device and receive times of frames of one start of one chip; of each read the last, which waited least."""

    chip: int
    boot: int
    time_us: NDArray[Any]
    host_ns: NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """What one piece of wire held: a table a message, in the schema's order. Empty messages have none."""

    tables: Sequence[Table]
    pairs: Sequence[Pairs] = ()

    def samples(self) -> list[Sample]:
        """All messages in the order of their coming."""
        found = [pair for table in self.tables for pair in table.samples()]
        found.sort(key=lambda pair: pair[0])
        return [sample for _, sample in found]

    @property
    def count(self) -> int:
        return sum(t.rows.size for t in self.tables)


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames ``count`` missing in front of device time ``time_us`` of start ``boot``."""

    boot: int
    time_us: int
    count: int


@dataclass
class Decoder:
    """Feed it wire bytes of one line; it returns what they hold and keeps the account.

    ``find`` looks for the schema of another layout hash, when a hello names one. Raises LayoutMismatch when there is none:
    every later frame would fail its CRC, and guessing is worse than stopping.
    """

    schema: Schema
    find: Callable[[int], Schema | None] = lambda layout_hash: None
    account: Account = field(default_factory=Account)
    hello: Sample | None = None
    """The newest of the line; ``hellos`` has that of each chip."""
    hellos: dict[int, Sample] = field(default_factory=dict)
    _carry: bytes = b"\0"
    _opened: bool = False
    _decided: bool = False
    _dropping: bool = False
    _last: tuple[int, int, int] = (0, 0, 0)
    _order: int = 0
    _pairs: list[Pairs] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        """Of the whole line."""
        return self.account.total()

    @property
    def gaps(self) -> list[Gap]:
        return [Gap(x.boot, x.to_us, x.count) for x in self.account.losses if x.kind == "lost" and x.count]

    def feed(self, data: bytes, host_ns: int = 0) -> list[Sample]:
        """One read of a live device: its messages as objects, in order."""
        return self.batch(data, [len(data)], [host_ns]).samples()

    def batch(self, data: bytes, ends: Sequence[int], stamps: Sequence[int]) -> Batch:
        """Bytes of several reads. Read k ends at ``data[ends[k]]`` and came at ``stamps[k]`` (ns)."""
        import numpy as np

        shift = len(self._carry)
        wire = self._take(data)
        if not wire:
            return Batch(())
        bounds, times = np.asarray(ends, np.int64) + shift, np.asarray(stamps, np.int64)
        tables: list[Table] = []
        self._order = 0
        self._pairs = []
        frames = bulk.decode(wire)
        if frames.smp_lines:
            self._line().counts.smp_lines += frames.smp_lines
        for part in self._parts(frames):
            self._tables(part, bounds, times, tables)
        return Batch(tables, self._pairs)

    def _parts(self, frames: Frames) -> Iterator[Frames]:
        """The frames, checked, those of one layout together; the decoder's schema is that of the part."""
        low = 0
        for i, layout_hash in frames.hellos(self.schema.layout_hash):
            if layout_hash == self.schema.layout_hash:
                continue
            other = self._other_layout(layout_hash)
            part = frames.part(low, i)
            bulk.check(part, self.schema.crc_seed)
            # Where nothing was read with the schema before, what came in front of the hello is of its layout too.
            if self._decided or part.whole.any():
                yield part
                low = i
            self.schema = other
        part = frames.part(low, frames.start.size) if low else frames
        bulk.check(part, self.schema.crc_seed)
        yield part

    def _other_layout(self, layout_hash: int) -> Schema:
        other = self.find(layout_hash)
        if other is None or other.layout_hash != layout_hash:
            raise LayoutMismatch(
                f"the device speaks message layout {layout_hash:#06x}, this quarkctl {self.schema.layout_hash:#06x}",
                hint="give the schemas of that firmware's release with --schemas DIR, or flash firmware built from "
                "this source",
            )
        return other

    def _take(self, data: bytes) -> bytes:
        """What is complete with ``data``, between two delimiters; the rest is kept, but never more than `RUN_MAX`."""
        if self._dropping:
            at = data.find(b"\0")
            data = data[at:] if at >= 0 else b""
            self._dropping = at < 0
        end = data.rfind(b"\0") + 1
        tail = b"\0" + data[end:] if end else self._carry + data
        at = 1
        while tail[at : at + 2] in (SMP_FIRST, SMP_NEXT) and (line_end := tail.find(b"\n", at)) >= 0:
            at = line_end + 1  # lines of commands are complete without a delimiter
        parts: list[bytes | memoryview] = [self._carry, memoryview(data)[:end]] if end else [b"\0"]
        if at > 1:
            parts += [tail[1:at], b"\0"]
        self._carry = b"\0" + tail[at:]
        if len(self._carry) > RUN_MAX:
            self._carry, self._dropping = b"\0", True
            self._lose("corrupt", 1, *self._last, self._last[1], self._last[2])
        return b"".join(parts) if end or at > 1 else b""

    def _tables(self, frames: Frames, bounds: NDArray[Any], stamps: NDArray[Any], tables: list[Table]) -> None:
        import numpy as np

        whole = np.flatnonzero(frames.whole)
        head = frames.gather(frames.start[whole], HEADER.size).view(plan.HEADER_TYPE)
        # Ends and bounds both ascend: how many frames each read completed, instead of a search for every frame.
        per_read = np.diff(np.searchsorted(frames.end[whole], bounds), prepend=0)
        per_read[-1] += whole.size - per_read.sum()
        host_ns = np.repeat(stamps, per_read)
        kind, source = np.ascontiguousarray(head["type"]), np.ascontiguousarray(head["source"])
        time_us = np.ascontiguousarray(head["time_us"])
        self._count_corrupt(frames, whole, source, time_us, host_ns)
        if not whole.size:
            return
        boot_ids = self._boot_ids(frames, whole, kind)
        boot, keep = self.account.take(source, np.ascontiguousarray(head["seq"]), time_us, host_ns, boot_ids)
        self._decided = self._decided or bool(np.any(kind != HELLO_TYPE)) or bool(boot_ids)
        self._last = (int(source[-1]) & 15, int(time_us[-1]), int(host_ns[-1]))
        all_kept = bool(keep.all())
        self._pair(source, boot, time_us.view(np.int64), host_ns, np.cumsum(per_read)[per_read > 0] - 1)
        known = 0
        chip = source & 15
        one_start = bool(np.all(source == source[0])) and boot[0] == boot[-1]
        place = None if whole.size == frames.size.size else np.cumsum(frames.whole) - 1
        types = np.bincount(kind, minlength=256)
        for number, (message, frame_type) in self.schema.frame_types.items():
            if not types[number]:
                continue
            index, rows = frames.of(number, frame_type.itemsize)
            mine = index if place is None else place[index]
            known += mine.size
            if not all_kept:
                kept = keep[mine]
                mine, rows = mine[kept], rows[kept]
            if not mine.size:
                continue
            chips, boots = (
                (np.full(mine.size, chip[0]), np.full(mine.size, boot[0])) if one_start else (chip[mine], boot[mine])
            )
            table = Table(self.schema, message, rows.view(frame_type), chips, boots, mine, host_ns, self._order)
            tables.append(table)
            if number == HELLO_TYPE:
                for self.hello in table.newest():
                    self.hellos[self.hello.chip] = self.hello
        self._order += whole.size
        if known < whole.size:
            self._count_unknown(kind, frames.size[whole], chip, boot, time_us, host_ns, keep)

    def _pair(
        self, source: NDArray[Any], boot: NDArray[Any], time_us: NDArray[Any], host_ns: NDArray[Any], last: NDArray[Any]
    ) -> None:
        """``last``: indices of the last frames of the reads, which waited least."""
        import numpy as np

        if boot[0] == boot[-1] and np.all(source == source[0]):
            self._pairs.append(Pairs(int(source[0]) & 15, int(boot[0]), time_us[last], host_ns[last]))
            return
        keys = (source & 15).astype(np.int64) << 32 | boot
        for key in np.unique(keys).tolist():
            mine = np.flatnonzero(keys == key)
            last = mine[np.flatnonzero(np.diff(host_ns[mine], append=-1))]
            self._pairs.append(Pairs(key >> 32, key & 0xFFFFFFFF, time_us[last], host_ns[last]))

    def _boot_ids(self, frames: Frames, whole: NDArray[Any], kind: NDArray[Any]) -> dict[int, int]:
        import numpy as np

        if HELLO_TYPE not in self.schema.frame_types:
            return {}
        _, frame_type = self.schema.frame_types[HELLO_TYPE]
        if "=boot_id" not in (frame_type.names or ()) or frame_type["=boot_id"].kind != "u":
            return {}  # the schema may be anybody's
        hellos = np.flatnonzero((kind == HELLO_TYPE) & (frames.size[whole] == frame_type.itemsize))
        rows = frames.gather(frames.start[whole[hellos]], frame_type.itemsize).view(frame_type)
        return dict(zip(hellos.tolist(), rows["=boot_id"].tolist(), strict=True))

    def _count_corrupt(
        self, frames: Frames, whole: NDArray[Any], source: NDArray[Any], time_us: NDArray[Any], host_ns: NDArray[Any],
    ) -> None:  # fmt: skip
        import numpy as np

        bad = np.flatnonzero(~frames.whole)
        if frames.whole.size and not self._opened:
            # The very first run may be the tail of a frame that began before we listened.
            bad = bad[bad > 0]
            self._opened = True
        if not bad.size:
            return
        after = np.searchsorted(whole, bad)

        def frame(i: int) -> tuple[int, int, int]:
            return int(source[i]) & 15, int(time_us[i]), int(host_ns[i])

        for place, count in zip(*np.unique(after, return_counts=True), strict=True):
            before = frame(place - 1) if place else self._last
            to = frame(place) if place < whole.size else before
            self._lose("corrupt", int(count), to[0] if before[0] in (0, to[0]) else 0, *before[1:], *to[1:])

    def _lose(self, kind: str, count: int, chip: int, from_us: int, from_ns: int, to_us: int, to_ns: int) -> None:
        """A loss that no sequence number tells. On a line with one chip it is that chip's."""
        real = [c for c in self.account.chips if c]
        chip = chip if not real or (chip in real and len(real) == 1) else real[0] if len(real) == 1 else 0
        boot = max(self.account.chips[chip].boot, 0) if chip in self.account.chips else 0
        self.account.add(Loss(kind, chip, boot, count, from_us, to_us, from_ns, to_ns))

    def _count_unknown(
        self, kind: NDArray[Any], size: NDArray[Any], chip: NDArray[Any], boot: NDArray[Any], time_us: NDArray[Any],
        host_ns: NDArray[Any], keep: NDArray[Any],
    ) -> None:  # fmt: skip
        import numpy as np

        expected = np.zeros(256, np.int64)
        for number, (_, frame_type) in self.schema.frame_types.items():
            expected[number] = frame_type.itemsize
        strange = np.flatnonzero((expected[kind] != size) & keep)
        for number in np.unique(chip[strange]).tolist():
            mine = strange[chip[strange] == number]
            self.account.chips[number].counts.received -= mine.size
            first, last = mine[0], mine[-1]
            self.account.add(
                Loss("unknown", number, int(boot[last]), mine.size, int(time_us[first]), int(time_us[last]),
                     int(host_ns[first]), int(host_ns[last]))
            )  # fmt: skip

    def _line(self) -> Any:
        from quarkctl.formats.account import Chip

        return self.account.chips.setdefault(0, Chip(0))
