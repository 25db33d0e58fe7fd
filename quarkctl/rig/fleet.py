"""A run over many stations at once: one worker process a station, and a verdict for each, whatever happens.

The process that runs this starts workers, reads their pipes, keeps their deadlines, and writes everything down. It holds
the lock of each device over all its steps and attempts. It has no threads.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from quarkctl import __version__
from quarkctl.errors import DeviceBusy, DeviceMissing, InputWrong, QuarkError
from quarkctl.events import Event, Level
from quarkctl.formats.rig_file import Policy, Station
from quarkctl.link import Opener
from quarkctl.link.lock import Lock, hold, holder_of
from quarkctl.rig import plan, quarantine, runs, worker
from quarkctl.rig.outcome import (
    INTERRUPTED,
    Run,
    StationResult,
    StepResult,
    Verdict,
    is_fault_of_station,
    worth_a_retry,
)
from quarkctl.rig.plan import Plan, Step, When
from quarkctl.rig.power import Find
from quarkctl.rig.steps import Beside, Prepared, Task
from quarkctl.rig.turns import Ticket
from quarkctl.rig.worker import GRACE_S, Worker

_TICK_S = 0.25
_LIVE_EVERY_S = 0.25
_LINE_MAX = 16 << 20


@dataclass(frozen=True)
class Order:
    """``prepared``: {name of a flash step: (method that its device must take, what makes a session)}. ``wait_s``: in the
    queue for a device. ``release``: called with each station after its verdict; may raise QuarkError. ``workers_find``:
    workers look their device up themselves, with the method of the step; False where only the process of the run may.
    ``beside``: to the other chip's line of a device, where that is known."""

    plan: Plan
    stations: Sequence[Station]
    find: Find
    prepared: Mapping[str, tuple[str, Prepared]] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    rig: str = ""
    command: str = ""
    wait_s: float = 3600.0
    release: Callable[[Station], None] = lambda _: None
    workers_find: bool = True
    beside: Beside = lambda _: None


@dataclass
class Row:
    """Where one station is, to be shown. ``state``: waiting, working, or its verdict."""

    station: str
    device: str = ""
    state: str = "waiting"
    step: str = ""
    text: str = ""
    pct: int | None = None
    attempt: int = 1
    since: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Watcher(Protocol):
    """Who looks on. All are called in the thread of the run, and must be quick."""

    def event(self, line: dict[str, Any]) -> None:
        """One event, as `events.jsonl` has it."""
        ...

    def rows(self, rows: list[Row]) -> None:
        """Something changed, or time has passed."""
        ...

    def complain(self, text: str) -> None:
        """Something that the run survives, but somebody should know."""
        ...


