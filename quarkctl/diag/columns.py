"""From decoded batches to the columns that checks read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quarkctl.diag.evidence import Evidence, dtype
from quarkctl.errors import InputWrong
from quarkctl.formats.account import Account, Counts, Loss
from quarkctl.formats.schema import Schema
from quarkctl.formats.stream import Batch, Sample
from quarkctl.formats.stream import Table as Messages

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Table
    from quarkctl.diag.product import Product

#: What checks look at. All else, such as blocks of motion at some kHz, passes by without staying in memory.
WANTED = frozenset({
    "power", "battery", "thermal", "bus", "gauge", "charger", "pack_auth", "ar1_link", "display", "camera", "pack_removed",
    "pack_inserted", "pack_rejected", "takeover", "undervoltage", "samples_lost", "throttle_changed",
})  # fmt: skip
#: What checks look at of the AR1's own stream.
WANTED_AR1 = frozenset({"ar1_thermal"})
_RTOS, _AR1 = 1, 2


class Columns:
    """Collects batches of one pair of glasses: what the microcontroller sent, and the AR1."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Table]] = {}
        self._ar1_parts: dict[str, list[Table]] = {}
        self.schema: Schema | None = None
        self.hello: Sample | None = None
        self.ar1_hello: Sample | None = None
        self.ar1_starts = 0
        self.frames = 0

    def add(self, batch: Batch) -> None:
        import numpy as np

        self.frames += batch.count
        for t in batch.tables:
            self.schema = t.schema
            if t.message.name == "hello":
                self._identify(t)
            of_ar1 = t.chip == _AR1
            if of_ar1.any():
                self.ar1_starts = max(self.ar1_starts, int(t.boot[of_ar1].max()) + 1)
            if t.message.name in WANTED:
                keep, parts = t.chip == _RTOS, self._parts
            elif t.message.name in WANTED_AR1:
                keep, parts = of_ar1, self._ar1_parts
            else:
                continue
            out = np.zeros(len(t.rows), dtype(t.schema, t.message.name))
            out["boot"], out["seq"], out["host_ns"] = t.boot, t.seq, t.host_ns
            out["time_us"] = np.minimum(t.time_us, np.uint64(2**62)).astype(np.int64)
            for name in out.dtype.names[4:]:
                out[name] = t.rows[f"={name}"]
            parts.setdefault(t.message.name, []).append(out[keep])

    def _identify(self, hellos: Messages) -> None:
        """The newest of each chip."""
        for _, said in hellos.samples():
            if said.chip == _RTOS:
                self.hello = said
            elif said.chip == _AR1:
                self.ar1_hello = said

    @property
    def board(self) -> str:
        return self.hello.text("board") if self.hello else ""

    def evidence(
        self, schema: Schema, counts: Counts, losses: Sequence[Loss], product: Product, source: str = "",
        sha256: str = "", ending: str = "complete", host_waits: Sequence[tuple[int, float, bool]] = (),
    ) -> Evidence:  # fmt: skip
        gone = [x for x in losses if x.kind == "lost" and x.count and x.chip in (0, _RTOS)]
        hello: dict[str, Any] = dict(self.hello.values) if self.hello else {}
        ar1: dict[str, Any] = dict(self.ar1_hello.values) if self.ar1_hello else {}
        return Evidence(
            self.schema or schema, _tables(self._parts), counts, gone, product, source, sha256, ending, hello, self.frames,
            ar1, self.ar1_starts, _tables(self._ar1_parts), host_waits,
        )  # fmt: skip


def _tables(kept: dict[str, list[Table]]) -> dict[str, Table]:
    """One array a message, rows in device time within each start. The parts become one."""
    import numpy as np

    out = {}
    for name, parts in kept.items():
        newest = parts[-1].dtype  # a device that was flashed in between speaks another layout: the last one counts
        whole = np.concatenate([p for p in parts if p.dtype == newest])
        kept[name] = [whole]
        keys = whole["boot"].astype(np.int64), whole["time_us"]
        sorted_already = len(whole) < 2 or bool(
            ((np.diff(keys[0]) > 0) | ((np.diff(keys[0]) == 0) & (np.diff(keys[1]) >= 0))).all()
        )
        if len(whole):
            out[name] = whole if sorted_already else whole[np.lexsort((keys[1], keys[0]))]
    return out


