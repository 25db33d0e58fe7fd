"""Options that mean the same in every verb."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from quarkctl.errors import HostUnfit, LinkTimeout, UsageWrong


def complete_board(incomplete: str) -> list[str]:
    from quarkctl import boards

    return [n for n in boards.names() if n.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    from quarkctl.cli.choose import devices

    return [word for d in devices() for word in (d.identity, *d.names) if word.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    from quarkctl.flash.methods import METHODS

    return [n for n in METHODS if n.startswith(incomplete)]


def complete_glasses(incomplete: str) -> list[str]:
    from quarkctl.sim import folder

    return [i.name for i in folder.running() if i.name.startswith(incomplete)]


Device = Annotated[
    str,
    typer.Option(
        "--device", "-d", envvar="QUARKCTL_DEVICE", metavar="ID", autocompletion=complete_device,
        help="Serial number, physical port, path, name in rig.toml, or sim:NAME. Needed when several fit.",
    ),
]  # fmt: skip
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also", metavar="ID", autocompletion=complete_device,
        help="A second line beside it, such as the AR1's; may be repeated.",
    ),
]  # fmt: skip
Board = Annotated[
    str,
    typer.Option(
        "--board", "-b", envvar="QUARKCTL_BOARD", metavar="NAME", autocompletion=complete_board,
        help="Board profile; taken from the device where it says what it is.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Events = Annotated[
    str,
    typer.Option("--events", metavar="[FILE]", help="Progress as JSON lines, to standard output or --events=FILE."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="No questions: yes to all of them.")]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0.0, help="Bound for the whole command; 0 means none.")
]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Protocol detail on standard error.")]
Log = Annotated[Path | None, typer.Option("--log", metavar="FILE", help="Protocol detail into a file.")]


def finite(value: float | None) -> float | None:
    """For options with numbers: every range lets nan through, and nothing here lasts for ever."""
    if value is not None and not math.isfinite(value):
        raise UsageWrong(f"{value} is no number that can be used here")
    return value


Seconds = Annotated[
    float | None,
    typer.Option("--seconds", "-s", metavar="S", min=0.1, callback=finite, help="Stop after so many seconds."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="PATH", help="Where the outputs go.")]


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise LinkTimeout in the main thread when the whole command takes longer."""

    import signal

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise LinkTimeout(f"not finished within --timeout {seconds:g} s")

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work like Ctrl-C: the device is left in a known state, which is told."""
    import signal

    def ended(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def protocol_log(verbose: int, file: Path | None) -> Iterator[None]:
    """Requests and answers to standard error (-v) and to a file (--log), for as long as the context lasts."""
    import logging

    handlers: list[logging.Handler] = [logging.StreamHandler()] if verbose else []
    if file:
        try:
            handlers.append(logging.FileHandler(file, mode="w", encoding="utf-8"))
        except OSError as error:
            raise HostUnfit(f"cannot write {file}: {error.strerror}") from error
    root = logging.getLogger("quarkctl")
    before = root.level
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
    if handlers:
        root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def examples(*lines: str) -> str:
    """The end of every help text."""
    return "Examples:\n\n" + "\n\n".join(f"  $ {line}" for line in lines)
