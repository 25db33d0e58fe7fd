"""quarkctl rig serve"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import examples
from quarkctl.cli.rig_run import RigFile
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong

_TOKEN_CHARS_MIN = 16


def register(app: typer.Typer) -> None:
    app.command(epilog=examples("quarkctl rig serve", "quarkctl rig serve --port 8080 --token-file token.txt"))(serve)


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Another than this computer's own needs a token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8642,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Allows changes; or QUARKCTL_RIG_TOKEN.")
    ] = None,
    rig: RigFile = None,
) -> None:
    """Show stations live, runs, reports and trends in a browser. It only reads, unless a token is given and brought."""
    try:
        import uvicorn

        from quarkctl.rig.page import app as page
    except ImportError as error:
        raise HostUnfit(f"the page needs {error.name}", hint="pip install 'quarkctl[rig]'") from None
    from quarkctl.cli.choose import choose
    from quarkctl.link import names

    token = _token(token_file)
    if not token and not page.is_local(host):
        raise UsageWrong(f"{host} is not this computer's own address: that needs a token", hint="--token-file FILE")
    history = names.load_rig(rig).history
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise HostUnfit(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="--port 0 takes a free one"
        ) from error
    with listener:
        shown = f"[{host}]" if ":" in host else host
        show.out.print(f"http://{shown}:{listener.getsockname()[1]}/", soft_wrap=True)
        config = uvicorn.Config(
            page.make(rig, history, choose, host, token), log_level="warning", access_log=False, timeout_graceful_shutdown=2,
            server_header=False,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


def _token(file: Path | None) -> str:
    """Never from the command line, where everybody on this computer can read it."""
    if file is None:
        token = os.environ.get("QUARKCTL_RIG_TOKEN", "")
    else:
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputWrong(f"cannot read {file}: {error}") from error
    if (token or file) and len(token) < _TOKEN_CHARS_MIN:
        raise InputWrong(
            f"the token has fewer than {_TOKEN_CHARS_MIN} characters", hint="openssl rand -hex 32 makes one"
        )
    return token
