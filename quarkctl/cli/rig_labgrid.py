"""quarkctl rig export, bridge"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import complete_device, examples
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "quarkctl rig export exporter.yaml", "quarkctl rig export e.yaml --coordinator lab:20408 --name rig1"
        )
    )(export)
    app.command(epilog=examples("quarkctl rig bridge sim:s1", "quarkctl rig bridge QS1-0042 --listen 127.0.0.1:7001"))(
        bridge
    )


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Resources, as labgrid's exporter takes them.")],
    coordinator: Annotated[str, typer.Option("--coordinator", metavar="HOST:PORT")] = "127.0.0.1:20408",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of this exporter; default: this computer's.")
    ] = "",
    hostname: Annotated[str, typer.Option("--hostname", metavar="HOST", help="Where clients reach us.")] = "127.0.0.1",
) -> None:
    """Run labgrid's exporter with QuarkBench known to it: glasses of this computer for others."""
    if importlib.util.find_spec("labgrid") is None:
        raise HostUnfit("labgrid is not installed", hint="pip install 'quarkctl[labgrid]'")
    if not file.is_file():
        raise InputWrong(f"cannot read {file}: no such file")
    from quarkctl.rig.labgrid.export import main

    main(file, coordinator, name, hostname)


def bridge(
    device: Annotated[
        str, typer.Argument(metavar="DEVICE", autocompletion=complete_device, help="As --device takes it.")
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one.")
    ] = "127.0.0.1:0",
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End with standard input: who started it is gone.")
    ] = False,
) -> None:
    """Forward a device as a TCP stream, one client at a time. There is no password: keep to this computer or a tunnel."""
    from quarkctl.cli.choose import choose
    from quarkctl.rig import bridge as bridges

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageWrong(f"{listen!r} is no HOST:PORT", hint="such as 127.0.0.1:7001")
    opener = choose(device)
    try:
        listener = socket.create_server((host, int(port)))
    except OSError as error:
        raise HostUnfit(f"cannot listen on {listen}: {error.strerror}", hint="port 0 takes a free one") from error
    with listener:  # SIGTERM ends it at once: there is nothing to put in order
        if until_eof:
            threading.Thread(target=_end_with_input, daemon=True).start()
        show.out.print(f"{opener.identity} at {host}:{listener.getsockname()[1]}", soft_wrap=True)
        bridges.serve(opener, listener, lambda text: show.err.print(f"note: {text}", soft_wrap=True))


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # at once: the kernel closes the device and gives its lock back
