"""What is being written to which device: survives this process, so that the next run goes on and says so.

One file an identity, in the state folder, replaced whole before the step that it announces. It tells what was intended.
What is true is asked from the device.

Nothing waits for the disk: the files survive this process, and the power of this computer only as its system writes them
back. So they carry the name of the computer's start, and what they say of a transfer under way counts only until the next
one (`Journal.fresh`).
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from quarkctl import files, state

_VERSION = 2
_SIZE_MAX = 1 << 20
_COUNT = struct.Struct("<QQ")


@dataclass(frozen=True)
class Entry:
    """A flash that was begun. ``step`` is the step that was under way; ``notes`` are the method's own."""

    identity: str
    method: str
    digest: str
    what: str
    begun: str
    step: str = ""
    boot: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"flash of {self.what} begun {self.begun}" + (f", stopped in {self.step}" if self.step else "")


class Journal:
    """The journal of one device. Held under its lock (`quarkctl.link.lock`): there is one writer."""

    def __init__(self, identity: str) -> None:
        """Raises HostUnfit when the state folder cannot be written."""
        self.identity = identity
        self._path = state.folder("journal") / f"{state.file_name(identity)}.json"
        self._count_path = self._path.with_suffix(".count")
        self._count_fd = -1
        self._entry: Entry | None = None
        #: What an earlier run has left; None when it came to its end.
        self.unfinished = self._load()

    def begin(self, method: str, digest: str, what: str, step: str = "") -> None:
        """From now on the device is being written, ``step`` first. Notes of an unfinished run of the same are kept."""
        before = self.unfinished
        same = before is not None and (before.method, before.digest) == (method, digest)
        self._store(
            Entry(self.identity, method, digest, what, time.strftime("%Y-%m-%d %H:%M:%S"), step, state.boot_id(),
                  dict(before.notes) if same and before else {})
        )  # fmt: skip

    def step(self, name: str) -> None:
        """This step starts now."""
        if self._entry and self._entry.step != name:
            self._store(replace(self._entry, step=name))

    def note(self, **facts: Any) -> None:
        """Remember for the next run; values must be JSON. None removes."""
        if self._entry:
            notes = {k: v for k, v in {**self._entry.notes, **facts}.items() if v is not None}
            self._store(replace(self._entry, notes=notes))

    def noted(self, name: str) -> Any:
        """What this run, or the unfinished one of the same that it goes on with, has noted; None for nothing."""
        return self._entry.notes.get(name) if self._entry else None

    def count(self, done: int, total: int) -> None:
        """Remember numbers that change with every transfer. ``total`` 0: nothing is under way."""
        if self._count_fd < 0:
            self._count_fd = os.open(self._count_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._count_fd, _COUNT.pack(done, total), 0)

    @property
    def fresh(self) -> bool:
        """An earlier run was not finished, and this computer has not started anew since: what was counted is true."""
        return self.unfinished is not None and self.unfinished.boot == state.boot_id()

    @property
    def counted(self) -> tuple[int, int]:
        """What was counted last, by this run or an earlier one; zeros where nothing was under way."""
        try:
            done, total = _COUNT.unpack(self._count_path.read_bytes())
        except (OSError, struct.error):
            return 0, 0
        return done, total

    def end(self) -> None:
        """Everything is done, or nothing is left half-done: the next run starts afresh."""
        self._entry = self.unfinished = None
        if self._count_fd >= 0:
            os.close(self._count_fd)
            self._count_fd = -1
        self._count_path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _store(self, entry: Entry) -> None:
        self._entry = entry
        text = json.dumps({"version": _VERSION, **asdict(entry)})
        with files.replacing(self._path, durable=False) as temporary:
            temporary.write_text(text, "utf-8")

    def _load(self) -> Entry | None:
        """Unreadable or of another version is the same as none: the device is asked anyway."""
        try:
            with self._path.open("rb") as file:
                raw = json.loads(file.read(_SIZE_MAX))
            if raw.pop("version") != _VERSION or raw["identity"] != self.identity or not isinstance(raw["notes"], dict):
                return None
            return Entry(**raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
