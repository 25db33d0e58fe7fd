"""The live view in windows of any size."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from quarkctl import schemas
from quarkctl.cli import show
from quarkctl.cli.telemetry import screen
from quarkctl.formats import frame
from quarkctl.formats.stream import Decoder
from tests.formats.test_vectors import VECTORS


def wire() -> bytes:
    """Every message once, and one frame missing."""
    s = schemas.telemetry()
    out, seq = b"", 0
    for vector in sorted(VECTORS, key=lambda v: v["message"] != "hello"):
        message = s.messages.get(vector["message"])
        if message is None or message.type is None:
            continue
        payload = bytes.fromhex(vector["hex"])
        if message.name == "hello":
            payload = s.pack(message, {**vector["fields"], "layout_hash": s.layout_hash})
        seq += 2 if seq == 3 else 1
        out += frame.build(frame.Frame(message.type, 1, seq, seq * 1000, payload), s.crc_seed)
    return out


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 12), (200, 50), (200, 400)], ids=str)
def test_losses_and_events_are_in_sight_in_a_window_of_any_size(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, markup=False, highlight=False)
    monkeypatch.setattr(show, "out", console, raising=False)
    decoder = Decoder(schemas.telemetry())
    view = screen.Screen(["sim:s1"], [decoder])
    for sample in decoder.feed(wire(), 10**9):
        view.take(0, sample)
    view.close()
    out.truncate(out.seek(0))
    console.print(view.picture())
    lines = Text.from_ansi(out.getvalue()).plain.splitlines()
    assert len(lines) <= height and max(map(cell_len, lines)) <= width
    assert " 1 lost, " in lines[1] and any("swap" in x or "pack" in x for x in lines[2:8])
    assert ("more in a taller window" in lines[-1]) == (height < 400)
