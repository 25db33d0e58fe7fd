"""Telemetry: bulk decoding beside construct on one stream, damage, live reads, memory, exports, the page in Chromium."""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import construct
import numpy as np
import pyarrow
from cobs import cobs

from quarkctl import schemas
from quarkctl.formats import frame, plan
from quarkctl.formats.recording import CHUNK_BYTES, Chunk
from quarkctl.formats.stream import Decoder
from quarkctl.telemetry.export import export
from quarkctl.telemetry.plot import Drawing, Group, Series, page
from quarkctl.telemetry.recorder import Recorder
from quarkctl.telemetry.store import PIECE_BYTES
from quarkctl.telemetry.timeline import open_timeline
from tests import scratch
from tests.bench import stream
from tests.bench.figure import FOLDER, Figure, in_turn, ratios, save

#: A busy moment of the machine spoils a round, not the median of this many.
ROUNDS = 25
#: Frames that the slow ways are measured on; the fast one takes them all.
FEW = 10_000
PLOT_POINTS = 10_000_000
S = schemas.telemetry()


def cpu(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def definition(*, compiled: bool) -> Any:
    """A whole frame in construct, as the schemas define it: header, payload by type, CRC."""

    def one(name: str) -> Any:
        return S.parsers[name].compile() if compiled else S.parsers[name]

    payload = construct.Switch(construct.this.head.type, {m.type: one(m.name) for m in S.by_type.values()})
    whole = construct.Struct("head" / S.parsers["frame_header"], "payload" / payload, "crc" / construct.Int32ul)
    return whole.compile() if compiled else whole


def by_construct(wire: bytes, parser: Any) -> int:
    count = 0
    for run in wire.split(b"\0"):
        if not run:
            continue
        raw = frame.unwrap(run, S.crc_seed)
        if raw:
            parser.parse(raw)
            count += 1
    return count


def by_struct(wire: bytes) -> int:
    """struct, cobs and zlib in a loop: what one writes by hand when it must be fast. Rows are tuples."""
    letters = {"u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f4": "f"}

    def letter(part: plan.Part) -> str:
        kind = part.type.lstrip("<>|")
        count = int(np.prod(part.shape, dtype=int))
        return f"{count}{letters[kind]}" if kind in letters else f"{kind[1:]}s"

    unpack = {
        m.type: struct.Struct("<BBHQ" + "".join(map(letter, plan.parts(S.parsers[m.name])))).unpack_from
        for m in S.by_type.values()
    }
    rows = []
    add, decode, crc32, seed, residue = rows.append, cobs.decode, zlib.crc32, S.crc_seed, 0x2144DF1C
    for run in wire.split(b"\0"):
        if run:
            raw = decode(run)
            kind = raw[0]
            if crc32(raw, 0 if kind == 1 else seed) == residue:
                add(unpack[kind](raw))
    return len(rows)


def by_columns(wire: bytes, step: int = PIECE_BYTES) -> int:
    decoder, count = Decoder(S), 0
    for at in range(0, len(wire), step):
        piece = wire[at : at + step]
        for table in decoder.batch(piece, [len(piece)], [1]).tables:
            count += table.rows.size
            _ = table.columns
    return count


def run() -> None:
    clean, dirty = stream.wire(), stream.damaged(0.001)
    end = 0
    for _ in range(FEW):
        end = clean.index(b"\0", clean.index(b"\0", end) + 1) + 1
    few = clean[:end]
    plain, fast = definition(compiled=False), definition(compiled=True)
    assert by_construct(few, plain) == by_struct(few) == by_columns(few) == FEW
    share = stream.FRAMES / FEW
    slow, quick, loop, ours, hurt, live = in_turn(
        ROUNDS,
        lambda: cpu(lambda: by_construct(few, plain)) * share,
        lambda: cpu(lambda: by_construct(few, fast)) * share,
        lambda: cpu(lambda: by_struct(clean)),
        lambda: cpu(lambda: by_columns(clean)),
        lambda: cpu(lambda: by_columns(dirty)),
        lambda: cpu(lambda: by_columns(clean, 60 * 1024)),
    )

    def rate(times: list[float]) -> float:
        return stream.FRAMES / statistics.median(times) / 1e6

    by_slow, slow_words = ratios(slow, ours)
    by_quick, quick_words = ratios(quick, ours)
    by_loop, loop_words = ratios(loop, ours)
    by_hurt, hurt_words = ratios(ours, hurt)
    with scratch.folder("qkb-") as folder:
        recording, once = _recordings(Path(folder), clean)
        memory = _memory(recording, Path(folder))
        exported, exported_words = _export(once, Path(folder), 1)
        long, long_words = _export(recording, Path(folder), 10)
        opened, zoomed = _chromium(Path(folder))
    save(
        "telemetry",
        [
            Figure("construct / ours", by_slow, "x", 150, ">=",
                   f"ours {rate(ours):.2f} M frames/s, {len(clean) * rate(ours) / stream.FRAMES:.0f} MB/s; "
                   f"construct {1e3 * rate(slow):.1f} k/s; {slow_words}"),
            Figure("compiled construct / ours", by_quick, "x", 50, ">=",
                   f"compiled {1e3 * rate(quick):.1f} k/s; {quick_words}"),
            Figure("struct, cobs and zlib in a loop / ours", by_loop, "x", 4, ">=",
                   f"loop {rate(loop):.2f} M/s; {loop_words}"),
            Figure("clean / 0.1 % of frames damaged", by_hurt, "x", 0.7, ">=",
                   f"damaged {rate(hurt):.2f} M/s; {hurt_words}"),
            Figure("live, 60 KiB a read", rate(live), "M/s", 1, ">=",
                   "one core, account and columns included"),
            Figure("peak memory of an export to Parquet", memory, "chunks", 3, "<=",
                   f"reading, decoding and writing; a chunk is {CHUNK_BYTES >> 20} MiB, the file has 76"),
            Figure("export to Parquet", exported, "M/s", 2, ">=", f"file to files, 0.2 M records; {exported_words}"),
            Figure("and of a long recording", long, "M/s", 2, ">=", f"2 M records, 84 MB; {long_words}"),
            Figure("HTML page of 10 million points opens", opened, "s", 2, "<=", "Debian's Chromium, headless"),
            Figure("and zooms from hours to a millisecond", zoomed, "s", 2, "<=", "14 turns of the wheel, drawn"),
        ],
    )  # fmt: skip


def _recordings(folder: Path, wire: bytes) -> tuple[Path, Path]:
    """The stream ten times over, as a recording of 80 MB, and once."""
    for name, times in (("ten.qrec", 10), ("one.qrec", 1)):
        to = Recorder(folder / name, S, ["bench"])
        for k in range(times):
            for at in range(0, len(wire), 16384):
                to.write(Chunk(10**18 + (k * len(wire) + at) * 10, wire[at : at + 16384]))
        to.close()
    return folder / "ten.qrec", folder / "one.qrec"


def _memory(path: Path, folder: Path) -> float:
    """Of Python, numpy and Arrow together, in the worse of the two passes."""
    pool = pyarrow.default_memory_pool()
    export(open_timeline([path]), "parquet", folder / "first")  # what is imported does not count
    tracemalloc.start()
    timeline = open_timeline([path])
    first = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    export(timeline, "parquet", folder / "second")
    peak = max(first, tracemalloc.get_traced_memory()[1] + pool.max_memory())
    tracemalloc.stop()
    return peak / CHUNK_BYTES


def _export(path: Path, folder: Path, times: int) -> tuple[float, str]:
    """(millions of records a second, file to files; in words: of processor time, and of how many rounds)."""
    wall, used = [], []
    for k in range(ROUNDS // 3 + 1):
        began, spent = time.perf_counter(), time.process_time()
        export(open_timeline([path], (), folder), "parquet", folder / f"parquet-{times}-{k}")
        wall.append(time.perf_counter() - began)
        used.append(time.process_time() - spent)
        shutil.rmtree(folder / f"parquet-{times}-{k}")
    count = times * stream.FRAMES / 1e6
    low, high, rate = count / max(wall), count / min(wall), count / statistics.median(used)
    words = f"{len(wall)} rounds from {low:.2f} to {high:.2f}; {rate:.2f} M a second of processor time"
    return count / statistics.median(wall), words


def _chromium(folder: Path) -> tuple[float, float]:
    """Seconds until the page is drawn, and for a zoom into a millisecond; screenshots stay in build/bench."""
    from playwright.sync_api import sync_playwright

    r = np.random.default_rng(1)
    values = (4000 + 50 * np.sin(np.arange(PLOT_POINTS) / 1e5) + r.normal(0, 2, PLOT_POINTS)).astype(np.uint16)
    values[PLOT_POINTS // 2 : PLOT_POINTS // 2 + 40] = 3300
    group = Group("rtos bus", [np.arange(PLOT_POINTS, dtype=np.int64) * 1_000_000 + 1_790_000_000 * 10**9])
    group.series["bus.bus_sample_mv"] = Series("bus.bus_sample_mv", None, [values])
    path = folder / "plot.html"
    path.write_text(page(Drawing("bench", [group], [], [])), "utf-8")
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 720})
        tab.goto("about:blank")
        began = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready-ms]", state="attached", timeout=60_000)
        opened = time.perf_counter() - began
        tab.screenshot(path=FOLDER / "plot-open.png")
        box = tab.locator("#plot").bounding_box()
        assert box
        tab.mouse.move(box["x"] + 64 + (box["width"] - 72) / 2, box["y"] + 60)
        began = time.perf_counter()
        for _ in range(14):
            tab.mouse.wheel(0, -600)
        while float(tab.locator("html").get_attribute("data-span-ms") or 1e9) > 5:
            tab.mouse.wheel(0, -100)
        zoomed = time.perf_counter() - began
        tab.screenshot(path=FOLDER / "plot-zoomed.png")
        browser.close()
    return opened, zoomed
