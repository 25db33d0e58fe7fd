"""Diagnostics: the fault matrix, honest intervals, and what a verdict costs.

``QUARKCTL_SEEDS`` (50) runs a cell of the matrix, ``QUARKCTL_HEALTHY`` (3,000) healthy units, ``QUARKCTL_TRUTHS`` (200)
units around a limit, ``QUARKCTL_INTERVALS`` (1,000) runs a study of intervals: smaller for a quick look, and the figures say
how many it were. What the simulations found is kept in build/bench, so a run that was stopped goes on where it was;
``QUARKCTL_CARRY=DIGEST`` takes over what other sources made, if a sample of it comes out the same (decision 32).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from quarkctl import schemas
from quarkctl.build import rtos
from quarkctl.diag import checks, foster
from quarkctl.formats import frame
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import control
from quarkctl.sim.faults import FAULTS
from tests.bench import diag_firmware
from tests.bench.figure import FOLDER, Figure, program, save
from tests.conftest import ROOT
from tests.diag import coverage, kept, matrix, truths
from tests.diag.virtual import profile

SEEDS = int(os.environ.get("QUARKCTL_SEEDS", "50"))
HEALTHY = int(os.environ.get("QUARKCTL_HEALTHY", "3000"))
TRUTHS = int(os.environ.get("QUARKCTL_TRUTHS", "200"))
INTERVALS = int(os.environ.get("QUARKCTL_INTERVALS", "1000"))
SAMPLES = int(os.environ.get("QUARKCTL_SAMPLES", "20000000"))
MATRIX = FOLDER / "diag-matrix.md"
_HOUR_S = 3600


def _work(job: kept.Job) -> Any:
    """One job of the simulations; the result is JSON."""
    kind, name, first, count = job
    seeds = range(first, first + count)
    if kind == "cell":
        story = next(s for s in matrix.STORIES if s.fault == name[0])
        return asdict(matrix.cell(story, name[1], seeds))
    if kind == "healthy":
        return matrix.false_alarms(range(10_000 + first, 10_000 + first + count))
    if kind == "study":
        covered, width = coverage.share(coverage.STUDIES[name](s) for s in seeds)
        return covered * count, width * count
    return asdict(truths.sweep(truths.SWEEPS[name], seeds))


def _spoilt(job: kept.Job, result: Any) -> bool:
    """Whether a goal is missed in it."""
    if job[0] == "cell":
        return bool(result["named"] < result["runs"])
    if job[0] == "healthy":
        return bool(result[0])
    return job[0] == "sweep" and bool(result["wrong"])


def jobs() -> list[kept.Job]:
    """By rounds of ten seeds through everything, so that what is there at any time is about everything."""
    out: list[tuple[float, kept.Job]] = []

    def plan(kind: str, name: Any, total: int, size: int) -> None:
        out.extend((first / total, (kind, name, first, count)) for first, count in kept.blocks(total, size))

    for story in matrix.STORIES:
        for size in dict.fromkeys(story.sizes):
            plan("cell", [story.fault, size], SEEDS * story.sizes.count(size), 10)
    plan("healthy", "", HEALTHY, 20)
    for study in coverage.STUDIES:
        plan("study", study, INTERVALS, 100)
    for k in range(len(truths.SWEEPS)):
        plan("sweep", k, TRUTHS, 10)
    return [job for _, job in sorted(out, key=lambda pair: pair[0])]


@dataclass
class Simulated:
    """Sums of what the jobs said."""

    cells: dict[tuple[str, float], matrix.Cell] = field(default_factory=dict)
    alarms: int = 0
    alarms_by: dict[str, int] = field(default_factory=dict)
    healthy: int = 0
    studies: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    sweeps: dict[int, truths.Outcome] = field(default_factory=dict)

    def add(self, job: kept.Job, result: Any) -> None:
        kind, name, _, count = job
        if kind == "cell":
            cell = self.cells.setdefault((name[0], name[1]), matrix.Cell())
            cell.runs, cell.found, cell.named = (
                getattr(cell, k) + result[k] for k in ("runs", "found", "named")
            )  # fmt: skip
            _sum(cell.wrong, result["wrong"])
        elif kind == "healthy":
            self.alarms, self.healthy = self.alarms + result[0], self.healthy + count
            _sum(self.alarms_by, result[1])
        elif kind == "study":
            before = self.studies.get(name, (0.0, 0.0, 0))
            self.studies[name] = (before[0] + result[0], before[1] + result[1], before[2] + count)
        else:
            out = self.sweeps.setdefault(name, truths.Outcome())
            out.runs, out.covered = out.runs + result["runs"], out.covered + result["covered"]
            out.wrong += [tuple(w) for w in result["wrong"]]
            for mine, new in zip(out.verdicts, result["verdicts"], strict=True):
                _sum(mine, new)


def _sum(into: dict[str, int], more: dict[str, int]) -> None:
    for key, n in more.items():
        into[key] = into.get(key, 0) + n


def simulated(*, only_kept: bool = False) -> Simulated:
    out, plan, began = Simulated(), jobs(), time.monotonic()
    store = kept.Kept(FOLDER)
    if only_kept:
        plan = [j for j in plan if json.dumps(j) in store.results]
    if before := os.environ.get("QUARKCTL_CARRY"):
        differ = store.carry(before, _spoilt, _work, os.cpu_count())
        told = f"nothing, {len(differ)} jobs come out otherwise: {differ[:9]}" if differ else len(store.results)
        print(f"carried from {before}: {told}", file=sys.stderr)
    there = sum(json.dumps(j) in store.results for j in plan)
    for number, (job, result) in enumerate(store.all(plan, _work, os.cpu_count()), 1):
        out.add(job, result)
        if number % 20 == 0 and number > there:
            left = (time.monotonic() - began) / (number - there) * (len(plan) - number)
            print(f"{number} of {len(plan)} jobs, {left / 60:.0f} min left", file=sys.stderr, flush=True)
    return out


def matrix_page(s: Simulated) -> str:
    """What docs/diagnostics.md shows."""
    least, drawn = min(cell.runs for cell in s.cells.values()), min(o.runs for o in s.sweeps.values())
    lines = [
        f"{least} runs a cell or more, on units that never repeat; found: the code that names the fault fails; named: and",
        f"nothing fails besides that the fault does not truly break. Sources {kept.digest()}.", "",
        "| fault | unit | code | sizes | found | named rightly |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for story in matrix.STORIES:
        sizes = list(dict.fromkeys(story.sizes))
        row = [s.cells[story.fault, size] for size in sizes]
        fault = FAULTS[story.fault]
        columns = (
            story.fault, fault.unit or "-", ", ".join(story.codes), ", ".join(f"{x:g}" for x in sizes),
            ", ".join(f"{c.found}/{c.runs}" for c in row), ", ".join(f"{c.named}/{c.runs}" for c in row),
        )  # fmt: skip
        lines.append(f"| {' | '.join(columns)} |")
    which = f" ({', '.join(f'{c} {n}' for c, n in s.alarms_by.items())})" if s.alarms_by else ""
    lines += [
        "",
        f"Healthy units, each in a swap run, a day run and on the charger: {s.alarms} of {s.healthy} called faulty{which}.",
        "", "### Truths near the limit", "",
        f"{drawn} units a limit or more, whose true value is drawn around it; where it lies",
        "is told in guard bands w. Told: PASS, other verdicts. In the last column no PASS may stand.", "",
        f"| code | limit | {' | '.join(truths.WORDS)} |", "|---|---|" + "---|" * len(truths.WORDS),
    ]  # fmt: skip
    limits = profile("s1-virtual")[1].limits
    for k, sweep in enumerate(truths.SWEEPS):
        limit = limits[checks.CHECKS[sweep.code].measure]
        bound = sweep.at if sweep.at is not None else getattr(limit, sweep.tested)
        told = []
        for verdicts in s.sweeps[k].verdicts:
            passed = verdicts.get("PASS", 0)
            told.append(f"{passed}, {sum(verdicts.values()) - passed}")
        sign = "<=" if sweep.tested == "usl" else ">="
        unit = "" if limit.unit == "1" else f" {limit.unit}"
        lines.append(f"| {sweep.code} | {sign} {bound:g}{unit} | {' | '.join(told)} |")
    lines += ["", "Without such a truth: " + "; ".join(f"{c} ({why})" for c, why in truths.WITHOUT.items()) + "."]
    lines += [
        "",
        "### Intervals that hold the truth",
        "",
        "| estimate | held | runs | mean half width |",
        "|---|---|---|---|",
    ]
    for name, (covered, width, n) in s.studies.items():
        lines.append(f"| {name} | {100 * covered / n:.1f} % | {n} | {width / n:.3g} |")
    return "\n".join(lines) + "\n"


def simulations(*, only_kept: bool = False) -> list[Figure]:
    """``only_kept``: of what there is, without working out the rest."""
    s = simulated(only_kept=only_kept)
    FOLDER.mkdir(parents=True, exist_ok=True)
    MATRIX.write_text(matrix_page(s))
    print(MATRIX.read_text())
    for (fault, size), cell in s.cells.items():
        if cell.named < cell.runs:
            print(f"{fault} {size:g}: {cell}")
    for k, out in s.sweeps.items():
        if out.wrong:
            print(f"{truths.SWEEPS[k].code}: PASS beyond the guard band: {out.wrong}")
    found = min(c.found / c.runs for c in s.cells.values())
    named = min(c.named / c.runs for c in s.cells.values())
    beside = f"{len(matrix.STORIES)} faults, {sum(c.runs for c in s.cells.values())} runs"
    beyond = sum(sum(o.verdicts[-1].values()) for o in s.sweeps.values())
    figures = [
        Figure("least share of a fault's runs that found it", 100 * found, "%", 99.0, ">=", beside),
        Figure("least share of a fault's runs that named it rightly", 100 * named, "%", 99.0, ">=", beside),
        Figure(
            "false alarms of healthy units", 100 * s.alarms / s.healthy, "%", 0.1, "<=",
            f"{s.healthy} units, 3 records each",
        ),
        Figure(
            "PASS with the truth beyond limit and guard band", sum(len(o.wrong) for o in s.sweeps.values()), "", 0, "<=",
            f"{beyond} such of {sum(o.runs for o in s.sweeps.values())} units around {len(truths.SWEEPS)} limits",
        ),
    ]  # fmt: skip
    for name, (covered, width, n) in s.studies.items():
        beside = f"{n} runs, mean half width {width / n:.3g}"
        figures.append(Figure(f"interval holds the truth: {name}", 100 * covered / n, "%", 93.0, ">=", beside))
        figures.append(Figure(f"interval is not too wide: {name}", 100 * covered / n, "%", 97.0, "<=", beside))
    return figures


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


def live() -> Figure:
    """From a pack that is pulled or put in until its verdict is printed, the worst of ten."""
    took = []
    with TemporaryDirectory() as state:
        os.environ["QUARKCTL_STATE_DIR"] = state
        built = rtos.build(rtos.Request("s1-virtual", Version.parse("1.0.0"), out=ROOT / "build" / "s1-virtual"))
        assert built.boot_elf
        control.start("bench", "s1-virtual", control.Firmware(built.boot_elf, built.image), load="camera")
        try:
            command = [
                str(program("quarkctl")),
                "diag",
                "battery",
                "swap",
                "-d",
                "sim:bench",
                "--seconds",
                "60",
                "--events",
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as told:
                assert told.stdout
                lines = (json.loads(line)["text"] or "" for line in told.stdout)
                next(text for text in lines if text.endswith(" frames") and int(text.split()[0]) > 50)
                for turn in range(10):
                    action, code = (("eject", "PWR-001"), ("insert", "PWR-012"))[turn % 2]
                    began = time.monotonic()
                    control.request("bench", command="battery", action=action, side="left", soc_pct=None)
                    next(text for text in lines if text.startswith(code))
                    took.append(time.monotonic() - began)
                told.terminate()
        finally:
            control.stop("bench")
    beside = f"ten swaps, median {float(np.median(took)):.2f} s, from the pull to the printed line"
    return Figure("live verdict after the end of an event", max(took), "s", 1.0, "<=", beside)


def run() -> None:
    """``QUARKCTL_PART=measures``, ``firmware`` or ``simulations``: only those; the others are taken from the last run.
    ``page``: the table of the simulations that there are, whole or not."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    part = os.environ.get("QUARKCTL_PART", "")
    before = FOLDER / "diag.json"
    old = [Figure(**f) for f in json.loads(before.read_text())] if part and before.exists() else []
    figures: list[Figure] = []
    if part in ("", "measures"):
        figures += [fit(), live(), *recording()]
    if part in ("", "firmware"):
        figures += diag_firmware.figures()
    if part in ("", "simulations", "page"):
        figures += simulations(only_kept=part == "page")
    names = {f.name for f in figures}
    save("diag", [*figures, *(f for f in old if f.name not in names)])


def load_matrix() -> str:
    """The tables of the last run; empty before the first."""
    if not MATRIX.exists():
        return ""
    table = diag_firmware.TABLE
    pairs = f"{len(diag_firmware.UNITS)} pairs are planned, 25 minutes each; recorded and judged so far:\n"
    day = f"\n### A day in the real firmware\n\n{pairs}\n{table.read_text()}" if table.exists() else ""
    return MATRIX.read_text() + day


__all__ = ["load_matrix", "run"]
