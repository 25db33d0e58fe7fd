"""Recording files: never overwritten, readable up to any cut, decoded with their own schema."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from quarkctl import schemas
from quarkctl.errors import HostUnfit, InputWrong, LayoutMismatch
from quarkctl.formats import frame, schema
from quarkctl.formats.recording import MAGIC, Chunk
from quarkctl.telemetry import recorder
from quarkctl.telemetry.recorder import FileSink, Recorder, Rotation
from quarkctl.telemetry.store import Recording, load, open_all, pieces_of
from tests import bundles


def wire(s: schema.Schema, count: int, boot_id: int = 1) -> bytes:
    hello = s.pack(s.messages["hello"], {"layout_hash": s.layout_hash, "boot_id": boot_id, "board": "s1-virtual"})
    out = frame.build(frame.Frame(0x01, 0, 0, 0, hello), s.crc_seed)
    for i in range(1, count):
        payload = s.pack(s.messages["takeover"], {"sample_us": i})
        out += frame.build(frame.Frame(0x16, 0, i, 1000 * i, payload), s.crc_seed)
    return out


def record(path: Path, s: schema.Schema, data: bytes) -> None:
    to = Recorder(path, s, ["sim:x"])
    for at in range(0, len(data), 37):
        to.write(Chunk(10**9 + at, data[at : at + 37]))
    to.close()


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


def renamed() -> dict[str, str]:
    texts = dict(schemas.telemetry().sources)
    texts["thermal"] = texts["thermal"].replace("throttle_changes", "throttle_count")
    return texts


def test_an_unknown_layout_is_named_and_found_in_a_folder_of_releases(tmp_path: Path) -> None:
    other = schema.parse(renamed())
    path = tmp_path / "mixed.qrec"
    record(path, schemas.telemetry(), wire(schemas.telemetry(), 5) + wire(other, 7, boot_id=2))
    with pytest.raises(LayoutMismatch, match=f"no schema for message layout {other.layout_hash:#06x}") as error:
        load(path)
    assert "--schemas DIR" in error.value.hint and f"{schemas.telemetry().layout_hash:#06x}" in error.value.message
    for name, texts in (("1.0", {**renamed(), "stream": "set = "}), ("1.1", renamed())):
        release = tmp_path / "releases" / name / "schemas"
        release.mkdir(parents=True)
        for stem, text in texts.items():
            (release / f"{stem}.toml").write_text(text, "utf-8")
    loaded = load(path, [tmp_path / "releases"])
    assert (loaded.counts.received, loaded.counts.boots, loaded.counts.corrupt) == (12, 2, 0)
    with pytest.raises(InputWrong, match="there is no folder"):
        load(path, [tmp_path / "nowhere"])


def test_an_unknown_layout_is_found_in_a_folder_of_release_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = schema.parse(renamed())
    path = tmp_path / "a.qrec"
    record(path, schemas.telemetry(), wire(other, 7))
    bundles.make(tmp_path / "old", name="today.qfw")
    assert schemas.load_bundle(tmp_path / "old/today.qfw").layout_hash == schemas.telemetry().layout_hash
    with monkeypatch.context() as then:
        then.setattr(schemas, "members", lambda: [(f"schemas/{k}.toml", v.encode()) for k, v in renamed().items()])
        bundles.make(tmp_path / "old/1.1", name="then.qfw")
    for place in (tmp_path / "old", tmp_path / "old/1.1/then.qfw"):
        assert load(path, [place]).counts.received == 7
    whole = (tmp_path / "old/1.1/then.qfw").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.qfw").write_bytes(whole[:size])
        with pytest.raises(LayoutMismatch, match=r"not usable: .*cut\.qfw"):
            load(path, [tmp_path / "cut.qfw"])


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.qrec"
    path.write_bytes(b"precious")
    with pytest.raises(InputWrong, match="exists already"):
        Recorder(path, schemas.telemetry(), ["x"])
    assert path.read_bytes() == b"precious"
    with pytest.raises(HostUnfit, match="cannot write"):
        Recorder(tmp_path / "no" / "folder.qrec", schemas.telemetry(), ["x"])


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


class StuckSink(FileSink):
    """A disk that takes nothing until it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stuck, self.free = threading.Event(), threading.Event()

    def write(self, data: bytes) -> None:
        self.stuck.set()
        if not data.startswith(MAGIC):
            self.free.wait()
        super().write(data)


