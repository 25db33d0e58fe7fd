"""Every recorded vector means the same to Python and to the C structs, whose bytes are compared on the host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quarkctl import schemas
from quarkctl.formats import frame
from quarkctl.formats.schema import Field, Schema
from tests.conftest import ROOT, RTOS

FOLDER = ROOT / "protocols" / "vectors"
VECTORS = [
    json.loads(line) for path in sorted(FOLDER.glob("*.jsonl")) if path.stem != "frames"
    for line in path.read_text("utf-8").splitlines()
]  # fmt: skip
FRAMES = [json.loads(line) for line in (FOLDER / "frames.jsonl").read_text("utf-8").splitlines()]


def schema_of(message: str) -> Schema:
    return schemas.plant() if message.startswith("plant_") else schemas.telemetry()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['message']}: {v['why']}")
def test_fields_and_bytes_are_each_others_image(vector: dict[str, Any]) -> None:
    schema = schema_of(vector["message"])
    message = schema.messages[vector["message"]]
    raw = bytes.fromhex(vector["hex"])
    assert schema.unpack(message, raw) == vector["fields"]
    assert schema.pack(message, vector["fields"]) == raw


@pytest.mark.parametrize("vector", FRAMES, ids=lambda v: f"{v['message']}: {v['why']}")
def test_wire_bytes_are_as_recorded(vector: dict[str, Any]) -> None:
    schema = schemas.telemetry()
    message = schema.messages[vector["message"]]
    assert message.type
    wire = bytes.fromhex(vector["wire"])
    made = frame.Frame(
        message.type, vector["source"], vector["seq"], vector["time_us"], bytes.fromhex(vector["payload"])
    )
    assert frame.build(made, schema.crc_seed) == wire
    assert frame.parse(wire[1:-1], schema.crc_seed) == made


def test_every_message_has_a_vector() -> None:
    known = {*schemas.telemetry().messages, *schemas.plant().messages} - {"frame_header"}
    assert {v["message"] for v in VECTORS} == known


def c_value(field: Field, value: Any) -> Iterator[tuple[str, Any]]:
    if field.type == "char":
        return

    def elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, list):
            yield name, value
            return
        for i, inner in enumerate(value):
            yield from elements(f"{name}[{i}]", inner)

    yield from elements(field.name, value)


def test_the_c_structs_read_the_same_values(tmp_path: Path) -> None:
    body = []
    for vector in VECTORS:
        message = schema_of(vector["message"]).messages[vector["message"]]
        raw = ",".join(f"0x{b:02x}" for b in bytes.fromhex(vector["hex"]))
        name = f"struct qk_wire_{message.name}"
        body.append(f"{{ static const unsigned char raw[] = {{{raw}}}; {name} m; memcpy(&m, raw, sizeof m);")
        body.append(f'if (sizeof raw != sizeof m) {{ puts("{message.name}: size"); return 1; }}')
        for field in message.fields:
            for member, value in c_value(field, vector["fields"][field.name]):
                suffix = "ULL" if value > 2**63 - 1 else "LL"
                text = f"({value + 1}LL - 1)" if value == -(2**63) else f"{value}{suffix}"
                body.append(f'if (m.{member} != {text}) {{ puts("{message.name}.{member}"); return 1; }}')
        body.append("}")
    source = tmp_path / "vectors.c"
    source.write_text(
        '#include <stdio.h>\n#include <string.h>\n#include "qk_telemetry.h"\n#include "qk_plant.h"\n'
        "int main(void)\n{\n" + "\n".join(body) + "\nreturn 0;\n}\n"
    )
    program = tmp_path / "vectors"
    subprocess.run(["gcc", "-std=c11", "-I", RTOS / "wire", source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
