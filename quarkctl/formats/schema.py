"""The language of ``protocols/*.toml``: fixed-size little-endian fields, and nothing that needs a condition.

One or more message sets are parsed together into a `Schema`. From it derive the construct parsers of single
payloads (here), the plans of the bulk decoder (`quarkctl.formats.plan`) and the C headers (`quarkctl.build.headers`).

A set holds four kinds of structs. A `message` repeats; an `event` happened once; a `block` carries many samples of one
thing, taken at a fixed period; a `record` never travels as a frame of its own.
"""

from __future__ import annotations

import keyword
import re
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from quarkctl.errors import InputWrong

if TYPE_CHECKING:
    import numpy as np
    from construct import Construct

#: Size in bytes of every scalar type. ``char`` is UTF-8 text, padded with NUL.
SIZES = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8, "f32": 4,
         "char": 1}  # fmt: skip

#: Types that would look like the start of an SMP console line on a shared port (see stream.toml).
FORBIDDEN_TYPES = (0x09, 0x14)

#: A text of a set is not larger than this.
TEXT_MAX = 1 << 20

Value = int | float | str | list[Any] | dict[str, int]


@dataclass(frozen=True)
class Bit:
    """Part of an unsigned scalar, counted from its least significant bit."""

    name: str
    width: int
    doc: str = ""


@dataclass(frozen=True)
class Field:
    """One member of a message. ``count`` 0 means a scalar, else an array (or, for ``char``, a text). In a block the
    member stands ``samples`` times, one after the other; elsewhere ``samples`` is 0."""

    name: str
    type: str
    count: int = 0
    unit: str = ""
    enum: str = ""
    doc: str = ""
    bits: tuple[Bit, ...] = ()
    samples: int = 0

    @property
    def size_bytes(self) -> int:
        return SIZES[self.type] * (self.count or 1) * (self.samples or 1)


class Kind(Enum):
    MESSAGE = "message"
    EVENT = "event"
    BLOCK = "block"
    RECORD = "record"


#: In front of the samples of every block. Their times are of the clock that paces them, which may not be the frame's.
BLOCK_FIELDS = (
    Field("first_index", "u32", doc="Samples since reset before the first of this block."),
    Field("first_us", "u64", unit="us", doc="Time of the first sample by the converter's clock."),
    Field("period_ns", "u32", unit="ns", doc="From one sample to the next."),
    Field("count", "u8", doc="Samples that are filled, from the first on; the others are 0."),
)


