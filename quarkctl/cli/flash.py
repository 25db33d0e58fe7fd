"""quarkctl flash"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.ask import insist
from quarkctl.cli.options import (
    Board,
    Device,
    Events,
    Json,
    Log,
    Timeout,
    Verbose,
    Yes,
    bounded,
    complete_method,
    examples,
    protocol_log,
    terminable,
)
from quarkctl.errors import UsageWrong

if TYPE_CHECKING:
    from quarkctl.flash.plan import Plan, Result
    from quarkctl.flash.rtos import TestBootFailed

_RTOS, _AR1, _EDL = "Microcontroller", "Application processor", "Application processor in emergency download (EDL)"

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples("quarkctl flash app.bin@0x10000 -d 1-1.2 --via esptool", "quarkctl flash http://rig/release.qfw")
)
def flash(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...",
            help="Image, folder of builds, XML set, or bundle (file, - or URL); FILE@PARTITION, FILE@ADDRESS.",
        ),
    ],
    device: Device = "",
    board: Board = "",
    chip: Annotated[str, typer.Option("--chip", metavar="rtos|ar1", help="Only that chip.")] = "",
    via: Annotated[
        str,
        typer.Option("--via", metavar="METHOD", autocompletion=complete_method, help="How; else what fits the files."),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Compare what the device holds; write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write even what is there already.")] = False,
    ar1_device: Annotated[
        str,
        typer.Option(
            "--ar1", metavar="ID", rich_help_panel=_AR1, help="Of a bundle: the AR1 beside the microcontroller."
        ),
    ] = "",
    slot: Annotated[
        str,
        typer.Option(
            "--slot", metavar="inactive|active|a|b", rich_help_panel=_AR1, help="Where slotted partitions go."
        ),
    ] = "inactive",
    restart: Annotated[
        bool, typer.Option("--restart/--no-restart", rich_help_panel=_AR1, help="Into the system at the end.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", rich_help_panel=_AR1, help="Prove what was written.")
    ] = True,
    erase_first: Annotated[
        bool, typer.Option("--erase-first", rich_help_panel=_AR1, help="Erase what is written, before.")
    ] = False,
    programmer: Annotated[
        str,
        typer.Option(
            "--programmer",
            metavar="FILE",
            rich_help_panel=_EDL,
            help="The Firehose programmer; else the one of the files.",
        ),
    ] = "",
    memory: Annotated[
        str,
        typer.Option(
            "--memory", metavar="KIND", rich_help_panel=_EDL, help="Kind of storage: ufs, emmc, nand, nvme or spinor."
        ),
    ] = "",
    assume_idle: Annotated[
        bool,
        typer.Option(
            "--assume-idle", rich_help_panel=_EDL, help="A programmer that another tool left waits for commands."
        ),
    ] = False,
    vip_tables: Annotated[
        str,
        typer.Option(
            "--vip-tables",
            metavar="FOLDER|bundle",
            rich_help_panel=_EDL,
            help="Signed digest tables, for a device that takes nothing else; those in the bundle.",
        ),
    ] = "",
    allow_secdata: Annotated[
        bool, typer.Option("--allow-secdata", rich_help_panel=_AR1, help="Also what holds fuses, keys or calibration.")
    ] = False,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote-usbip",
            rich_help_panel=_AR1,
            help="USB/IP to another host: not encrypted, not authenticated.",
        ),
    ] = False,
    allow_downgrade: Annotated[
        bool,
        typer.Option(
            "--allow-downgrade",
            rich_help_panel=_RTOS,
            help="Accept an older version (never an older security counter).",
        ),
    ] = False,
    framing: Annotated[
        str,
        typer.Option(
            "--framing",
            metavar="console|raw",
            rich_help_panel=_RTOS,
            help="Of SMP, if not what the board's profile says.",
        ),
    ] = "",
    yes: Yes = False,
    as_json: Json = False,
    events: Events = "",
    timeout: Timeout = 0.0,
    verbose: Verbose = 0,
    log: Log = None,
) -> None:
    """Put firmware on a device: check, upload, verify, test boot, health check, confirm.

    An image that does not survive its test boot is rolled back by the device, and the reason is told. A flash that was
    interrupted goes on where the device is.
    """
    from quarkctl.cli.choose import choose, methods_of
    from quarkctl.flash import methods, run
    from quarkctl.flash.journal import Journal
    from quarkctl.flash.plan import Ar1Wish, Job, Wish
    from quarkctl.flash.rtos import TestBootFailed
    from quarkctl.flash.smp import FRAMINGS
    from quarkctl.link.ar1 import LOADER

    if framing and framing not in FRAMINGS:
        raise UsageWrong(f"there is no framing {framing!r}", hint=f"there are {' and '.join(FRAMINGS)}")
    if slot not in ("inactive", "active", "a", "b"):
        raise UsageWrong(f"--slot {slot!r}", hint="inactive, active, a or b")
    method = methods.select(what, via=via, chip=chip, board=board, present=lambda: methods_of(device))
    ar1 = Ar1Wish(slot, restart, erase_first, verify, programmer, memory, allow_secdata, assume_idle=assume_idle,
                  vip_tables=vip_tables, device=ar1_device)  # fmt: skip
    wish = Wish(force, allow_downgrade, verify_only, framing, ar1)
    method.check(wish)
    prepared = method.prepare(what)
    find = partial(choose, allow_remote=allow_remote)
    opener = find(device, LOADER if method.name == "bundle" and chip == "ar1" else method.device_method)
    began = time.monotonic()
    with (
        show.Reporter(events, quiet=as_json) as progress, bounded(timeout), terminable(), protocol_log(verbose, log),
        opener.hold(),
    ):  # fmt: skip
        journal = Journal(opener.identity)
        session = prepared(Job(opener, journal, progress, board, wish, chip, find))
        try:
            plan = run.preflight(session, journal, progress)
            if not as_json and events != "-":
                show.err.print(_headline(plan, session.where))
            if dry_run:
                _print_plan(plan, as_json=as_json)
                return
            for question in plan.questions:
                insist(question, yes=yes)
            result = run.carry_out(session, plan, journal, progress)
        except TestBootFailed as error:
            error.hint = _save_crash(error, opener.identity)
            raise
        finally:
            session.close()
    if as_json:
        show.document("quarkctl.flash/1", {**result.as_dict(), "total_s": round(time.monotonic() - began, 3)})
    elif events != "-":
        show.out.print(_summary(result, time.monotonic() - began))


def _headline(plan: Plan, where: str) -> str:
    versions = " -> ".join(v for v in (plan.old_version, plan.new_version) if v)
    slots = f"slot {plan.facts['old_slot']} -> {plan.facts['new_slot']}" if "new_slot" in plan.facts else ""
    chip = f"{plan.chip} {versions}".strip()
    return "  ".join(word for word in (plan.device, plan.board, chip, slots, where) if word)


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        show.document("quarkctl.plan/1", plan.as_dict())
        return
    for reason in plan.reasons:
        show.out.print(f"because {reason}")
    for step in plan.steps:
        show.out.print(f"would {step.name:<10} {step.text}".rstrip())
    if not plan.steps:
        show.out.print("would do nothing")


def _summary(result: Result, seconds: float) -> str:
    if result.outcome == "unchanged":
        return f"nothing to do: {result.plan.reasons[0]}"
    words = "the device holds what the file holds" if result.outcome == "verified" else "done"
    return f"{words} in {seconds:.1f} s" if result.outcome == "done" else words


def _save_crash(error: TestBootFailed, identity: str) -> str:
    """The crash record as a file beside the user; returns the hint that names it."""
    if error.fault is None:
        return error.hint
    name = f"crash-{identity.replace(':', '-').replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    cause = error.message.partition(": ")[2]
    import json

    report = {"schema": "quarkctl.crash/1", "device": identity, "cause": cause, "fault": error.fault}
    try:
        Path(name).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except OSError as failure:
        return f"{error.hint} (it could not be saved: {failure.strerror})"
    return f"crash report saved as {name}; {error.hint.replace('`quarkctl inspect`', f'`quarkctl inspect {name}`')}"
