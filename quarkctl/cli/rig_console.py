"""quarkctl rig console"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import examples
from quarkctl.cli.rig_care import StationName, station_called
from quarkctl.cli.rig_run import RigFile
from quarkctl.errors import LinkError, LinkLost

if TYPE_CHECKING:
    from quarkctl.link import Link, Opener

_END_KEY = b"\x1d"  # Ctrl-], as in telnet
_LOOK_S = 0.05


def register(app: typer.Typer) -> None:
    app.command(epilog=examples("quarkctl rig console bench-1", "quarkctl rig console bench-1 --read-only -s 10"))(
        console
    )


def console(
    station: StationName,
    seconds: Annotated[float | None, typer.Option("--seconds", "-s", metavar="S", min=0.0, help="Then end.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Send nothing.")] = False,
    rig: RigFile = None,
) -> None:
    """Talk to a station: show the text on its line, send what is typed. Ctrl-] or Ctrl-C ends.

    The device is held meanwhile. Telemetry and commands on the same line are left out. Of virtual glasses the firmware's
    own log is shown too, with --read-only nothing else: that works while somebody else has the device.
    """
    from quarkctl.link import names

    found = station_called(station, rig)
    stop = _until(seconds)
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        log = stack.enter_context(_log_of(found.sim)) if found.sim else None
        if log and read_only:
            while not stop():
                sys.stdout.write(log.read())
                sys.stdout.flush()
                time.sleep(_LOOK_S)  # a file cannot be waited for without a watcher
            return
        from quarkctl.cli.choose import choose

        opener = choose(found.word)
        stack.enter_context(opener.hold())
        link = opener.open()
        show.err.print(f"{found}: Ctrl-] ends", style="dim", soft_wrap=True)
        keys = stack.enter_context(_keys()) if not read_only else None
        _talk(opener, link, keys, log, stop, names.load_rig(rig).policy.appear_s)


def _until(seconds: float | None) -> Callable[[], bool]:
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: end is not None and time.monotonic() >= end


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a console ends, no failure; the terminal is put in order on the way."""

    def end(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _log_of(name: str) -> Iterator[IO[str]]:
    from quarkctl.sim import folder

    path = folder.folder_of(folder.load(name).name) / "firmware.log"
    with path.open("r", encoding="utf-8", errors="replace") as file:
        yield file


@contextmanager
def _keys() -> Iterator[Callable[[], bytes | None]]:
    """What was typed since the last look; None after its end. A terminal gives each key at once, and does not show it: the
    device does, if it wants to."""
    fd = sys.stdin.fileno()
    terminal = os.isatty(fd)

    def typed() -> bytes | None:
        if not select.select([fd], [], [], 0)[0]:
            return b""
        data = os.read(fd, 4096)
        if not data or (terminal and _END_KEY in data):
            return None
        return data.replace(b"\n", b"\r") if terminal else data

    if not terminal:
        yield typed
        return
    import termios
    import tty

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSANOW)
    try:
        yield typed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _talk(
    opener: Opener, link: Link | None, keys: Callable[[], bytes | None] | None, log: IO[str] | None,
    stop: Callable[[], bool], appear_s: float,
) -> None:  # fmt: skip
    """Both ways until the end. A device that restarts takes its port along: it has ``appear_s`` to come back."""
    from quarkctl.rig.console import Text

    text = Text()
    gone_at = 0.0
    try:
        while not stop():
            try:
                link = link or opener.open()
                gone_at = 0.0
                data = link.read(_LOOK_S)
                said = text.feed(data) if data else text.idle()
                typed = keys() if keys else b""
                if typed:
                    link.write(typed)
            except LinkError as error:
                if not gone_at:
                    gone_at = time.monotonic()
                    show.err.print(f"note: {error.message}; waiting for it", style="yellow", soft_wrap=True)
                if time.monotonic() - gone_at > appear_s:
                    raise LinkLost(error.message, hint=error.hint) from error
                if link:
                    link.close()
                    link = None
                said, typed = "", keys() if keys else b""
                time.sleep(_LOOK_S)
            sys.stdout.write(said + (log.read() if log else ""))
            sys.stdout.flush()
            if typed is None:
                if os.isatty(sys.stdin.fileno()):
                    return
                keys = None  # what was piped in is sent; the answer is still to come
    finally:
        if link:
            link.close()
