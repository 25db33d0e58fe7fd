"""quarkctl rig flash, diag, run"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Events, Json, complete_method, examples
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from quarkctl.formats.rig_file import Rig, Station
    from quarkctl.rig.fleet import Row
    from quarkctl.rig.outcome import Run
    from quarkctl.rig.plan import Kind, Plan
    from quarkctl.rig.steps import Prepared

RigFile = Annotated[
    Path | None,
    typer.Option("--rig", metavar="FILE", help="Rig file; default: QUARKCTL_RIG, ./rig.toml, or the user's."),
]
All = Annotated[bool, typer.Option("--all", help="All stations.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="COND", help="name=, tag= or board=PATTERN, or a name; all must hold."),
]
Wait = Annotated[float, typer.Option("--wait", metavar="S", min=0.0, help="Wait so long for a busy device, in turn.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there too.")]
Artifacts = Annotated[
    Path | None, typer.Option("--artifacts", metavar="DIR", help="Copy all that the run leaves into this new folder.")
]
Deadline = Annotated[
    float | None, typer.Option("--deadline", metavar="S", min=1.0, help="For each station; default: rig.toml.")
]
Retries = Annotated[int | None, typer.Option("--retries", metavar="N", min=0, help="More attempts; default: rig.toml.")]

Engine = Annotated[
    str, typer.Option("--coordinator", metavar="HOST:PORT", help="Stations are places of this labgrid coordinator.")
]

_WAIT_S = 3600.0
#: Verdicts of stations to the colours of verdicts of findings.
LIKE = {"passed": "PASS", "failed": "FAIL", "error": "FAIL", "timeout": "FAIL", "missing": "FAIL", "lost": "FAIL",
         "invalid": "INVALID", "busy": "MARGINAL", "interrupted": "MARGINAL", "quarantined": "SKIP"}  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "quarkctl rig flash build/s1-virtual --all", "quarkctl rig flash r.bin -w tag=camera --junit j.xml"
        )
    )(flash)
    app.command(
        epilog=examples("quarkctl rig diag battery --all", "quarkctl rig diag battery -w bench-1 --seconds 20")
    )(diag)
    app.command(epilog=examples("quarkctl rig run nightly.toml", "quarkctl rig run nightly.toml -w tag=camera --json"))(
        run
    )


def flash(
    what: Annotated[list[str], typer.Argument(metavar="WHAT...", help="What `quarkctl flash` takes.")],
    everything: All = False,
    where: Where = None,
    chip: Annotated[str, typer.Option("--chip", metavar="rtos|ar1", help="Only that chip.")] = "",
    via: Annotated[str, typer.Option("--via", metavar="METHOD", autocompletion=complete_method, help="How.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write even what is there already.")] = False,
    allow_downgrade: Annotated[bool, typer.Option("--allow-downgrade", help="Accept an older version.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on where `quarkctl flash` would ask.")] = False,
    slot: Annotated[
        str, typer.Option("--slot", metavar="SLOT", help="Of the AR1: inactive, active, a or b.")
    ] = "inactive",
    programmer: Annotated[
        str, typer.Option("--programmer", metavar="FILE", help="The Firehose programmer, for EDL.")
    ] = "",
    memory: Annotated[str, typer.Option("--memory", metavar="KIND", help="Storage of the AR1: ufs, emmc, nvme.")] = "",
    rig: RigFile = None,
    coordinator: Engine = "",
    wait: Wait = _WAIT_S,
    deadline: Deadline = None,
    retries: Retries = None,
    junit: Junit = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    events: Events = "",
) -> int:
    """Flash many stations at once: a worker process each, retried with a power cycle, a verdict for each."""
    from quarkctl.flash.plan import Ar1Wish
    from quarkctl.rig.plan import SLOTS, Flash

    if slot not in SLOTS:
        raise UsageWrong(f"there is no slot {slot!r}", hint=f"there are {', '.join(SLOTS)}")
    ar1 = Ar1Wish(slot, programmer=programmer, memory=memory)
    kind = Flash(tuple(what), via, chip, force, allow_downgrade, yes, ar1)
    return _one(
        "flash",
        kind,
        everything,
        where,
        rig,
        coordinator,
        wait,
        deadline,
        retries,
        junit,
        artifacts,
        events,
        as_json=as_json,
    )


def diag(
    area: Annotated[str, typer.Argument(metavar="AREA", help="What to judge, such as battery.")],
    checks: Annotated[list[str] | None, typer.Argument(metavar="[CHECK]...", help="Only these checks.")] = None,
    everything: All = False,
    where: Where = None,
    seconds: Annotated[float, typer.Option("--seconds", "-s", metavar="S", min=0.5, help="Listen so long.")] = 10.0,
    rig: RigFile = None,
    coordinator: Engine = "",
    wait: Wait = _WAIT_S,
    deadline: Deadline = None,
    retries: Retries = None,
    junit: Junit = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    events: Events = "",
) -> int:
    """Listen to many stations at once and judge each. The recordings are kept with the run."""
    from quarkctl.rig.plan import Diag

    kind = Diag(area, tuple(checks or ()), seconds)
    return _one(
        "diag",
        kind,
        everything,
        where,
        rig,
        coordinator,
        wait,
        deadline,
        retries,
        junit,
        artifacts,
        events,
        as_json=as_json,
    )


def run(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to do; docs/rigs.md describes it.")],
    where: Where = None,
    rig: RigFile = None,
    coordinator: Engine = "",
    wait: Wait = _WAIT_S,
    deadline: Deadline = None,
    retries: Retries = None,
    junit: Junit = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
    events: Events = "",
) -> int:
    """Carry a plan out on all its stations: flash, diag, swap, soak, thermal, with conditions and repeats."""
    from quarkctl.link import names
    from quarkctl.rig import plan as plans

    try:
        made = plans.parse(str(plan), plan.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputWrong(f"cannot read {plan}: {error}") from error
    return _carry_out(
        made,
        names.load_rig(rig),
        [*made.where, *(where or [])],
        coordinator,
        wait,
        deadline,
        retries,
        junit,
        artifacts,
        events,
        as_json=as_json,
    )


def _one(
    name: str, kind: Kind, everything: bool, where: list[str] | None, rig: Path | None, coordinator: str, wait: float,
    deadline: float | None, retries: int | None, junit: Path | None, artifacts: Path | None, events: str, *, as_json: bool,
) -> int:  # fmt: skip
    """A plan of one step."""
    from quarkctl.link import names
    from quarkctl.rig.plan import Plan, Step

    if everything == bool(where):
        raise UsageWrong("which stations? --all, or --where", hint="quarkctl rig list shows them")
    made = Plan(name, (Step(name, kind),))
    loaded = names.load_rig(rig)
    return _carry_out(
        made, loaded, where or [], coordinator, wait, deadline, retries, junit, artifacts, events, as_json=as_json
    )


def _carry_out(
    made: Plan, rig: Rig, where: list[str], coordinator: str, wait: float, deadline: float | None, retries: int | None,
    junit: Path | None, artifacts: Path | None, events: str, *, as_json: bool,
) -> int:  # fmt: skip
    from contextlib import nullcontext
    from dataclasses import replace

    from quarkctl.cli.choose import choose, other_chip
    from quarkctl.rig import fleet, runs
    from quarkctl.rig import plan as plans
    from quarkctl.rig.fleet import Order
    from quarkctl.rig.history.deliver import catch_up
    from quarkctl.rig.labgrid.engine import Coordinator

    if artifacts and artifacts.exists():
        raise runs.exists_already(artifacts)
    policy = replace(
        rig.policy,
        deadline_s=rig.policy.deadline_s if deadline is None else deadline,
        retries=rig.policy.retries if retries is None else retries,
    )
    prepared = _prepare(made)
    command = shlex.join(["quarkctl", *sys.argv[1:]])
    with Coordinator(coordinator) if coordinator else nullcontext() as engine:
        stations = plans.choose(engine.stations() if engine else rig.stations, where)
        if not engine:
            _no_twins(stations)
        order = Order(made, stations, choose, prepared, policy, rig.name, command, wait, beside=other_chip)
        if engine:
            order = replace(order, find=engine.find, release=engine.release, workers_find=False, beside=lambda _: None)
        with _Watch(events, quiet=as_json) as watch:
            record = fleet.run(order, watch)
            late = catch_up(rig.history)
            if late.waiting:
                watch.complain(str(late))
    runs.prune(policy.keep_days)
    folder = runs.root() / record.id
    if artifacts:
        runs.copy_out(folder, artifacts)
    if junit:
        _copy(folder / "junit.xml", junit)
    if as_json:
        body = {**record.as_dict(), "counts": record.counts(), "exit_code": record.exit_code, "folder": str(folder)}
        show.document("quarkctl.rig-run/1", body)
    elif events != "-":
        _print(record, folder)
    return record.exit_code


def _no_twins(stations: Sequence[Station]) -> None:
    """Before any of them is touched. Where a device appears only later, the run itself notices."""
    from quarkctl.cli.choose import devices
    from quarkctl.link import names

    for one, other, identity in names.twins(stations, devices()):
        raise InputWrong(
            f"stations {one.name} and {other.name} are one device: {identity}",
            hint=f"take one of them out of the rig file, or leave it out: --where {one.name}",
        )


def _prepare(made: Plan) -> dict[str, tuple[str, Prepared]]:
    """What must be right before any station is touched. What is to be flashed is read once; the workers share it."""
    from quarkctl.flash import methods
    from quarkctl.rig.plan import Diag, Flash, Soak

    out = {}
    for step in made.steps:
        if isinstance(step.kind, Diag | Soak):
            from quarkctl.rig.judge import verify

            verify(step.kind.area, step.kind.checks if isinstance(step.kind, Diag) else ())
        if isinstance(step.kind, Flash):
            programmer = step.kind.ar1.programmer
            if programmer and not Path(programmer).is_file():
                raise InputWrong(f"cannot read {programmer}: no such file")
            method = methods.select(step.kind.what, via=step.kind.via, chip=step.kind.chip)
            method.check(step.kind.wish)
            out[step.name] = (method.device_method, method.prepare(step.kind.what))
    return out


def _copy(source: Path, target: Path) -> None:
    import shutil

    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise HostUnfit(f"cannot write {target}: {error.strerror}") from error


def _print(record: Run, folder: Path) -> None:
    show.table(
        ("station", "device", "verdict", "time", "tries", ""),
        (
            (s.station, s.device or "-", _verdict(s.verdict), f"{s.seconds:.1f} s", s.attempts, s.error)
            for s in record.stations
        ),
    )
    for hint in dict.fromkeys(s.hint for s in record.stations if s.hint):
        names = ", ".join(s.station for s in record.stations if s.hint == hint)
        show.out.print(f"hint for {names}: {hint}", soft_wrap=True)
    counts = ", ".join(f"{n} {v}" for v, n in record.counts().items())
    show.out.print(f"{counts}   run {record.id}   {folder}", soft_wrap=True)


def _verdict(word: str) -> Any:
    return show.styled(word, show.VERDICT_STYLE.get(LIKE.get(word, ""), "default"))


class _Watch:
    """The table on a terminal, a line where something changed elsewhere, JSON lines with ``--events``."""

    def __init__(self, events: str, *, quiet: bool) -> None:
        self._file: IO[str] | None = None
        if events == "-":
            self._file = sys.stdout
        elif events:
            try:
                self._file = Path(events).open("w", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
            except OSError as error:
                raise HostUnfit(f"cannot write {events}: {error.strerror}") from error
        self._quiet = quiet or events == "-"
        self._live: Live | None = None
        self._last_words = ""
        self._last_at = 0.0
        self._complaints: set[str] = set()

    def __enter__(self) -> _Watch:
        if not self._quiet and show.err.is_terminal:
            from rich.live import Live

            self._live = Live(console=show.err, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self._file and self._file is not sys.stdout:
            self._file.close()

    def event(self, line: dict[str, Any]) -> None:
        if self._file:
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except BrokenPipeError:  # who listened has left; the run goes on
                self._file = None
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except OSError as error:
                self._file = None
                self.complain(f"cannot write events: {error.strerror}; the run goes on without")
        if not self._quiet and not self._live and line["step"] in ("verdict", "quarantine"):
            show.err.print(f"  {line['station']:<12} {line['text']}", soft_wrap=True)

    def rows(self, rows: list[Row]) -> None:
        now = time.monotonic()
        if self._live:
            if now - self._last_at > 0.1:
                self._last_at = now
                self._live.update(_table(rows, show.err.height - 3), refresh=True)
        elif not self._quiet and now - self._last_at > 1.0:
            words = _counted(rows)
            if words != self._last_words:
                self._last_words, self._last_at = words, now
                show.err.print(f"  {words}", soft_wrap=True)

    def complain(self, text: str) -> None:
        if text not in self._complaints:
            self._complaints.add(text)
            show.err.print(f"note: {text}", style="yellow", soft_wrap=True)


def _counted(rows: list[Row]) -> str:
    states: dict[str, int] = {}
    for r in rows:
        key = r.step if r.state == "working" else r.state
        states[key] = states.get(key, 0) + 1
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items()))


def _table(rows: list[Row], height: int) -> Table:
    """Who works and who failed comes first: a screen may be too small for all."""
    from rich.table import Table

    order = {"working": 0, "waiting": 2, "passed": 3}
    shown = sorted(rows, key=lambda r: order.get(r.state, 1))[: max(height, 3)]
    t = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in ("station", "device", "state", "step", "", ""):
        t.add_column(column, no_wrap=True, overflow="ellipsis")
    for r in shown:
        tries = f" ({r.attempt})" if r.attempt > 1 else ""
        done = f"{r.pct:3d} %" if r.pct is not None else ""
        t.add_row(
            show.styled(r.station, "default"), show.styled(r.device, "dim"), _verdict(r.state),
            show.styled(r.step + tries, "default"), show.styled(done, "default"), show.styled(r.text, "default"),
        )  # fmt: skip
    t.caption = _counted(rows) + (f"; {len(rows) - len(shown)} not shown" if len(rows) > len(shown) else "")
    t.caption_justify = "left"
    return t
