"""Every recorded vector means to Python what it says; tests/firmware/test_vectors.py asks the firmware."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarkctl import schemas
from quarkctl.formats import frame
from quarkctl.formats.schema import Schema
from tests.conftest import ROOT

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
