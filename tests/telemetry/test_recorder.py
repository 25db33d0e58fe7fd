"""Recording files: never overwritten, readable up to any cut, decoded with their own schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarkctl import schemas
from quarkctl.errors import HostUnfit, InputWrong, LayoutMismatch
from quarkctl.formats import frame, schema
from quarkctl.formats.recording import Chunk
from quarkctl.telemetry.recorder import Recorder, load


def wire(s: schema.Schema, count: int) -> bytes:
    hello = s.pack(s.messages["hello"], {"layout_hash": s.layout_hash, "boot_id": 1, "board": "s1-virtual"})
    out = frame.build(frame.Frame(0x01, 0, 0, 0, hello), s.crc_seed)
    for i in range(1, count):
        payload = s.pack(s.messages["takeover"], {"sample_us": i})
        out += frame.build(frame.Frame(0x16, 0, i, 1000 * i, payload), s.crc_seed)
    return out


def record(path: Path, s: schema.Schema, data: bytes) -> None:
    recorder = Recorder(path, s, "sim:x")
    for at in range(0, len(data), 37):
        recorder.write(Chunk(10**9 + at, data[at : at + 37]))
    recorder.close()


def test_what_is_recorded_comes_back_with_times_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.qrec"
    data = wire(schemas.telemetry(), 40)
    record(path, schemas.telemetry(), data)
    r = load(path)
    assert (r.counts.received, r.counts.lost, r.ending, r.device, r.wire_bytes) == (
        40,
        0,
        "complete",
        "sim:x",
        len(data),
    )
    assert [s.host_ns for s in r.samples] == sorted(s.host_ns for s in r.samples)


def test_a_recording_of_another_layout_is_read_with_its_own_schema(tmp_path: Path) -> None:
    texts = dict(schemas.telemetry().sources)
    texts["stream"] = texts["stream"].replace('name = "uptime_ms",        type', 'name = "alive_ms", type')
    other = schema.parse(texts)
    assert other.layout_hash != schemas.telemetry().layout_hash
    path = tmp_path / "old.qrec"
    record(path, other, wire(other, 10))
    assert load(path).counts.received == 10


def test_wire_bytes_of_another_layout_than_the_recording_says_are_an_error(tmp_path: Path) -> None:
    texts = dict(schemas.telemetry().sources)
    texts["thermal"] = texts["thermal"].replace("throttle_changes", "throttle_count")
    path = tmp_path / "mixed.qrec"
    record(path, schemas.telemetry(), wire(schema.parse(texts), 5))
    with pytest.raises(LayoutMismatch):
        load(path)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.qrec"
    path.write_bytes(b"precious")
    with pytest.raises(InputWrong, match="exists already"):
        Recorder(path, schemas.telemetry(), "x")
    assert path.read_bytes() == b"precious"
    with pytest.raises(HostUnfit, match="cannot write"):
        Recorder(tmp_path / "no" / "folder.qrec", schemas.telemetry(), "x")


def test_a_file_cut_at_any_byte_opens_up_to_there(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.qrec", tmp_path / "cut.qrec"
    record(path, schemas.telemetry(), wire(schemas.telemetry(), 12))
    data = path.read_bytes()
    received = []
    for size in range(0, len(data), 11):
        cut.write_bytes(data[:size])
        try:
            received.append(load(cut).counts.received)
        except InputWrong as error:
            assert "not a recording" in error.message or "cut off in its metadata" in error.message
            assert not received
    assert received == sorted(received) and received[-1] >= 11
