"""Recordings in other tools: what is written is read back by somebody else, value by value."""

from __future__ import annotations

import csv
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import frame
from quarkctl.formats.clock import Fitter
from quarkctl.formats.recording import Chunk
from quarkctl.telemetry import kept
from quarkctl.telemetry.arrow import _texts
from quarkctl.telemetry.export import export
from quarkctl.telemetry.plot import collect, page
from quarkctl.telemetry.query import query
from quarkctl.telemetry.recorder import Recorder
from quarkctl.telemetry.timeline import Timeline, open_timeline
from tests.conftest import Quarkctl

S = schemas.telemetry()
BEGAN_NS = 1_790_000_000_000_000_000


class Device:
    """Writes the stream of one chip: a hello, then what the story says; 40 ppm fast, delivered 1 to 5 ms late."""

    def __init__(self, chip: int = 1, boot_id: int = 7, up_us: int = 0, since_ns: int = BEGAN_NS) -> None:
        self.source, self.seq, self.time_us, self.since_ns = chip | (boot_id & 15) << 4, 0, up_us, since_ns
        self.chunks: list[Chunk] = []
        self.random = random.Random(boot_id)
        self.say("hello", layout_hash=S.layout_hash, boot_id=boot_id, board="s1-virtual", serial="VS1-1")

    def say(self, name: str, after_us: int = 20_000, skip: int = 0, line: int = 0, **values: Any) -> Device:
        self.time_us += after_us
        self.seq += skip
        m = S.messages[name]
        assert m.type
        wire = frame.build(frame.Frame(m.type, self.source, self.seq, self.time_us, S.pack(m, values)), S.crc_seed)
        self.seq += 1
        true_ns = self.since_ns + self.time_us * 1000 - self.time_us * 40 // 1000
        host_ns = true_ns + 1_000_000 + self.random.randrange(4_000_000)
        self.chunks.append(Chunk(max(host_ns, self.chunks[-1].host_ns + 1 if self.chunks else 0), wire, line))
        return self


def record(path: Path, *devices: Device) -> Path:
    to = Recorder(path, S, [f"sim:{i}" for i in range(len(devices))])
    chunks = [Chunk(c.host_ns, c.data, i) for i, d in enumerate(devices) for c in d.chunks]
    for chunk in sorted(chunks, key=lambda c: c.host_ns):
        to.write(chunk)
    to.close()
    return path


def story() -> Device:
    d = Device()
    for i in range(600):
        d.say("power", bus_mv=4000 + i % 50, load_ma=-i, supply_state=3)
        if i % 10 == 0:
            d.say("battery", after_us=100, pack_mv=[4000 + i, 3900], pack_state=0b101)
        if i == 300:
            d.say("pack_removed", pack=1, sample_us=2**40)
            d.say("thermal", skip=5, zone_decic=[-1, 2, 3, 4, 5])
    for k in range(20):
        samples = [4000 + k] * (100 if k < 19 else 7)
        d.say("bus", after_us=100_000, first_index=100 * k, first_us=5_000_000 + 100_000 * k, period_ns=1_000_000,
              count=len(samples), bus_sample_mv=samples)  # fmt: skip
    return d.say("log", text="40 °C, [so] <hot>")


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    return open_timeline([record(tmp_path_factory.mktemp("story") / "a.qrec", story())])


def test_parquet_is_read_by_pyarrow_and_duckdb(timeline: Timeline, tmp_path: Path) -> None:
    export(timeline, "parquet", tmp_path / "out")
    table = pa.parquet.read_table(tmp_path / "out" / "power.parquet")
    assert table["bus_mv"].to_pylist() == [4000 + i % 50 for i in range(600)]
    assert table.schema.field("bus_mv").metadata[b"unit"] == b"mV"
    assert json.loads(table.schema.field("supply_state").metadata[b"enum"])["both"] == 3
    battery = pa.parquet.read_table(tmp_path / "out" / "battery.parquet")
    assert battery["pack_mv"][3].as_py() == [4030, 3900]
    assert battery["pack_state.left_authentic"].to_pylist() == [1] * 60
    bus = duckdb.sql(f"select count(*), max(sample_index) from '{tmp_path}/out/bus.parquet'").fetchall()
    assert bus == [(1907, 1906)]
    log = pa.parquet.read_table(tmp_path / "out" / "log.parquet")
    assert log["text"].to_pylist() == ["40 °C, [so] <hot>"]


