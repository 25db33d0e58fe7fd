"""C headers of the message sets, for ``firmware/rtos/wire/``.

``python -m quarkctl.build.headers DIR`` writes them (``make gen``); a test compares them with what is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quarkctl import schemas
from quarkctl.formats.schema import Field, Message, Schema

C_TYPES = {
    "u8": "uint8_t", "i8": "int8_t", "u16": "uint16_t", "i16": "int16_t", "u32": "uint32_t", "i32": "int32_t",
    "u64": "uint64_t", "i64": "int64_t", "f32": "float",
    "char": "char",
}  # fmt: skip

#: {file stem: (sets in it, name of the layout hash)}
HEADERS = {
    "qk_telemetry": (schemas.TELEMETRY_SETS, "QK_TELEMETRY_LAYOUT_HASH"),
    "qk_plant": (schemas.PLANT_SETS, "QK_PLANT_LAYOUT_HASH"),
}


def header(schema: Schema, stem: str, hash_name: str) -> str:
    """The C header of all messages of a schema."""
    guard = f"{stem.upper()}_H"
    sources = ", ".join(f"protocols/{name}.toml" for name in schema.docs)
    out = [
        f"/* Generated from {sources} by `make gen`. Do not edit. */",
        "/* SPDX-License-Identifier: Apache-2.0 */",
        "/* clang-format off */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"#define {hash_name} 0x{schema.layout_hash:04x}u",
        "",
    ]
    for name, values in schema.enums.items():
        out += [f"enum qk_{name} {{", *(f"\tQK_{name.upper()}_{k.upper()} = {v}," for k, v in values.items()), "};", ""]
    for message in schema.messages.values():
        out += _struct(message)
    return "\n".join([*out, f"#endif /* {guard} */", ""])


def _struct(message: Message) -> list[str]:
    name = f"qk_wire_{message.name}"
    rows, checks, words, offset = [], [], [], 0
    for f in message.fields:
        rows.append(_member(f))
        checks.append(f'_Static_assert(offsetof(struct {name}, {f.name}) == {offset}, "{name}.{f.name}");')
        shift = 0
        for bit in f.bits:
            mask = ((1 << bit.width) - 1) << shift
            words.append(f"#define QK_{message.name.upper()}_{f.name.upper()}_{bit.name.upper()} 0x{mask:x}u")
            shift += bit.width
        offset += f.size_bytes
    kind = [f"#define {name.upper()}_TYPE 0x{message.type:02x}u"] if message.type is not None else []
    if message.samples:
        kind.append(f"#define {name.upper()}_SAMPLES {message.samples}u")
    return [
        *kind,
        *words,
        f"/* {message.doc} */",
        f"struct {name} {{",
        *rows,
        "} __attribute__((packed));",
        f'_Static_assert(sizeof(struct {name}) == {offset}, "{name}");',
        *checks,
        "",
    ]


def _member(f: Field) -> str:
    note = "; ".join(x for x in (f.unit, f.doc) if x)
    array = "".join(f"[{n}]" for n in (f.samples, f.count) if n)
    return f"\t{C_TYPES[f.type]} {f.name}{array};" + (f" /* {note} */" if note else "")


def render() -> dict[str, str]:
    """{file name: text} of every header."""
    return {f"{stem}.h": header(schemas.load(sets), stem, name) for stem, (sets, name) in HEADERS.items()}


if __name__ == "__main__":
    for file_name, text in render().items():
        (Path(sys.argv[1]) / file_name).write_text(text, "utf-8")
