"""The live view: one line a value, with its course, its limit and what was lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from quarkctl.cli import show
from quarkctl.cli.telemetry import words
from quarkctl.formats.account import Counts
from quarkctl.formats.schema import Kind

if TYPE_CHECKING:
    from rich.console import Group

    from quarkctl.diag.limits import Limits
    from quarkctl.formats.stream import Decoder, Sample

_REDRAW_S = 0.25
#: Values of a course: a minute of what comes twice a second, six seconds of what comes ten times.
_COURSE = 60
_BARS = "▁▂▃▄▅▆▇█"
_BARS_ASCII = "_.-=+*#@"
_HIDDEN = ("hello",)


#: Columns that give way, see `Screen._table`.
_VALUE_COLUMN, _COURSE_COLUMN = 2, 4


class _Row(NamedTuple):
    title: str
    field: str
    value: str
    unit: str
    course: str
    limit: str
    style: str


class Screen:
    """Of one line a device; ``identities`` and ``decoders`` have one entry a line."""

    def __init__(self, identities: Sequence[str], decoders: Sequence[Decoder]) -> None:
        from rich.live import Live

        self._identities, self._decoders = identities, decoders
        self._events: deque[str] = deque(maxlen=6)
        #: By line and name, with the chip in it.
        self._course: dict[tuple[int, str, str], deque[float]] = {}
        self._newest: dict[tuple[int, str], Sample] = {}
        self._limits: Limits | None = None
        self._board = ""
        self._drawn = 0.0
        self._bars = _BARS if "utf" in (show.out.encoding or "").lower() else _BARS_ASCII
        self._live = Live(console=show.out, auto_refresh=False, vertical_overflow="ellipsis")
        self._live.start()

    def take(self, line: int, sample: Sample) -> None:
        schema = self._decoders[line].schema
        of = line + 1 if len(self._decoders) > 1 else 0
        if sample.message.kind is Kind.EVENT:
            self._events.append(words.line(schema, sample, of))
            return
        name = words.name(schema, sample, of)
        self._newest[line, name] = sample
        for key, value in _numbers(sample):
            self._course.setdefault((line, name, key), deque(maxlen=_COURSE)).append(value)
        if line == 0 and name.endswith("hello") and str(sample.values.get("board", "")) != self._board:
            self._board = str(sample.values.get("board", ""))
            self._limits = _limits(self._board)

    def draw(self) -> None:
        if time.monotonic() - self._drawn >= _REDRAW_S:
            self._drawn = time.monotonic()
            self._live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        """What there is to see, in no more lines than the window has."""
        from rich.console import Group
        from rich.text import Text

        counts = sum((d.counts for d in self._decoders), Counts())
        bad = counts.lost or counts.corrupt
        head = [
            *(Text(self._head(i), style="bold") for i in range(len(self._decoders))),
            Text(words.account(counts), style="bold red" if bad else "dim"),
            *(Text(line) for line in self._events),
        ]
        rows = [
            row
            for (line, name), sample in self._newest.items()
            if sample.message.name not in _HIDDEN
            for row in self._rows(line, name, sample)
        ]
        # What tells of trouble stands above the values, which may be more than the window has lines for.
        room = max(show.out.height - len(head) - 2, 1)
        hidden = max(len(rows) - room, 0)
        for text in head:
            text.no_wrap, text.overflow = True, "ellipsis"
        below = [Text(f"{hidden} more in a taller window", style="dim")] if hidden else []
        return Group(*head, self._table(rows[:room]), *below)

    def close(self) -> None:
        self._live.stop()

    def _table(self, rows: Sequence[_Row]) -> Any:
        """Only the course, and then the value, give way in a narrow window."""
        from rich.table import Table
        from rich.text import Text

        columns = ("message", "field", "value", "unit", "course", "limit")
        gap = 2
        width = [max((len(row[i]) for row in rows), default=0) for i in range(6)]
        width = [max(w, len(title)) for w, title in zip(width, columns, strict=True)]
        left = show.out.width - sum(width) - gap * 5
        for column, least in ((_COURSE_COLUMN, len("course")), (_VALUE_COLUMN, 8)):
            given = max(min(-left, width[column] - least), 0)
            width[column] -= given
            left += given
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
        for title, w in zip(columns, width, strict=True):
            table.add_column(title, no_wrap=True, width=w)
        for row in rows:
            course = row.course[-width[_COURSE_COLUMN] :]
            table.add_row(row.title, row.field, Text(row.value, row.style), row.unit, course, row.limit)
        return table

    def _rows(self, line: int, name: str, sample: Sample) -> Iterator[_Row]:
        schema = self._decoders[line].schema
        named = schema.named(sample.message, sample.values)
        numbers = dict(_numbers(sample))
        title = name
        for f in sample.message.fields:
            if sample.message.kind is Kind.BLOCK and not f.samples:
                continue
            parts = [k for k in numbers if k == f.name or k.startswith(f"{f.name}[")]
            for k in parts or [f.name]:
                text = words.value(named[f.name]) if len(parts) < 2 and not f.samples else f"{numbers[k]:g}"
                limit, outside = self._limit(f.name, f.unit, numbers.get(k))
                course = self._sparkline(self._course.get((line, name, k), ()))
                yield _Row(title, k, text[:28], f.unit, course, limit, "bold red" if outside else "")
                title = ""

    def _limit(self, field: str, unit: str, value: float | None) -> tuple[str, bool]:
        limit = self._limits.limits.get(field) if self._limits else None
        if limit is None or limit.unit != unit or value is None:
            return "", False
        outside = (limit.lsl is not None and value < limit.lsl) or (limit.usl is not None and value > limit.usl)
        return str(limit), outside

    def _sparkline(self, values: Any) -> str:
        if len(values) < 2:
            return ""
        low, high = min(values), max(values)
        if low == high:
            return self._bars[0] * min(len(values), 24)
        return "".join(self._bars[int((v - low) / (high - low) * 7.999)] for v in list(values)[-24:])

    def _head(self, line: int) -> str:
        hello = self._decoders[line].hello
        identity = f"{line + 1} {self._identities[line]}" if len(self._decoders) > 1 else self._identities[line]
        if hello is None:
            return f"{identity}  waiting for its hello"
        said = {k: words.value(v) for k, v in hello.values.items()}  # the schema may be another release's
        version = ".".join(said.get(f"version_{k}", "?") for k in ("major", "minor", "revision"))
        return (
            f"{identity}  {said.get('serial', '')}  {said.get('board', '')}  {version}  "
            f"up {said.get('uptime_ms', '?')} ms  boot {said.get('boot_count', '?')}"
        )


def _numbers(sample: Sample) -> list[tuple[str, float]]:
    """(name, value) of every number; of a block the last sample of each field."""
    out: list[tuple[str, float]] = []
    filled = sample.values.get("count", 0)
    for f in sample.message.fields:
        v = sample.values[f.name]
        if f.samples:
            last = v[max(int(filled) - 1, 0)] if isinstance(v, list) and isinstance(filled, int) else 0
            v = last
        if isinstance(v, list):
            out += [(f"{f.name}[{i}]", float(x)) for i, x in enumerate(v)]
        elif isinstance(v, int | float):
            out.append((f.name, float(v)))
    return out


def _limits(board: str) -> Limits | None:
    """Limits of the board, if there are any: the view works without."""
    from quarkctl import boards
    from quarkctl.diag import limits
    from quarkctl.errors import QuarkError

    try:
        return limits.parse(*boards.limits_text(board))
    except QuarkError:
        return None
