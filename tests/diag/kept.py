"""Results of long simulations, kept a job at a time: a run that was stopped goes on, and many may work at once.

A result counts only for the sources it was made with: their digest is in the name of the file.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

#: What a simulated verdict depends on.
SOURCES = (
    "quarkctl/diag/*.py", "quarkctl/sim/plant.py", "quarkctl/sim/faults.py", "quarkctl/sim/loads.py",
    "quarkctl/boards/*-virtual.toml", "quarkctl/boards/limits/*.toml", "tests/diag/virtual.py", "tests/diag/matrix.py",
    "tests/diag/truths.py", "tests/diag/coverage.py",
)  # fmt: skip

#: Of the diagnosis, what comes before the columns and after the findings.
_NO_VERDICT = ("columns", "compare", "guide", "reference", "result", "statistics")

Job = tuple[Any, ...]


def digest() -> str:
    h = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            if path.stem in _NO_VERDICT:
                continue
            h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:12]


class Kept:
    """A line of JSON a job, appended as soon as it is done."""

    def __init__(self, folder: Path, of: str = "") -> None:
        """``of``: digest of other sources than the present ones."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"diag-{of or digest()}.jsonl"
        self.results: dict[str, Any] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the line during which it was stopped
                self.results[json.dumps(entry["job"])] = entry["result"]

    def carry(
        self, digest_before: str, spoilt: Callable[[Job, Any], bool], work: Callable[[Job], Any], processes: int | None
    ) -> list[Job]:
        """Take over the results of earlier sources, if a sample of them, one of each kind and name and a twentieth of all,
        comes out the same with the present ones. Returns the jobs that do not: then nothing is taken over. What was
        ``spoilt`` is never taken over: the change may be what mends it."""
        before = Kept(self.path.parent, digest_before)
        fresh = [
            (k, r) for k, r in before.results.items() if k not in self.results and not spoilt(tuple(json.loads(k)), r)
        ]
        draw = random.Random(digest_before)
        draw.shuffle(fresh)
        sample: dict[str, Any] = {json.dumps(json.loads(k)[:2]): (k, r) for k, r in fresh}
        chosen = dict(sample.values()) | dict(fresh[: len(fresh) // 20])
        again = [tuple(json.loads(k)) for k in chosen]
        with ProcessPoolExecutor(processes) as pool:
            results = [json.loads(json.dumps(r)) for r in pool.map(work, again)]
        differ = [j for j, r in zip(again, results, strict=True) if r != chosen[json.dumps(j)]]
        if not differ:
            with self.path.open("a") as out:
                for k, r in fresh:
                    out.write(json.dumps({"job": json.loads(k), "result": r, "from": digest_before}) + "\n")
                    self.results[k] = r
        return differ

    def all(self, jobs: Sequence[Job], work: Callable[[Job], Any], processes: int | None) -> Iterator[tuple[Job, Any]]:
        """(job, result) of every job, those first that were there; the rest by so many processes."""
        missing = [j for j in jobs if json.dumps(j) not in self.results]
        for j in jobs:
            if json.dumps(j) in self.results:
                yield j, self.results[json.dumps(j)]
        if not missing:
            return
        with ProcessPoolExecutor(processes) as pool, self.path.open("a") as out:
            running = {pool.submit(work, j): j for j in missing}
            for done in as_completed(running):
                job, result = running[done], done.result()
                out.write(json.dumps({"job": job, "result": result}) + "\n")
                out.flush()
                yield job, result


def blocks(total: int, size: int) -> Iterable[tuple[int, int]]:
    """(first, count) of blocks that make up ``total``."""
    return [(first, min(size, total - first)) for first in range(0, total, size)]