def run(order: Order, watcher: Watcher) -> Run:
    """Do it all. Raises HostUnfit when nothing can be written down, and nothing else."""
    record = Run(
        runs.new_id(), order.rig, order.plan.name, order.command, platform.node(), __version__, time.time(),
        pid=os.getpid(),
    )  # fmt: skip
    folder = runs.Folder(record, watcher.complain)
    try:
        with _signals() as stop, Ticket() as ticket:
            _Fleet(order, record, folder, watcher, ticket, stop).run()
    finally:
        folder.close()
    return record


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are collected instead of breaking in; a byte in the wake-up pipe ends the wait."""
    got: list[int] = []
    before = {s: signal.signal(s, lambda n, _: got.append(n)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Seat:
    """One station in this run."""

    def __init__(self, station: Station, todo: list[tuple[int, Step]]) -> None:
        self.station = station
        self.todo = todo
        self.result = StationResult(station.name)
        self.row = Row(station.name, since=time.time())
        self.asked_at = time.monotonic()
        self.missing_since = 0.0
        self.next_look = 0.0
        self.identity = ""
        self.opener: Opener | None = None
        self.locks: list[Lock] = []
        self.worker: Worker | None = None
        self.buffer = b""
        self.step_result: StepResult | None = None
        self.attempt = 1
        self.deadline = self.attempt_until = 0.0
        self.stop_reason: Verdict | None = None
        self.kill_at = 0.0
        self.done = False

    @property
    def things(self) -> tuple[str, ...]:
        """What it queues for, and then holds: its place, and the device that is there; no other run works on either."""
        return (self.station.lock, self.identity) if self.identity else ()

    def hold(self) -> None:
        """Both or none. Raises DeviceBusy."""
        for thing in self.things:
            try:
                self.locks.append(hold(thing))
            except QuarkError:
                self.release()
                raise

    def release(self) -> None:
        while self.locks:
            self.locks.pop().release()


class _Fleet:
    def __init__(
        self, order: Order, record: Run, folder: runs.Folder, watcher: Watcher, ticket: Ticket, signals: list[int]
    ) -> None:
        self.order = order
        self.record = record
        self.folder = folder
        self.watcher = watcher
        self.ticket = ticket
        self.signals = signals
        self.seats = [_Seat(s, order.plan.turns(s)) for s in order.stations]
        self.selector = selectors.DefaultSelector()
        self._stops_seen = 0
        self._live_at = 0.0
        self._changed = True
        self._sequence: dict[str, int] = {}

    def run(self) -> None:
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self.selector.register(woken, selectors.EVENT_READ, None)
        gc.collect()
        gc.freeze()  # so that the collector of a worker does not touch, and so copy, the pages that all share
        try:
            self.folder.live([s.row.as_dict() for s in self.seats])  # who takes part, should this process be killed
            self._leave_out()
            while any(not s.done for s in self.seats):
                self._tick()
                for key, _ in self.selector.select(_TICK_S):
                    if key.data is None:
                        woken.recv(64)
                    else:
                        self._read(*key.data)
            self._finish()
        finally:
            signal.set_wakeup_fd(before)
            gc.unfreeze()
            for seat in self.seats:  # only after an error of our own
                if seat.worker:
                    seat.worker.kill()
                    seat.worker.reap()
                seat.release()
            self.selector.close()
            woken.close()
            wake.close()

    def _leave_out(self) -> None:
        records = quarantine.all_records()
        for seat in self.seats:
            found = records.get(seat.station.name)
            if found and found.out_of_use:
                self._close(seat, Verdict.QUARANTINED, 0, f"in quarantine since {found.since}: {found.reason}",
                            f"quarkctl rig quarantine --release {seat.station.name}")  # fmt: skip
            elif not seat.todo:
                self._close(seat, Verdict.PASSED, 0, "no step of the plan is for this station")

    # --- time ---------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        if len(self.signals) > self._stops_seen:
            self._stops_seen = len(self.signals)
            self._stop_all(now, hard=self._stops_seen > 1)
        for seat in self.seats:
            if seat.done:
                continue
            if seat.worker:
                if now > min(seat.deadline, seat.attempt_until) and not seat.stop_reason:
                    self._stop(seat, Verdict.TIMEOUT, now)
                elif seat.stop_reason and now > seat.kill_at:
                    seat.worker.kill()
            elif seat.locks:
                self._next(seat)
            elif now >= seat.next_look:
                self._seek(seat, now)
        if self._changed or now - self._live_at > 1.0:
            if now - self._live_at > _LIVE_EVERY_S or (self._changed and not self._live_at):
                self.folder.live([s.row.as_dict() for s in self.seats])
                self._live_at, self._changed = now, False
            self.watcher.rows([s.row for s in self.seats])

    def _stop_all(self, now: float, *, hard: bool) -> None:
        """The first signal lets every worker leave its device in a known state; a second one does not wait for that."""
        if hard:
            self.watcher.complain("stopped without waiting: the next run goes on where the devices are")
        for seat in self.seats:
            if seat.worker and hard:
                seat.worker.kill()
            elif seat.worker and not seat.stop_reason:
                self._stop(seat, Verdict.INTERRUPTED, now)
            elif not seat.worker and not seat.done:
                self._close(seat, Verdict.INTERRUPTED, INTERRUPTED, "interrupted before it began")

    def _stop(self, seat: _Seat, reason: Verdict, now: float) -> None:
        seat.stop_reason, seat.kill_at = reason, now + GRACE_S
        self._show(seat, text="stopping" if reason is Verdict.INTERRUPTED else "out of time, stopping")
        if seat.worker:
            seat.worker.stop()

    # --- a station before its first worker ------------------------------------------------------------------------------

    def _seek(self, seat: _Seat, now: float) -> None:
        """Find the device, wait for our turn and its lock, then begin."""
        seat.next_look = now + 2 * _TICK_S
        policy = self.order.policy
        try:
            if not seat.identity:
                seat.opener = self.order.find(seat.station.word, self._method(seat))
                seat.identity = seat.opener.identity
                seat.missing_since = 0.0
                seat.result.device = seat.row.device = seat.identity
                twin = next((s for s in self.seats if s is not seat and s.identity == seat.identity), None)
                if twin:
                    raise InputWrong(f"stations {twin.station.name} and {seat.station.name} are one device: {seat.identity}",
                                     hint="correct rig.toml")  # fmt: skip
                for thing in seat.things:
                    self.ticket.stand(thing)
            ahead = max(self.ticket.ahead(thing) for thing in seat.things)
            holder = next((h for thing in seat.things if (h := holder_of(thing))), None)
            if not ahead and holder is None:
                seat.hold()
                self._leave(seat)
                seat.result.started = time.time()
                seat.result.waited_s = round(now - seat.asked_at, 3)
                seat.deadline = now + policy.deadline_s + sum(plan.planned_s(s.kind) for _, s in seat.todo)
                self._next(seat)
                return
            words = f"{ahead} runs stand before this one" if ahead else f"held by {holder}"
            raise DeviceBusy(f"{seat.identity}: {words}", hint="--wait S waits longer")
        except DeviceMissing as error:
            seat.missing_since = seat.missing_since or now
            if now - seat.missing_since >= policy.appear_s:
                self._close(seat, Verdict.MISSING, error.exit_code, error.message, error.hint)
            elif seat.row.text != "waiting for the device":
                self._show(seat, step="seek", text="waiting for the device")
        except DeviceBusy as error:
            if now - seat.asked_at >= self.order.wait_s:
                self._close(seat, Verdict.BUSY, error.exit_code, error.message, error.hint)
            elif seat.row.text != error.message:
                self._show(seat, step="queue", text=error.message)
        except QuarkError as error:
            self._close(seat, Verdict.ERROR, error.exit_code, error.message, error.hint)

    def _leave(self, seat: _Seat) -> None:
        for thing in seat.things:
            self.ticket.leave(thing)

    def _method(self, seat: _Seat) -> str:
        """The flash method of its first flash step: a device in another mode is not the right one."""
        return next((self.order.prepared[s.name][0] for _, s in seat.todo if s.name in self.order.prepared), "")

    # --- steps --------------------------------------------------------------------------------------------------------

    def _next(self, seat: _Seat) -> None:
        """Start the next step whose condition holds; without one the station is through."""
        while seat.todo:
            turn, step = seat.todo[0]
            good = all(s.passed for s in seat.result.steps)
            if step.when is When.ALWAYS or (step.when is When.PASSED) == good:
                self._start(seat, turn, step)
                return
            seat.todo.pop(0)
        bad = next((s for s in seat.result.steps if not s.passed), None)
        if bad:
            self._close(seat, Verdict(bad.verdict), bad.exit_code, bad.error, bad.hint)
        else:
            self._close(seat, Verdict.PASSED, 0, "")

    def _start(self, seat: _Seat, turn: int, step: Step) -> None:
        method, prepared = self.order.prepared.get(step.name, ("", None))
        found = seat.opener
        find = self.order.find if self.order.workers_find or found is None else lambda _word, _method: found
        task = Task(seat.station, step, turn, find, self.folder.artifacts, prepared, method, self.order.beside)
        others = [s.worker.fd for s in self.seats if s.worker]
        seat.buffer, seat.step_result, seat.stop_reason = b"", None, None
        again = seat.attempt > 1
        seat.worker = worker.start(
            task, log=self.folder.log_of(seat.station.name), foreign_fds=others,
            cycle_first=again and bool(seat.station.power), abandoned=self.folder.abandoned,
        )  # fmt: skip
        seat.result.attempts += 1
        seat.attempt_until = time.monotonic() + self.order.policy.attempt_s + plan.planned_s(step.kind)
        os.set_blocking(seat.worker.fd, False)
        self.selector.register(seat.worker.fd, selectors.EVENT_READ, (seat, seat.worker))
        seat.row.state = "working"
        self._event(seat, "worker", Level.START, f"{step.name}{f', attempt {seat.attempt}' if again else ''}")
        self._show(seat, step=step.name, text="")

    def _read(self, seat: _Seat, its: Worker) -> None:
        try:
            data = os.read(its.fd, 1 << 16)
        except BlockingIOError:
            return
        seat.buffer += data
        *lines, seat.buffer = seat.buffer.split(b"\n")
        for line in lines:
            self._line(seat, line)
        if not data or len(seat.buffer) > _LINE_MAX:
            self._ended(seat, its)

    def _line(self, seat: _Seat, line: bytes) -> None:
        """A line of a worker that was killed while it wrote may be anything."""
        try:
            said = json.loads(line)
            if "event" in said:
                e = said["event"]
                event = Event(**{**e, "level": Level(e["level"])})
                self._tell(seat, event)
            else:
                seat.step_result = StepResult(**said["result"])
        except (ValueError, TypeError, KeyError):
            self.folder.log(seat.station.name, f"unreadable line of the worker: {line[:200]!r}")

    def _tell(self, seat: _Seat, event: Event) -> None:
        self._event(seat, event.step, event.level, event.text, event)
        done, total = event.done_bytes, event.total_bytes
        words = f"{event.step} {event.text}".strip()
        self._show(seat, text=words, pct=100 * done // total if total and event.level is Level.PROGRESS else None)

    def _ended(self, seat: _Seat, its: Worker) -> None:
        """The worker is gone: its result, or what its end means, and then a retry, the next step, or the verdict."""
        self.selector.unregister(its.fd)
        number = its.reap()
        seat.worker = None
        turn, step = seat.todo[0]
        result = seat.step_result or self._without_result(seat, step, turn, number)
        result.attempts = seat.attempt
        if seat.stop_reason and not result.passed:
            result.verdict = seat.stop_reason.value
            if seat.stop_reason is Verdict.TIMEOUT:
                result.exit_code = 4
                whole = time.monotonic() > seat.deadline
                limit_s = self.order.policy.deadline_s if whole else self.order.policy.attempt_s
                result.error = f"not finished within {limit_s:g} s" + (" for all steps" if whole else "")
        self._event(seat, "worker", Level.DONE if result.passed else Level.FAILED, result.error)
        interrupted = seat.stop_reason is Verdict.INTERRUPTED or result.verdict == Verdict.INTERRUPTED.value
        if (
            not interrupted and not result.passed and worth_a_retry(result)
            and seat.attempt <= self.order.policy.retries and time.monotonic() < seat.deadline
        ):  # fmt: skip
            seat.attempt += 1
            seat.row.attempt = seat.attempt
            self._start(seat, turn, step)
            return
        seat.todo.pop(0)
        seat.attempt = seat.row.attempt = 1
        seat.result.steps.append(result)
        seat.result.board = str(result.facts.get("board", "")) or seat.result.board
        if interrupted:
            words = f"after {step.name}, which passed" if result.passed else f"in {step.name}"
            why = f": {result.error}" if result.error not in ("", "interrupted") else ""
            self._close(seat, Verdict.INTERRUPTED, INTERRUPTED, f"interrupted {words}{why}")
        else:
            self._next(seat)

    def _without_result(self, seat: _Seat, step: Step, turn: int, number: int) -> StepResult:
        what = (
            f"the worker was killed by {signal.Signals(number).name}" if number else "the worker ended without a result"
        )
        return StepResult(
            step.name, "", turn, Verdict.ERROR.value, 1, what, f"its log: {self.folder.log_of(seat.station.name)}"
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    def _close(self, seat: _Seat, verdict: Verdict, code: int, error: str, hint: str = "") -> None:
        """The verdict of a station; its device is free again."""
        r = seat.result
        seat.done, seat.todo = True, []
        r.verdict, r.exit_code, r.error, r.hint = verdict.value, code, error, hint
        r.seconds = round(time.time() - r.started, 3) if r.started else 0.0
        self._leave(seat)
        seat.release()
        try:
            self.order.release(seat.station)
        except QuarkError as problem:
            self.watcher.complain(f"{seat.station.name}: {problem.message}")
        if verdict not in (Verdict.INTERRUPTED, Verdict.QUARANTINED, Verdict.BUSY):
            self._count(seat)
        self.record.stations.append(r)
        self.folder.keep(self.record)  # before anybody hears of it
        self._event(seat, "verdict", Level.DONE if r.passed else Level.FAILED, f"{verdict.value} {error}".strip())
        seat.row.state = verdict.value
        self._show(seat, step="", text=error, pct=None)

    def _count(self, seat: _Seat) -> None:
        fault = seat.result.error if is_fault_of_station(seat.result) else ""
        try:
            if quarantine.count(seat.station.name, fault=fault, limit=self.order.policy.quarantine_after):
                self._event(seat, "quarantine", Level.NOTE, f"{seat.station.name} is put into quarantine")
                self.watcher.complain(f"{seat.station.name} is put into quarantine: {fault}")
        except QuarkError as error:
            self.watcher.complain(error.message)

    def _finish(self) -> None:
        r = self.record
        order = [s.station.name for s in self.seats]
        r.stations.sort(key=lambda s: order.index(s.station))
        r.ended = time.time()
        r.verdict = (
            Verdict.INTERRUPTED if self.signals else Verdict.PASSED if r.exit_code == 0 else Verdict.FAILED
        ).value  # fmt: skip
        self.folder.live([s.row.as_dict() for s in self.seats])
        self.watcher.rows([s.row for s in self.seats])
        self.folder.end(r)

    # --- telling ------------------------------------------------------------------------------------------------------

    def _event(self, seat: _Seat, step: str, level: Level, text: str, event: Event | None = None) -> None:
        name = seat.station.name
        self._sequence[name] = self._sequence.get(name, 0) + 1
        line = {
            "time": round(time.time(), 6), "run": self.record.id, "station": name, "seq": self._sequence[name],
            "device": seat.identity, "step": step, "level": level.value, "text": text,
            "done_bytes": event.done_bytes if event else 0, "total_bytes": event.total_bytes if event else 0,
            "eta_s": event.eta_s if event else None, "attempt": seat.attempt,
        }  # fmt: skip
        self.folder.event(line)
        if level is not Level.PROGRESS:
            self.folder.log(name, f"{step} {level.value} {text}".rstrip())
        self.watcher.event(line)

    def _show(self, seat: _Seat, *, step: str | None = None, text: str = "", pct: int | None = None) -> None:
        if step is not None:
            seat.row.step = step
        seat.row.text, seat.row.pct, seat.row.since = text, pct, time.time()
        self._changed = True
