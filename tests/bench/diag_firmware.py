"""Faults that need a day, in the real firmware: virtual glasses in real time, two pairs at once, each with its faults.

``python -m tests.bench diag_firmware``; part of `make bench-diag`. A day of each pair is recorded once, kept in build/bench
under a digest of the firmware and of what plays its world; it is judged anew each time. So a run that was stopped goes on,
and a change of a check costs seconds. Faults that show within seconds are in tests/diag/test_virtual_glasses.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from quarkctl.build import rtos
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import control
from quarkctl.sim.faults import FAULTS, NO_HYSTERESIS
from tests import scratch
from tests.bench.figure import FOLDER, Figure, program
from tests.conftest import ROOT
from tests.diag import matrix

TABLE = FOLDER / "diag-firmware.md"
Fault = tuple[str, float]

#: Faults of each pair of glasses, with their sizes: such as do not touch each other. One pair is healthy.
UNITS: tuple[tuple[Fault, ...], ...] = (
    (("drifting_gauge", 10.0), ("throttle_without_hysteresis", 0.0)),
    (("wrong_capacity", 35.0), ("detached_spreader", 60.0)),
    (("cross_charging", 50.0), ("missing_throttle", 1.0)),
    (),
    (("lagging_thermistor", 90.0),),
    (("offset_thermistor", 60.0),),
    (("swapped_thermistors", 1.0),),
)
#: (load, seconds): a rest, a pulse for the resistance, heat until it throttles, and a rest again.
DAY = (("sleep", 200), ("camera", 2), ("idle", 2), ("camera", 900), ("sleep", 400))


#: More would wait for each other's processors.
_AT_ONCE = 2
#: What a recorded day depends on.
_WORLD = (
    "firmware/rtos/**/*.[ch]", "protocols/*.toml", *(f"quarkctl/sim/{name}.py" for name in ("plant", "faults", "loads")),
)  # fmt: skip


def folder() -> Path:
    h = hashlib.sha256(repr(DAY).encode())
    for pattern in _WORLD:
        for path in sorted(ROOT.glob(pattern)):
            h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return FOLDER / f"days-{h.hexdigest()[:12]}"


def _name(faults: Sequence[Fault]) -> str:
    return "+".join(f"{name}-{size:g}" for name, size in faults) or "healthy"


def record(units: Sequence[Sequence[Fault]], into: Path) -> None:
    """A day of each pair, side by side. A recording has its name only when it is whole."""
    with scratch.folder("qkb-") as state:
        os.environ["QUARKCTL_STATE_DIR"] = state
        built = rtos.build(rtos.Request("s1-virtual", Version.parse("1.0.0"), out=ROOT / "build" / "s1-virtual"))
        assert built.boot_elf
        firmware = control.Firmware(built.boot_elf, built.image)
        parts = {f"u{k}": into / f"{_name(faults)}.part" for k, faults in enumerate(units)}
        recorders: list[subprocess.Popen[bytes]] = []
        started = []
        try:
            for number, (name, faults) in enumerate(zip(parts, units, strict=True), 1):
                control.start(name, "s1-virtual", firmware, load="sleep", seed=number)
                started.append(name)
                control.request(name, command="ambient", ambient_c=25.0, soaked=True)
                for fault, size in faults:
                    control.request(name, command="fault", fault=fault, on=True, size=size)
                if NO_HYSTERESIS.name in dict(faults):
                    control.request(name, command="power", action="cycle")
            for name, part in parts.items():
                part.unlink(missing_ok=True)
                command = [str(program("quarkctl")), "telemetry", "record", str(part), "-d", f"sim:{name}"]
                quiet = subprocess.DEVNULL
                recorders.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
            due = time.monotonic()
            for load, seconds in DAY:
                for name in parts:
                    control.request(name, command="load", load=load)
                print(f"{load} for {seconds} s", file=sys.stderr, flush=True)
                due += seconds
                time.sleep(max(due - time.monotonic(), 0))
            for r in recorders:
                r.send_signal(signal.SIGTERM)
            for r, part in zip(recorders, parts.values(), strict=True):
                if r.wait(60) == 0:
                    part.rename(part.with_suffix(".qrec"))
        finally:
            for r in recorders:
                r.kill()
            for name in started:
                control.stop(name)


def run_days(units: Sequence[Sequence[Fault]]) -> dict[str, set[str]]:
    """Codes that fail, of each pair whose day there is. ``QUARKCTL_UNITS``: record only so many, for a busy machine."""
    into = folder()
    into.mkdir(parents=True, exist_ok=True)
    missing = [faults for faults in units if not (into / f"{_name(faults)}.qrec").exists()]
    missing = missing[: int(os.environ.get("QUARKCTL_UNITS", "99"))]
    for k in range(0, len(missing), _AT_ONCE):
        record(missing[k : k + _AT_ONCE], into)
    days = {_name(faults): into / f"{_name(faults)}.qrec" for faults in units}
    return {name: _verdicts(path) for name, path in days.items() if path.exists()}


def _verdicts(recording: Path) -> set[str]:
    command = [str(program("quarkctl")), "diag", "all", "-r", str(recording), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {f["code"] for f in json.loads(done.stdout)["findings"] if f["verdict"] == "FAIL"}


def figures(units: Sequence[Sequence[Fault]] = UNITS) -> list[Figure]:
    told = run_days(units)
    stories = {s.fault: s for s in matrix.STORIES}
    right = 0
    lines = ["| faults | found by | fails besides |", "|---|---|---|"]
    for faults in units:
        if _name(faults) not in told:
            continue
        bad = told[_name(faults)]
        mine = [stories[name] for name, _ in faults]
        codes, beside = {c for s in mine for c in s.codes}, {c for s in mine for c in s.beside}
        right += all(bad & set(s.codes) for s in mine) and not bad - codes - beside
        what = ", ".join(f"{name} {size:g} {FAULTS[name].unit}".rstrip() for name, size in faults) or "none"
        lines.append(f"| {what} | {', '.join(sorted(bad & codes)) or '-'} | {', '.join(sorted(bad - codes)) or '-'} |")
    FOLDER.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())
    beside_it = (
        f"{len(told)} of {len(units)} virtual glasses, {sum(s for _, s in DAY) / 60:.0f} minutes each in real time"
    )
    return [
        Figure(
            "faults of a day named rightly in the real firmware",
            100 * right / max(len(told), 1),
            "%",
            100.0,
            ">=",
            beside_it,
        )
    ]


def run() -> None:
    print(figures())


__all__ = ["TABLE", "figures", "run"]
