"""quarkctl devices"""

from __future__ import annotations

import typer

from quarkctl.cli import show
from quarkctl.cli.choose import candidates
from quarkctl.cli.options import Json, examples
from quarkctl.link.serial_port import holders_of

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("quarkctl devices", "quarkctl devices --json"))
def devices(as_json: Json = False) -> None:
    """List what can be flashed: virtual glasses and USB serial ports, and who holds them."""
    rows = [
        {
            "identity": c.identity, "board": c.board, "serial": c.serial, "port": c.port, "description": c.description,
            "held_by": [str(h) for h in holders_of(c.port)] if c.port else [],
        }
        for c in candidates()
    ]  # fmt: skip
    if as_json:
        show.document("quarkctl.devices/1", {"devices": rows})
        return
    if not rows:
        show.out.print("no device found; start virtual glasses with: quarkctl sim start")
        return
    show.table(
        ("device", "board", "serial", "port", "held by"),
        (
            (r["identity"], r["board"] or "?", r["serial"], r["port"] or "no power", ", ".join(r["held_by"]))
            for r in rows
        ),
    )
