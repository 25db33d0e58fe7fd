"""Exports of telemetry, read by the libraries of those who defined the formats."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory

from quarkctl.telemetry.export import export
from quarkctl.telemetry.timeline import Timeline, open_timeline
from tests.telemetry.test_files import record, story


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    return open_timeline([record(tmp_path_factory.mktemp("story") / "a.qrec", story())])


@pytest.fixture(scope="module")
def mcap_file(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcap") / "a.mcap"
    export(timeline, "mcap", path)
    return path


def decoded(path: Path, topic: str) -> list[Any]:
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [m for _, _, _, m in reader.iter_decoded_messages(topics=[topic])]


def test_ros_2s_decoder_reads_every_field_of_the_mcap_by_its_schema(mcap_file: Path) -> None:
    power = decoded(mcap_file, "/rtos/power")
    assert [m.bus_mv for m in power] == [4000 + i % 50 for i in range(600)]
    assert [m.load_ma for m in power] == [-i for i in range(600)]
    battery = decoded(mcap_file, "/rtos/battery")
    assert list(battery[3].pack_mv) == [4030, 3900] and battery[0].pack_state_left_present == 1
    assert [m.text for m in decoded(mcap_file, "/rtos/log")] == ["40 °C, [so] <hot>"]
    assert len(decoded(mcap_file, "/rtos/bus")) == 1907
    (hello,) = decoded(mcap_file, "/rtos/hello")
    assert (hello.boot_id, hello.board, hello.serial) == (7, "s1-virtual", "VS1-1")
    with mcap_file.open("rb") as file:
        schemas = make_reader(file).get_summary().schemas.values()
    text = next(s.data.decode() for s in schemas if s.name == "quark/msg/Power")
    assert "uint8 SUPPLY_STATE_BOTH=3" in text and "uint16 bus_mv  # [mV]" in text


def test_a_cut_mcap_gives_its_messages_up_to_the_cut(mcap_file: Path) -> None:
    data = mcap_file.read_bytes()
    with mcap_file.open("rb") as file:
        chunks = make_reader(file).get_summary().chunk_indexes
    last = max(chunks, key=lambda c: c.chunk_start_offset)
    counts = []
    for size in (len(data) - 1, last.chunk_start_offset + last.chunk_length, last.chunk_start_offset + 20):
        count = 0
        try:
            for _ in NonSeekingReader(io.BytesIO(data[:size])).iter_messages(log_time_order=False):
                count += 1
        except (McapError, EOFError, struct.error):  # its ways to say that the file ends
            pass
        counts.append(count)
    assert counts[0] == counts[1] > counts[2]


def test_perfettos_own_message_classes_read_the_trace(timeline: Timeline, tmp_path: Path) -> None:
    """The trace processor itself is fetched from Google at run time, so its message classes stand for it here."""
    from google.protobuf.unknown_fields import UnknownFieldSet
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    path = tmp_path / "a.perfetto-trace"
    export(timeline, "perfetto", path)
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    assert all(not UnknownFieldSet(p) and not UnknownFieldSet(p.track_event) for p in trace.packet[:500])
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in trace.packet if p.HasField("track_descriptor")}
    bus = next(u for u, t in tracks.items() if t.name == "power.bus_mv")
    assert tracks[bus].counter.unit_name == "mV"
    assert tracks[tracks[bus].parent_uuid].process.process_name.endswith("rtos")
    values = [p.track_event.counter_value for p in trace.packet if p.track_event.track_uuid == bus]
    assert values == [4000 + i % 50 for i in range(600)]
    load = next(u for u, t in tracks.items() if t.name == "power.load_ma")
    assert min(p.track_event.counter_value for p in trace.packet if p.track_event.track_uuid == load) == -599
    instants = [p for p in trace.packet if p.track_event.type == TrackEvent.TYPE_INSTANT]
    assert {"pack_removed", "start 0 of chip 1, boot id 0x00000007"} <= {p.track_event.name for p in instants}
    times = [p.timestamp for p in trace.packet if p.track_event.track_uuid == bus]
    assert times == sorted(times) and len({p.trusted_packet_sequence_id for p in trace.packet}) == 1
