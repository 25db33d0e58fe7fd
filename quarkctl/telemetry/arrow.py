"""Samples as Arrow tables, and from there Parquet, CSV and Arrow files: one file a message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from quarkctl.errors import HostUnfit
from quarkctl.formats.schema import Message
from quarkctl.telemetry.timeline import Rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

INSTALL = "pip install 'quarkctl[telemetry]'"


def needed(module: str) -> ModuleType:
    """A package of the telemetry extra. Raises HostUnfit when it is missing."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise HostUnfit(f"this needs the Python package {module.split('.', maxsplit=1)[0]}", hint=INSTALL) from error


class Shape:
    """Columns of one message of one layout as an Arrow schema: time (timestamp, UTC), time_us, chip, boot, seq, then the
    fields, each with its unit, its meaning and the names of its values."""

    def __init__(self, rows: Rows) -> None:
        pa: Any = needed("pyarrow")
        about = _about(rows.message, rows.schema.enums)
        fields = [pa.field("time", pa.timestamp("ns", "UTC"), nullable=False)]
        for name, column in _columns(rows).items():
            fields.append(pa.field(name, _kind(pa, column), nullable=False, metadata=about.get(name)))
        self.schema: pa.Schema = pa.schema(fields, {"message": rows.name, "layout_hash": f"{rows.schema.layout_hash:#06x}",
                                                    "doc": rows.message.doc})  # fmt: skip

    def table(self, group: Sequence[Rows]) -> pa.Table:
        """One row a sample. Numbers of a single ``Rows`` are not copied."""
        import numpy as np

        pa: Any = needed("pyarrow")
        parts = [[rows.time_ns, *_columns(rows).values()] for rows in group]
        columns = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        arrays = [_array(pa, field.type, column) for field, column in zip(self.schema, columns, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _columns(rows: Rows) -> dict[str, NDArray[Any]]:
    heads = {"time_us": rows.time_us, "chip": rows.chip, "boot": rows.boot, "seq": rows.seq}
    return heads | dict(rows.columns)


def _about(message: Message, enums: Any) -> dict[str, dict[str, str]]:
    out = {}
    for f in message.fields:
        entry = {"unit": f.unit, "doc": f.doc, "enum": json.dumps(enums[f.enum]) if f.enum else ""}
        out[f.name] = {k: v for k, v in entry.items() if v}
    return out


def _kind(pa: Any, column: NDArray[Any]) -> Any:
    """The Arrow type of a column of texts, numbers, or arrays of them."""
    kind = pa.string() if column.dtype.kind == "S" else pa.from_numpy_dtype(column.dtype)
    for size in reversed(column.shape[1:]):
        kind = pa.list_(pa.field("element", kind, nullable=False), size)  # or writers look whether each is there
    return kind


def _array(pa: Any, kind: Any, column: NDArray[Any]) -> Any:
    """Built from buffers: `pyarrow.array` looks at what it gets with pandas, and imports that."""
    import numpy as np

    if column.ndim > 1:
        flat = _array(pa, kind.value_type, column.reshape(-1, *column.shape[2:]))
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    if column.dtype.kind == "S":
        ends, joined = _texts(column)
        return pa.StringArray.from_buffers(column.size, pa.py_buffer(ends), pa.py_buffer(joined))
    return pa.Array.from_buffers(kind, column.size, [None, pa.py_buffer(np.ascontiguousarray(column))])


def _texts(column: NDArray[Any]) -> tuple[NDArray[Any], bytes]:
    """(int32 offsets, UTF-8): texts end at their first NUL; what is no UTF-8 becomes U+FFFD."""
    import numpy as np

    letters = np.ascontiguousarray(column).view(np.uint8).reshape(column.size, column.dtype.itemsize)
    inside = np.logical_and.accumulate(letters != 0, axis=1)
    ends = np.zeros(column.size + 1, np.int32)
    np.cumsum(inside.sum(axis=1), out=ends[1:])
    joined = letters[inside].tobytes()
    if not joined.isascii():
        cut = [joined[a:b].decode("utf-8", "replace").encode() for a, b in pairwise(ends.tolist())]
        ends, joined = np.cumsum([0, *map(len, cut)], dtype=np.int32), b"".join(cut)
    return ends, joined


class TableFiles:
    """Writes ``FOLDER/<message>.<suffix>``, growing as the rows come. A message whose fields changed with the firmware
    gets a file of its own, named after its layout."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self._shapes: dict[tuple[str, str], Shape] = {}
        self._writers: dict[tuple[str, str], Any] = {}
        self._pending: dict[tuple[str, str], list[Rows]] = {}
        #: Rows are written while the next are read; at most one group of a message, so that memory stays bounded.
        self._pool = ThreadPoolExecutor(2)
        self._writing: dict[tuple[str, str], Future[None]] = {}
        needed("pyarrow")

    def write(self, rows: Rows) -> None:
        key = rows.name, f"{rows.schema.layout_hash:#06x}"
        if key not in self._shapes:
            self._shapes[key] = Shape(rows)
        waiting = self._pending.setdefault(key, [])
        waiting.append(rows)
        if sum(r.time_ns.size for r in waiting) >= _GROUP_ROWS:
            self._flush(key)

    def _flush(self, key: tuple[str, str]) -> None:
        waiting = self._pending[key]
        if not waiting:
            return
        table = self._shapes[key].table(waiting)
        if self._suffix == "csv":
            table = _flat(table)
        waiting.clear()
        if key not in self._writers:
            self._writers[key] = self._open(key, table.schema)
        if key in self._writing:
            self._writing[key].result()
        self._writing[key] = self._pool.submit(self._writers[key].write_table, table)

    def _open(self, key: tuple[str, str], schema: Any) -> Any:
        used = sum(1 for name, _ in self._writers if name == key[0])
        stem = key[0] if not used else f"{key[0]}-{key[1]}"
        path = self._folder / f"{stem}.{self._suffix}"
        if self._suffix == "parquet":
            parquet = needed("pyarrow.parquet")
            return parquet.ParquetWriter(
                path, schema, compression="lz4", use_dictionary=False, write_statistics=_SEARCHED,
                column_encoding=_split(schema),
            )  # fmt: skip
        if self._suffix == "csv":
            return needed("pyarrow.csv").CSVWriter(path, schema)
        return needed("pyarrow").ipc.new_file(str(path), schema)

    def close(self) -> None:
        for key in list(self._pending):
            self._flush(key)
        for writing in self._writing.values():
            writing.result()
        self._pool.shutdown()
        for writer in self._writers.values():
            writer.close()


#: Rows that are written at a time.
_GROUP_ROWS = 32 * 1024
#: Columns by which readers skip groups of rows. Least and greatest of all columns would cost a fifth of the export.
_SEARCHED = ["time", "time_us", "boot"]


def _split(schema: Any) -> dict[str, str]:
    """All numbers with their bytes apart, the low ones of a column together, then the next: slow signals and counters
    become half as large as plain ones, in less time."""
    pa: Any = needed("pyarrow")
    out = {}
    for field in schema:
        path, kind = field.name, field.type
        while pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if not pa.types.is_string(kind):
            out[path] = "BYTE_STREAM_SPLIT"
    return out


def _flat(table: Any) -> Any:
    """Arrays as columns of their own, name_0, name_1, since CSV has none."""
    pa: Any = needed("pyarrow")
    columns: dict[str, Any] = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        kind = column.type
        if not pa.types.is_fixed_size_list(kind):
            columns[name] = column
            continue
        flat = column.combine_chunks().flatten()
        for i in range(kind.list_size):
            columns[f"{name}_{i}"] = flat[i :: kind.list_size]
    return pa.table(columns, metadata=table.schema.metadata)
