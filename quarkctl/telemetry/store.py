"""Reads recordings back: bounded memory for any size, the right schema by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from quarkctl import schemas
from quarkctl.errors import InputWrong, QuarkError
from quarkctl.formats.account import Counts
from quarkctl.formats.clock import Clock, Fitter
from quarkctl.formats.recording import Reader, Reads
from quarkctl.formats.schema import Schema
from quarkctl.formats.stream import Batch, Decoder, Gap, Sample

#: Wire bytes that are decoded at a time.
PIECE_BYTES = 1 << 20


#: Starts that get a clock; a device that starts more often than this has other worries.
_CLOCKS_MAX = 10_000


@dataclass(frozen=True)
class Piece:
    """Some frames of one line."""

    line: int
    batch: Batch


@dataclass
class Recording:
    """One recording on disk, not in memory. `pieces` reads it; the rest is known when they have all been taken."""

    path: Path
    folders: Sequence[Path] = ()
    schema: Schema = field(init=False)
    device: str = field(init=False)
    lines: list[str] = field(init=False)
    started_ns: int = field(init=False)
    session: str = field(init=False)
    part: int = field(init=False)
    decoders: dict[int, Decoder] = field(default_factory=dict)
    wire_bytes: int = 0
    sha256: str = ""
    reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises InputWrong when this is no recording."""
        with self._open() as file:
            self._begin(file)

    def _open(self) -> IO[bytes]:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            raise InputWrong(f"cannot read {self.path}: {error.strerror}") from error

    def _begin(self, file: IO[bytes], digest: hashlib._Hash | None = None) -> None:

        def read(size: int) -> bytes:
            try:
                data = file.read(size)
            except OSError as error:
                raise InputWrong(f"cannot read {self.path}: {error.strerror}") from error
            if digest:
                digest.update(data)
            return data

        try:
            self.reader = Reader.open(read)
            self.schema = self.reader.schema()
        except InputWrong as error:
            raise InputWrong(f"{self.path}: {error.message}", error.hint) from error
        meta = self.reader.meta
        self.device = printable(meta.get("device", ""))
        lines = meta.get("lines")
        self.lines = [printable(x) for x in lines[:256]] if isinstance(lines, list) and lines else [self.device]
        self.started_ns = _integer(meta.get("started_ns"))
        self.session, self.part = str(meta.get("session", "")), _integer(meta.get("part"))

    @property
    def ending(self) -> str:
        return self.reader.ending

    @property
    def notes(self) -> Sequence[Mapping[str, Any]]:
        """What the recorder wanted to be known, so far as it was read."""
        return self.reader.notes

    @property
    def counts(self) -> Counts:
        return sum((d.counts for d in self.decoders.values()), Counts())

    def pieces(self, before: dict[int, Decoder] | None = None, *, hashed: bool = False) -> Iterator[Piece]:
        """Everything, in pieces of about `PIECE_BYTES` of wire. ``before`` are the decoders of the part before this one.
        ``hashed`` fills ``sha256``.

        Raises LayoutMismatch where the device speaks a layout that nobody knows; what came before has been given by then.
        """
        with self._open() as file:
            digest = hashlib.sha256() if hashed else None
            self._begin(file, digest)
            find = schemas.finder(self.schema, folders=self.folders)
            self.decoders = before if before is not None else {}
            self.wire_bytes = 0
            for reads in _joined(self.reader.reads()):
                self.wire_bytes += len(reads.data)
                if reads.line not in self.decoders:
                    self.decoders[reads.line] = Decoder(self.schema, find)
                decoder = self.decoders[reads.line]
                decoder.find = find
                try:
                    batch = decoder.batch(reads.data, reads.ends, reads.stamps)
                except QuarkError as error:
                    raise type(error)(f"{self.path}: {error.message}", error.hint) from error
                line = reads.line
                del reads
                yield Piece(line, batch)
            self.sha256 = digest.hexdigest() if digest else ""


def _joined(reads: Iterator[Reads]) -> Iterator[Reads]:
    """Small blocks of one line together, up to `PIECE_BYTES`; large ones as they are."""
    group: list[Reads] = []
    size = 0
    for r in reads:
        if group and (r.line != group[0].line or size + len(r.data) > PIECE_BYTES):
            joined, group, size = _join(group), [], 0  # whoever decodes it needs room: nothing is held twice
            yield joined
        group.append(r)
        size += len(r.data)
    if group:
        yield _join(group)


def _join(group: list[Reads]) -> Reads:
    if len(group) == 1:
        return group[0]
    ends: list[int] = []
    stamps: list[int] = []
    base = 0
    for r in group:
        ends += [base + e for e in r.ends]
        stamps += r.stamps
        base += len(r.data)
    return Reads(group[0].line, b"".join(r.data for r in group), ends, stamps)


def open_all(paths: Sequence[Path], folders: Sequence[Path] = ()) -> list[list[Recording]]:
    """Recordings, the parts of one session together and in order."""
    sessions: dict[str, list[Recording]] = {}
    for path in paths:
        recording = Recording(path, folders)
        sessions.setdefault(recording.session or str(path), []).append(recording)
    for parts in sessions.values():
        parts.sort(key=lambda r: r.part)
        for one, other in pairwise(parts):
            if one.part == other.part:
                raise InputWrong(f"{one.path} and {other.path} are the same recording", hint="give each file once")
    return list(sessions.values())


def pieces_of(parts: Sequence[Recording], *, hashed: bool = False) -> Iterator[Piece]:
    """All parts of a session as one stream."""
    decoders: dict[int, Decoder] = {}
    for recording in parts:
        yield from recording.pieces(decoders, hashed=hashed)


@dataclass
class Clocks:
    """Clocks of every (line, chip, start) of a session."""

    fitters: dict[tuple[int, int, int], Fitter] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        for p in piece.batch.pairs:
            if len(self.fitters) >= _CLOCKS_MAX and (piece.line, p.chip, p.boot) not in self.fitters:
                continue
            self.fitters.setdefault((piece.line, p.chip, p.boot), Fitter()).add(p.time_us, p.host_ns)

    def clocks(self) -> dict[tuple[int, int, int], Clock]:
        return {k: c for k, f in self.fitters.items() if (c := f.clock())}


@dataclass(frozen=True)
class Loaded:
    """A whole recording in memory, for checks that look at single messages. ``ending`` as in `Reader`."""

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


def load(path: Path, folders: Sequence[Path] = ()) -> Loaded:
    """Read and decode a whole recording with the schema that it carries.

    Raises InputWrong for anything that is no recording; a cut or damaged file is not an error but `Loaded.ending`.
    """
    recording = Recording(path, folders)
    samples = [s for piece in recording.pieces(hashed=True) for s in piece.batch.samples()]
    gaps = tuple(g for d in recording.decoders.values() for g in d.gaps)
    return Loaded(
        path, recording.schema, recording.device, recording.started_ns, tuple(samples), recording.counts, gaps,
        recording.ending, recording.sha256, recording.wire_bytes,
    )  # fmt: skip


def printable(value: object) -> str:
    """Text from a device or a file, without what would command a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:200])


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else 0
