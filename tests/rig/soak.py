"""A rig of virtual glasses through random faults from a seed: ``python -m tests.rig.soak --cycles 300 --seed 1``.

Each round flashes both chips of all stations with the other of two bundles and judges them, while faults strike: cables
unplugged, power cut, a device that hangs, one that is slow, a noisy line, a full disk, a killed worker, the killed process
of the run. After each round every promise is looked at: a verdict for the run and each station, no lock held, no process
left, both chips of every station consistent (`pairs.sound`), history complete. A promise that is broken ends the soak with
the seed and the round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quarkctl.errors import QuarkError
from quarkctl.link.lock import holder_of
from quarkctl.rig import runs, worker
from quarkctl.rig.outcome import Run
from quarkctl.sim import control, folder
from tests import scratch
from tests.conftest import Quarkctl
from tests.rig import pairs

FAULTS = ("unplug", "power", "hang", "slow", "noise", "full-disk", "kill-worker", "kill-run")
#: Open files of the process of a run, whatever it has been through: more would be a leak.
FILES_MAX = 64


@dataclass
class Soak:
    """``state`` is the state folder; the environment names it already."""

    work: Path
    station_count: int
    seed: int
    built: pairs.Built
    kernels: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.names = [f"soak-{i}" for i in range(self.station_count)]
        self.slow: set[str] = set()
        self.passed: set[str] = set()
        self.halted = False

    def begin(self) -> None:
        for i, name in enumerate(self.names):
            pairs.start(name, self.built, self.work, i, kernel=i < self.kernels)
        for name in self.names:
            pairs.wait(name)
        stations = "".join(f'[station.{n}]\nsim = "{n}"\n' for n in self.names)
        head = "[rig]\nretries = 1\nattempt_s = 240\ndeadline_s = 480\nappear_s = 5\nquarantine_after = 1000\n"
        (self.work / "rig.toml").write_text(head + stations)

    def end(self) -> None:
        for i in folder.running():
            with suppress(QuarkError):
                control.stop(i.name)

    def round(self, number: int) -> None:
        """One run over all stations with its faults, and then a look at everything."""
        plan = self.work / "plan.toml"
        plan.write_text(
            f'[[step]]\ndo = "flash"\nallow_downgrade = true\nwhat = "{self.built.bundles[number % 2]}"\n'
            '[[step]]\ndo = "swap"\nwhen = "always"\nsettle_s = 1.5\nout_s = 0.5\n'
        )
        chosen = [self.random.choice(FAULTS) for _ in range(self.random.randint(1, max(2, self.station_count // 2)))]
        self.counts.update(chosen)
        limit = "ulimit -f 16; " if "full-disk" in chosen else ""
        line = " ".join(Quarkctl.command("rig", "run", "plan.toml", "--events=events.jsonl", "--wait", "60"))
        process = subprocess.Popen(
            ["bash", "-c", f"{limit}exec {line}"], cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        strikes = sorted((self.random.uniform(0.5, 30.0), fault, self.random.choice(self.names)) for fault in chosen)
        killed, files = self._strike(process, strikes)
        _, err = process.communicate()
        self._mend()
        self._check(number, killed=killed, code=process.returncode, err=err, files=files)

    def _strike(self, process: subprocess.Popen[str], strikes: list[tuple[float, str, str]]) -> tuple[bool, int]:
        """Faults at their times, cures after theirs, until the run has ended. Returns whether it was killed, and the most
        files that it had open."""
        began, killed, files = time.monotonic(), False, 0
        cures: list[tuple[float, str, str]] = []
        while process.poll() is None:
            now = time.monotonic() - began
            self._brake()
            with suppress(OSError):
                files = max(files, sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir()))
            while strikes and strikes[0][0] <= now:
                _, fault, name = strikes.pop(0)
                with suppress(QuarkError, OSError):
                    killed |= self._do(fault, name, process.pid)
                cures.append((now + self.random.uniform(0.3, 4.0), fault, name))
            for cure in [c for c in cures if c[0] <= now]:
                cures.remove(cure)
                with suppress(QuarkError, OSError):
                    self._undo(cure[1], cure[2])
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if now > 900:
                process.kill()
                raise AssertionError(f"seed {self.seed}: the run does not end")
        return killed, files

    def _brake(self) -> None:
        """A slow device works every other tenth of a second."""
        self.halted = not self.halted
        for name in self.slow:
            with suppress(QuarkError, OSError):
                os.kill(folder.load(name).qemu_pid, signal.SIGSTOP if self.halted else signal.SIGCONT)

    def _do(self, fault: str, name: str, run_pid: int) -> bool:
        if fault == "unplug":
            control.request(name, command="cable", action="unplug")
        elif fault == "noise":
            control.request(name, command="cable", action="noise", rate=2e-5)
        elif fault == "power":
            control.request(name, command="power", action="cut")
        elif fault == "hang":
            os.kill(folder.load(name).qemu_pid, signal.SIGSTOP)
        elif fault == "slow":
            self.slow.add(name)
        elif fault == "kill-worker":
            children = Path(f"/proc/{run_pid}/task/{run_pid}/children").read_text().split()
            if children:
                os.kill(int(self.random.choice(children)), signal.SIGKILL)
        elif fault == "kill-run":
            os.kill(run_pid, signal.SIGKILL)
            return True
        return False

    def _undo(self, fault: str, name: str) -> None:
        if fault == "unplug":
            control.request(name, command="cable", action="plug")
        elif fault == "noise":
            control.request(name, command="cable", action="noise", rate=0.0)
        elif fault == "power":
            control.request(name, command="power", action="on")
        elif fault in ("hang", "slow"):
            self.slow.discard(name)
            os.kill(folder.load(name).qemu_pid, signal.SIGCONT)

    def _mend(self) -> None:
        """Whatever fault is still there is taken away; what a device then is, it is by itself."""
        for name in self.names:
            for fault in ("slow", "noise", "unplug", "power"):
                with suppress(QuarkError, OSError):
                    self._undo(fault, name)

    # --- promises -----------------------------------------------------------------------------------------------------

    def _check(self, number: int, *, killed: bool, code: int, err: str, files: int) -> None:
        where = f"seed {self.seed}, round {number}"
        assert "Traceback" not in err, f"{where}: {err}"
        assert files <= FILES_MAX, f"{where}: {files} files open"
        assert killed or code in (0, 9, 10), f"{where}: exit code {code}: {err}"
        self._no_process_left(where)
        told = json.loads(subprocess.run(
            Quarkctl.command("rig", "history", "--limit", "100000", "--json"), cwd=self.work, capture_output=True,
            text=True, check=True,
        ).stdout)["runs"]  # fmt: skip
        new = {r["id"] for r in told} - self.known
        assert len(new) == 1 or (killed and not new), f"{where}: {len(new)} new runs in history"
        self.known |= new
        self.passed = set()
        for run_id in new:
            self._verdicts(where, runs.load(runs.root() / run_id / "run.json"), killed=killed)
        for name in self.names:
            assert holder_of(f"sim:{name}") is None, f"{where}: {name} is still held"
            self._consistent(where, name, number)

    def _no_process_left(self, where: str) -> None:
        """Workers of a killed run have GONE_S to leave their devices in order; a busy computer takes a little longer."""
        until = time.monotonic() + worker.GONE_S + 15
        while left := [p for p in _processes() if "rig run plan.toml" in _command(p) or "rig\0run" in _command(p)]:
            assert time.monotonic() < until, f"{where}: processes {left} are left"
            time.sleep(0.1)

    def _verdicts(self, where: str, run: Run, *, killed: bool) -> None:
        assert run.verdict != "running", f"{where}: {run.id} has no verdict"
        assert killed or run.verdict != "lost", f"{where}: {run.id} was not killed"
        assert {s.station for s in run.stations} == set(self.names), f"{where}: a station has no verdict"
        for s in run.stations:
            self.counts[s.verdict] += 1
        self.passed = {s.station for s in run.stations if any(t.do == "flash" and t.passed for t in s.steps)}

    def _consistent(self, where: str, name: str, number: int) -> None:
        wanted = pairs.RELEASES[number % 2]
        try:
            versions = pairs.sound(name, self.built, wanted)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None
        if name in self.passed:
            assert versions == wanted, f"{where}: {name} runs {versions}, its flash of {wanted} passed"


def _processes() -> list[int]:
    mark = f"QUARKCTL_STATE_DIR={os.environ['QUARKCTL_STATE_DIR']}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def run(cycles: int, station_count: int, seed: int, kernels: int = 0) -> Counter[str]:
    """So many flash+diag cycles over all stations, ``kernels`` of them with the AR1's real system; returns how often each
    fault struck and each verdict was given."""
    with scratch.folder("qks-") as work:
        before = os.environ.get("QUARKCTL_STATE_DIR")
        os.environ["QUARKCTL_STATE_DIR"] = work
        soak = Soak(Path(work), station_count, seed, pairs.build(Path(work)), kernels)
        began = time.monotonic()
        try:
            soak.begin()
            for number in range(1, -(-cycles // station_count) + 1):
                soak.round(number)
                took = time.monotonic() - began
                print(f"round {number}, {took:.0f} s: {dict(soak.counts)}", file=sys.stderr, flush=True)
        finally:
            soak.end()
            if before is None:
                del os.environ["QUARKCTL_STATE_DIR"]
            else:
                os.environ["QUARKCTL_STATE_DIR"] = before
    return soak.counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--stations", type=int, default=8)
    parser.add_argument("--kernels", type=int, default=1, help="stations whose AR1 runs its real system")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and take the glasses along
    began = time.monotonic()
    counts = run(given.cycles, given.stations, given.seed, given.kernels)
    print(f"seed {given.seed}: every promise held in {time.monotonic() - began:.0f} s: {dict(counts)}")
