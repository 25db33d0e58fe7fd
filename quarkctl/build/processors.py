"""Work spread over every processor, by processes: hashing block by block, threads would wait for the interpreter's lock.

A `Job` is sent once to each process and then takes numbers. The processes are started when there is enough to do, without
``site`` and without the program that runs here, which costs them 15 ms; they end when their input does, so they outlive
neither this process nor an interrupt.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from quarkctl.errors import HostUnfit, QuarkError
from quarkctl.formats.verity import Job, Result_co

#: More than these do not fit the memory that a build may take, and one GiB is through in a fifth of a second.
_PROCESSES_MAX = 8


def count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processors:
    """This process and one more for every further processor. Not for several threads at a time."""

    def __init__(self, processes: int = 0) -> None:
        """``processes``: this one and its helpers; 0 for one each processor."""
        self._helpers = (processes or min(count(), _PROCESSES_MAX)) - 1
        self._running: list[_Helper] = []

    def start(self) -> None:
        """Start the helpers now, so that they are ready when there is something to do."""
        while len(self._running) < self._helpers:
            self._running.append(_Helper())

    def map(self, job: Job[Result_co], tasks: Sequence[int]) -> Iterator[Result_co]:
        """Results in the order of the tasks. Raises what the job raises; then the tasks that are left are not done."""
        if len(tasks) < 2 or not self._helpers:
            yield from map(job, tasks)
            return
        self.start()
        yield from _Round(job, tasks, self._running).results()

    def close(self) -> None:
        for helper in self._running:
            helper.close()
        self._running.clear()

    def __enter__(self) -> Processors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Round:
    """The tasks of one call of `Processors.map`: whoever is free takes the next one."""

    def __init__(self, job: Job[Any], tasks: Sequence[int], helpers: Sequence[_Helper]) -> None:
        self._job = job
        self._count = len(tasks)
        self._todo: Iterator[tuple[int, int]] = enumerate(tasks)
        self._taking = threading.Lock()
        self._done: dict[int, tuple[Any, BaseException | None]] = {}
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._feed, args=(h,), daemon=True) for h in helpers]

    def results(self) -> Iterator[Any]:
        for thread in self._threads:
            thread.start()
        try:
            for n in range(self._count):
                while n not in self._done:
                    if not self._work_here():
                        with self._news:
                            self._news.wait_for(lambda n=n: n in self._done)  # type: ignore[misc]
                value, error = self._done.pop(n)
                if error is not None:
                    raise error
                yield value
        finally:
            with self._taking:
                self._todo = iter(())
            for thread in self._threads:
                thread.join()

    def _next(self) -> tuple[int, int] | None:
        with self._taking:
            return next(self._todo, None)

    def _work_here(self) -> bool:
        if (taken := self._next()) is None:
            return False
        n, task = taken
        self._done[n] = (self._job(task), None)
        return True

    def _feed(self, helper: _Helper) -> None:
        """Give one helper task after task."""
        new: Job[Any] | None = self._job
        while (taken := self._next()) is not None:
            n, task = taken
            try:
                found: tuple[Any, BaseException | None] = helper.do(new, task), None
            except Exception as error:  # noqa: BLE001  (raised again by whoever waits for this task)
                found = None, error
            new = None
            with self._news:
                self._done[n] = found
                self._news.notify_all()


class _Helper:
    """A process that does tasks and answers with (result, error)."""

    def __init__(self) -> None:
        # site and the console script's imports would take longer than what a helper does for a small image
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-S", "-c", f"from {__name__} import _serve; _serve()"]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        except OSError as error:
            raise HostUnfit(f"cannot start {sys.executable}: {error.strerror}") from error

    def do(self, job: Job[Any] | None, task: int) -> Any:
        """The result of a task; ``job`` None: of the same job as before. Raises what the job raises."""
        assert self._process.stdin and self._process.stdout  # noqa: S101  (pipes were asked for)
        try:
            _send(self._process.stdin, (job, task))
            value, error = pickle.load(self._process.stdout)  # noqa: S301  (our own process)
        except (OSError, EOFError, pickle.UnpicklingError) as gone:
            code = self._process.wait()
            raise HostUnfit(
                f"a process that helps with hashing ended with {code}", hint="is there enough memory? dmesg tells"
            ) from gone
        if error is not None:
            raise error.again()
        return value

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # it ended before it took all of its task
                if pipe:
                    pipe.close()
        self._process.wait()


class _Told:
    """An error on its way between processes: exceptions with arguments of their own do not survive pickling."""

    def __init__(self, error: BaseException) -> None:
        from traceback import format_exception

        self._kind = type(error) if isinstance(error, QuarkError) else None
        self._message = error.message if isinstance(error, QuarkError) else "".join(format_exception(error))
        self._hint = error.hint if isinstance(error, QuarkError) else ""

    def again(self) -> Exception:
        if self._kind is None:
            return RuntimeError(self._message)
        error = self._kind.__new__(self._kind)
        QuarkError.__init__(error, self._message, self._hint)
        return error


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _serve() -> None:
    """What a helper runs: tasks from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process decides when it ends
    job: Job[Any] | None = None
    while True:
        try:
            new, task = pickle.load(sys.stdin.buffer)  # noqa: S301  (the process that started this one)
        except EOFError:
            return
        job = new or job
        answer: tuple[Any, _Told | None]
        try:
            answer = (job(task) if job else None), None
        except Exception as error:  # noqa: BLE001  (told to whoever asked)
            answer = None, _Told(error)
        try:
            _send(sys.stdout.buffer, answer)
        except BrokenPipeError:
            return
