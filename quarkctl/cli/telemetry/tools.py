"""quarkctl telemetry replay"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Events, finite
from quarkctl.cli.telemetry.files import File
from quarkctl.cli.telemetry.live import until_signal
from quarkctl.events import Event, Level


def replay(
    file: File,
    speed: Annotated[
        float,
        typer.Option(
            "--speed", metavar="X", min=0.0, callback=finite, help="1 as it came, 10 ten times as fast, 0 at once."
        ),
    ] = 1.0,
    line: Annotated[int, typer.Option("--line", metavar="N", min=0, help="Which line of the recording.")] = 0,
    times: Annotated[int, typer.Option("--times", metavar="N", min=1, help="Play it so often.")] = 1,
    link: Annotated[
        Path | None, typer.Option("--link", metavar="PATH", help="A name for the port, made as a symbolic link.")
    ] = None,
    events: Events = "",
) -> None:
    """Play a recording as a device: prints a port for `--device`, and speaks when somebody opens it."""
    from quarkctl.errors import HostUnfit
    from quarkctl.telemetry.live import Until
    from quarkctl.telemetry.replay import Replay, check

    check(file, line)
    until = Until(None)
    device = Replay()
    try:
        if link:
            try:
                link.symlink_to(device.port)
            except OSError as error:
                raise HostUnfit(f"cannot make {link}: {error.strerror}") from error
        if events != "-":
            print(device.port, flush=True)
        with until_signal(until), show.Reporter(events) as progress:
            progress(Event(device.port, "replay", Level.START))
            for _ in range(times):
                if not device.wait_for_reader(until):
                    break
                total = file.stat().st_size
                for said in device.play(file, line, speed, until):
                    progress(Event(device.port, "replay", Level.PROGRESS, f"{said / 1000:.0f} kB", said, total))
                progress(Event(device.port, "replay", Level.DONE, "the recording is over"))
            device.linger(until)
    finally:
        device.close()
        if link:
            link.unlink(missing_ok=True)


COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "replay": (
        replay,
        ("quarkctl telemetry replay swap.qrec", "quarkctl telemetry replay swap.qrec --speed 10 --link /tmp/glasses"),
    ),
}