@dataclass(frozen=True)
class Message:
    """A fixed-size struct. ``type`` is None for a record. ``samples`` is how many a block has room for."""

    name: str
    set: str
    fields: tuple[Field, ...]
    type: int | None = None
    doc: str = ""
    kind: Kind = Kind.MESSAGE
    samples: int = 0

    @cached_property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.fields)

    def field(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(f"{self.name} has no field {name}")


@dataclass(frozen=True)
class Schema:
    """All messages of one stream, and the enums they use."""

    messages: Mapping[str, Message]
    enums: Mapping[str, Mapping[str, int]]
    enum_types: Mapping[str, str]
    docs: Mapping[str, str]
    sources: Mapping[str, str]

    @cached_property
    def by_type(self) -> Mapping[int, Message]:
        return {m.type: m for m in self.messages.values() if m.type is not None}

    @cached_property
    def layout_hash(self) -> int:
        """16 bits over everything that two sides must agree on: names, types, order, enum values. Prose is left out."""
        enums = (
            f"{n}:{self.enum_types[n]}" + "".join(f",{k}={v}" for k, v in e.items()) for n, e in self.enums.items()
        )
        messages = (
            f"{m.kind.value} {m.type}:{m.name}*{m.samples}("
            + ",".join(
                f"{f.type}*{f.count}:{f.name}:{f.enum}" + "".join(f"/{b.name}:{b.width}" for b in f.bits)
                for f in m.fields
            )
            + ")"
            for m in self.messages.values()
        )
        crc = zlib.crc32(";".join((*enums, *messages)).encode())
        return (crc >> 16) ^ (crc & 0xFFFF)

    @cached_property
    def crc_seed(self) -> int:
        """Start value of the CRC of every frame but hello."""
        return zlib.crc32(self.layout_hash.to_bytes(2, "little"))

    @cached_property
    def parsers(self) -> Mapping[str, Construct[Any, Any]]:
        """One construct parser a message: the definition of what the bytes mean."""
        return {m.name: _construct(m) for m in self.messages.values()}

    @cached_property
    def frame_types(self) -> Mapping[int, tuple[Message, np.dtype[Any]]]:
        """{type: (message, its whole frame as numpy reads it)}, from the parsers."""
        from quarkctl.formats import plan

        return {number: (m, plan.frame_type(self, m)) for number, m in self.by_type.items()}

    def unpack(self, message: Message, payload: bytes | memoryview) -> dict[str, Value]:
        """Fields of one payload. Enums and bit words stay integers; `named` gives them their names.

        Raises InputWrong when the length is not the message's.
        """
        if len(payload) != message.size_bytes:
            raise InputWrong(f"{message.name} has {message.size_bytes} bytes, not {len(payload)}")
        parsed = self.parsers[message.name].parse(bytes(payload))
        return {f.name: _plain(f, parsed[f.name]) for f in message.fields}

    def pack(self, message: Message, values: Mapping[str, Any]) -> bytes:
        """The reverse of `unpack`; fields that are not given are zero."""
        filled = {f.name: _encoded(f, values.get(f.name)) for f in message.fields}
        return bytes(self.parsers[message.name].build(filled))

    def named(self, message: Message, values: Mapping[str, Value]) -> dict[str, Value]:
        """Enum values by name where they have one, bit words as a dict of their parts."""
        out: dict[str, Value] = {}
        for f in message.fields:
            value = values[f.name]
            if f.enum and isinstance(value, int):
                out[f.name] = self.enum_name(f.enum, value)
            elif f.bits and isinstance(value, int):
                out[f.name] = split_bits(f, value)
            else:
                out[f.name] = value
        return out

    def enum_name(self, enum: str, value: int) -> int | str:
        return next((k for k, v in self.enums.get(enum, {}).items() if v == value), value)


def split_bits(field: Field, word: Any) -> dict[str, Any]:
    """The named parts of a bit word, or of a column of them, least significant first."""
    out, shift = {}, 0
    for bit in field.bits:
        out[bit.name] = (word >> shift) & ((1 << bit.width) - 1)
        shift += bit.width
    return out


def _plain(f: Field, value: Any) -> Value:
    if f.type == "char":
        return bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")
    return [_plain(f, v) for v in value] if isinstance(value, list) else cast("int | float", value)


def _encoded(f: Field, value: Any) -> Any:
    if f.type == "char":
        raw = (value or "").encode("utf-8")
        if len(raw) > f.count:
            raise InputWrong(f"{f.name}: {value!r} is longer than {f.count} bytes")
        return raw.ljust(f.count, b"\0")
    zero: Any = [0] * f.count if f.count else 0
    if f.samples:
        return [*(value or ()), *[zero] * (f.samples - len(value or ()))]
    return zero if value is None else value


def _construct(message: Message) -> Construct[Any, Any]:
    import construct as c

    scalars = {
        "u8": c.Int8ul, "i8": c.Int8sl, "u16": c.Int16ul, "i16": c.Int16sl,
        "u32": c.Int32ul, "i32": c.Int32sl, "u64": c.Int64ul, "i64": c.Int64sl, "f32": c.Float32l,
    }  # fmt: skip

    def one(f: Field) -> Construct[Any, Any]:
        if f.type == "char":
            return c.Bytes(f.count)
        inner = c.Array(f.count, scalars[f.type]) if f.count else scalars[f.type]
        return c.Array(f.samples, inner) if f.samples else inner

    return c.Struct(*(f.name / one(f) for f in message.fields))


# --- parsing the TOML -------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_FIELD_KEYS = {"name", "type", "count", "unit", "enum", "doc", "bits"}
_BIT_KEYS = {"name", "width", "doc"}
_SET_KEYS = {"set", "doc", "enum", *(k.value for k in Kind)}
#: Columns that every decoded frame has: a field with such a name would hide one.
FRAME_COLUMNS = ("time", "time_ns", "time_us", "host_ns", "source", "chip", "boot", "seq", "sample_index")


@dataclass(frozen=True)
class _Place:
    """Where in a file an entry stands, to name it in an error: file, first line of the entry, and its name."""

    file: str
    text: str
    line: int = 1
    name: str = ""

    def wrong(self, what: str, hint: str = "") -> InputWrong:
        name = f"{self.name}: " if self.name else ""
        return InputWrong(f"{self.file} line {self.line}: {name}{what}", hint)

    def entry(self, header: str, index: int, name: str) -> _Place:
        """The ``index``-th ``[[header]]`` (or the only ``[header]``) of the file."""
        found = [m.start() for m in re.finditer(rf"^[ \t]*\[+[ \t]*{re.escape(header)}[ \t]*\]+", self.text, re.M)]
        at = found[index] if index < len(found) else 0
        return replace(self, line=self.text.count("\n", 0, at) + 1, name=name)

    def field(self, name: str) -> _Place:
        """The last entry ``name = "..."`` of this message: of two with one name the second is too many."""
        lines = self.text.splitlines()
        line = self.line
        for number in range(self.line, len(lines)):
            text = lines[number]
            if re.match(r"\s*\[+\s*[a-z]", text) and "name" not in text:
                break
            if name and re.search(rf"""\bname\s*=\s*["']{re.escape(name)}["']""", text):
                line = number + 1
        return replace(self, line=line, name=f"{self.name}.{name}" if name else f"{self.name}: field without name")


def parse(texts: Mapping[str, str]) -> Schema:
    """Parse message sets given as {set name: TOML text}; their order does not matter.

    Raises InputWrong naming file, line, message and field, and what is allowed there.
    """
    return _parse(tuple(sorted(texts.items())))


@lru_cache(maxsize=16)  # every part of a long recording carries the same
def _parse(texts: tuple[tuple[str, str], ...]) -> Schema:
    messages: dict[str, Message] = {}
    enums: dict[str, Mapping[str, int]] = {}
    enum_types: dict[str, str] = {}
    docs: dict[str, str] = {}
    for set_name, text in texts:
        top = _Place(f"{set_name}.toml", text)
        raw = _toml(top)
        _only(top, raw, _SET_KEYS)
        if raw.get("set") != set_name:
            raise top.wrong(f"set is {raw.get('set')!r}, must be {set_name!r} like its file")
        docs[set_name] = _text(top, raw, "doc")
        for enum_name, enum in _table(top, raw.get("enum", {}), "enum").items():
            at = top.entry(f"enum.{enum_name}", 0, f"enum {enum_name}")
            _new(at, enum_name, enums)
            enums[enum_name], enum_types[enum_name] = _enum(at, enum_name, _table(at, enum, enum_name))
        for kind in (Kind.RECORD, Kind.MESSAGE, Kind.EVENT, Kind.BLOCK):
            for index, entry in enumerate(_tables(top, raw.get(kind.value, []), f"[[{kind.value}]]")):
                name = entry.get("name")
                at = top.entry(kind.value, index, name if isinstance(name, str) else f"{kind.value} without name")
                message = _message(at, set_name, kind, entry, enums, enum_types)
                _new(at, message.name, messages)
                if message.type is not None and any(m.type == message.type for m in messages.values()):
                    taken = next(m.name for m in messages.values() if m.type == message.type)
                    raise at.wrong(f"type {message.type:#04x} is taken by {taken}")
                messages[message.name] = message
    return Schema(messages, enums, enum_types, docs, dict(texts))


def _toml(top: _Place) -> Mapping[str, Any]:
    if len(top.text) > TEXT_MAX:
        raise top.wrong(f"the file has more than {TEXT_MAX >> 20} MiB")
    try:
        return tomllib.loads(top.text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else top.text.count("\n") + 1
        raise replace(top, line=line).wrong(f"no TOML: {error}") from error
    except RecursionError as error:
        raise top.wrong("no TOML: nested too deep") from error
    except ValueError as error:  # a date that is none, an integer of too many digits
        raise top.wrong(f"no TOML: {error}") from error


def _message(
    at: _Place,
    set_name: str,
    kind: Kind,
    raw: Mapping[str, Any],
    enums: Mapping[str, Mapping[str, int]],
    enum_types: Mapping[str, str],
) -> Message:
    known = {"name", "doc", "fields"}
    _only(
        at,
        raw,
        known | ({"type"} if kind is not Kind.RECORD else set()) | ({"samples"} if kind is Kind.BLOCK else set()),
    )
    name = _name(at, raw)
    number = raw.get("type")
    if kind is not Kind.RECORD and not (_is_int(number) and 0 < number < 256 and number not in FORBIDDEN_TYPES):
        raise at.wrong(f"type must be 1 to 255, and not one of {FORBIDDEN_TYPES}", hint="choose a free number")
    samples = raw.get("samples", 0)
    if kind is Kind.BLOCK and not (_is_int(samples) and 0 < samples < 256):
        raise at.wrong("samples must be 1 to 255: how many the block has room for")
    fields = {f.name: f for f in BLOCK_FIELDS} if kind is Kind.BLOCK else {}
    for entry in _tables(at, raw.get("fields", []), "fields"):
        f = _field(at, entry, enums, enum_types)
        here = at.field(f.name)
        if kind is not Kind.RECORD and f.name in FRAME_COLUMNS:
            raise here.wrong(f"{f.name!r} is what every frame has already: choose another name")
        if kind is Kind.BLOCK and f.type == "char":
            raise here.wrong("a block has no texts")
        _new(here, f.name, fields)
        fields[f.name] = replace(f, samples=samples)
    if len(fields) == (len(BLOCK_FIELDS) if kind is Kind.BLOCK else 0):
        raise at.wrong("has no fields")
    return Message(name, set_name, tuple(fields.values()), number, _text(at, raw, "doc"), kind, samples)


def _field(
    message: _Place, raw: Mapping[str, Any], enums: Mapping[str, Mapping[str, int]], enum_types: Mapping[str, str]
) -> Field:
    name = raw.get("name")
    at = message.field(name if isinstance(name, str) else "")
    _only(at, raw, _FIELD_KEYS)
    name = _name(at, raw)
    kind = _text(at, raw, "type")
    if kind not in SIZES:
        raise at.wrong(f"type {kind!r} is none of {', '.join(SIZES)}")
    count = raw.get("count", 0)
    if not _is_int(count) or not 0 <= count <= 4096 or ("count" in raw and not count) or (kind == "char" and not count):
        raise at.wrong("count must be 1 to 4096")
    enum = _text(at, raw, "enum")
    if enum and (enum not in enums or enum_types[enum] != kind):
        fit = [n for n, t in enum_types.items() if t == kind]
        raise at.wrong(f"no enum {enum!r} of type {kind}", hint=f"there are {', '.join(fit)}" if fit else "")
    bits: dict[str, Bit] = {}
    for entry in _tables(at, raw.get("bits", []), "bits"):
        _only(at, entry, _BIT_KEYS)
        bit_name, width = _name(at, entry), entry.get("width")
        if not _is_int(width) or not 1 <= width <= 64:
            raise at.wrong(f"bit {bit_name}: width must be 1 to 64")
        _new(at, bit_name, bits)
        bits[bit_name] = Bit(bit_name, width, _text(at, entry, "doc"))
    if bits and (count or kind[0] != "u"):
        raise at.wrong("bits need one unsigned scalar")
    if sum(b.width for b in bits.values()) > 8 * SIZES[kind]:
        raise at.wrong(f"the bits do not fit into {kind}")
    return Field(name, kind, count, _text(at, raw, "unit"), enum, _text(at, raw, "doc"), tuple(bits.values()))


def _enum(at: _Place, name: str, raw: Mapping[str, Any]) -> tuple[Mapping[str, int], str]:
    _only(at, raw, {"type", "values"})
    if not _NAME.match(name):
        raise at.wrong("a name is lower case letters, digits and underscores")
    kind, values = _text(at, raw, "type"), _table(at, raw.get("values", {}), "values")
    if kind not in ("u8", "u16", "u32"):
        raise at.wrong("type must be u8, u16 or u32")
    limit = 1 << (8 * SIZES[kind])
    if not values or any(not _is_int(v) or not 0 <= v < limit for v in values.values()):
        raise at.wrong(f"values must be integers that fit into {kind}")
    if not all(_NAME.match(k) for k in values):
        raise at.wrong("names of values are lower case letters, digits and underscores")
    if len(set(values.values())) != len(values):
        raise at.wrong("a value occurs twice")
    return dict(values), kind


def _name(at: _Place, raw: Mapping[str, Any]) -> str:
    name = raw.get("name", "")
    if not isinstance(name, str) or not _NAME.match(name) or keyword.iskeyword(name):
        raise at.wrong(f"{name!r} cannot be a name", hint="lower case letters, digits, underscores; no word of Python")
    return name


def _text(at: _Place, raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key, "")
    if not isinstance(value, str):
        raise at.wrong(f"{key} must be a text, in quotes")
    return value


def _table(at: _Place, value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise at.wrong(f"{what} must be a table")
    return value


def _tables(at: _Place, value: Any, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise at.wrong(f"{what} must be a list of tables")
    return value


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _only(at: _Place, raw: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(raw) - known)
    if unknown:
        raise at.wrong(f"unknown key {unknown[0]!r}", hint=f"known are {', '.join(sorted(known))}")


def _new(at: _Place, name: str, seen: Mapping[str, object]) -> None:
    if name in seen:
        raise at.wrong(f"{name!r} is defined twice")
