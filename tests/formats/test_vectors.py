"""Every recorded vector means to Python what it says; tests/firmware/test_vectors.py asks the firmware."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarkctl import schemas
from quarkctl.formats import frame
from quarkctl.formats.schema import Schema
from tests.conftest import ROOT
from tests.formats import frame_vectors

FOLDER = ROOT / "protocols" / "vectors"
VECTORS = [
    json.loads(line) for path in sorted(FOLDER.glob("*.jsonl")) if path.stem != "frames"
    for line in path.read_text("utf-8").splitlines()
]  # fmt: skip


def schema_of(message: str) -> Schema:
    return schemas.plant() if message.startswith("plant_") else schemas.telemetry()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['message']}: {v['why']}")
def test_fields_and_bytes_are_each_others_image(vector: dict[str, Any]) -> None:
    schema = schema_of(vector["message"])
    message = schema.messages[vector["message"]]
    raw = bytes.fromhex(vector["hex"])
    assert schema.unpack(message, raw) == vector["fields"]
    assert schema.pack(message, vector["fields"]) == raw


@pytest.mark.parametrize("vector", frame_vectors.load(), ids=lambda v: f"{v['message']}: {v['why']}")
def test_wire_bytes_are_as_recorded(vector: dict[str, Any]) -> None:
    made = frame_vectors.frame_of(vector)
    assert frame_vectors.wire(vector) == vector["wire"], "protocols/ changed: run `make gen`"
    assert frame.parse(bytes.fromhex(vector["wire"])[1:-1], schemas.telemetry().crc_seed) == made


def test_every_message_has_a_vector() -> None:
    known = {*schemas.telemetry().messages, *schemas.plant().messages} - {"frame_header"}
    assert {v["message"] for v in VECTORS} == known
