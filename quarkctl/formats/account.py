"""What became of the frames of every chip: received, lost, duplicated, reordered; and where its starts are.

A stream is all frames of one chip between two starts; its sequence numbers count 1 by 1 and wrap at 65536. Frames that
follow each other are taken in one step, whatever their number; only where the order breaks is there something to decide.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Frames may overtake each other by less than this in device time.
_REORDER_US = 1_000_000
#: Gaps that a late frame may still fill.
_OPEN_GAPS = 1024
#: Losses that are listed with their times; what comes after is only counted.
LOSSES_MAX = 10_000
#: Frames before a rate is known well enough to resolve a gap of more than one turn of the sequence.
_RATE_FRAMES = 64


@dataclass
class Counts:
    """What became of the frames of one chip, or of all on a line.

    ``lost``: gaps in the sequence that nothing filled later. ``corrupt``: runs that were no whole frame; part of what
    is lost. ``unknown``: whole frames of a type or length that the schema does not have.
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

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class Loss:
    """``count`` frames of one ``kind`` (a field of `Counts`) between two frames of start ``boot`` of a chip.

    Times are those of the frames around: device time in us, host receive time in ns. ``chip`` 0 is the line itself: which
    of its chips sent a corrupt run is not known. ``estimated``: the gap was longer than a turn of the sequence, and its
    length follows from the rate before.
    """

    kind: str
    chip: int
    boot: int
    count: int
    from_us: int
    to_us: int
    from_ns: int
    to_ns: int
    estimated: bool = False


@dataclass(frozen=True)
class Start:
    """A start of a chip as the stream shows it. ``boot_id`` is None until a hello has told it."""

    chip: int
    boot: int
    time_us: int
    host_ns: int
    boot_id: int | None


@dataclass
class _Gap:
    """Extended sequence numbers ``low`` to ``high`` (exclusive) that did not come, but those in ``filled``."""

    low: int
    high: int
    loss: Loss
    filled: set[int] = field(default_factory=set)


@dataclass
class Chip:
    """The account of one chip. ``newest`` is its last sequence number, extended beyond 16 bits."""

    number: int
    counts: Counts = field(default_factory=Counts)
    boot: int = -1
    boot_id: int | None = None
    nibble: int = -1
    newest: int = 0
    newest_us: int = 0
    newest_ns: int = 0
    first: int = 0
    first_us: int = 0
    gaps: list[_Gap] = field(default_factory=list)


