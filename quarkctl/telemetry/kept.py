"""What the first pass over recordings decoded, kept for the second: in memory, or in a file without a name."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from quarkctl.formats.stream import Table
from quarkctl.telemetry.store import Piece

#: More than this does not stay in memory.
_MEMORY_BYTES = 10 << 20
#: Free room that the file wants, in sizes of the recordings: what is written beside it needs some too.
_ROOM = 8


@dataclass(frozen=True)
class _Place:
    """A table in the file: its rows, then its chips and starts."""

    session: int
    line: int
    table: Table
    """Without its arrays."""
    count: int
    offset: int


@dataclass
class Kept:
    """``scratch``: folder for the file, if any; ``recorded_bytes``: size of all recordings. ``whole`` is False when there
    was no room for all, and nothing is kept."""

    scratch: Path | None
    recorded_bytes: int
    whole: bool = True
    _memory: list[tuple[int, int, Table]] = field(default_factory=list)
    _size: int = 0
    _file: IO[bytes] | None = None
    _places: list[_Place] = field(default_factory=list)

    def add(self, session: int, piece: Piece) -> None:
        if not self.whole:
            return
        for table in piece.batch.tables:
            self._memory.append((session, piece.line, table.without_arrival()))
            self._size += table.rows.nbytes + table.chip.nbytes + table.boot.nbytes
        try:
            if self._file is None and self._size > _MEMORY_BYTES:
                self._file = self._open()
            if self._file:
                self._spill(self._file)
        except OSError:  # full, or too little room: the recordings are there to be read again
            self.whole = False
            self._memory, self._places = [], []
            if self._file:
                self._file.close()

    def _open(self) -> IO[bytes]:
        if self.scratch is None or shutil.disk_usage(self.scratch).free < _ROOM * self.recorded_bytes:
            raise OSError
        file = tempfile.TemporaryFile(dir=self.scratch, buffering=0)  # noqa: SIM115 - lives as long as this
        weakref.finalize(self, file.close)
        return file

    def _spill(self, file: IO[bytes]) -> None:
        for session, line, table in self._memory:
            self._places.append(_Place(session, line, table.bare(), table.rows.size, file.tell()))
            for array in (table.rows, table.chip, table.boot):
                data = memoryview(array.view("u1").data)
                while data:
                    data = data[file.write(data) :]
        self._memory.clear()

    def tables(self) -> Iterator[tuple[int, int, Table]]:
        """(session, line, table without times of coming), in the order of their coming."""
        yield from self._memory
        if self._file:
            for p in self._places:
                yield p.session, p.line, _read(self._file.fileno(), p)


def _read(file: int, p: _Place) -> Table:
    import numpy as np

    arrays, at = [], p.offset
    for empty in (p.table.rows, p.table.chip, p.table.boot):
        size = p.count * empty.dtype.itemsize
        data = os.pread(file, size, at)
        if len(data) != size:
            raise OSError(f"{size} bytes were written, {len(data)} read")
        arrays.append(np.frombuffer(data, empty.dtype))
        at += size
    return p.table.bare(*arrays)
