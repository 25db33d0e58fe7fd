"""Faults that need a day, in the real firmware: virtual glasses side by side, in real time, each with one fault.

``python -m tests.bench diag_firmware``; part of `make bench-diag`. Faults that show within seconds are in
tests/diag/test_virtual_glasses.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from quarkctl.build import rtos
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import control
from quarkctl.sim.faults import FAULTS, NO_HYSTERESIS
from tests.bench.figure import FOLDER, Figure, program
from tests.conftest import ROOT
from tests.diag import matrix

TABLE = FOLDER / "diag-firmware.md"
Fault = tuple[str, float]

#: Faults of each pair of glasses, with their sizes: such as do not touch each other. The first pair is healthy.
UNITS: tuple[tuple[Fault, ...], ...] = (
    (),
    (("drifting_gauge", 10.0), ("throttle_without_hysteresis", 0.0)),
    (("wrong_capacity", 35.0), ("detached_spreader", 60.0)),
    (("cross_charging", 50.0), ("missing_throttle", 1.0)),
    (("lagging_thermistor", 90.0),),
    (("offset_thermistor", 60.0),),
    (("swapped_thermistors", 1.0),),
)
#: (load, seconds): a rest, a pulse for the resistance, heat until it throttles, and a rest again.
DAY = (("sleep", 200), ("camera", 2), ("idle", 2), ("camera", 900), ("sleep", 400))


def run_day(folder: Path, units: Sequence[Sequence[Fault]]) -> list[set[str]]:
    """Codes that fail, of each pair."""
    os.environ["QUARKCTL_STATE_DIR"] = str(folder)
    built = rtos.build(rtos.Request("s1-virtual", Version.parse("1.0.0"), out=ROOT / "build" / "s1-virtual"))
    assert built.boot_elf
    firmware = control.Firmware(built.boot_elf, built.image)
    names = [f"u{k}" for k in range(len(units))]
    recorders: list[subprocess.Popen[bytes]] = []
    started = []
    try:
        for number, (name, faults) in enumerate(zip(names, units, strict=True), 1):
            control.start(name, "s1-virtual", firmware, load="sleep", seed=number)
            started.append(name)
            control.request(name, command="ambient", ambient_c=25.0, soaked=True)
            for fault, size in faults:
                control.request(name, command="fault", fault=fault, on=True, size=size)
            if NO_HYSTERESIS.name in dict(faults):
                control.request(name, command="power", action="cycle")
        for name in names:
            out = folder / f"{name}.qrec"
            command = [str(program("quarkctl")), "telemetry", "record", str(out), "-d", f"sim:{name}"]
            quiet = subprocess.DEVNULL
            recorders.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
        due = time.monotonic()
        for load, seconds in DAY:
            for name in names:
                control.request(name, command="load", load=load)
            print(f"{load} for {seconds} s", file=sys.stderr, flush=True)
            due += seconds
            time.sleep(max(due - time.monotonic(), 0))
        for r in recorders:
            r.send_signal(signal.SIGTERM)
        for r in recorders:
            r.wait(60)
    finally:
        for r in recorders:
            r.kill()
        for name in started:
            control.stop(name)
    return [_failing(folder / f"{name}.qrec") for name in names]


def _failing(recording: Path) -> set[str]:
    command = [str(program("quarkctl")), "diag", "all", "-r", str(recording), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {f["code"] for f in json.loads(done.stdout)["findings"] if f["verdict"] == "FAIL"}


def figures(units: Sequence[Sequence[Fault]] = UNITS) -> list[Figure]:
    with TemporaryDirectory(prefix="qkb-", dir="/tmp") as folder:
        told = run_day(Path(folder), units)
    stories = {s.fault: s for s in matrix.STORIES}
    right = 0
    lines = ["| faults | found by | fails besides |", "|---|---|---|"]
    for faults, bad in zip(units, told, strict=True):
        mine = [stories[name] for name, _ in faults]
        codes, beside = {c for s in mine for c in s.codes}, {c for s in mine for c in s.beside}
        right += all(bad & set(s.codes) for s in mine) and not bad - codes - beside
        what = ", ".join(f"{name} {size:g} {FAULTS[name].unit}".rstrip() for name, size in faults) or "none"
        lines.append(f"| {what} | {', '.join(sorted(bad & codes)) or '-'} | {', '.join(sorted(bad - codes)) or '-'} |")
    FOLDER.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())
    beside_it = f"{len(units)} virtual glasses, {sum(s for _, s in DAY) / 60:.0f} minutes in real time"
    return [
        Figure(
            "faults of a day named rightly in the real firmware", 100 * right / len(units), "%", 100.0, ">=", beside_it
        )
    ]


def run() -> None:
    """``QUARKCTL_UNITS``: only so many pairs, for a busy machine."""
    print(figures(UNITS[1 : 1 + int(os.environ.get("QUARKCTL_UNITS", "99"))]))


__all__ = ["TABLE", "figures", "run"]
