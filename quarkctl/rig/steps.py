"""What a worker does in a step: flash, listen and judge, swap, soak, power-cycle. One function a kind of step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl.errors import UsageWrong
from quarkctl.events import Event, Level, Progress
from quarkctl.flash.plan import Job, Session
from quarkctl.formats.rig_file import Station
from quarkctl.link import Opener
from quarkctl.rig import listening, plan, power
from quarkctl.rig.listening import Act
from quarkctl.rig.outcome import StepResult, Verdict
from quarkctl.rig.power import Find

Prepared = Callable[[Job], Session]
Beside = Callable[[Opener], Opener | None]


@dataclass(frozen=True)
class Task:
    """One step on one station. ``prepared`` and ``method`` belong to flash steps; ``folder`` takes artifacts.
    ``beside``: to the other chip's line of the same glasses, where that is known."""

    station: Station
    step: plan.Step
    turn: int
    find: Find
    folder: Path
    prepared: Prepared | None = None
    method: str = ""
    beside: Beside = lambda _: None


def carry_out(task: Task, progress: Progress) -> StepResult:
    """Do it. Raises what the device or this computer has against it; findings that fail are a result, not an error."""
    result = StepResult(task.step.name, _name_of(task.step.kind), task.turn)
    began = time.monotonic()
    match task.step.kind:
        case plan.Flash() as kind:
            if task.prepared is None:
                raise UsageWrong(f"nothing was prepared for {task.step.name}")
            _flash(task, task.prepared, kind, result, progress)
        case plan.Diag() as kind:
            _judge(_listen(task, kind.seconds, (), result, progress), kind.area, kind.checks, result)
        case plan.Swap() as kind:
            swaps = list(_swaps(task.station, kind))
            _judge(_listen(task, plan.planned_s(kind), swaps, result, progress), "battery", (), result)
        case plan.Soak() as kind:
            if kind.load:
                power.set_load(task.station, kind.load)
            _judge(_listen(task, kind.seconds, (), result, progress), kind.area, (), result)
        case plan.PowerCycle():
            power_cycle(task.station, progress)
    result.seconds = round(time.monotonic() - began, 3)
    return result


def _name_of(kind: plan.Kind) -> str:
    names: dict[type, str] = {
        plan.Flash: "flash", plan.Diag: "diag", plan.Swap: "swap", plan.Soak: "soak", plan.PowerCycle: "power-cycle",
    }  # fmt: skip
    return names[type(kind)]


def power_cycle(station: Station, progress: Progress) -> None:
    progress(Event(station.word, "power-cycle", Level.START))
    power.switch(station, "cycle")
    progress(Event(station.word, "power-cycle", Level.DONE))


# --- flash --------------------------------------------------------------------------------------------------------------


def _flash(task: Task, prepared: Prepared, kind: plan.Flash, result: StepResult, progress: Progress) -> None:
    from quarkctl.flash import run
    from quarkctl.flash.journal import Journal

    opener = task.find(task.station.word, task.method)
    with opener.hold():
        journal = Journal(opener.identity)
        session = prepared(Job(opener, journal, progress, task.station.board, kind.wish, kind.chip, task.find))
        try:
            made = run.preflight(session, journal, progress)
            if made.questions and not kind.yes:
                raise UsageWrong(
                    f"nobody is here to be asked: {made.questions[0]}", hint="--yes, or yes = true in the step, goes on"
                )
            done = run.carry_out(session, made, journal, progress)
        finally:
            session.close()
    result.facts = done.as_dict()
    result.measurements += [
        _measured(f"flash.{name}_s", value, "s") for name, value in done.seconds.items() if done.outcome == "done"
    ]
    if done.seconds and done.outcome == "done":
        result.measurements.append(_measured("flash.total_s", sum(done.seconds.values()), "s"))


def _measured(name: str, value: float, unit: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 6), "unit": unit}


# --- listen and judge ---------------------------------------------------------------------------------------------------


def _swaps(station: Station, kind: plan.Swap) -> Iterator[Act]:
    """Each pack out and in again; the first after a settling time, so that there is a before."""
    if not station.swap:
        power.swap(station, "eject", kind.side)  # raises, with the cure
    at = kind.settle_s
    for i in range(kind.count):
        side = ("left", "right")[i % 2] if kind.side == "both" else kind.side
        yield at, lambda side=side: power.swap(station, "eject", side), f"{side} pack out"  # type: ignore[misc]
        yield at + kind.out_s, lambda side=side: power.swap(station, "insert", side), f"{side} pack in"  # type: ignore[misc]
        at += kind.out_s + kind.settle_s


def _listen(task: Task, seconds: float, acts: Sequence[Act], result: StepResult, progress: Progress) -> Path:
    """Record telemetry of both chips, as `quarkctl diag` listens to them. Returns the recording, an artifact."""
    first = task.find(task.station.word, "")
    also = [task.find(word, "") for word in task.station.also]
    path = unused(task.folder, f"{task.station.name}-{task.step.name}-{task.turn}", ".qrec")
    listening.record([first, *also], None if also else task.beside(first), path, seconds, acts, progress)
    result.artifacts.append(artifact(path, "recording", task.folder))
    return path


def _judge(recording: Path, area: str, checks: Sequence[str], result: StepResult) -> None:
    """Findings of a recording, and what the worst of them means."""
    from quarkctl.rig.judge import judge

    judged = judge(recording, area, checks)
    result.facts, result.findings = judged.facts, judged.findings
    result.measurements += judged.measurements
    if judged.verdict == "FAIL":
        result.verdict, result.exit_code, result.error = Verdict.FAILED.value, 7, judged.words
    elif judged.verdict == "INVALID":
        result.verdict, result.exit_code, result.error = Verdict.INVALID.value, 8, judged.words


# --- artifacts ----------------------------------------------------------------------------------------------------------


def unused(folder: Path, stem: str, suffix: str) -> Path:
    """A name that no earlier attempt has used."""
    names = (folder / f"{stem}{f'-{i}' if i else ''}{suffix}" for i in range(10_000))
    return next(p for p in names if not p.exists())


def artifact(path: Path, kind: str, folder: Path) -> dict[str, Any]:
    """How a file is entered in the record of its run."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "kind": kind,
        "path": str(path.relative_to(folder.parent)),
        "size_bytes": path.stat().st_size,
        "sha256": digest,
    }
