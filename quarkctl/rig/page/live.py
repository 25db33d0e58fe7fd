"""Where every station is now: rig.toml, the runs under way, and the last verdicts, from what lies on disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from quarkctl.errors import InputWrong, QuarkError
from quarkctl.formats.rig_file import Rig
from quarkctl.link import names
from quarkctl.rig import quarantine, runs

#: Asked more often, the same answer is given: many browsers cost no more than one.
_FRESH_S = 0.25
_LAST_RUNS = 200


class Live:
    """Looks at the disk when it is asked. Threads may ask at once."""

    def __init__(self, rig_file: Path | None) -> None:
        self._file = rig_file
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._answer: dict[str, Any] = {}
        self._ended: dict[str, dict[str, dict[str, Any]]] = {}
        self._rig = Rig()
        self._rig_stamp: tuple[str, int] | None = None

    @property
    def rig(self) -> Rig:
        """As the file is now; an error in it keeps what was there before."""
        path = self._file or names.path()
        try:
            stamp = (str(path), path.stat().st_mtime_ns) if path else None
            if stamp != self._rig_stamp:
                self._rig, self._rig_stamp = names.load_rig(path), stamp
        except (OSError, QuarkError):
            self._rig_stamp = None
        return self._rig

    def now(self) -> dict[str, Any]:
        """{"rig", "stations": [{station, state, step, text, pct, device, run, since, ...}]}"""
        with self._lock:
            if time.monotonic() - self._looked_at > _FRESH_S:
                self._answer, self._looked_at = self._look(), time.monotonic()
            return self._answer

    def _look(self) -> dict[str, Any]:
        rig, out = self.rig, quarantine.all_records()
        known: dict[str, dict[str, Any]] = {}
        for path in sorted(runs.root().glob("*"), reverse=True)[:_LAST_RUNS]:
            for name, row in self._rows(path).items():
                # Who works there goes before a newer run that was only refused.
                if name not in known or (row["state"] == "working" != known[name]["state"]):
                    known[name] = row
        rows = []
        for name in [*rig.stations, *(n for n in known if n not in rig.stations)]:
            station = rig.stations.get(name)
            row = {"station": name, "state": "idle", "step": "", "text": "", "pct": None, "device": "", "run": "",
                   "since": 0.0, "attempt": 1, **known.get(name, {})}  # fmt: skip
            record = out.get(name)
            if record and record.out_of_use and row["state"] not in ("working", "waiting"):
                row |= {"state": "quarantined", "text": record.reason}
            row |= {"board": station.board if station else "", "tags": list(station.tags) if station else []}
            rows.append(row)
        return {"rig": rig.name, "stations": rows}

    def _rows(self, path: Path) -> dict[str, dict[str, Any]]:
        """Rows of one run; those of a run that has ended do not change any more."""
        if path.name in self._ended:
            return self._ended[path.name]
        rows = {r["station"]: {**r, "run": path.name} for r in runs.live(path) if {"station", "state"} <= r.keys()}
        if not runs.alive(path):
            for row in rows.values():
                if row.get("state") in ("working", "waiting"):  # its process is gone
                    row["state"] = "lost"
            try:
                if runs.load(path / "run.json").verdict != "running":
                    self._ended[path.name] = rows
            except InputWrong:
                pass
        return rows