class Piece(Protocol):
    @property
    def batch(self) -> Batch: ...


class Line(Protocol):
    @property
    def account(self) -> Account: ...

    @property
    def counts(self) -> Counts: ...


class Recorded(Protocol):
    """What `quarkctl.telemetry.store.Recording` is to a diagnosis."""

    path: Path
    schema: Schema
    sha256: str
    wire_bytes: int

    @property
    def decoders(self) -> Mapping[int, Line]: ...

    @property
    def counts(self) -> Counts: ...

    @property
    def ending(self) -> str: ...

    @property
    def notes(self) -> Sequence[Mapping[str, Any]]: ...

    def pieces(self, before: None = None, *, hashed: bool = False) -> Iterator[Piece]: ...


def recorded(
    recording: Recorded, product_of: Callable[[str], Product], told: Callable[[int], None] = lambda frames: None
) -> Evidence:
    """Decode a recording piece by piece; only the columns that checks look at stay in memory. ``told`` gets the frames
    decoded so far.

    Raises InputWrong for a recording without frames, or of several lines.
    """
    columns = Columns()
    for piece in recording.pieces(hashed=True):
        columns.add(piece.batch)
        told(columns.frames)
    if not columns.frames:
        raise InputWrong(f"{recording.path} holds no samples ({recording.ending}, {recording.wire_bytes} wire bytes)")
    rtos = line_of_rtos(list(recording.decoders.values()), str(recording.path))
    return columns.evidence(
        recording.schema, rtos.counts, rtos.account.losses, product_of(columns.board),
        str(recording.path), recording.sha256, recording.ending, host_waits(recording.notes),
    )  # fmt: skip


def host_waits(notes: Iterable[Mapping[str, Any]]) -> list[tuple[int, float, bool]]:
    """What a recorder noted of the host of virtual glasses; what is no such row is left out."""
    rows = [row for note in notes if note.get("note") == "host" and isinstance(note.get("waits"), list)
            for row in note["waits"]]  # fmt: skip
    out = []
    for row in rows:
        if isinstance(row, list) and len(row) == 3 and all(type(x) in (int, float) and 0 <= x < 2**63 for x in row[:2]):
            out.append((int(row[0]), float(row[1]), row[2] is True))
    return out


def line_of_rtos(lines: Sequence[Line], source: str) -> Line:
    """The line whose frames are counted: the microcontroller has one, the AR1 may have another.

    Raises InputWrong for two microcontrollers: they are two devices.
    """
    found = [line for line in lines if _RTOS in line.account.chips] or lines[:1]
    if len(found) > 1:
        raise InputWrong(
            f"{source} holds {len(found)} lines of microcontrollers", hint="record one device for a diagnosis"
        )
    return found[0]


#: Packs' states are reported ten times a second, on a busy device later.
_STATE_LAG_US = 500_000


def since(evidence: Evidence, boot: int, time_us: int) -> Evidence:
    """The part of it from a moment on. States of packs begin later: they tell of a swap after its event, and one whose event
    came just before that moment would look like one whose event was lost."""
    from dataclasses import replace

    def late(t: Table, from_us: int) -> Table:
        keep = (t["boot"] > boot) | ((t["boot"] == boot) & (t["time_us"] >= from_us))
        return t.compress(keep)

    losses = [x for x in evidence.losses if (x.boot, x.to_us) >= (boot, time_us)]
    tables = {n: late(t, time_us + _STATE_LAG_US * (n == "battery")) for n, t in evidence.tables.items()}
    return replace(evidence, tables=tables, losses=losses)


def events(batch: Batch, names: Iterable[str]) -> list[Sample]:
    """The few messages of these names, as objects, in the order of their coming."""
    wanted = frozenset(names)
    found = [pair for t in batch.tables if t.message.name in wanted for pair in t.samples()]
    return [s for _, s in sorted(found, key=lambda pair: pair[0])]
