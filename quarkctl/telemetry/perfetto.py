"""A Perfetto trace: a counter track for every number, instants for events, starts and losses.

Source: perfetto.dev/docs/reference/trace-packet-proto (field numbers below) and "Converting arbitrary timestamped data to
Perfetto". Times are on the BOOTTIME clock, which a snapshot ties to REALTIME.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarkctl.formats.schema import Kind
from quarkctl.telemetry.mcap import notices
from quarkctl.telemetry.timeline import Rows, Timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VARINT, _BYTES, _FIXED64 = 0, 2, 1
_TYPE_INSTANT, _TYPE_COUNTER = 3, 4
_REALTIME, _BOOTTIME = 1, 6
_SEQUENCE = 1


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _BYTES) + _varint(len(raw)) + raw


class PerfettoFile:
    """Writes one trace file."""

    def __init__(self, path: Path, timeline: Timeline) -> None:
        self._file = path.open("wb")
        self._timeline = timeline
        self._tracks: dict[tuple[Any, ...], int] = {}

    def write(self, rows: Rows) -> None:
        self._snapshot(int(rows.time_ns[0]))
        process = self._process(rows.source, int(rows.chip[0]), rows)
        if rows.message.kind is Kind.EVENT:
            track = self._track((rows.source, process, "events"), "events", process)
            for i, time_ns in enumerate(rows.time_ns.tolist()):
                values = {k: v[i].tolist() for k, v in rows.columns.items()}
                self._instant(time_ns, track, rows.name, values)
            return
        units = {f.name: f.unit for f in rows.message.fields}
        times = rows.time_ns.tolist()
        for name, column in numbers(rows):
            unit = units.get(name.split("[")[0].split(".")[0], "")
            track = self._track((rows.source, process, rows.name, name), f"{rows.name}.{name}", process, unit)
            self._counter(times, column, track)

    def close(self) -> None:
        for n in notices(self._timeline):
            track = self._track(
                (n["source"], "notices"), "starts and losses", self._process(n["source"], n["chip"], None)
            )
            self._instant(n["time_ns"], track, n["text"], {"count": n["count"]})
        self._file.close()

    def _packet(self, body: bytes) -> None:
        self._file.write(_bytes(1, body))

    def _snapshot(self, time_ns: int) -> None:
        if self._tracks:
            return
        self._tracks["snapshot",] = 0
        clocks = b"".join(_bytes(1, _number(1, clock) + _number(2, time_ns)) for clock in (_BOOTTIME, _REALTIME))
        self._packet(_number(8, time_ns) + _number(10, _SEQUENCE) + _bytes(6, clocks))

    def _process(self, source: int, chip: int, rows: Rows | None) -> int:
        key = ("process", source, chip)
        if key not in self._tracks:
            names = rows.schema.enums.get("chip", {}) if rows else {}
            chip_name = next((k for k, v in names.items() if v == chip), f"chip {chip}")
            name = f"{self._timeline.sources[source].device} {chip_name}"
            uuid = self._tracks[key] = len(self._tracks) + 1
            process = _bytes(3, _number(1, uuid) + _bytes(6, name))
            self._packet(_number(10, _SEQUENCE) + _bytes(60, _number(1, uuid) + process))
        return self._tracks[key]

    def _track(self, key: tuple[Any, ...], name: str, parent: int, unit: str | None = None) -> int:
        if key not in self._tracks:
            uuid = self._tracks[key] = len(self._tracks) + 1
            counter = _bytes(8, _bytes(6, unit) if unit else b"") if unit is not None else b""
            body = _number(1, uuid) + _bytes(2, name) + _number(5, parent) + counter
            self._packet(_number(10, _SEQUENCE) + _bytes(60, body))
        return self._tracks[key]

    def _counter(self, times: list[int], column: NDArray[Any], track: int) -> None:
        head = _number(9, _TYPE_COUNTER) + _number(11, track)
        tail = _number(10, _SEQUENCE)
        out = []
        if column.dtype.kind == "f":
            tag = _varint(44 << 3 | _FIXED64)
            values = [tag + v for v in _eights(column)]
        else:
            tag = _varint(30 << 3 | _VARINT)
            values = [tag + _varint(v) for v in column.tolist()]
        for time_ns, value in zip(times, values, strict=True):
            event = head + value
            body = b"\x40" + _varint(time_ns) + tail + b"\x5a" + _varint(len(event)) + event
            out.append(b"\x0a" + _varint(len(body)) + body)
        self._file.write(b"".join(out))

    def _instant(self, time_ns: int, track: int, name: str, values: dict[str, Any]) -> None:
        notes = b"".join(_bytes(4, _bytes(10, k) + _bytes(6, str(v))) for k, v in values.items())
        event = _number(9, _TYPE_INSTANT) + _number(11, track) + _bytes(23, name) + notes
        self._packet(_number(8, time_ns) + _number(10, _SEQUENCE) + _bytes(11, event))


def _eights(column: NDArray[Any]) -> list[bytes]:
    raw = column.astype("<f8").tobytes()
    return [raw[i : i + 8] for i in range(0, len(raw), 8)]


def numbers(rows: Rows) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every number as a series of its own; texts and the indices of blocks are none."""
    for name, column in rows.columns.items():
        if column.dtype.kind == "S" or name == "sample_index":
            continue
        if column.ndim == 1:
            yield name, column
        else:
            yield from ((f"{name}[{i}]", column[:, i]) for i in range(column.shape[1]))
