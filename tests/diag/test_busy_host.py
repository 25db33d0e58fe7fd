"""A host with too much to do: what virtual glasses measured then is no fault of theirs, and no proof that there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quarkctl.diag import checks
from quarkctl.diag.columns import host_waits
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.sim.host import Waits
from tests.conftest import Glasses, Quarkctl
from tests.diag.virtual import Unit, profile, swap_run


def judged(unit: Unit, code: str, **evidence: Any) -> Finding:
    (found,) = checks.run(unit.evidence(**evidence), profile(unit.board)[1], checks.select("all", [code]))
    return found


@pytest.mark.parametrize(
    ("fault", "size", "code", "little", "much"),
    [("slow_link", 80, "LNK-001", 10, 200), ("slow_wake", 900, "LNK-003", 100, 900),
     ("slow_hand_over", 300, "LNK-004", 100, 300), ("lossy_link", 20, "LNK-002", 100, 9000)],
)  # fmt: skip
def test_a_fault_that_may_be_the_hosts_is_invalid_and_says_why(
    fault: str, size: float, code: str, little: float, much: float
) -> None:
    unit = swap_run(3, fault, size)
    assert judged(unit, code).verdict is Verdict.FAIL
    assert judged(unit, code, host_waits=[(0, little, True)]).verdict is Verdict.FAIL  # too little to explain it
    found = judged(unit, code, host_waits=[(0, much, True)])
    assert found.verdict is Verdict.INVALID and "host's processors" in found.note
    assert judged(unit, code, host_waits=[(10**18, much, True)]).verdict is Verdict.FAIL  # at another time
    assert judged(unit, code, host_waits=[(0, much, False)]).verdict is Verdict.FAIL  # no AR1 runs: the plant tells it


def test_a_busy_host_spoils_no_good_verdict() -> None:
    assert judged(swap_run(3), "LNK-001", host_waits=[(0, 5000.0, True)]).verdict is Verdict.PASS


def test_late_throttling_may_be_the_hosts() -> None:
    unit = Unit(4, ambient_c=25.0)
    unit.machine["slow_governor"] = 3.0
    unit.run([(100, "sleep", 1.0), (900, "camera", 0.5)])
    assert judged(unit, "THM-004").verdict is Verdict.FAIL
    assert judged(unit, "THM-004", host_waits=[(0, 4000.0, False)]).verdict is Verdict.INVALID


def test_a_converter_that_stands_still_for_a_while_is_no_jump_of_the_clock() -> None:
    unit = swap_run(5)
    tables = dict(unit.evidence().tables)
    power = tables["power"].copy()
    still = (power["time_us"] > 9_000_000) & (power["time_us"] < 11_600_000)
    power["converter_us"][still] = power["converter_us"][np.flatnonzero(still)[0]]
    tables["power"] = power
    found = judged(unit, "PWR-013", tables=tables)
    assert found.verdict is Verdict.PASS and found.value is not None and found.value < 5
    jumped = power.copy()
    jumped["converter_us"][jumped["time_us"] >= 11_600_000] += 200_000
    assert judged(unit, "PWR-013", tables={**tables, "power": jumped}).verdict is Verdict.FAIL


def test_notes_that_are_no_waits_are_left_out() -> None:
    notes: list[dict[str, Any]] = [
        {"note": "host", "waits": [[5, 1.5, True], [6, 1], "x", [1, "y", True], [True, 1, True], [-1, 2, True],
                                     [2, float("nan"), True], [2**70, 1, True]]},
        {"note": "host", "waits": 3}, {"note": "start", "waits": [[1, 1]]}, {"note": "host"},
    ]  # fmt: skip
    assert host_waits(notes) == [(5, 1.5, True)]


def test_processes_that_share_a_processor_wait_for_it() -> None:
    cpu = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    waits = Waits()
    waits.measure(ar1=False)
    both = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
    try:
        while not waits.since(0):
            waits.measure(ar1=False)
    finally:
        for p in both:
            p.kill()
            p.wait()
    assert all(ms >= 5 for _, ms, _ in waits.since(0)) and waits.since(2**62) == []


@pytest.mark.qemu
def test_glasses_whose_plant_stood_still_keep_their_clock(
    quarkctl: Quarkctl, glasses: Callable[..., Glasses], tmp_path: Path
) -> None:
    g = glasses()
    recorder = quarkctl.start("telemetry", "record", "still.qrec", "-d", g.device, "--seconds", "9")
    stop = f"kill -STOP {g.instance.pid}; sleep 1.4; kill -CONT {g.instance.pid}"
    subprocess.run(["sh", "-c", f"sleep 3; {stop}"], check=True)
    assert recorder.communicate(timeout=60) and recorder.returncode == 0
    done = quarkctl("diag", "battery", "clock", "bus_minimum", "state_kept", "-r", "still.qrec", "--json")
    assert {f["code"]: f["verdict"] for f in done.json["findings"]} == {
        "PWR-002": "PASS", "PWR-004": "PASS", "PWR-013": "PASS",
    }, done.out  # fmt: skip
