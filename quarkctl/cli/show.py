"""How results and progress look."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from quarkctl.errors import HostUnfit
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status
    from rich.text import Text

    #: Standard output, for results.
    out: Console
    #: Standard error, for everything else.
    err: Console


def __getattr__(name: str) -> Console:
    """The consoles are made when something is shown: shell completion imports every verb and shows nothing.

    Markup is off: what is shown comes from files and devices, and a bracket in it is a bracket. Lines are broken to fit
    a terminal; in a file or a pipe a line stays one line, for the program that reads it.
    """
    if name not in ("out", "err"):
        raise AttributeError(name)
    from rich.console import Console, ConsoleDimensions

    console = Console(stderr=name == "err", highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.size = ConsoleDimensions(_UNBROKEN, 25)
    globals()[name] = console
    return console


def _console(name: str) -> Console:
    """One of the two from inside this module, where `__getattr__` is not asked."""
    console: Console = globals().get(name) or __getattr__(name)
    return console


#: Colours of verdicts; off by themselves when piped.
VERDICT_STYLE = {"PASS": "green", "MARGINAL": "yellow", "FAIL": "bold red", "INVALID": "magenta", "SKIP": "dim"}
#: Wide enough for any line of ours.
_UNBROKEN = 1000
_MARKS = {Level.DONE: ("ok", "green"), Level.FAILED: ("failed", "bold red"), Level.NOTE: ("", "yellow")}


def document(schema: str, body: dict[str, Any]) -> None:
    """The one JSON document of ``--json``."""
    print(json.dumps({"schema": schema, **body}, indent=1, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """A table on standard output, without lines where it is piped."""
    from rich.table import Table
    from rich.text import Text

    t = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        t.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        t.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    _console("out").print(t)


def styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style)


def verdict(name: str) -> Text:
    return styled(name, VERDICT_STYLE[name])


class Reporter:
    """Shows events: a bar or a spinner on a terminal, a line every ``line_s`` seconds elsewhere, JSON lines with
    ``--events``."""

    def __init__(self, events: str = "", *, quiet: bool = False, line_s: float = 1.0) -> None:
        self._err = _console("err")
        self._file: IO[str] | None = None
        if events == "-":
            self._file = sys.stdout
        elif events:
            try:
                self._file = Path(events).open("w", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
            except OSError as error:
                raise HostUnfit(f"cannot write {events}: {error.strerror}") from error
        self._quiet = quiet or events == "-"
        self._line_s = line_s
        self._bar: Progress | None = None
        self._spinner: Status | None = None
        self._last_line = 0.0
        self._began: dict[str, float] = {}

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()
        if self._file and self._file is not sys.stdout:
            self._file.close()

    def __call__(self, event: Event) -> None:
        if self._file:
            self._file.write(json.dumps(_as_line(event)) + "\n")
            self._file.flush()
        if self._quiet:
            return
        if event.level is Level.START:
            self._began[event.step] = time.monotonic()
            self._last_line = time.monotonic()
            if event.total_bytes and self._err.is_terminal:
                self._start_bar(event)
            elif self._err.is_terminal:
                self._spinner = self._err.status(f"{event.step} {event.text}".rstrip())
                self._spinner.start()
        elif event.level is Level.PROGRESS:
            self._progress(event)
        else:
            self._end_bar()
            self._line(event)

    def _start_bar(self, event: Event) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("  {task.description:<10}"), BarColumn(28), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(), console=self._err, transient=True,
        )  # fmt: skip
        self._bar.add_task(event.step, total=event.total_bytes)
        self._bar.start()

    def _end_bar(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
        if self._spinner:
            self._spinner.stop()
            self._spinner = None

    def _progress(self, event: Event) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=event.done_bytes)
            return
        done = f"{100 * event.done_bytes // event.total_bytes} %" if event.total_bytes else ""
        left = f"{event.eta_s:.0f} s left" if event.eta_s is not None else ""
        words = ", ".join(w for w in (done, event.text, left) if w)
        if self._spinner:
            self._spinner.update(f"{event.step} {words}")
            return
        now = time.monotonic()
        if now - self._last_line >= self._line_s:
            self._last_line = now
            self._err.print(f"  {event.step:<10} {words}", soft_wrap=True)

    def _line(self, event: Event) -> None:
        mark, style = _MARKS[event.level]
        spent = time.monotonic() - self._began.get(event.step, time.monotonic())
        took = f"{spent:5.1f} s" if spent >= 0.1 else ""
        text = "" if event.level is Level.FAILED else event.text  # it comes as the error, once, with its hint
        if self._err.is_terminal:
            line = styled(f"  {event.step:<10} {text:<52} ", "default")
            self._err.print(line.append(f"{mark:<6}", style).append(took), overflow="fold")
        else:
            self._err.print(f"  {event.step:<10} {text} {mark} {took}".rstrip(), soft_wrap=True)


def _as_line(event: Event) -> dict[str, Any]:
    return {
        "time": time.time(),
        "device": event.device,
        "step": event.step,
        "level": event.level.value,
        "text": event.text,
        "done_bytes": event.done_bytes,
        "total_bytes": event.total_bytes,
        "eta_s": None if event.eta_s is None else round(event.eta_s, 2),
    }
