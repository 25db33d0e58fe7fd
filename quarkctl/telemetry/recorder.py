"""Writes recordings. Reading a line never waits for the disk."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quarkctl import __version__
from quarkctl.errors import HostUnfit, InputWrong, QuarkError
from quarkctl.formats.recording import END, Chunk, build_block, build_note, build_reads, build_start
from quarkctl.formats.schema import Schema

#: What was recorded is safe on disk at the latest after this.
FLUSH_EVERY_S = 1.0
#: Bytes that may wait for the disk: three minutes of a line at 3 Mbaud. Beyond, bytes are dropped, counted and noted.
WAITING_MAX = 64 << 20
#: Reads are written in blocks of about this size.
_BLOCK_BYTES = 256 * 1024


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, data: bytes) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class FileSink:
    """A new file; an existing one is never overwritten."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Rotation:
    """When a new part begins, and how many parts are kept (0: all). 0 means never."""

    part_bytes: int = 0
    part_s: float = 0.0
    keep: int = 0

    @property
    def wanted(self) -> bool:
        return bool(self.part_bytes or self.part_s)


class Recorder:
    """Appends to a file, or to numbered parts of one, in a thread of its own.

    Each part stands for itself: it carries the schemas, and begins at a border between frames. Raises InputWrong when the
    file exists, HostUnfit when it cannot be written, then also later from `write` and `close`.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        lines: Sequence[str],
        rotation: Rotation = Rotation(),
        create: Callable[[Path], Sink] = FileSink,
    ) -> None:
        self.path = path
        self.wire_bytes = 0
        self.dropped_bytes = 0
        self.parts: list[Path] = []
        self._meta = {
            "tool": f"quarkctl {__version__}",
            "device": lines[0],
            "lines": list(lines),
            "session": uuid.uuid4().hex,
            "layout_hash": schema.layout_hash,
            "schema": dict(schema.sources),
        }
        self._rotation, self._create = rotation, create
        self._queue: deque[Chunk | bytes] = deque()
        self._waiting = 0
        self._noted_dropped = 0
        self._ready = threading.Condition()
        self._closing = False
        self._error: OSError | QuarkError | None = None
        self._part_bytes = 0
        self._part_began = 0.0
        self._sink = self._open_part()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, chunk: Chunk) -> None:
        """Take over what was read; returns at once."""
        self._raise()
        with self._ready:
            if self._waiting + len(chunk.data) > WAITING_MAX:
                self.dropped_bytes += len(chunk.data)
                return
            self.wire_bytes += len(chunk.data)
            self._put(chunk, len(chunk.data))

    def note(self, note: Mapping[str, Any]) -> None:
        with self._ready:
            self._put(build_note({"time_ns": time.time_ns(), **note}), 0)

    def close(self) -> None:
        """Write what waits and end properly: the file then says that it is complete."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()
        self._raise()

    def _put(self, item: Chunk | bytes, size: int) -> None:
        if self.dropped_bytes != self._noted_dropped:
            self._queue.append(build_note({"note": "dropped", "bytes": self.dropped_bytes - self._noted_dropped}))
            self._noted_dropped = self.dropped_bytes
        self._queue.append(item)
        self._waiting += size
        self._ready.notify()

    def _raise(self) -> None:
        if isinstance(self._error, QuarkError):
            raise self._error
        if self._error:
            raise HostUnfit(
                f"cannot write {self.path}: {self._error.strerror or self._error}",
                hint="what was written so far is good",
            ) from self._error

    # --- the writing thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            synced, dirty = time.monotonic(), False
            while True:
                with self._ready:
                    if not self._queue and not self._closing:
                        self._ready.wait(FLUSH_EVERY_S)
                    items, self._queue = self._queue, deque()
                    closing = self._closing
                self._write(items)
                dirty = dirty or bool(items)
                if dirty and time.monotonic() - synced >= FLUSH_EVERY_S:
                    self._sink.sync()
                    synced, dirty = time.monotonic(), False
                if closing and not self._queue:
                    self._end_part()
                    return
        except (OSError, QuarkError) as error:
            self._error = error
            with suppress(OSError):
                self._sink.close()

    def _write(self, items: deque[Chunk | bytes]) -> None:
        """Consecutive reads of one line become one block."""
        group: list[Chunk] = []
        size = 0
        for item in items:
            if group and (not isinstance(item, Chunk) or item.line != group[0].line or size >= _BLOCK_BYTES):
                self._write_reads(group)
                group, size = [], 0
            if isinstance(item, Chunk):
                group.append(item)
                size += len(item.data)
            else:
                self._emit(item)
        if group:
            self._write_reads(group)

    def _write_reads(self, group: list[Chunk]) -> None:
        due = self._rotation.wanted and self._part_due()
        if due and (at := group[-1].data.rfind(b"\0") + 1):
            last = group[-1]
            self._emit(build_reads([*group[:-1], Chunk(last.host_ns, last.data[:at], last.line)]))
            self._end_part()
            self._sink = self._open_part()
            if at < len(last.data):
                self._emit(build_reads([Chunk(last.host_ns, last.data[at:], last.line)]))
        else:
            self._emit(build_reads(group))
        with self._ready:
            self._waiting -= sum(len(c.data) for c in group)

    def _part_due(self) -> bool:
        r = self._rotation
        old = time.monotonic() - self._part_began >= r.part_s if r.part_s else False
        return old or bool(r.part_bytes and self._part_bytes >= r.part_bytes)

    def _open_part(self) -> Sink:
        number = self._meta["part"] = len(self.parts) + 1
        path = self.path.with_stem(f"{self.path.stem}-{number:04d}") if self._rotation.wanted else self.path
        start = build_start({**self._meta, "started_ns": time.time_ns()})
        try:
            sink = self._create(path)
            try:
                sink.write(start)
            except OSError:
                sink.close()
                raise
        except FileExistsError:
            raise InputWrong(
                f"{path} exists already", hint="choose another name: recordings are never overwritten"
            ) from None
        except OSError as error:
            if self.parts:
                raise
            raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
        self.parts.append(path)
        self._part_bytes, self._part_began = 0, time.monotonic()
        keep = self._rotation.keep
        if keep and len(self.parts) > keep:
            self.parts[-keep - 1].unlink(missing_ok=True)
        return sink

    def _end_part(self) -> None:
        self._emit(build_block(END, b""))
        self._sink.sync()
        self._sink.close()

    def _emit(self, block: bytes) -> None:
        self._sink.write(block)
        self._part_bytes += len(block)
