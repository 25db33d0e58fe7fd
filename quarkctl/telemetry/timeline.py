"""Recordings of all chips on one time line: host time by the clock of each start of each chip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarkctl.formats import plan
from quarkctl.formats.account import Loss, Start
from quarkctl.formats.clock import TIME_US_MAX, Clock, Fitter
from quarkctl.formats.schema import BLOCK_FIELDS, Kind, Message, Schema
from quarkctl.formats.stream import Decoder, Table
from quarkctl.telemetry.kept import Kept
from quarkctl.telemetry.store import Clocks, Recording, open_all, pieces_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADS = {f.name for f in BLOCK_FIELDS}


@dataclass(frozen=True)
class Rows:
    """Some samples of one message. ``columns`` has one array a field, rows first; samples of a block are rows of their
    own. ``time_ns`` is host time since 1970, by the clock of the chip's start; without receive times it is the device's
    since its reset. ``source`` counts the lines of all recordings, from 0."""

    schema: Schema
    message: Message
    source: int
    time_ns: NDArray[Any]
    time_us: NDArray[Any]
    chip: NDArray[Any]
    boot: NDArray[Any]
    seq: NDArray[Any]
    columns: Mapping[str, NDArray[Any]]

    @property
    def name(self) -> str:
        return self.message.name


@dataclass(frozen=True)
class Source:
    """One line of one session."""

    number: int
    device: str
    decoder: Decoder


@dataclass
class Timeline:
    """Opened recordings. Two passes over the files: clocks first, then the samples, however large they are."""

    sessions: list[list[Recording]]
    clocks: dict[tuple[int, int, int, int], Clock]
    """{(session, line, chip, start): clock}"""
    sources: list[Source]
    keys: dict[tuple[int, int], int]
    """{(session, line): source}"""
    kept: Kept
    """What the first pass decoded, as far as there was room."""

    def rows(self) -> Iterator[Rows]:
        """All samples; those of one source and message ascend in time, as far as they came in order."""
        converters: dict[tuple[int, int, int, int], Fitter] = {}
        for number, line, table in self.kept.tables() if self.kept.whole else self._tables():
            yield self._rows(table, number, line, self.keys[number, line], converters)

    def _tables(self) -> Iterator[tuple[int, int, Table]]:
        for number, parts in enumerate(self.sessions):
            for piece in pieces_of(parts):
                yield from ((number, piece.line, table) for table in piece.batch.tables)

    def _rows(
        self, table: Table, session: int, line: int, source: int, converters: dict[tuple[int, int, int, int], Fitter]
    ) -> Rows:
        import numpy as np

        time_us = table.time_us.astype(np.int64)
        time_ns = np.empty(time_us.size, np.int64)
        breaks = (table.chip[1:] != table.chip[:-1]) | (table.boot[1:] != table.boot[:-1])
        spans = [0, *(np.flatnonzero(breaks) + 1).tolist(), breaks.size + 1]
        sampled = table.message.kind is Kind.BLOCK
        begin = np.zeros(time_us.size if sampled else 0, np.int64)  # device time of the first sample of each block
        for low, high in pairwise(spans):
            chip, boot = int(table.chip[low]), int(table.boot[low])
            clock = self.clocks.get((session, line, chip, boot))
            t = time_us[low:high]
            if sampled:
                t = begin[low:high] = _begin(
                    table, low, high, converters.setdefault((session, line, chip, boot), Fitter(1_000_000))
                )
            time_ns[low:high] = clock.host_ns(t) if clock else np.clip(t, 0, TIME_US_MAX) * 1000
        if sampled:
            return _expanded(table, source, time_ns, begin)
        columns = plan.columns(table.message, table.rows)
        seq = np.ascontiguousarray(table.seq)  # or it would keep all of the frames in memory
        return Rows(table.schema, table.message, source, time_ns, time_us, table.chip, table.boot, seq, columns)

    def starts(self) -> Iterator[tuple[int, Start]]:
        for s in self.sources:
            yield from ((s.number, start) for start in s.decoder.account.starts)

    def losses(self) -> Iterator[tuple[int, Loss]]:
        for s in self.sources:
            yield from ((s.number, loss) for loss in s.decoder.account.losses if loss.count)

    def host_ns(self, source: int, chip: int, boot: int, time_us: int) -> int:
        """Host time of one device time."""
        import numpy as np

        session, line = next(k for k, s in self.keys.items() if s == source)
        clock = self.clocks.get((session, line, chip, boot))
        at = min(max(time_us, 0), TIME_US_MAX)
        return int(clock.host_ns(np.array([at]))[0]) if clock else at * 1000


def open_timeline(paths: Sequence[Path], folders: Sequence[Path] = (), scratch: Path | None = None) -> Timeline:
    """First pass: clocks, starts, losses of all recordings. ``scratch``: where a file without a name may take what it
    decoded, if there is plenty of room; else what is more than a little is decoded twice.

    Raises InputWrong, LayoutMismatch.
    """
    sessions = open_all(paths, folders)
    kept = Kept(scratch, sum(r.path.stat().st_size for parts in sessions for r in parts))
    clocks: dict[tuple[int, int, int, int], Clock] = {}
    sources: list[Source] = []
    keys: dict[tuple[int, int], int] = {}
    for number, parts in enumerate(sessions):
        seen = Clocks()
        for piece in pieces_of(parts):
            seen.add(piece)
            kept.add(number, piece)
        clocks |= {(number, *key): clock for key, clock in seen.clocks().items()}
        for line, decoder in sorted(parts[-1].decoders.items()):
            names = parts[-1].lines
            keys[number, line] = len(sources)
            sources.append(Source(len(sources), names[line] if line < len(names) else f"line {line}", decoder))
    return Timeline(sessions, clocks, sources, keys, kept)


def _begin(table: Table, low: int, high: int, fitter: Fitter) -> NDArray[Any]:
    """Device time of the first sample of each block: the converter's clock against the device's, by the blocks' sending
    times, which are never earlier than their last sample."""
    import numpy as np

    rows = table.rows[low:high]
    first = rows["=first_us"].astype(np.int64)
    span = rows["=count"].astype(np.int64) * rows["=period_ns"] // 1000
    sent = rows["time_us"].astype(np.int64)
    fitter.add(first + span, sent * 1000)
    clock = fitter.clock()
    return clock.host_ns(first) // 1000 if clock else sent - span


def _expanded(table: Table, source: int, time_ns: NDArray[Any], begin_us: NDArray[Any]) -> Rows:
    """One row a sample that is filled."""
    import numpy as np

    columns = plan.columns(table.message, table.rows)
    room = table.message.samples
    count = np.minimum(columns["count"], room).astype(np.int64)
    filled = np.arange(room) < count[:, None]
    at_ns = np.arange(room, dtype=np.int64) * columns["period_ns"].astype(np.int64)[:, None]
    out = {"sample_index": (columns["first_index"].astype(np.int64)[:, None] + np.arange(room))[filled]}
    out |= {name: column[filled] for name, column in columns.items() if name not in _HEADS}
    chip, boot, seq = (np.repeat(a, count) for a in (table.chip, table.boot, table.seq))
    time_us = (begin_us[:, None] + at_ns // 1000)[filled]
    return Rows(table.schema, table.message, source, (time_ns[:, None] + at_ns)[filled], time_us, chip, boot, seq, out)
