"""A figure with its goal, and where figures are kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Figure:
    """``op`` is ``<=`` or ``>=``: value op goal is what was promised. ``peer`` is what the value was measured beside."""

    name: str
    value: float
    unit: str
    goal: float
    op: str
    peer: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.op == "<=" else self.value >= self.goal


def machine() -> str:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return f"{os.cpu_count()} x {cpu}, {memory:.0f} GiB, {platform.system()} {platform.release()}, Python {python}"


def save(area: str, figures: Sequence[Figure]) -> None:
    """Print a table and write build/bench/<area>.json: a list of figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{area}.json").write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")
    (FOLDER / "machine.txt").write_text(machine() + "\n")
    width = max(len(f.name) for f in figures)
    print(f"{area}: {machine()}")
    for f in figures:
        mark = "ok" if f.met else "MISSED"
        print(f"  {f.name:<{width}}  {f.value:10.3f} {f.unit:<6} goal {f.op} {f.goal:g}  {mark}  {f.peer}")


def seconds(command: Sequence[str | Path], rounds: int = 7, env: dict[str, str] | None = None) -> float:
    """Median wall time of a whole process, after one round that warms the caches."""
    times = []
    for k in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(
            [str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        if k:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def in_turn(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """All values of several measures taken in turn, so that a drift of the machine meets all of them."""
    taken: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for values, measure in zip(taken, measures, strict=True):
            values.append(measure())
    return taken


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Medians of several measures taken in turn."""
    return [statistics.median(v) for v in in_turn(rounds, *measures)]


def ratios(one: Sequence[float], other: Sequence[float]) -> tuple[float, str]:
    """(median of the rounds' ratios, the quartiles and the worst and best round in words)."""
    found = sorted(a / b for a, b in zip(one, other, strict=True))
    low, _, high = statistics.quantiles(found, n=4)
    words = f"quartiles {low:.3g} and {high:.3g}, {len(found)} rounds from {found[0]:.3g} to {found[-1]:.3g}"
    return statistics.median(found), words


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def program(name: str) -> Path:
    return Path(sys.executable).parent / name


__all__ = ["Figure", "cpu_s", "in_turn", "interleaved", "machine", "program", "ratios", "save", "seconds"]
