"""quarkctl devices"""

from __future__ import annotations

import typer

from quarkctl.cli import show
from quarkctl.cli.choose import devices as all_devices
from quarkctl.cli.options import Json, examples
from quarkctl.link.holder import Holder, openers_of
from quarkctl.link.identity import Device
from quarkctl.link.lock import holder_of

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("quarkctl devices", "quarkctl devices --json"))
def devices(as_json: Json = False) -> None:
    """List what can be flashed: virtual glasses and USB serial ports, and who holds them."""
    rows = [
        {
            "identity": d.identity, "names": list(d.names), "board": d.board, "serial": d.serial, "mode": d.mode,
            "location": d.location, "port": d.port, "methods": list(d.methods), "description": d.description,
            "held_by": [str(h) for h in _holders(d)],
        }
        for d in all_devices()
    ]  # fmt: skip
    if as_json:
        show.document("quarkctl.devices/1", {"devices": rows})
        return
    if not rows:
        show.out.print("no device found; start virtual glasses with: quarkctl sim start")
        return
    show.table(
        ("device", "name", "board", "serial", "place", "port", "held by"),
        (
            (r["identity"], ", ".join(r["names"]), r["board"] or "?", r["serial"], r["location"],
             r["port"] or "unplugged", ", ".join(r["held_by"]))
            for r in rows
        ),
    )  # fmt: skip


def _holders(device: Device) -> list[Holder]:
    """Who locked it, and who has its port open without asking."""
    locked = holder_of(device.identity)
    others = [o for o in openers_of(device.port) if locked is None or o.pid != locked.pid] if device.port else []
    return [*([locked] if locked else []), *others]
