"""Wire bytes of ``protocols/vectors/frames.jsonl``: they change with every layout, since the layout hash seeds the CRC.

``python -m tests.formats.frame_vectors`` writes them anew (``make gen``); a test compares them with what is committed, and
tests/firmware holds the firmware's encoder to the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

from quarkctl import schemas
from quarkctl.formats import frame
from tests.conftest import ROOT

PATH = ROOT / "protocols" / "vectors" / "frames.jsonl"


def load() -> list[dict[str, Any]]:
    """The vectors as they are committed."""
    return [json.loads(line) for line in PATH.read_text("utf-8").splitlines()]


def frame_of(vector: dict[str, Any]) -> frame.Frame:
    """What a vector says that the frame holds; ``wire`` is its image."""
    kind = schemas.telemetry().messages[vector["message"]].type
    assert kind is not None
    return frame.Frame(kind, vector["source"], vector["seq"], vector["time_us"], bytes.fromhex(vector["payload"]))


def wire(vector: dict[str, Any]) -> str:
    """Wire bytes of a vector under the schemas as they are, in hex."""
    return frame.build(frame_of(vector), schemas.telemetry().crc_seed).hex()


if __name__ == "__main__":
    rows = [json.dumps({**v, "wire": wire(v)}, ensure_ascii=False) for v in load()]
    PATH.write_text("\n".join(rows) + "\n", "utf-8")
