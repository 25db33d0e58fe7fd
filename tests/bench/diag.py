"""Diagnostics: the fault matrix, honest intervals, and what a verdict costs.

``QUARKCTL_SEEDS`` (50) runs a cell of the matrix, ``QUARKCTL_HEALTHY`` (3,000) healthy units, ``QUARKCTL_INTERVALS`` (1,000)
runs a study of intervals: smaller for a quick look, and the figures say how many it were.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from quarkctl import schemas
from quarkctl.diag import foster
from quarkctl.formats import frame
from quarkctl.sim.faults import FAULTS
from tests.bench.figure import FOLDER, Figure, save
from tests.diag import coverage, matrix

SEEDS = int(os.environ.get("QUARKCTL_SEEDS", "50"))
HEALTHY = int(os.environ.get("QUARKCTL_HEALTHY", "3000"))
INTERVALS = int(os.environ.get("QUARKCTL_INTERVALS", "1000"))
SAMPLES = int(os.environ.get("QUARKCTL_SAMPLES", "20000000"))
MATRIX = FOLDER / "diag-matrix.md"
_HOUR_S = 3600


def _cell(job: tuple[int, int]) -> tuple[int, int, matrix.Cell]:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    story, size = matrix.STORIES[job[0]], job[1]
    return (*job, matrix.cell(story, story.sizes[size], range(SEEDS)))


def _healthy(seeds: range) -> tuple[int, dict[str, int]]:
    return matrix.false_alarms(seeds)


def _study(name: str) -> tuple[str, float, float]:
    return (name, *coverage.share(coverage.STUDIES[name](s) for s in range(INTERVALS)))


def faults(pool: ProcessPoolExecutor) -> list[Figure]:
    jobs = [(k, size) for k in range(len(matrix.STORIES)) for size in range(3)]
    cells = {(k, size): c for k, size, c in pool.map(_cell, jobs)}
    blocks = [range(10_000 + i, 10_000 + min(i + 50, HEALTHY)) for i in range(0, HEALTHY, 50)]
    alarms = list(pool.map(_healthy, blocks))
    false = sum(a for a, _ in alarms)
    lines = [
        f"{SEEDS} runs a cell on units that never repeat; found: the code that names the fault fails; named: and nothing",
        "fails besides that the fault does not truly break.", "",
        "| fault | unit | code | sizes | found | named rightly |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    worst_found = worst_named = 1.0
    for k, story in enumerate(matrix.STORIES):
        row = [cells[k, size] for size in range(3)]
        worst_found = min(worst_found, *(c.found / c.runs for c in row))
        worst_named = min(worst_named, *(c.named / c.runs for c in row))
        fault = FAULTS[story.fault]
        columns = (
            story.fault, fault.unit or "-", ", ".join(story.codes), ", ".join(f"{s:g}" for s in story.sizes),
            ", ".join(f"{c.found}/{c.runs}" for c in row), ", ".join(f"{c.named}/{c.runs}" for c in row),
        )  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    by = {code: n for _, found in alarms for code, n in found.items()}
    which = f" ({', '.join(f'{c} {n}' for c, n in by.items())})" if by else ""
    lines += [
        "",
        f"Healthy units, each in a swap run, a day run and on the charger: {false} of {HEALTHY} called faulty{which}.",
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    MATRIX.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    beside = f"{len(matrix.STORIES)} faults x 3 sizes x {SEEDS} runs"
    return [
        Figure("least share of a fault's runs that found it", 100 * worst_found, "%", 99.0, ">=", beside),
        Figure("least share of a fault's runs that named it rightly", 100 * worst_named, "%", 99.0, ">=", beside),
        Figure(
            "false alarms of healthy units", 100 * false / HEALTHY, "%", 0.1, "<=", f"{HEALTHY} units, 3 records each"
        ),
    ]


def intervals(pool: ProcessPoolExecutor) -> list[Figure]:
    out = []
    for name, covered, width in pool.map(_study, coverage.STUDIES):
        beside = f"{INTERVALS} runs, mean half width {width:.3g}"
        out.append(Figure(f"interval holds the truth: {name}", 100 * covered, "%", 93.0, ">=", beside))
        out.append(Figure(f"interval is not too wide: {name}", 100 * covered, "%", 97.0, "<=", beside))
    return out


def fit() -> Figure:
    t = np.arange(1.0, 3600.0)
    watts = np.where((t // 300) % 2 == 0, 1.2, 0.3)
    rise = foster.responses(watts, 1.0, np.array([25.0, 420.0])) @ np.array([6.0, 14.0])
    temp = np.round((25 + rise + np.random.default_rng(1).normal(0, 0.1, len(t))) * 10) / 10
    took = []
    for _ in range(9):
        began = time.process_time()
        foster.choose(foster.bins(t, temp, t, watts), golden_tau_s=420)
        took.append(time.process_time() - began)
    return Figure(
        "second-order thermal fit of one hour", 1000 * float(np.median(took)), "ms", 100.0, "<=", "processor time"
    )


def hour(path: Path) -> int:
    """A recording of an hour: messages of a day, and blocks of motion until there are enough samples. Returns samples."""
    from quarkctl.formats.recording import Chunk
    from quarkctl.telemetry.recorder import Recorder

    schema = schemas.telemetry()
    messages = schema.messages
    r = np.random.default_rng(1)
    block = messages["imu"]
    per_block = block.samples
    blocks_s = max(SAMPLES // _HOUR_S // per_block, 1)
    count, seq = 0, 0
    recorder = Recorder(path, schema, "bench")
    axes = {name: r.integers(-900, 900, (per_block, 3)).tolist() for name in ("accel_mg", "gyro_ddps")}
    values = {**axes, "first_index": 0, "first_us": 0, "period_ns": 1000, "count": per_block}
    packed = schema.pack(block, values)
    others = {
        "power": schema.pack(messages["power"], {"bus_mv": 4000, "bus_mv_min": 3990, "load_ma": 480}),
        "battery": schema.pack(messages["battery"], {"pack_mv": [4000, 4000], "pack_ma": [240, 240], "pack_state": 63}),
        "thermal": schema.pack(messages["thermal"], {"zone_decic": [300, 280, 270, 270, 290]}),
    }
    hello = schema.pack(
        messages["hello"], {"layout_hash": schema.layout_hash, "boot_id": 1, "board": "s1-virtual", "serial": "B1"}
    )
    for second in range(_HOUR_S):
        wire = bytearray()
        plan = [("hello", hello)] + [("imu", packed)] * blocks_s
        for k in range(10):
            plan += [("power", others["power"]), ("battery", others["battery"])] + (
                [("thermal", others["thermal"])] if k % 5 == 0 else []
            )
        for k, (name, payload) in enumerate(plan):
            seq = (seq + 1) & 0xFFFF
            at = second * 1_000_000 + k * 1_000_000 // len(plan)
            wire += frame.build(frame.Frame(messages[name].type or 0, 0x11, seq, at, payload), schema.crc_seed)
            count += per_block if name == "imu" else 1
        recorder.write(Chunk(second * 1_000_000_000 + 1, bytes(wire)))
    recorder.close()
    return count


_DECODE = """
import sys, time
from pathlib import Path
from quarkctl.telemetry.store import Recording
began = time.process_time()
for piece in Recording(Path(sys.argv[1])).pieces(hashed=True):
    for t in piece.batch.tables:
        t.columns
