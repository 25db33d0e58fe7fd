"""From a construct parser to a plan for numpy: where each field of a fixed-size struct stands, and as what.

construct stays the definition of what the bytes mean; a plan only says the same about many structs at once. It is made
by walking the construct tree, so the two cannot drift apart: a node that is not known here is refused with a reason, and
`quarkctl telemetry lint` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quarkctl.formats.frame import CRC_BYTES, FAST_MAX, HEADER
from quarkctl.formats.schema import Message, Schema, split_bits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: construct's format letters as numpy types. Never the string itself: numpy's "L" has 8 bytes, construct's 4.
_LETTERS = {"B": "u1", "b": "i1", "H": "u2", "h": "i2", "L": "u4", "l": "i4", "I": "u4", "i": "i4", "Q": "u8", "q": "i8",
            "e": "f2", "f": "f4", "d": "f8"}  # fmt: skip


#: The frame header as numpy reads it; the same as `frame.HEADER`.
HEADER_TYPE = [("type", "u1"), ("source", "u1"), ("seq", "<u2"), ("time_us", "<u8")]


class NotPlannable(Exception):
    """This construct cannot be read by columns; the text says why."""


@dataclass(frozen=True)
class Part:
    """One field: numpy type, shape of one value (empty for a scalar), offset in the payload."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int


def parts(struct: Any) -> list[Part]:
    """Fields of a construct `Struct`, in order. Raises NotPlannable."""
    import construct as c

    if not isinstance(struct, c.Struct):
        raise NotPlannable(f"{type(struct).__name__} is no Struct")
    out, offset = [], 0
    for member in struct.subcons:
        if not isinstance(member, c.Renamed):
            raise NotPlannable(f"{type(member).__name__} has no name")
        kind, shape = _node(member.subcon, member.name)
        out.append(Part(member.name, kind, shape, offset))
        offset += member.sizeof()
    return out


def _node(node: Any, name: str) -> tuple[str, tuple[int, ...]]:
    import construct as c

    if isinstance(node, c.FormatField):
        order, letter = node.fmtstr[0], node.fmtstr[1:]
        if letter not in _LETTERS:
            raise NotPlannable(f"{name}: format {node.fmtstr!r} has no counterpart in numpy")
        return order + _LETTERS[letter], ()
    if isinstance(node, c.Array) and isinstance(node.count, int):
        kind, shape = _node(node.subcon, name)
        return kind, (node.count, *shape)
    if isinstance(node, c.Bytes) and isinstance(node.length, int):
        return f"S{node.length}", ()
    raise NotPlannable(f"{name}: {type(node).__name__} has no fixed place")


def frame_type(schema: Schema, message: Message) -> np.dtype[Any]:
    """The numpy type of a whole decoded frame of this message: header, payload, CRC."""
    import numpy as np

    found = parts(schema.parsers[message.name])
    names = [*(name for name, _ in HEADER_TYPE), *(f"={p.name}" for p in found)]
    formats: list[Any] = [
        *(kind for _, kind in HEADER_TYPE),
        *((p.type, p.shape) if p.shape else p.type for p in found),
    ]
    offsets = [0, 1, 2, 4, *(HEADER.size + p.offset for p in found)]
    size = HEADER.size + message.size_bytes + CRC_BYTES
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def columns(message: Message, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    """Contiguous columns of all fields: numbers as they are, texts as bytes, bit words also by their parts
    (``field.bit``). Arrays have one more axis, fields of blocks another in front of it."""
    import numpy as np

    out: dict[str, NDArray[Any]] = {}
    for f in message.fields:
        column = np.ascontiguousarray(rows[f"={f.name}"])
        out[f.name] = column
        if f.bits:
            for name, part in split_bits(f, column).items():
                out[f"{f.name}.{name}"] = part
    return out


def slow_reasons(schema: Schema) -> dict[str, str]:
    """{message: why it cannot be decoded in bulk}. Empty for a schema that our firmware can send."""
    out = {}
    for message in schema.by_type.values():
        encoded = HEADER.size + message.size_bytes + CRC_BYTES
        try:
            parts(schema.parsers[message.name])
        except NotPlannable as reason:
            out[message.name] = str(reason)
        if encoded > FAST_MAX:
            out[message.name] = (
                f"a frame of {encoded} bytes, more than {FAST_MAX}: decoded one by one, and our firmware cannot send it"
            )
    return out
