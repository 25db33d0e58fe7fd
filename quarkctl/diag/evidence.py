"""What a diagnosis is based on: columns of every message, and an account of what is missing between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quarkctl.diag.finding import Span
from quarkctl.formats.account import Counts, Loss
from quarkctl.formats.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quarkctl.diag.product import Product

    Table = npt.NDArray[np.void]
    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]
    Ints = npt.NDArray[np.int_]

#: A sensor that shows less or more than this is not there: no thermistor reads so, and firmware sends its extremes.
ZONE_DECIC = (-500, 1500)
#: What the AR1 sends for a zone that has no sensor.
AR1_NO_SENSOR = -32768


@dataclass(frozen=True)
class Evidence:
    """Columns of one device.

    ``tables``: message name -> structured array with ``boot`` (number of the start in this record, from 0), ``seq``,
    ``time_us`` (device time since that start), ``host_ns`` (arrival, 0 unknown), then the message's own fields as raw
    numbers in the units of the schema. Rows are in device time within a boot; ``losses`` are
    those of the sequence. ``frames``: all that were received, also of messages that no check looks at.
    ``hello`` is the microcontroller's, ``ar1_hello`` that of the AR1, empty where it has said nothing; ``ar1_starts`` are
    its starts in this record, ``ar1_tables`` what it sent, in its own device time. ``source`` names a recording or a device,
    ``sha256`` the recording's hash (empty for a live device). ``host_waits``, of virtual glasses: (arrival clock in ns, ms,
    whether their AR1 runs) of each second in which their processes waited for a processor of the host.
    """

    schema: Schema
    tables: Mapping[str, Table]
    counts: Counts
    losses: Sequence[Loss]
    product: Product
    source: str = ""
    sha256: str = ""
    ending: str = "complete"
    hello: Mapping[str, object] = field(default_factory=dict)
    frames: int = 0
    ar1_hello: Mapping[str, object] = field(default_factory=dict)
    ar1_starts: int = 0
    ar1_tables: Mapping[str, Table] = field(default_factory=dict)
    host_waits: Sequence[tuple[int, float, bool]] = ()

    def of(self, message: str) -> Table:
        """All rows; an empty array with the right fields when there are none."""
        found = self.tables.get(message)
        return found if found is not None else self._empty(message)

    def has(self, message: str, *fields: str) -> bool:
        """Whether rows of this message are there, with these fields."""
        table = self.tables.get(message)
        return table is not None and len(table) > 0 and set(fields) <= set(table.dtype.names or ())

    def steady(self, message: str) -> Table:
        """Rows of the start with the most of them: what needs one uninterrupted course takes this."""
        import numpy as np

        table = self.of(message)
        if not len(table):
            return table
        return np.asarray(table[table["boot"] == np.bincount(table["boot"]).argmax()])

    def host_wait_ms(self, from_ns: int, to_ns: int, *, link: bool = False) -> float:
        """What virtual glasses waited for their host's processors between two arrivals, of all their processes together: at
        most so much of what they measured meanwhile is the host's. 0 for real glasses. ``link``: of what lies between the
        chips; where no AR1 runs the plant model tells that, and no host delays it."""
        return sum(
            ms
            for end_ns, ms, ar1 in self.host_waits
            if end_ns >= from_ns and end_ns - _WAIT_NS <= to_ns and (ar1 or not link)
        )

    def _empty(self, message: str) -> Table:
        import numpy as np

        known = self.schema.messages.get(message)
        return np.zeros(0, dtype(self.schema, message) if known else head_dtype())

    def holes(self, table: Table) -> Flags:
        """Between which neighbouring rows something is missing; shape (rows - 1,)."""
        import numpy as np

        if len(table) < 2:
            return np.zeros(0, bool)
        t = table["time_us"].astype(np.int64)
        dt = np.diff(t)
        same = np.diff(table["boot"]) == 0
        usual = float(np.median(dt[same])) if same.any() else 0.0
        missing = ~same | (dt > 2.5 * usual)
        for loss in self.losses:
            inside = (table["boot"][1:] == loss.boot) & (t[1:] > loss.from_us) & (t[:-1] < loss.to_us)
            missing |= inside & (dt > 1.5 * usual)
        return np.asarray(missing)

    @cached_property
    def boots(self) -> int:
        """Starts seen in this record."""
        return max((int(t["boot"].max()) + 1 for t in self.tables.values() if len(t)), default=0)

    @property
    def rows(self) -> int:
        return sum(len(t) for t in self.tables.values()) or self.frames

    def span_s(self) -> float:
        """Seconds of device time that the rows cover, over all starts."""
        total = 0.0
        for boot in range(self.boots):
            ends = [t["time_us"][t["boot"] == boot] for t in self.tables.values()]
            ends = [e for e in ends if len(e)]
            if ends:
                total += (int(max(e.max() for e in ends)) - int(min(e.min() for e in ends))) / 1e6
        return total

    def _ar1_heard(self) -> str:
        """Version that the microcontroller last heard from the AR1; empty where it has heard nothing."""
        if not self.has("ar1_link", "ar1_version"):
            return ""
        said = int(self.of("ar1_link")["ar1_version"][-1])
        return f"{said >> 24}.{said >> 16 & 255}.{said & 0xFFFF}" if said else ""

    def identity(self) -> dict[str, str]:
        """Device, firmware of both chips and layout, as the stream itself states them."""
        h = self.hello
        if not h:
            return {"source": self.source}
        out = {"source": self.source, "board": str(h["board"]), "serial": str(h["serial"]), "rtos": version_of(h)}
        out["rtos_build_id"] = build_of(h) or "not reported"
        out["ar1"] = (version_of(self.ar1_hello) if self.ar1_hello else self._ar1_heard()) or "not reported"
        out["ar1_build_id"] = build_of(self.ar1_hello) or "not reported"
        out["layout"] = f"{h['layout_hash']:#06x}"
        return out


def version_of(hello: Mapping[str, object]) -> str:
    return ".".join(str(hello[f"version_{k}"]) for k in ("major", "minor", "revision"))


def build_of(hello: Mapping[str, object]) -> str:
    """Build id in hex; empty where there is none."""
    build = hello.get("build_id")
    return bytes(build).hex() if isinstance(build, list) and any(build) else ""


def span(message: str, table: Table, first: int = 0, last: int = -1) -> Span | None:
    """The rows ``first`` to ``last`` of a table as a `Span`."""
    if not len(table):
        return None
    a, b = range(len(table))[first], range(len(table))[last]
    return Span(message, int(table["boot"][a]), int(table["time_us"][a]), int(table["time_us"][b]), b - a + 1)


#: A stretch of `host_waits` is about a second long, and rather too long than too short here.
_WAIT_NS = 1_500_000_000
_NUMPY = {"u8": "u1", "i8": "i1", "u16": "<u2", "i16": "<i2", "u32": "<u4", "i32": "<i4", "u64": "<u8", "i64": "<i8",
          "f32": "<f4"}  # fmt: skip


def head_dtype() -> Any:
    import numpy as np

    return np.dtype([("boot", "<i4"), ("seq", "<u2"), ("time_us", "<i8"), ("host_ns", "<i8")])


def dtype(schema: Schema, message: str) -> Any:
    """Row type of one message: four columns of the frame, then its numbers. Texts and the samples of blocks are left out."""
    import numpy as np

    fields: list[Any] = list(head_dtype().descr)
    for f in schema.messages[message].fields:
        if f.type in _NUMPY and not f.samples:
            fields.append((f.name, _NUMPY[f.type], (f.count,)) if f.count else (f.name, _NUMPY[f.type]))
    return np.dtype(fields)
