"""Fixed structures of foreign formats, and errors that name field and offset.

A `Record` is a ``struct`` format with names: unlike plain ``struct`` it can say which field at which offset is wrong,
and unlike ``construct`` it costs no start-up time.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, Protocol

from quarkctl.errors import InputWrong


class Source(Protocol):
    """Bytes that are read by slices: ``bytes``, a ``memoryview``, or an open file (`quarkctl.files.File`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: slice, /) -> bytes | memoryview: ...


class Damaged(InputWrong):
    """A file breaks its format. ``offset`` is the byte in the file, ``field`` the name that the format gives it."""

    def __init__(self, what: str, field: str, offset: int, told: str, hint: str = "") -> None:
        super().__init__(f"{what}: {field} at offset {offset:#x} {told}", hint)
        self.field = field
        self.offset = offset


class Record:
    """A structure without padding: ``Record("GPT header", "<", "signature:8s revision:I ...")``."""

    def __init__(self, what: str, order: str, fields: str) -> None:
        self.what = what
        self._fields: list[tuple[str, int, int]] = []  # name, number of values, offset
        self._zeros: dict[str, Any] = {}
        offset = 0
        codes = []
        for word in fields.split():
            name, _, code = word.partition(":")
            count = int(code[:-1]) if code[:-1] and code[-1] != "s" else 1
            if code[-1] == "x":
                count = 0
            self._fields.append((name, count, offset))
            self._zeros[name] = b"" if code[-1] == "s" else 0 if count == 1 else (0,) * count
            offset += struct.calcsize(order + code)
            codes.append(code)
        self._struct = struct.Struct(order + "".join(codes))
        self.size = self._struct.size

    def offset(self, field: str) -> int:
        """Offset of a field in the structure."""
        return next(offset for name, _, offset in self._fields if name == field)

    def parse(self, data: Source, at: int = 0) -> Any:
        """The fields as attributes; a field of several numbers is a tuple. Raises Damaged when the data ends early."""
        raw = bytes(data[at : at + self.size]) if 0 <= at <= len(data) else b""
        if len(raw) < self.size:
            missing = next(n for n, _, o in reversed(self._fields) if o <= len(raw))
            raise Damaged(
                self.what, missing, max(at, 0) + len(raw),
                f"is cut off: the structure needs {self.size} bytes, {len(raw)} are there",
            )  # fmt: skip
        values = iter(self._struct.unpack(raw))
        out = SimpleNamespace()
        for name, count, _ in self._fields:
            if count == 1:
                setattr(out, name, next(values))
            elif count:
                setattr(out, name, tuple(next(values) for _ in range(count)))
        return out

    def build(self, **values: Any) -> bytes:
        """Bytes; fields that are not named are zero."""
        flat: list[Any] = []
        for name, count, _ in self._fields:
            value = values.pop(name, self._zeros[name])
            if count == 1:
                flat.append(value)
            elif count:
                flat.extend(value)
        if values:
            raise TypeError(f"{self.what} has no field {', '.join(values)}")
        return self._struct.pack(*flat)

    def wrong(self, field: str, at: int, told: str, hint: str = "") -> Damaged:
        """The error for a field of the structure that starts at ``at``."""
        return Damaged(self.what, field, at + self.offset(field), told, hint)


def text(raw: bytes) -> str:
    """A NUL-padded name. Bytes that are no ASCII are shown as backslash escapes."""
    return raw.partition(b"\0")[0].decode("ascii", "backslashreplace")


def rounded(size: int, to: int) -> int:
    """``size`` rounded up to a multiple of ``to``."""
    return -(-size // to) * to
