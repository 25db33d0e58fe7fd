"""Writes recordings, and reads them back."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quarkctl import __version__
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.formats.recording import END, Chunk, Reader, build_block, build_chunk, build_start
from quarkctl.formats.schema import Schema
from quarkctl.formats.stream import Counts, Decoder, Gap, Sample

#: What was recorded is safe on disk at the latest after this.
FLUSH_EVERY_S = 1.0


class Recorder:
    """Appends to a new file. Every `FLUSH_EVERY_S` and at the end it is forced to disk."""

    def __init__(self, path: Path, schema: Schema, device: str) -> None:
        meta = {
            "tool": f"quarkctl {__version__}",
            "device": device,
            "started_ns": time.time_ns(),
            "layout_hash": schema.layout_hash,
            "schema": dict(schema.sources),
        }
        try:
            self._file = path.open("xb")
        except FileExistsError:
            raise InputWrong(
                f"{path} exists already", hint="choose another name: recordings are never overwritten"
            ) from None
        except OSError as error:
            raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
        self.path = path
        self.wire_bytes = 0
        self._flushed = time.monotonic()
        self._write(build_start(meta))

    def write(self, chunk: Chunk) -> None:
        self.wire_bytes += len(chunk.data)
        self._write(build_chunk(chunk))
        if time.monotonic() - self._flushed > FLUSH_EVERY_S:
            self.flush()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise HostUnfit(
                f"cannot write {self.path}: {error.strerror}", hint="what was written so far is good"
            ) from error

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """End properly: the file then says that it is complete."""
        self._write(build_block(END, b""))
        self.flush()
        self._file.close()


@dataclass(frozen=True)
class Recording:
    """A decoded recording. ``ending`` as in `quarkctl.formats.recording.Reader`."""

    path: Path
    schema: Schema
    device: str
    started_ns: int
    samples: tuple[Sample, ...]
    counts: Counts
    gaps: tuple[Gap, ...]
    ending: str
    sha256: str
    wire_bytes: int


def load(path: Path) -> Recording:
    """Read and decode a whole recording with the schema that it carries.

    Raises InputWrong for anything that is no recording; a cut or damaged tail is not an error but `Recording.ending`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    try:
        reader = Reader.open(data)
        schema = reader.schema()
        decoder = Decoder(schema)
        samples, wire_bytes = _decode(reader.chunks(), decoder)
    except InputWrong as error:
        raise InputWrong(f"{path}: {error.message}", error.hint) from error
    meta = reader.meta
    started = meta.get("started_ns")
    return Recording(
        path, schema, str(meta.get("device", "")), started if isinstance(started, int) else 0, tuple(samples),
        decoder.counts, tuple(decoder.gaps), reader.ending, hashlib.sha256(data).hexdigest(), wire_bytes,
    )  # fmt: skip


def _decode(chunks: Iterable[Chunk], decoder: Decoder) -> tuple[list[Sample], int]:
    samples: list[Sample] = []
    wire_bytes = 0
    for chunk in chunks:
        wire_bytes += len(chunk.data)
        samples += decoder.feed(chunk.data, chunk.host_ns)
    return samples, wire_bytes
