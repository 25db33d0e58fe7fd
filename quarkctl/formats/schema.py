"""The language of ``protocols/*.toml``: fixed-size little-endian fields, and nothing that needs a condition.

One or more message sets are parsed together into a `Schema`. From it derive the construct parsers of single
payloads (here), and the C headers (`quarkctl.build.headers`).
"""

from __future__ import annotations

import keyword
import re
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quarkctl.errors import InputWrong

if TYPE_CHECKING:
    from construct import Construct

#: Size in bytes of every scalar type. ``char`` is UTF-8 text, padded with NUL.
SIZES = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8, "char": 1}

#: Types that would look like the start of an SMP console line on a shared port (see stream.toml).
FORBIDDEN_TYPES = (0x09, 0x14)

Value = int | str | list[int] | dict[str, int]


@dataclass(frozen=True)
class Bit:
    """Part of an unsigned scalar, counted from its least significant bit."""

    name: str
    width: int
    doc: str = ""


@dataclass(frozen=True)
class Field:
    """One member of a message. ``count`` 0 means a scalar, else an array (or, for ``char``, a text)."""

    name: str
    type: str
    count: int = 0
    unit: str = ""
    enum: str = ""
    doc: str = ""
    bits: tuple[Bit, ...] = ()

    @property
    def size_bytes(self) -> int:
        return SIZES[self.type] * (self.count or 1)


@dataclass(frozen=True)
class Message:
    """A fixed-size struct. ``type`` is None for a record that never travels as a frame of its own."""

    name: str
    set: str
    fields: tuple[Field, ...]
    type: int | None = None
    doc: str = ""

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
            f"{m.type}:{m.name}("
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
        return next((k for k, v in self.enums[enum].items() if v == value), value)


def split_bits(field: Field, word: int) -> dict[str, int]:
    """The named parts of a bit word, least significant first."""
    out, shift = {}, 0
    for bit in field.bits:
        out[bit.name] = (word >> shift) & ((1 << bit.width) - 1)
        shift += bit.width
    return out


def _plain(f: Field, value: Any) -> Value:
    if f.type == "char":
        return bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")
    return [int(v) for v in value] if f.count else int(value)


def _encoded(f: Field, value: Any) -> Any:
    if f.type == "char":
        raw = (value or "").encode("utf-8")
        if len(raw) > f.count:
            raise InputWrong(f"{f.name}: {value!r} is longer than {f.count} bytes")
        return raw.ljust(f.count, b"\0")
    if f.count:
        return value if value is not None else [0] * f.count
    return value or 0


def _construct(message: Message) -> Construct[Any, Any]:
    import construct as c

    scalars = {
        "u8": c.Int8ul, "i8": c.Int8sl, "u16": c.Int16ul, "i16": c.Int16sl,
        "u32": c.Int32ul, "i32": c.Int32sl, "u64": c.Int64ul, "i64": c.Int64sl,
    }  # fmt: skip

    def one(f: Field) -> Construct[Any, Any]:
        if f.type == "char":
            return c.Bytes(f.count)
        return c.Array(f.count, scalars[f.type]) if f.count else scalars[f.type]

    return c.Struct(*(f.name / one(f) for f in message.fields))


# --- parsing the TOML -------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_FIELD_KEYS = {"name", "type", "count", "unit", "enum", "doc", "bits"}
_MESSAGE_KEYS = {"name", "doc", "fields", "type"}
_SET_KEYS = {"set", "doc", "enum", "message", "record"}


def parse(texts: Mapping[str, str]) -> Schema:
    """Parse message sets given as {set name: TOML text}; their order does not matter.

    Raises InputWrong naming the set, the message and the field.
    """
    messages: dict[str, Message] = {}
    enums: dict[str, Mapping[str, int]] = {}
    enum_types: dict[str, str] = {}
    docs: dict[str, str] = {}
    for set_name, text in sorted(texts.items()):
        where = f"{set_name}.toml"
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputWrong(f"{where}: {error}") from error
        _only(where, raw, _SET_KEYS)
        if raw.get("set") != set_name:
            raise InputWrong(f"{where}: set is {raw.get('set')!r}, must be {set_name!r} like its file")
        docs[set_name] = str(raw.get("doc", ""))
        for enum_name, enum in raw.get("enum", {}).items():
            _new(where, enum_name, enums)
            enums[enum_name], enum_types[enum_name] = _enum(f"{where}: enum {enum_name}", enum)
        for kind in ("record", "message"):
            for entry in raw.get(kind, []):
                message = _message(where, set_name, entry, enums, enum_types, framed=kind == "message")
                _new(where, message.name, messages)
                if message.type is not None and any(m.type == message.type for m in messages.values()):
                    raise InputWrong(f"{where}: {message.name}: type {message.type:#04x} is taken")
                messages[message.name] = message
    return Schema(messages, enums, enum_types, docs, dict(texts))


