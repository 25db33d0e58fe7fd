"""Stations that failed again and again are left out until somebody has looked at them."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from quarkctl import state
from quarkctl.errors import HostUnfit


@dataclass
class Record:
    """``faults`` in a row; ``since`` is empty while the station is in use."""

    faults: int = 0
    since: str = ""
    reason: str = ""

    @property
    def out_of_use(self) -> bool:
        return bool(self.since)


def all_records() -> dict[str, Record]:
    """{station: record}; stations without a fault have none."""
    return _read(state.root() / "rig" / "stations.json")


def put(station: str, reason: str) -> None:
    with _changing() as records:
        records[station] = Record(records.get(station, Record()).faults, _now(), reason)


def release(station: str) -> bool:
    """Whether it was in quarantine."""
    with _changing() as records:
        return records.pop(station, Record()).out_of_use


def count(station: str, *, fault: str, limit: int) -> bool:
    """One more run of this station: ``fault`` is empty when it was fine. Returns whether that put it into quarantine."""
    with _changing() as records:
        record = records.get(station, Record())
        if not fault:
            if not record.out_of_use:
                records.pop(station, None)
            return False
        record.faults += 1
        entered = record.faults >= limit and not record.out_of_use
        if entered:
            record.since, record.reason = _now(), f"{record.faults} faults in a row, the last: {fault}"
        records[station] = record
        return entered


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def _changing() -> Iterator[dict[str, Record]]:
    """One writer at a time; replaced whole."""
    path = state.folder("rig") / "stations.json"
    try:
        with path.with_suffix(".lock").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            records = _read(path)
            yield records
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps({k: asdict(v) for k, v in records.items()}), "utf-8")
            temporary.replace(path)
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error


def _read(path: Path) -> dict[str, Record]:
    try:
        return {str(k): Record(**v) for k, v in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
