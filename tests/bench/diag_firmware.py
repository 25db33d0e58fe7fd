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
from pathlib import Path
from tempfile import TemporaryDirectory

from quarkctl.build import rtos
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import control
from quarkctl.sim.faults import FAULTS, NO_HYSTERESIS
from tests.bench.figure import FOLDER, Figure, program
from tests.conftest import ROOT
from tests.diag import matrix

#: Fault and size; "" is a healthy unit.
UNITS = (
    ("", 0.0), ("drifting_gauge", 10.0), ("wrong_capacity", 35.0), ("cross_charging", 50.0), ("detached_spreader", 60.0),
    ("missing_throttle", 1.0), ("throttle_without_hysteresis", 0.0), ("lagging_thermistor", 90.0),
    ("offset_thermistor", 60.0), ("swapped_thermistors", 1.0),
)  # fmt: skip
#: (load, seconds): a rest, a pulse for the resistance, heat until it throttles, and a rest again.
DAY = (("sleep", 200), ("camera", 2), ("idle", 2), ("camera", 900), ("sleep", 400))


def run_day(folder: Path, units: tuple[tuple[str, float], ...]) -> dict[str, tuple[set[str], dict[str, str]]]:
    """Fault -> codes that fail, and verdicts of all."""
    os.environ["QUARKCTL_STATE_DIR"] = str(folder)
    built = rtos.build(rtos.Request("s1-virtual", Version.parse("1.0.0"), out=ROOT / "build" / "s1-virtual"))
    assert built.boot_elf
    names = [f"u{k}" for k in range(len(units))]
    recorders = []
    try:
        for name, (fault, size) in zip(names, units, strict=True):
            control.start(
                name, "s1-virtual", control.Firmware(built.boot_elf, built.image), load="sleep", seed=len(recorders) + 1
            )
            control.request(name, command="ambient", ambient_c=25.0, soaked=True)
            if fault:
                control.request(name, command="fault", fault=fault, on=True, size=size)
            if fault == NO_HYSTERESIS.name:
                control.request(name, command="power", action="cycle")
        for name in names:
            command = [
                str(program("quarkctl")),
                "telemetry",
                "record",
                str(folder / f"{name}.qrec"),
                "-d",
                f"sim:{name}",
            ]
            recorders.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
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
        for name in names:
            control.stop(name)
    out = {}
    for name, (fault, _) in zip(names, units, strict=True):
        command = [str(program("quarkctl")), "diag", "all", "-r", str(folder / f"{name}.qrec"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(done.stdout)["findings"]
        verdicts = {f"{f['code']} {f['subject']}".strip(): f["verdict"] for f in found}
        out[fault] = {f["code"] for f in found if f["verdict"] == "FAIL"}, verdicts
    return out


def figures() -> list[Figure]:
    with TemporaryDirectory(prefix="qkb-", dir="/tmp") as folder:
        told = run_day(Path(folder), UNITS)
    right = 0
    lines = ["| fault | size | found by | fails besides |", "|---|---|---|---|"]
    for fault, size in UNITS:
        bad, _ = told[fault]
        story = next((s for s in matrix.STORIES if s.fault == fault), None)
        codes = set(story.codes) if story else set()
        beside = bad - codes - set(story.beside if story else ())
        good = (bool(bad & codes) or not fault) and not beside
        right += good
        unit = FAULTS[fault].unit if fault else ""
        lines.append(
            f"| {fault or 'none'} | {f'{size:g} {unit}'.strip() if fault else ''} | {', '.join(sorted(bad & codes)) or '-'} "
            f"| {', '.join(sorted(bad - codes)) or '-'} |"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "diag-firmware.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    beside = f"{len(UNITS)} virtual glasses, {sum(s for _, s in DAY) / 60:.0f} minutes in real time"
    return [
        Figure("faults of a day named rightly in the real firmware", 100 * right / len(UNITS), "%", 100.0, ">=", beside)
    ]


def run() -> None:
    print(figures())


__all__ = ["figures", "run"]
