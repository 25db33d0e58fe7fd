"""quarkctl telemetry"""

from __future__ import annotations

import typer

from quarkctl.cli.options import examples
from quarkctl.cli.telemetry import files, live, tools

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Show, record, decode, plot, export and query telemetry."
)


@app.callback(epilog=examples("quarkctl telemetry show", "quarkctl telemetry record swap.qrec --seconds 10"))
def _telemetry() -> None:
    """Show, record, decode, plot, export and query telemetry."""


for _commands in (live.COMMANDS, files.COMMANDS, tools.COMMANDS):
    for _name, (_function, _examples) in _commands.items():
        app.command(_name, epilog=examples(*_examples))(_function)
