"""Recordings for the tools of others. What is written appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.telemetry.timeline import Rows, Timeline

#: {target: does it make a folder with one file a message?}
TARGETS = {"parquet": True, "csv": True, "arrow": True, "mcap": False, "perfetto": False}
SUFFIX = {"mcap": ".mcap", "perfetto": ".perfetto-trace"}


class Sink(Protocol):
    def write(self, rows: Rows) -> None: ...
    def close(self) -> None: ...


def export(timeline: Timeline, target: str, out: Path, progress: Callable[[int], None] = lambda rows: None) -> int:
    """Write all samples to ``out``, a folder or a file by the target; returns how many.

    Raises InputWrong when ``out`` exists, HostUnfit when it cannot be written or a package is missing.
    """
    if out.exists():
        raise InputWrong(f"{out} exists already", hint="choose another name with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise HostUnfit(f"cannot write {out}: {error.strerror}") from error
    try:
        made = work / "out"
        count = _write(timeline, target, made, progress)
        made.rename(out)
    except OSError as error:
        raise HostUnfit(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _write(timeline: Timeline, target: str, made: Path, progress: Callable[[int], None]) -> int:
    sink = _sink(timeline, target, made)
    count = 0
    for rows in timeline.rows():
        if rows.time_ns.size:
            sink.write(rows)
            count += rows.time_ns.size
            progress(count)
    sink.close()
    return count


def _sink(timeline: Timeline, target: str, made: Path) -> Sink:
    if target == "mcap":
        from quarkctl.telemetry.mcap import McapFile

        return McapFile(made, timeline)
    if target == "perfetto":
        from quarkctl.telemetry.perfetto import PerfettoFile

        return PerfettoFile(made, timeline)
    from quarkctl.telemetry.arrow import TableFiles

    made.mkdir()
    return TableFiles(made, target)