def test_no_byte_is_lost_while_the_disk_stalls_for_two_seconds_at_three_megabaud(tmp_path: Path) -> None:
    """Two seconds of a full line at 3 Mbaud (8N1) arrive while no write returns; reading never waits."""
    sinks: list[StuckSink] = []

    def create(path: Path) -> StuckSink:
        sinks.append(StuckSink(path))
        return sinks[-1]

    data = wire(schemas.telemetry(), 20_000)
    assert len(data) >= 2 * 3_000_000 // 10
    to = Recorder(tmp_path / "a.qrec", schemas.telemetry(), ["x"], create=create)
    for at in range(0, len(data), 4096):
        to.write(Chunk(10**9 + at, data[at : at + 4096]))
    assert sinks[0].stuck.is_set()  # the writer hangs in its first block, and all was taken over
    sinks[0].free.set()
    to.close()
    loaded = load(tmp_path / "a.qrec")
    assert (loaded.counts.received, loaded.counts.lost, loaded.wire_bytes) == (20_000, 0, len(data))


def test_a_disk_that_never_comes_back_costs_bounded_memory_and_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WAITING_MAX", 10_000)
    sinks: list[StuckSink] = []
    to = Recorder(
        tmp_path / "a.qrec", schemas.telemetry(), ["x"], create=lambda p: sinks.append(StuckSink(p)) or sinks[-1]
    )
    data = wire(schemas.telemetry(), 1000)
    for at in range(0, len(data), 1000):
        to.write(Chunk(10**9 + at, data[at : at + 1000]))
    assert to.wire_bytes <= 11_000 and to.wire_bytes + to.dropped_bytes == len(data)
    sinks[0].free.set()
    to.note({"note": "after"})
    to.close()
    r = Recording(tmp_path / "a.qrec")
    assert sum(1 for _ in r.pieces())
    assert {"note": "dropped", "bytes": to.dropped_bytes} in [dict(n) for n in r.reader.notes]


def test_a_full_disk_is_told_and_what_was_written_is_good(tmp_path: Path) -> None:
    class Full(FileSink):
        written = 0

        def write(self, data: bytes) -> None:
            self.written += len(data)
            if self.written > 40_000:
                super().write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            super().write(data)

    to = Recorder(tmp_path / "a.qrec", schemas.telemetry(), ["x"], create=Full)
    data = wire(schemas.telemetry(), 2000)
    with pytest.raises(HostUnfit, match="No space left on device"):
        for at in range(0, len(data), 1000):
            to.write(Chunk(10**9 + at, data[at : at + 1000]))
        to.close()
    assert load(tmp_path / "a.qrec").ending in ("cut", "open")


def test_a_disk_that_is_full_before_the_first_byte_is_told_likewise(tmp_path: Path) -> None:
    class Full(FileSink):
        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(HostUnfit, match="No space left on device"):
        Recorder(tmp_path / "a.qrec", schemas.telemetry(), ["x"], create=Full)


def test_parts_stand_for_themselves_and_join_without_a_gap(tmp_path: Path) -> None:
    data = wire(schemas.telemetry(), 3000)
    to = Recorder(tmp_path / "soak.qrec", schemas.telemetry(), ["x"], Rotation(part_bytes=60_000))
    for at in range(0, len(data), 1000):
        to.write(Chunk(10**9 + at, data[at : at + 1000]))
        while to._queue:  # block by block, so that parts end where they are due
            os.sched_yield()
    to.close()
    assert len(to.parts) > 1 and to.parts[0].name == "soak-0001.qrec"
    alone = [load(p) for p in to.parts]
    assert all(r.ending == "complete" and r.counts.corrupt == 0 for r in alone)
    (session,) = open_all(list(reversed(to.parts)))
    assert sum(piece.batch.count for piece in pieces_of(session)) == 3000
    assert session[-1].counts.lost == 0


def test_only_the_newest_parts_are_kept(tmp_path: Path) -> None:
    data = wire(schemas.telemetry(), 3000)
    to = Recorder(tmp_path / "soak.qrec", schemas.telemetry(), ["x"], Rotation(part_bytes=20_000, keep=2))
    for at in range(0, len(data), 1000):
        to.write(Chunk(10**9 + at, data[at : at + 1000]))
        while to._queue:
            os.sched_yield()
    to.close()
    assert len(to.parts) > 3 and sorted(tmp_path.iterdir()) == to.parts[-2:]