@given(st.lists(st.binary(max_size=9) | st.text("aé€x", max_size=3).map(str.encode), max_size=20))
def test_texts_of_a_column_are_what_single_texts_are(texts: list[bytes]) -> None:
    ends, joined = _texts(np.array([t[:9] for t in texts], "S9"))
    got = [joined[a:b].decode() for a, b in itertools.pairwise(ends.tolist())]
    assert got == [t[:9].split(b"\0", 1)[0].decode("utf-8", "replace") for t in texts]


def content(timeline: Timeline) -> list[Any]:
    return [
        (r.source, r.name, r.time_ns.tolist(), {k: (v.dtype, v.tolist()) for k, v in r.columns.items()})
        for r in timeline.rows()
    ]


@pytest.mark.parametrize("room", ["memory", "file", "none", "full"])
def test_what_was_kept_between_the_passes_is_what_the_recording_says(
    room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path / "a.qrec", story(), story())
    want = content(open_timeline([path]))
    if room != "memory":
        monkeypatch.setattr(kept, "_MEMORY_BYTES", 1000)
    monkeypatch.setattr(kept, "_ROOM", 2**40 if room == "none" else 0)
    if room == "full":
        monkeypatch.setattr(kept.Kept, "_spill", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    timeline = open_timeline([path], (), tmp_path)
    assert timeline.kept.whole == (room in ("memory", "file")) and bool(timeline.kept._places) == (room == "file")
    for _ in range(2):
        assert content(timeline) == want
    assert [p.name for p in tmp_path.iterdir()] == ["a.qrec"]


def test_csv_and_arrow_hold_the_same(timeline: Timeline, tmp_path: Path) -> None:
    for target in ("csv", "arrow"):
        export(timeline, target, tmp_path / target)
    with (tmp_path / "csv" / "battery.csv").open() as file:
        rows = list(csv.DictReader(file))
    with pa.ipc.open_file(tmp_path / "arrow" / "battery.arrow") as file:
        table = file.read_all()
    assert [int(r["pack_mv_0"]) for r in rows] == [v[0] for v in table["pack_mv"].to_pylist()]
    assert rows[0]["time"].startswith("2026-09-21")


def test_an_output_that_exists_is_never_touched_and_a_failed_one_leaves_nothing(
    timeline: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(InputWrong, match="exists already"):
        export(timeline, "mcap", tmp_path / "out")
    monkeypatch.setattr(
        "quarkctl.telemetry.arrow.TableFiles.close", lambda self: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(Exception, match="full"):
        export(timeline, "parquet", tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_sql_sees_messages_enum_names_and_losses(timeline: Timeline) -> None:
    answer = query(timeline, "select count(*), min(load_ma), any_value(supply_state_name) from power")
    assert answer.rows == [(600, -599, "both")]
    assert query(timeline, "select kind, count from notices order by time").rows == [("start", 1), ("lost", 5)]
    assert query(timeline, "select pack_name from pack_removed").rows == [("right",)]
    with pytest.raises(UsageWrong, match="DuckDB") as error:
        query(timeline, "select * from nothing")
    assert "power" in error.value.hint


def test_times_are_the_hosts_with_drift_and_uncertainty(timeline: Timeline) -> None:
    (clock,) = timeline.clocks.values()
    assert abs(clock.drift_ppm + 40) < 5 * clock.drift_uncertainty_ppm + 1
    rows = next(r for r in timeline.rows() if r.name == "power")
    true_ns = BEGAN_NS + rows.time_us * 1000 - rows.time_us * 40 // 1000
    assert np.abs(rows.time_ns - true_ns - 1_000_000).max() < 1_000_000


@given(drift=st.integers(-200, 200), delay_ms=st.integers(0, 30), seed=st.integers(0, 1000))
def test_a_clock_is_the_lower_edge_of_all_delays(drift: int, delay_ms: int, seed: int) -> None:
    r = np.random.default_rng(seed)
    t = np.arange(0, 120_000_000, 50_000, dtype=np.int64)
    late = r.exponential(delay_ms * 1e6, t.size).astype(np.int64)
    fitter = Fitter()
    for part in np.array_split(np.arange(t.size), 7):
        fitter.add(t[part], BEGAN_NS + t[part] * 1000 + t[part] * drift // 1000 + late[part])
    clock = fitter.clock()
    assert clock and abs(clock.drift_ppm - drift) <= max(5 * clock.drift_uncertainty_ppm, 0.5)
    assert len(fitter._best) <= 2048


def test_blocks_lie_on_the_time_line_by_their_own_clock(timeline: Timeline) -> None:
    rows = [r for r in timeline.rows() if r.name == "bus"]
    time_us = np.concatenate([r.time_us for r in rows])
    assert time_us.size == 1907 and set(np.diff(time_us).tolist()) == {1000}


def test_both_chips_stand_on_one_time_line(tmp_path: Path) -> None:
    rtos, ar1 = Device(), Device(chip=2, boot_id=3, up_us=50_000_000, since_ns=BEGAN_NS - 50_000_000_000)
    for _ in range(500):
        rtos.say("takeover")
        ar1.say("thermal")
    one = open_timeline([record(tmp_path / "both.qrec", rtos, ar1)])
    two = open_timeline([record(tmp_path / "rtos.qrec", rtos), record(tmp_path / "ar1.qrec", ar1)])
    for timeline in (one, two):
        assert len(timeline.sources) == 2
        spans = {r.name: (int(r.time_ns.min()), int(r.chip[0])) for r in timeline.rows() if r.name != "hello"}
        assert {k: v[1] for k, v in spans.items()} == {"takeover": 1, "thermal": 2}
        assert abs(spans["takeover"][0] - spans["thermal"][0]) < 5_000_000


def test_the_page_is_one_file_whose_texts_are_harmless(timeline: Timeline, tmp_path: Path) -> None:
    evil = Device().say("log", text="</script><script>alert(1)").say("power").say("power")
    path = record(tmp_path / "evil.qrec", evil)
    text = page(collect(open_timeline([path])))
    assert "alert(1)" not in text
    text = page(collect(timeline))
    assert "http" not in text.replace("http-equiv", "") and text.count("</script>") == text.count("<script")
    with pytest.raises(UsageWrong, match=r"nothing fits --field power\.nonsense"):
        collect(timeline, ["power.nonsense"])
    assert {s for g in collect(timeline, ["power.bus_*"]).groups for s in g.series} == {
        "power.bus_mv", "power.bus_mv_min", "power.bus_mv_max",
    }  # fmt: skip


def test_every_command_says_what_it_made(quarkctl: Quarkctl) -> None:
    record(quarkctl.folder / "a.qrec", story())
    info = quarkctl("telemetry", "info", "a.qrec", "--json").json
    (stream,) = info["streams"]
    assert stream["counts"]["lost"] == 5 and stream["losses"][0]["kind"] == "lost"
    assert {m["message"]: m["count"] for m in stream["messages"]}["bus"] == 1907
    assert "lost" in quarkctl("telemetry", "info", "a.qrec").out
    for suffix, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!doctype html>")):
        assert quarkctl("telemetry", "plot", "a.qrec", "-o", f"a.{suffix}", "-f", "power").code == 0
        assert (quarkctl.folder / f"a.{suffix}").read_bytes().startswith(magic)
    assert quarkctl("telemetry", "plot", "a.qrec", "-o", "a.gif").code == 2
    assert quarkctl("telemetry", "query", "select 1 as one", "a.qrec", "--json").json["rows"] == [{"one": 1}]
    assert quarkctl("telemetry", "query", "selec", "a.qrec").code == 2
    assert quarkctl("telemetry", "export", "a.qrec", "--to", "csv", "--json").json["out"] == "a-csv"
    assert quarkctl("telemetry", "export", "a.qrec", "--to", "csv").code == 6
    assert quarkctl("telemetry", "export", "a.qrec", "--to", "nonsense").code == 2
    for verb in (("info",), ("plot",), ("export", "--to", "mcap"), ("query", "from power"), ("decode",), ("replay",)):
        done = quarkctl("telemetry", *verb, "nowhere.qrec")
        assert done.code == 6 and "cannot read nowhere.qrec" in done.err, verb


def test_odd_requests_are_answered_with_what_is_wrong(quarkctl: Quarkctl) -> None:
    record(quarkctl.folder / "a.qrec", story())
    for words, code, text in (
        (("plot", "a.qrec", "--from", "nan"), 2, "nan is no number"),
        (("replay", "a.qrec", "--speed", "nan"), 2, "nan is no number"),
        (("query", " ", "a.qrec"), 2, "there is no question"),
        (("info", "a.qrec", "a.qrec"), 6, "a.qrec and a.qrec are the same recording"),
        (("decode", "a.qrec", "--schemas", "nowhere"), 2, "nowhere"),
    ):
        done = quarkctl("telemetry", *words)
        assert done.code == code and text in done.err, done.err
    with Path("/dev/full").open("w") as full:
        done_full = subprocess.run(
            [sys.executable, "-m", "quarkctl.cli.main", "telemetry", "info", quarkctl.folder / "a.qrec"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done_full.returncode == 3 and "No space left" in done_full.stderr and "Traceback" not in done_full.stderr


def test_schemas_are_linted_with_file_line_and_reason(quarkctl: Quarkctl) -> None:
    rows = quarkctl("telemetry", "lint", "--json").json["messages"]
    assert {r["way"] for r in rows} == {"fast"}
    folder = quarkctl.folder / "release"
    folder.mkdir()
    for name, text in S.sources.items():
        (folder / f"{name}.toml").write_text(text, "utf-8")
    more = 'set = "x"\n[[message]]\ntype = 0x70\nname = "wide"\nfields = [{ name = "a", type = "u8", count = 300 }]\n'
    (folder / "x.toml").write_text(more)
    done = quarkctl("telemetry", "lint", folder)
    assert done.code == 6 and "more than 253" in done.out
    (folder / "x.toml").write_text(more.replace('"u8"', '"u9"'))
    done = quarkctl("telemetry", "lint", folder)
    assert done.code == 6 and "x.toml line 5: wide.a: type 'u9' is none of" in done.err
    assert quarkctl("telemetry", "lint", quarkctl.folder).code == 6


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from quarkctl.errors import HostUnfit
    from quarkctl.telemetry.arrow import needed

    with pytest.raises(HostUnfit, match="needs the Python package nonsense") as error:
        needed("nonsense.inside")
    assert error.value.hint == "pip install 'quarkctl[telemetry]'" and error.value.exit_code == 3


def test_a_recording_plays_as_a_device(quarkctl: Quarkctl) -> None:
    record(quarkctl.folder / "a.qrec", story())
    player = quarkctl.start("telemetry", "replay", "a.qrec", "--speed", "0", "--link", "port")
    assert player.stdout
    port = player.stdout.readline().strip()
    assert (quarkctl.folder / "port").readlink() == Path(port)
    shown = quarkctl("telemetry", "show", "-d", port, "--seconds", "1.5", "--json")
    assert shown.code == 0, shown.err
    assert shown.json["counts"]["lost"] == 5 and shown.json["newest"]["log"]["text"] == "40 °C, [so] <hot>"
    player.communicate(timeout=30)
    assert player.returncode == 0 and not (quarkctl.folder / "port").exists()


def test_a_replayed_swap_is_judged_like_the_device(quarkctl: Quarkctl) -> None:
    record(quarkctl.folder / "a.qrec", story())
    player = quarkctl.start("telemetry", "replay", "a.qrec", "--speed", "0")
    assert player.stdout
    port = player.stdout.readline().strip()
    done = quarkctl("diag", "battery", "-d", port, "--seconds", "1.5", "--json")
    player.communicate(timeout=30)
    assert done.code == 7
    assert {f["code"] for f in done.json["findings"]} >= {"PWR-001", "PWR-005"}


HOSTILE = """
set = "stream"
[[record]]
name = "frame_header"
fields = [{ name = "type", type = "u8" }]
[[message]]
type = 0x01
name = "notices"
fields = [{ name = "layout_hash", type = "u16" }, { name = "boot_id", type = "char", count = 4 }]
[[event]]
type = 0x02
name = "select"
fields = [{ name = "big", type = "u64" }, { name = "order", type = "i64", count = 3 }, { name = "f", type = "f32" }]
[[block]]
type = 0x03
name = "blocks"
samples = 200
fields = [{ name = "x", type = "i8" }]
"""


def test_a_recording_made_to_harm_does_none(quarkctl: Quarkctl) -> None:
    """A schema of the file's own, times and counts from anywhere, control characters in names: no traceback anywhere."""
    from quarkctl.formats import schema

    r = random.Random(2)
    s = schema.parse({"stream": HOSTILE})
    to = Recorder(quarkctl.folder / "evil.qrec", s, ["\033[2Jx"])
    for i in range(300):
        m = r.choice(list(s.by_type.values()))
        payload = r.randbytes(m.size_bytes)
        if m.name == "notices":
            payload = s.layout_hash.to_bytes(2, "little") + payload[2:]
        time_us = r.choice([0, i, 2**63, 2**64 - 1, r.randrange(2**64)])
        wire = frame.build(frame.Frame(m.type or 0, r.randrange(256), r.randrange(65536), time_us, payload), s.crc_seed)
        to.write(Chunk(r.choice([0, i, BEGAN_NS + i, 2**64 - 1]), wire, r.randrange(3)))
    to.close()
    path = quarkctl.folder / "evil.qrec"
    for verb in (("info",), ("decode",)):
        done = quarkctl("telemetry", *verb, path)
        assert done.code in (0, 5) and "\033" not in done.out + done.err, verb
    timeline = open_timeline([path])
    assert "\033" not in page(collect(timeline))
    for target in ("mcap", "perfetto", "csv", "parquet"):
        export(timeline, target, quarkctl.folder / target)
    assert query(timeline, 'select count(*) from "select"').rows[0][0] > 0
    assert "boot_id" in query(timeline, "from notices").columns  # a message that is called like our own table
