"""quarkctl flash"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import (
    Board,
    Device,
    Events,
    Json,
    Log,
    Timeout,
    Verbose,
    bounded,
    examples,
    protocol_log,
)

if TYPE_CHECKING:
    from quarkctl.flash.plan import Plan
    from quarkctl.flash.rtos import TestBootFailed

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples("quarkctl flash rtos-1.1.0.bin", "quarkctl flash rtos-1.1.0.bin -d sim:s1 --dry-run --json")
)
def flash(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Signed image, or a folder of builds: its newest.")],
    device: Device = "",
    board: Board = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write even what is there already.")] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Accept an older version (never an older security counter).")
    ] = False,
    as_json: Json = False,
    events: Events = "",
    timeout: Timeout = 0.0,
    verbose: Verbose = 0,
    log: Log = None,
) -> None:
    """Put firmware on a device: check, upload, verify, test boot, health check, confirm.

    An image that does not survive its test boot is rolled back by the device, and the reason is told.
    """
    from quarkctl.cli import images
    from quarkctl.cli.choose import choose
    from quarkctl.flash.plan import Wish
    from quarkctl.flash.rtos import Session, TestBootFailed

    data = images.read(image)
    opener = choose(device)
    began = time.monotonic()
    with show.Reporter(events, quiet=as_json) as progress, bounded(timeout), protocol_log(verbose, log):
        session = Session(opener, data, Wish(force, allow_downgrade), progress, board, images.program_of(image))
        try:
            plan = session.plan()
            if not as_json and events != "-":
                show.err.print(_headline(plan, session.port))
            if dry_run:
                _print_plan(plan, as_json=as_json)
                return
            result = session.run(plan)
        except TestBootFailed as error:
            error.hint = _save_crash(error, opener.identity)
            raise
        finally:
            session.close()
    if as_json:
        show.document("quarkctl.flash/1", {**result.as_dict(), "total_s": round(time.monotonic() - began, 3)})
    elif events != "-":
        done = f"done in {time.monotonic() - began:.1f} s" if plan.steps else f"nothing to do: {plan.reasons[0]}"
        show.out.print(done)


def _headline(plan: Plan, port: str) -> str:
    from quarkctl.flash.plan import slot_name

    old = f"{plan.old_version} -> " if plan.old_version else ""
    slots = f"slot {slot_name(plan.old_slot)} -> {slot_name(plan.new_slot)}"
    return f"{plan.device}  {plan.board}  rtos {old}{plan.new_version}  {slots}  serial {port}"


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        show.document("quarkctl.plan/1", plan.as_dict())
        return
    for reason in plan.reasons:
        show.out.print(f"because {reason}")
    show.out.print("would " + (", ".join(plan.steps) if plan.steps else "do nothing"))


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
