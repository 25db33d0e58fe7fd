"""One process for one step on one station: forked, so that the image and the program are there once for all stations.

It speaks JSON lines into a pipe: events, and one result at the end. SIGTERM ends it like Ctrl-C ends `quarkctl flash`: the
device is brought into a known state first. It gets the same signal when the process that started it dies.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from quarkctl.errors import DeviceMissing, QuarkError
from quarkctl.events import Event, Level
from quarkctl.rig import steps
from quarkctl.rig.outcome import INTERRUPTED, StepResult, Verdict, verdict_of
from quarkctl.rig.steps import Task

#: A worker that was told to end has so long to bring its device into a known state; then whoever started it kills it.
GRACE_S = 30.0
#: Where nobody is there to do that, it does it itself.
GONE_S = GRACE_S + 5.0
#: Progress of one step is told that often at most.
_PROGRESS_EVERY_S = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Worker:
    """A running worker: its process, which leads a process group of its own, and the end of the pipe to read from."""

    pid: int
    fd: int

    def stop(self) -> None:
        """Ask it to end in order."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """It and everything it started. Only before `reap`: until then the number is its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Sweep up what it may have started, and wait for its end. Returns the signal that ended it, or 0."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self.fd)
        _, status = os.waitpid(self.pid, 0)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def start(
    task: Task, *, log: Path, foreign_fds: Iterable[int], cycle_first: bool, abandoned: Callable[[], None]
) -> Worker:
    """Fork a worker. ``log`` takes what it prints; ``foreign_fds`` are pipes of other workers; ``cycle_first``: switch the
    station's power off and on before the step; ``abandoned``: called in the worker when it has done and nobody is there
    any more to be told."""
    reader, writer = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between the fork and the handlers of the child would be taken by those of its parent, and be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(writer)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
        return Worker(pid, reader)
    code = 1
    try:
        _settle(parent, log, [reader, *foreign_fds])
        code = _work(task, writer, cycle_first=cycle_first)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getppid() != parent:
            abandoned()
    except BaseException:  # noqa: BLE001 - the child must not run on as a second parent, whatever happens
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _settle(parent: int, log: Path, fds: Iterable[int]) -> None:
    """A process of its own: group, signals, standard files."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(INTERRUPTED)
    for fd in fds:
        os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        out = os.open(os.devnull, os.O_WRONLY)
    for fd, source in ((0, null), (1, out), (2, out)):
        os.dup2(source, fd)
    for fd in (null, out):
        os.close(fd)


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: the kernel sends SIGTERM to this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Once: what is done after the first must not be disturbed by a second. Whatever the step waits for, and whoever catches
    the interrupt on its way (Python drops what is raised in a destructor), this process is gone after GONE_S."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _thread.start_new_thread(_vanish, ())  # no lock is taken: this may have interrupted whoever has it
    raise KeyboardInterrupt


def _vanish() -> None:
    time.sleep(GONE_S)
    os.killpg(os.getpid(), signal.SIGKILL)  # with what it has started


class _Teller:
    """Writes events into the pipe; nobody reads any more when the parent is gone, and that is no reason to stop half-way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        if event.level is Level.PROGRESS:
            now = time.monotonic()
            if now - self._last < _PROGRESS_EVERY_S:
                return
            self._last = now
        self.say("event", {**asdict(event), "level": event.level.value})

    def say(self, kind: str, body: dict[str, object]) -> None:
        data = json.dumps({kind: body}).encode() + b"\n"
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]


def _work(task: Task, fd: int, *, cycle_first: bool) -> int:
    """Do the step and tell its result. Returns the exit code of the process."""
    tell = _Teller(fd)
    result = StepResult(task.step.name, "", task.turn)
    began = time.monotonic()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # what came since the fork comes now, and is answered
        if cycle_first:
            steps.power_cycle(task.station, tell)
        result = steps.carry_out(task, tell)
    except KeyboardInterrupt:
        _failed(result, Verdict.INTERRUPTED, INTERRUPTED, "interrupted")
    except DeviceMissing as error:
        _failed(result, Verdict.MISSING, error.exit_code, error.message, error.hint)
    except QuarkError as error:
        _failed(result, verdict_of(error.exit_code), error.exit_code, error.message, error.hint)
        fault = getattr(error, "fault", None)
        if fault:
            result.facts["fault"] = fault
    except Exception as error:  # noqa: BLE001 - a bug in one step must not take the verdicts of the others
        traceback.print_exc()
        _failed(result, Verdict.ERROR, 1, f"a bug in quarkctl: {error!r}", "the station's log has the traceback")
    result.seconds = result.seconds or round(time.monotonic() - began, 3)
    tell.say("result", json.loads(json.dumps(asdict(result), default=str)))
    return result.exit_code


def _failed(result: StepResult, verdict: Verdict, code: int, error: str, hint: str = "") -> None:
    result.verdict, result.exit_code, result.error, result.hint = verdict.value, code, error, hint