print(time.process_time() - began)
"""
_JUDGE = """
import sys, time, resource
from quarkctl.cli import main
began = time.process_time()
sys.stdout = open("/dev/null", "w")
main.run(["diag", "all", "-r", sys.argv[1], "--json"])
sys.stderr.write(f"{time.process_time() - began} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def recording() -> list[Figure]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hour.qrec"
        samples = hour(path)
        decode, judged, peak = [], [], 0.0
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", _DECODE, path], capture_output=True, text=True, check=True)
            decode.append(float(done.stdout))
            done = subprocess.run([sys.executable, "-c", _JUDGE, path], capture_output=True, text=True, check=True)
            words = done.stderr.split()
            judged.append(float(words[-2]))
            peak = max(peak, float(words[-1]) / 1024)
    a, b = float(np.median(decode)), float(np.median(judged))
    beside = f"{samples / 1e6:.1f} million samples of an hour, decode {a:.1f} s"
    return [
        Figure("diag all / decode of the same recording", b / a, "x", 3.0, "<=", beside),
        Figure("peak memory of diag all", peak, "MiB", 500.0, "<=", beside),
    ]


def run() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    figures = [fit(), *recording()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        figures += [*intervals(pool), *faults(pool)]
    save("diag", figures)


def load_matrix() -> str:
    """The table of the last run, or that of the reference page."""
    return MATRIX.read_text() if MATRIX.exists() else ""


__all__ = ["load_matrix", "run"]
