"""quarkctl build"""

from __future__ import annotations

from typing import Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Board, Events, Json, Out, examples

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build firmware and sign it.")


@app.callback(epilog=examples("quarkctl build rtos", "quarkctl build rtos --board g1-virtual --version 1.2.0"))
def _build() -> None:
    """Build firmware and sign it."""


@app.command(
    epilog=examples("quarkctl build rtos", "quarkctl build rtos --board g1-virtual --version 1.2.0 --key k.pem")
)
def rtos(
    board: Board = "s1-virtual",
    version: Annotated[str, typer.Option(metavar="X.Y.Z", help="Version; default: firmware/rtos/VERSION.")] = "",
    key: Annotated[
        str,
        typer.Option(
            "--key", metavar="KEY", help="PEM file, pkcs11:, helper: or detached:; default: the public development key."
        ),
    ] = "",
    security_counter: Annotated[
        int, typer.Option(min=0, max=0xFFFFFFFF, help="Devices never go back below a confirmed one.")
    ] = 1,
    sabotage: Annotated[
        str, typer.Option(metavar="KIND", help="A test image that fails: hang, fault, stack or selftest.")
    ] = "",
    out: Out = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Build bootloader and application of the microcontroller and sign the image.

    The same sources give the same bytes, in any folder and at any time.
    """
    from quarkctl.build import rtos as rtos_build
    from quarkctl.build import source
    from quarkctl.formats.mcuboot_image import Version

    request = rtos_build.Request(
        board, Version.parse(version or source.default_version()), key or None, out, security_counter, sabotage
    )
    with show.Reporter(events, quiet=as_json) as progress:
        built = rtos_build.build(request, progress)
    if as_json:
        show.document("quarkctl.build/1", {"chip": "rtos", "board": board, **built.as_dict()})
        return
    if events == "-":
        return
    show.out.print(f"{built.image}  {built.image.stat().st_size} bytes  sha256 {built.sha256[:16]}..")
    if built.development_key:
        show.err.print("signed with the development key, which is public: for virtual devices only", style="yellow")
    show.table(
        ("program", "flash, bytes", "RAM, bytes", "deepest stack"),
        ((name, s.flash, s.ram, _worst(built.stacks, boot=name == "bootloader")) for name, s in built.sizes.items()),
    )


def _worst(stacks: dict[str, tuple[int, int]], *, boot: bool) -> str:
    fitting = {t: s for t, s in stacks.items() if (t == "bootloader") == boot}
    thread, (worst, size) = max(fitting.items(), key=lambda item: item[1][0] / item[1][1])
    return f"{worst} of {size} bytes" + ("" if boot else f" (thread {thread})")
