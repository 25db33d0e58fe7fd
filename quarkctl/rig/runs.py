"""What a run leaves on disk, whatever happens to it: a folder of its own.

    run.json        the record (`quarkctl.rig.outcome.Run`), from the start on; replaced whole
    live.json       where each station is at the moment
    events.jsonl    every event
    junit.xml       at the end
    logs/STATION.log, artifacts/...

``lock`` is held by the process of the run and by its workers: a record that says "running" without it is that of a run
that was killed. The last of its workers closes it; where that was killed too, whoever looks next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from quarkctl import state
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.rig.outcome import Run, StationResult, Verdict

_RECORD_MAX = 64 << 20
#: Kept free on the disk from the start of a run on, for its record at the end.
_RESERVE_BYTES = 256 << 10
_LOOK_S = 0.2


def root() -> Path:
    return state.root() / "rig" / "runs"


def outbox() -> Path:
    """Records that history does not have yet."""
    return state.root() / "rig" / "outbox"


def new_id() -> str:
    """Sorts by time; nobody else has it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


class Folder:
    """The folder of a run under way. A full disk costs the logs, told once, and neither the run nor its verdicts."""

    def __init__(self, run: Run, complain: Callable[[str], None]) -> None:
        """Raises HostUnfit when nothing can be written at all."""
        self.path = state.folder("rig/runs") / run.id
        self.artifacts = self.path / "artifacts"
        self._complain = complain
        self._logs: dict[str, IO[str]] = {}
        try:
            (self.path / "logs").mkdir(parents=True)
            self.artifacts.mkdir()
            self._lock = (self.path / "lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX)  # nobody has it for longer than a look (`alive`)
            self._events = (self.path / "events.jsonl").open("a", encoding="utf-8", buffering=1)
            save(self.path, run)
            self._reserve()
        except OSError as error:
            raise HostUnfit(f"cannot write {self.path}: {error.strerror}", hint="is the disk full?") from error

    def log_of(self, station: str) -> Path:
        return self.path / "logs" / f"{station}.log"

    def event(self, line: dict[str, Any]) -> None:
        with self._told():
            self._events.write(json.dumps(line) + "\n")

    def log(self, station: str, text: str) -> None:
        with self._told():
            if station not in self._logs:
                self._logs[station] = self.log_of(station).open("a", encoding="utf-8", buffering=1)
            self._logs[station].write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def live(self, rows: list[dict[str, Any]]) -> None:
        with self._told():
            _replace(self.path / "live.json", json.dumps({"time": time.time(), "stations": rows}))

    def keep(self, run: Run) -> None:
        """The record so far: what a station has come to is known even if the run is killed."""
        with self._told():
            _replace(self.path / "run.json", json.dumps(run.as_dict()))

    def end(self, run: Run) -> None:
        """Record, report, and a copy for history; where there is no room for all of it, the verdicts."""
        with contextlib.suppress(OSError):
            (self.path / "reserve").unlink()
        with self._told():
            try:
                _end(self.path, run)
            except OSError:
                _end(self.path, run.brief())
                raise

    def abandoned(self) -> None:
        """In a worker whose run is gone, when it has done: whoever of them is the last gives the run its verdict."""
        for file in (self._events, *self._logs.values(), self._lock):
            with contextlib.suppress(OSError):
                file.close()
        until = time.monotonic() + _LOOK_S
        while alive(self.path) and time.monotonic() < until:  # or somebody just looks at our open files in /proc
            time.sleep(_LOOK_S / 10)
        close(self.path)

    def _reserve(self) -> None:
        with contextlib.suppress(OSError), (self.path / "reserve").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)

    def close(self) -> None:
        for file in (self._events, *self._logs.values()):
            with contextlib.suppress(OSError):
                file.close()
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._lock.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._complain(f"cannot write below {self.path}: {error.strerror}; the run goes on without")


def _write_junit(path: Path, run: Run) -> None:
    from quarkctl.rig import junit  # whoever only lists runs does not wait for it

    _replace(path / "junit.xml", junit.build(run))


def _end(path: Path, run: Run) -> None:
    save(path, run)
    _write_junit(path, run)
    post(run)


def save(path: Path, run: Run) -> None:
    _replace(path / "run.json", json.dumps(run.as_dict()), on_disk=True)


