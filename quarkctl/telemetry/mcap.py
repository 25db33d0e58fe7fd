"""MCAP: every message a channel, as ROS 2 message definitions with CDR payloads, which Foxglove and others plot.

Sources: MCAP specification (mcap.dev/spec), its registry ("ros2msg", "cdr"), and OMG DDS-XTypes 7.4 (plain CDR: little
endian, primitives aligned to their size behind a header of four bytes). Texts stand last in each message, since what is
behind them has no fixed place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarkctl.errors import VerificationFailed
from quarkctl.formats.schema import Message, Schema
from quarkctl.telemetry.arrow import needed
from quarkctl.telemetry.timeline import Rows, Timeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TYPES = {"u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32", "u8": "uint64",
          "i8": "int64", "f4": "float32", "f8": "float64"}  # fmt: skip
#: Of messages, before compression: what a cut file may lose at its end.
_CHUNK_BYTES = 256 * 1024
_CDR_HEADER = b"\0\1\0\0"


class McapFile:
    """Writes one file; `close` reads its summary back and raises VerificationFailed if it does not hold."""

    def __init__(self, path: Path, timeline: Timeline) -> None:
        writer = needed("mcap.writer")
        self._path, self._timeline = path, timeline
        self._file = path.open("wb")
        self._out: Any = writer.Writer(self._file, chunk_size=_CHUNK_BYTES, compression=writer.CompressionType.LZ4)
        self._out.start(profile="ros2", library="quarkctl")
        self._channels: dict[tuple[int, int, str, int], int] = {}
        self._count = 0

    def write(self, rows: Rows) -> None:
        fixed = _fixed(rows)
        texts = {k: v for k, v in rows.columns.items() if v.dtype.kind == "S"}
        payloads = _payloads(fixed, texts)
        for chip in sorted(set(rows.chip.tolist())):
            mine = (rows.chip == chip).tolist()
            channel = self._channel(rows, chip, fixed, texts)
            add = self._out.add_message
            for wanted, time_ns, seq, data in zip(
                mine, rows.time_ns.tolist(), rows.seq.tolist(), payloads, strict=True
            ):
                if wanted:
                    add(channel, max(time_ns, 0), data, max(time_ns, 0), seq)
                    self._count += 1

    def _channel(self, rows: Rows, chip: int, fixed: Mapping[str, NDArray[Any]], texts: Mapping[str, Any]) -> int:
        key = rows.source, chip, rows.name, rows.schema.layout_hash
        if key not in self._channels:
            text = _definition(rows.message, rows.schema, fixed, texts)
            kind = "quark/msg/" + "".join(w.capitalize() for w in rows.name.split("_"))
            schema = self._out.register_schema(kind, "ros2msg", text.encode())
            names = rows.schema.enums.get("chip", {})
            chip_name = next((k for k, v in names.items() if v == chip), str(chip))
            device = self._timeline.sources[rows.source].device
            prefix = f"/{rows.source}" if len(self._timeline.sources) > 1 else ""
            self._channels[key] = self._out.register_channel(
                f"{prefix}/{chip_name}/{rows.name}", "cdr", schema,
                {"device": device, "layout_hash": f"{rows.schema.layout_hash:#06x}"},
            )  # fmt: skip
        return self._channels[key]

    def close(self) -> None:
        schema = self._out.register_schema("quarkctl.notice", "jsonschema", json.dumps(_NOTICE).encode())
        channel = self._out.register_channel("/quarkctl/notices", "json", schema)
        for notice in notices(self._timeline):
            time_ns = max(int(notice["time_ns"]), 0)
            self._out.add_message(channel, time_ns, json.dumps(notice).encode(), time_ns, 0)
            self._count += 1
        for parts in self._timeline.sessions:
            sources = {name: str(text) for name, text in parts[0].schema.sources.items()}
            self._out.add_metadata("quarkctl.schema", sources)
        self._out.finish()
        self._file.close()
        self._verify()

    def _verify(self) -> None:
        reader = needed("mcap.reader")
        with self._path.open("rb") as file:
            summary = reader.make_reader(file).get_summary()
        found = summary.statistics.message_count if summary and summary.statistics else -1
        if found != self._count:
            raise VerificationFailed(f"{self._path} holds {found} messages, {self._count} were written")


_NOTICE = {
    "type": "object",
    "properties": {
        "time_ns": {"type": "integer"}, "kind": {"type": "string"}, "chip": {"type": "integer"},
        "boot": {"type": "integer"}, "count": {"type": "integer"}, "text": {"type": "string"},
    },
}  # fmt: skip


def notices(timeline: Timeline) -> list[dict[str, Any]]:
    """Starts and losses as events: time_ns, kind (start, lost, corrupt, ...), source, chip, boot, count, text."""
    out: list[dict[str, Any]] = []
    for source, start in timeline.starts():
        time_ns = timeline.host_ns(source, start.chip, start.boot, start.time_us)
        name = "" if start.boot_id is None else f", boot id {start.boot_id:#010x}"
        out.append(
            {"time_ns": time_ns, "kind": "start", "source": source, "chip": start.chip, "boot": start.boot, "count": 1,
             "text": f"start {start.boot} of chip {start.chip}{name}"}
        )  # fmt: skip
    for source, loss in timeline.losses():
        chip = loss.chip or next((c for c in timeline.sources[source].decoder.account.chips if c), 0)
        begin, end = (timeline.host_ns(source, chip, loss.boot, t) for t in (loss.from_us, loss.to_us))
        text = f"{'about ' if loss.estimated else ''}{loss.count} {loss.kind} within {max(end - begin, 0) / 1e6:.3f} ms"
        out.append(
            {"time_ns": end, "from_ns": begin, "kind": loss.kind, "source": source, "chip": loss.chip, "boot": loss.boot,
             "count": loss.count, "text": text}
        )  # fmt: skip
    return sorted(out, key=lambda n: int(n["time_ns"]))


def _fixed(rows: Rows) -> dict[str, NDArray[Any]]:
    """Columns of numbers under names that ROS allows."""
    out = {"time_us": rows.time_us.astype("<u8"), "boot": rows.boot.astype("<u4"), "seq": rows.seq.astype("<u2")}
    out |= {name.replace(".", "_"): c for name, c in rows.columns.items() if c.dtype.kind != "S"}
    return out


def _payloads(fixed: Mapping[str, NDArray[Any]], texts: Mapping[str, NDArray[Any]]) -> list[bytes]:
    import numpy as np

    formats: list[Any] = []
    offsets, at = [], len(_CDR_HEADER)
    for c in fixed.values():
        size = c.dtype.itemsize
        at += -(at - len(_CDR_HEADER)) % size
        formats.append((c.dtype, c.shape[1:]) if c.ndim > 1 else c.dtype)
        offsets.append(at)
        at += size * int(np.prod(c.shape[1:], dtype=np.int64))
    kind: np.dtype[Any] = np.dtype({"names": list(fixed), "formats": formats, "offsets": offsets, "itemsize": at})
    count = len(next(iter(fixed.values())))
    block = np.zeros(count, kind)
    block.view(np.uint8).reshape(count, at)[:, : len(_CDR_HEADER)] = np.frombuffer(_CDR_HEADER, np.uint8)
    for name, c in fixed.items():
        block[name] = c
    raw = block.tobytes()
    out = [raw[i : i + at] for i in range(0, len(raw), at)]
    if not texts:
        return out
    return [
        _with_texts(data, values)
        for data, values in zip(out, zip(*(c.tolist() for c in texts.values()), strict=True), strict=True)
    ]


def _with_texts(data: bytes, values: tuple[bytes, ...]) -> bytes:
    for value in values:
        text = value.split(b"\0", 1)[0].decode("utf-8", "replace").encode() + b"\0"
        data += bytes(-(len(data) - len(_CDR_HEADER)) % 4) + len(text).to_bytes(4, "little") + text
    return data


def _definition(message: Message, schema: Schema, fixed: Mapping[str, NDArray[Any]], texts: Mapping[str, Any]) -> str:
    """The ROS 2 message definition: constants of enums, then fields with unit and meaning as comments."""
    about = {f.name: " ".join(x for x in (f"[{f.unit}]" if f.unit else "", f.doc) if x) for f in message.fields}
    lines = [f"# {message.doc}"]
    for f in message.fields:
        if f.enum:
            kind = {"u8": "uint8", "u16": "uint16", "u32": "uint32"}[f.type]
            lines += [f"{kind} {f.name.upper()}_{k.upper()}={v}" for k, v in schema.enums[f.enum].items()]
    for name, c in fixed.items():
        array = f"[{c.shape[1]}]" if c.ndim > 1 else ""
        lines.append(f"{_TYPES[c.dtype.str[1:]]}{array} {name}  # {about.get(name, '')}".rstrip(" #"))
    lines += [f"string {name}  # {about.get(name, '')}".rstrip(" #") for name in texts]
    return "\n".join(lines) + "\n"
