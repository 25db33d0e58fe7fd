"""quarkctl rig"""

from __future__ import annotations

import typer

from quarkctl.cli import rig_care, rig_console, rig_history, rig_labgrid, rig_page, rig_run, rig_setup
from quarkctl.cli.options import examples

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Many glasses, and nobody near.")


@app.callback(epilog=examples("quarkctl rig discover", "quarkctl rig flash build/s1-virtual --all"))
def _rig() -> None:
    """Many glasses, and nobody near: stations of rig.toml, a worker each, verdicts, history.

    Exit code 9: some stations did not pass. 10: none passed.
    """


for module in (rig_run, rig_setup, rig_care, rig_console, rig_history, rig_page, rig_labgrid):
    module.register(app)
