"""quarkctl build"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Board, Events, Json, Out, examples
from quarkctl.errors import UsageWrong

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
    needs_ar1: Annotated[
        str,
        typer.Option(metavar="X.Y.Z", help="Least version of the AR1's image; devices refuse it with an older one."),
    ] = "",
    sabotage: Annotated[
        str,
        typer.Option(metavar="KIND", help="A test image that fails: hang, masked, stalled, fault, stack or selftest."),
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
        board, Version.parse(version or source.default_version()), key or None, out, security_counter,
        Version.parse(needs_ar1) if needs_ar1 else None, sabotage,
    )  # fmt: skip
    with show.Reporter(events, quiet=as_json) as progress:
        built = rtos_build.build(request, progress)
    if as_json:
        show.document("quarkctl.build/1", {"chip": "rtos", "board": board, **built.as_dict()})
        return
    if events == "-":
        return
    show.out.print(f"{built.image}  {built.image.stat().st_size} bytes  sha256 {built.sha256[:16]}..")
    if not built.boot_elf:
        show.err.print("signed for MCUboot: the bootloader of these boards verifies Ed25519 only", style="yellow")
    if built.development_key:
        show.err.print("signed with the development key, which is public: for virtual devices only", style="yellow")
    show.table(
        ("program", "flash, bytes", "RAM, bytes", "deepest stack"),
        ((name, s.flash, s.ram, _worst(built.stacks, boot=name == "bootloader")) for name, s in built.sizes.items()),
    )


@app.command(
    epilog=examples(
        "quarkctl build bundle release.toml --out release.qfw",
        "quarkctl build bundle release.toml --builds build/s1 --key 'pkcs11:token=T;object=O'",
    )
)
def bundle(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML: product, versions, images.")],
    builds: Annotated[
        Path | None, typer.Option("--builds", metavar="DIR", help="Where the images are; default: beside the recipe.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="Signs it; may be repeated. Default for virtual boards: development."
        ),
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="To be signed later: quarkctl bundle sign.")] = False,
    out: Out = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Put the images of both chips into one signed file (.qfw). The same inputs give the same bytes."""
    from quarkctl.build import bundle as bundle_build
    from quarkctl.build import sign, source
    from quarkctl.formats import bundle as bundle_format

    if unsigned and key:
        raise UsageWrong("--unsigned and --key contradict each other", hint="leave one of the two out")
    names = [] if unsigned else key or [str(source.development_key())]
    target = out or recipe.with_suffix(bundle_format.SUFFIX)
    if target.is_dir():
        target = target / recipe.with_suffix(bundle_format.SUFFIX).name
    request = bundle_build.Request(recipe, builds or recipe.parent, target, [sign.load(n) for n in names])
    with show.Reporter(events, quiet=as_json) as progress:
        built = bundle_build.build(request, progress)
    if as_json:
        show.document("quarkctl.build/1", {"kind": "bundle", **built.as_dict()})
        return
    if events == "-":
        return
    versions = ", ".join(f"{chip} {c.version}" for chip, c in built.manifest.chips.items())
    show.out.print(
        f"{built.path}  {built.size_bytes} bytes  {built.manifest.product} {built.manifest.version}: {versions}"
    )
    if unsigned:
        show.err.print(
            f"not signed: nothing takes it before `quarkctl bundle sign {built.path} --key KEY`", style="yellow"
        )
    if built.development_key:
        show.err.print("signed with a development key: for virtual devices only", style="yellow")


@app.command(
    epilog=examples(
        "quarkctl build ar1", "quarkctl build ar1 --spec my/s1.toml --key 'pkcs11:token=release;object=avb'"
    )
)
def ar1(
    board: Board = "s1-virtual",
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="TOML", help="Specification; default: firmware/ar1/BOARD.toml.")
    ] = None,
    version: Annotated[str, typer.Option(metavar="X.Y.Z", help="Version; default: that of the specification.")] = "",
    key: Annotated[
        str,
        typer.Option("--key", metavar="KEY", help="In place of every key: PEM file, pkcs11:, helper: or detached:."),
    ] = "",
    out: Out = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Build the images of the application processor: boot, file systems, verified boot, super, partition tables.

    What did not change is not built again; outputs appear together or not at all; every output is read back.
    """
    from quarkctl.build import source
    from quarkctl.build.ar1 import request

    file = spec or source.root() / "firmware" / "ar1" / f"{board}.toml"
    wanted = request.Request(file, out or Path("build") / (spec.stem if spec else board) / "ar1", version, key)
    with show.Reporter(events, quiet=as_json) as progress:
        built = request.build(wanted, progress)
    if as_json:
        show.document("quarkctl.build/1", {"chip": "ar1", "board": built.product, **built.as_dict()})
        return
    if events == "-":
        return
    if not built.made:
        how = "kept from before" if built.restored else "nothing changed"
        show.out.print(f"{how}: {len(built.files)} files in {built.out}", soft_wrap=True)
        return
    show.table(
        ("file", "bytes", "sha256"),
        ((str(built.out / n), f["bytes"], f"{f['sha256'][:16]}.." if f["sha256"] else "(its hash tree names it)")
         for n, f in built.files.items()),
    )  # fmt: skip
    if built.development_key:
        show.err.print("signed with the development key, which is public: for virtual devices only", style="yellow")


def _worst(stacks: dict[str, tuple[int, int]], *, boot: bool) -> str:
    fitting = {t: s for t, s in stacks.items() if (t == "bootloader") == boot}
    thread, (worst, size) = max(fitting.items(), key=lambda item: item[1][0] / item[1][1])
    return f"{worst} of {size} bytes" + ("" if boot else f" (thread {thread})")