def post(run: Run) -> None:
    """Leave the record for history: delivered now or later."""
    state.folder("rig/outbox")
    _replace(outbox() / f"{run.id}.json", json.dumps(run.as_dict()), on_disk=True)


def _replace(path: Path, text: str, *, on_disk: bool = False) -> None:
    """Whole or not at all; ``on_disk``: also when the computer loses its power now."""
    temporary = path.with_suffix(f"{path.suffix}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if on_disk:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load(path: Path) -> Run:
    """A record. Raises InputWrong."""
    try:
        with path.open("rb") as file:
            return Run.from_dict(json.loads(file.read(_RECORD_MAX)))
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputWrong(f"{path} is damaged: {error}") from error


def newest(limit: int = 50) -> list[Run]:
    """The last runs whose folders are here, newest first; damaged ones are passed over."""
    out = []
    for path in _folders()[:limit]:
        with contextlib.suppress(InputWrong):
            out.append(load(path / "run.json"))
    return out


def folder_of(run_id: str) -> Path:
    """The folder of a run by its number, or the beginning of it; ``last`` is the newest. Raises InputWrong."""
    found = _folders()
    fitting = found[:1] if run_id == "last" else [p for p in found if p.name.startswith(run_id)]
    if len(fitting) != 1:
        raise InputWrong(f"{len(fitting) or 'no'} runs are called {run_id}", hint="`quarkctl rig history` lists them")
    return fitting[0]


def copy_out(folder: Path, out: Path) -> None:
    """What a run left, into a new folder. Raises InputWrong where there is one, HostUnfit."""
    try:
        shutil.copytree(folder, out, ignore=shutil.ignore_patterns("lock"))
    except FileExistsError:
        raise exists_already(out) from None
    except OSError as error:
        raise HostUnfit(f"cannot write {out}: {error}", hint=f"it is all in {folder}") from error


def exists_already(out: Path) -> InputWrong:
    return InputWrong(f"{out} exists already", hint="name a new folder")


def live(path: Path) -> list[dict[str, Any]]:
    """The rows of a run under way; empty where nothing is known."""
    try:
        return list(json.loads((path / "live.json").read_text("utf-8"))["stations"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def alive(path: Path) -> bool:
    """Is the process of this run there, or one of its workers?"""
    try:
        with (path / "lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def close_dead() -> None:
    """Give a verdict to every run that was killed, and leave its record for history. For all who read runs."""
    for path in _folders():
        close(path)


def close(path: Path) -> None:
    """Give this run a verdict if it was killed; nothing where it has one, or where a process of it lives."""
    if (path / "junit.xml").exists() or alive(path):
        return
    with contextlib.suppress(InputWrong, OSError):
        run = load(path / "run.json")
        if run.verdict == "running":
            _give_up(path, run)
        (path / "reserve").unlink(missing_ok=True)
        save(path, run)
        post(run)
        _write_junit(path, run)


def _give_up(path: Path, run: Run) -> None:
    """Stations that had a verdict keep it; the others were lost, where the last live rows say."""
    rows = live(path)
    run.verdict, run.ended = Verdict.LOST.value, (path / "live.json").stat().st_mtime if rows else run.started
    done = {s.station for s in run.stations}
    for row in rows:
        if row["station"] not in done:
            why = f"the process of the run was gone in {row.get('step') or 'the queue'}"
            run.stations.append(
                StationResult(
                    row["station"], row.get("device", ""), verdict=Verdict.LOST.value, exit_code=1, error=why,
                    started=run.started, seconds=round(run.ended - run.started, 3),
                )
            )  # fmt: skip
    order = [row["station"] for row in rows]
    run.stations.sort(key=lambda s: order.index(s.station) if s.station in order else len(order))


def prune(keep_days: int) -> int:
    """Remove folders of runs that ended longer ago; what history knows stays there. Returns how many."""
    count = 0
    for path in _folders():
        with contextlib.suppress(OSError):
            ended = (path / "junit.xml").stat().st_mtime
            if time.time() - ended > keep_days * 86400 and not (outbox() / f"{path.name}.json").exists():
                shutil.rmtree(path)
                count += 1
    return count


def _folders() -> list[Path]:
    """Newest first."""
    return sorted((p for p in root().glob("*") if p.is_dir()), reverse=True)