@dataclass
class Account:
    """All chips of one line."""

    chips: dict[int, Chip] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    unlisted: int = 0
    """Losses and starts that are counted but not listed, since there are too many."""

    def take(
        self,
        source: NDArray[Any],
        seq: NDArray[Any],
        time_us: NDArray[Any],
        host_ns: NDArray[Any],
        hellos: Mapping[int, int],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Whole frames in the order of their coming; ``hellos`` is {index: boot id}.

        Returns (boot: the chip's starts counted from 0, keep: False for a duplicate), one value a frame.
        """
        import numpy as np

        times = time_us.view(np.int64)  # what is beyond 292 000 years counts as before the start
        if np.all(source == source[0]):
            return self._chip(source, seq, times, host_ns, hellos)
        boot, keep = np.zeros(seq.size, np.int32), np.ones(seq.size, bool)
        chips = source & 15
        for number in np.flatnonzero(np.bincount(chips)).tolist():
            mine = np.flatnonzero(chips == number)
            said = {int(np.searchsorted(mine, i)): b for i, b in hellos.items() if chips[i] == number}
            boot[mine], keep[mine] = self._chip(source[mine], seq[mine], times[mine], host_ns[mine], said)
        return boot, keep

    def _chip(
        self,
        source: NDArray[Any],
        seq: NDArray[Any],
        time_us: NDArray[Any],
        host_ns: NDArray[Any],
        hellos: Mapping[int, int],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """`take` for frames of one chip."""
        import numpy as np

        number = int(source[0]) & 15
        chip = self.chips.setdefault(number, Chip(number))
        broken = np.diff(seq) != 1  # 16 bits: it wraps as the sequence does
        broken |= source[1:] != source[:-1]
        broken |= np.diff(time_us) < -_REORDER_US
        cuts = [0, *(broken.nonzero()[0] + 1).tolist()]
        cuts = sorted({*cuts, *_telling(hellos, cuts)})
        boot, keep = np.empty(seq.size, np.int32), np.ones(seq.size, bool)
        for low, high in zip(cuts, [*cuts[1:], seq.size], strict=True):
            run = _Run(int(seq[low]), high - low, time_us[low:high], host_ns[low:high])
            self._restart(chip, int(source[low]) >> 4, run, hellos.get(low))
            late = self._follow(chip, run)
            keep[low : low + len(late)] = late
            boot[low:high] = chip.boot
        chip.counts.received += int(np.count_nonzero(keep))
        return boot, keep

    def add(self, loss: Loss) -> None:
        """Count a loss, and list it where there is room."""
        counts = self.chips.setdefault(loss.chip, Chip(loss.chip)).counts
        setattr(counts, loss.kind, getattr(counts, loss.kind) + loss.count)
        if len(self.losses) < LOSSES_MAX:
            self.losses.append(loss)
        else:
            self.unlisted += 1

    def total(self) -> Counts:
        return sum((c.counts for c in self.chips.values()), Counts())

    def _restart(self, chip: Chip, nibble: int, run: _Run, boot_id: int | None) -> None:
        known = boot_id is not None and chip.boot_id is not None
        if chip.boot < 0 or nibble != chip.nibble:
            restarted = True
        elif known:
            restarted = boot_id != chip.boot_id
        else:  # neither this frame nor an earlier one tells: then time that ran back does
            restarted = run.first_us + (0 if boot_id is not None else _REORDER_US) < chip.newest_us
        if restarted:
            chip.boot += 1
            chip.counts.boots += 1
            chip.nibble, chip.boot_id = nibble, None
            chip.newest = run.seq - 1
            chip.first, chip.first_us = run.seq, run.first_us
            chip.newest_us = run.first_us
            chip.gaps.clear()
            if len(self.starts) < LOSSES_MAX:
                self.starts.append(Start(chip.number, chip.boot, run.first_us, run.first_ns, boot_id))
            else:
                self.unlisted += 1
        if boot_id is not None and chip.boot_id is None:
            chip.boot_id = boot_id
            for i in range(len(self.starts) - 1, -1, -1):
                start = self.starts[i]
                if (start.chip, start.boot) == (chip.number, chip.boot):
                    self.starts[i] = Start(start.chip, start.boot, start.time_us, start.host_ns, boot_id)
                    break

    def _follow(self, chip: Chip, run: _Run) -> list[bool]:
        """Sequence of one run; returns which of its first frames are kept, for those that came late."""
        place, estimated = _place(chip, run)
        if place > chip.newest:
            missing = place - chip.newest - 1
            if missing:
                loss = Loss(
                    "lost", chip.number, chip.boot, missing, chip.newest_us, run.first_us, chip.newest_ns, run.first_ns,
                    estimated,
                )  # fmt: skip
                self.add(loss)
                chip.gaps.append(_Gap(chip.newest + 1, place, loss))
                del chip.gaps[:-_OPEN_GAPS]
            kept: list[bool] = []
        else:
            kept = self._late(chip, run, place)
        last = place + run.count - 1
        if last > chip.newest:
            chip.newest, chip.newest_ns = last, run.last_ns
            chip.newest_us = max(chip.newest_us, run.last_us)
        return kept

    def _late(self, chip: Chip, run: _Run, place: int) -> list[bool]:
        count = min(run.count, chip.newest - place + 1)
        kept = []
        for number in range(place, place + count):
            gap = next((g for g in reversed(chip.gaps) if g.low <= number < g.high), None)
            new = gap is not None and number not in gap.filled
            if gap and new:
                gap.filled.add(number)
                gap.loss.count -= 1
                chip.counts.lost -= 1
            kept.append(new)
        around = (run.first_us, run.last_us, run.first_ns, run.last_ns)
        for kind, n in (("reordered", sum(kept)), ("duplicate", count - sum(kept))):
            if n:
                self.add(Loss(kind, chip.number, chip.boot, n, *around))
        return kept


@dataclass
class _Run:
    """Frames whose numbers follow each other."""

    seq: int
    count: int
    time_us: NDArray[Any]
    host_ns: NDArray[Any]

    @property
    def first_us(self) -> int:
        return int(self.time_us[0])

    @property
    def last_us(self) -> int:
        return int(self.time_us[-1])

    @property
    def first_ns(self) -> int:
        return int(self.host_ns[0])

    @property
    def last_ns(self) -> int:
        return int(self.host_ns[-1])


def _telling(hellos: Mapping[int, int], cuts: Sequence[int]) -> list[int]:
    """Indices of the hellos that may tell something new: the first behind each of ``cuts``, and another boot id."""
    out, last, boot_id = [], -1, -1
    for i, said in sorted(hellos.items()):
        cut = bisect_right(cuts, i)
        if cut != last or said != boot_id:
            out.append(i)
        last, boot_id = cut, said
    return out


def _place(chip: Chip, run: _Run) -> tuple[int, bool]:
    """Extended sequence number of a run's first frame: the nearest that fits its 16 bits, or, after a silence in which
    the device must have sent more than half a turn, the one that fits its rate; True in the latter case."""
    near = chip.newest + ((run.seq - chip.newest + 0x8000) & 0xFFFF) - 0x8000
    sent, span_us = chip.newest - chip.first, chip.newest_us - chip.first_us
    if sent >= _RATE_FRAMES and span_us > 0:
        expected = sent * (run.first_us - chip.newest_us) / span_us
        if expected > 0x8000:
            ahead = (run.seq - chip.newest) & 0xFFFF
            turns = max(round((expected - ahead) / 0x10000), 0)
            return chip.newest + ahead + turns * 0x10000, True
    return near, False