def _message(
    where: str,
    set_name: str,
    raw: Mapping[str, Any],
    enums: Mapping[str, Mapping[str, int]],
    enum_types: Mapping[str, str],
    *,
    framed: bool,
) -> Message:
    name = str(raw.get("name", ""))
    at = f"{where}: {name or 'message without name'}"
    _only(at, raw, _MESSAGE_KEYS)
    if not _NAME.match(name):
        raise InputWrong(f"{at}: a name is lower case letters, digits and underscores")
    number = raw.get("type")
    if framed and not (isinstance(number, int) and 0 < number < 256 and number not in FORBIDDEN_TYPES):
        raise InputWrong(f"{at}: type must be 1 to 255, and not one of {FORBIDDEN_TYPES}")
    if not framed and number is not None:
        raise InputWrong(f"{at}: a record has no type")
    fields: dict[str, Field] = {}
    for entry in raw.get("fields", []):
        f = _field(at, entry, enums, enum_types)
        _new(at, f.name, fields)
        fields[f.name] = f
    if not fields:
        raise InputWrong(f"{at}: has no fields")
    return Message(name, set_name, tuple(fields.values()), number, str(raw.get("doc", "")))


def _field(
    at: str, raw: Mapping[str, Any], enums: Mapping[str, Mapping[str, int]], enum_types: Mapping[str, str]
) -> Field:
    name = str(raw.get("name", ""))
    at = f"{at}.{name}"
    _only(at, raw, _FIELD_KEYS)
    if not _NAME.match(name) or keyword.iskeyword(name):
        raise InputWrong(f"{at}: {name!r} cannot be a field name")
    kind = str(raw.get("type", ""))
    if kind not in SIZES:
        raise InputWrong(f"{at}: type {kind!r} is none of {', '.join(SIZES)}")
    count = raw.get("count", 0)
    if not isinstance(count, int) or not 0 <= count <= 4096 or (kind == "char" and not count):
        raise InputWrong(f"{at}: count must be 1 to 4096")
    enum = str(raw.get("enum", ""))
    if enum and (enum not in enums or enum_types[enum] != kind):
        raise InputWrong(f"{at}: no enum {enum!r} of type {kind}")
    bits = tuple(Bit(str(b["name"]), int(b["width"]), str(b.get("doc", ""))) for b in raw.get("bits", ()))
    if bits and (count or kind[0] != "u" or any(b.width < 1 for b in bits)):
        raise InputWrong(f"{at}: bits need one unsigned scalar and widths of at least 1")
    if sum(b.width for b in bits) > 8 * SIZES[kind]:
        raise InputWrong(f"{at}: the bits do not fit into {kind}")
    return Field(name, kind, count, str(raw.get("unit", "")), enum, str(raw.get("doc", "")), bits)


def _enum(at: str, raw: Mapping[str, Any]) -> tuple[Mapping[str, int], str]:
    kind, values = str(raw.get("type", "")), raw.get("values", {})
    if kind not in ("u8", "u16", "u32"):
        raise InputWrong(f"{at}: type must be u8, u16 or u32")
    limit = 1 << (8 * SIZES[kind])
    if not values or any(not isinstance(v, int) or not 0 <= v < limit for v in values.values()):
        raise InputWrong(f"{at}: values must be integers that fit into {kind}")
    if len(set(values.values())) != len(values):
        raise InputWrong(f"{at}: a value occurs twice")
    return dict(values), kind


def _only(at: str, raw: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(raw) - known)
    if unknown:
        raise InputWrong(f"{at}: unknown key {unknown[0]!r}", hint=f"known are {', '.join(sorted(known))}")


def _new(at: str, name: str, seen: Mapping[str, object]) -> None:
    if name in seen:
        raise InputWrong(f"{at}: {name!r} is defined twice")
