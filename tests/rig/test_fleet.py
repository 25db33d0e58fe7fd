"""Many stations at once: a verdict for each, whatever happens to devices, workers and the run itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from quarkctl.events import Event, Level
from quarkctl.formats.rig_file import Station
from quarkctl.rig import fleet, plan, runs, steps, worker
from quarkctl.rig.outcome import Run
from tests.conftest import ROOT, Outcome, Quarkctl
from tests.rig.conftest import processes_of
from tests.rig.terminals import Device, Terminals, image


def stations(done: Outcome) -> dict[str, Any]:
    return {s["station"]: s for s in done.json["stations"]}


def test_all_stations_are_flashed_at_once_and_the_record_is_complete(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    done = quarkctl("rig", "flash", "new.bin", "--all", "--json", "--events=e.jsonl", "--junit", "j.xml")
    assert done.code == 0, done.err
    assert [d.version for d in three.devices] == ["1.1.0"] * 3 and all(d.whole for d in three.devices)
    found = stations(done)
    assert list(found) == ["p0", "p1", "p2"]
    assert all(s["verdict"] == "passed" and s["attempts"] == 1 and s["board"] == "s1-virtual" for s in found.values())
    names = {m["name"] for m in found["p0"]["steps"][0]["measurements"]}
    assert {"flash.upload_s", "flash.total_s"} <= names
    suite = ET.parse(quarkctl.folder / "j.xml").getroot()
    assert suite.get("tests") == "3" and suite.get("failures") == suite.get("errors") == "0"
    folder = Path(done.json["folder"])
    assert Run.from_dict(json.loads((folder / "run.json").read_text())).verdict == "passed"
    assert "upload done" in (folder / "logs" / "p1.log").read_text()
    assert (quarkctl.folder / "e.jsonl").read_text() == (folder / "events.jsonl").read_text()
    assert processes_of(state_of_its_own) == []


def test_no_event_is_lost(three: Terminals, quarkctl: Quarkctl) -> None:
    done = quarkctl("rig", "flash", "new.bin", "--all", "--events")
    lines = [json.loads(line) for line in done.out.splitlines()]
    for name in ("p0", "p1", "p2"):
        mine = [e for e in lines if e["station"] == name]
        assert [e["seq"] for e in mine] == list(range(1, len(mine) + 1))
        ends = [e["step"] for e in mine if e["level"] == "done"]
        assert ends == ["preflight", "upload", "verify", "restart", "health", "confirm", "worker", "verdict"]


def test_some_failed_and_none_passed_have_their_own_exit_codes(three: Terminals, quarkctl: Quarkctl) -> None:
    three.devices[1].slots[0] = image("2.0.0")
    done = quarkctl("rig", "flash", "new.bin", "--all", "--json")
    assert done.code == 9
    found = stations(done)
    assert [found[s]["verdict"] for s in found] == ["passed", "failed", "passed"]
    assert found["p1"]["exit_code"] == 6 and "older (1.1.0) than what runs (2.0.0)" in found["p1"]["error"]
    assert three.devices[1].version == "2.0.0"
    assert quarkctl("rig", "flash", "new.bin", "--where", "p1").code == 10


def test_a_station_that_is_not_there_does_not_hold_up_the_others(three: Terminals, quarkctl: Quarkctl) -> None:
    with (quarkctl.folder / "rig.toml").open("a") as file:
        file.write('[station.gone]\nserial = "QS1-0042"\n')
    done = quarkctl("rig", "flash", "new.bin", "--all", "--json")
    assert done.code == 9
    assert stations(done)["gone"]["verdict"] == "missing"
    assert stations(done)["gone"]["error"] == "there is no device 'QS1-0042'"


def once(condition: Callable[[Device], bool]) -> tuple[Callable[[Device], bool], threading.Event]:
    """Silence from the first moment on at which the condition holds, and the event of that moment."""
    reached = threading.Event()

    def silent(device: Device) -> bool:
        if condition(device):
            reached.set()
        return reached.is_set()

    return silent, reached


def half_uploaded(device: Device) -> bool:
    return len(device.model.stored) > 2000


class Clocked(Quarkctl):
    """``ahead(S)``: to a run that was started here, S seconds more than in truth have gone by."""

    def command(self, *args: str | Path) -> list[str]:  # type: ignore[override]
        return [sys.executable, str(ROOT / "tests" / "rig" / "clock.py"), str(self.folder / "ahead"), *map(str, args)]

    def ahead(self, seconds: float) -> None:
        new = self.folder / "ahead.new"
        new.write_text(str(seconds))
        new.rename(self.folder / "ahead")


def worker_of(device: Device, state: Path) -> int:
    """The process that has this device open."""
    for pid in processes_of(state):
        with suppress(OSError):
            if any(str(fd.readlink()) == device.path for fd in Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    raise AssertionError(f"nobody has {device.path} open")


def has_sigterm(pid: int, mask: str) -> bool:
    """``mask``: ShdPnd, sent and not yet taken, or SigIgn, taken by a worker that is on its way out."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True  # gone
    bits = next((int(line.split()[1], 16) for line in lines if line.startswith(mask)), -1)
    return bool(bits >> (signal.SIGTERM - 1) & 1)


def wait_for_verdicts(run: subprocess.Popen[str], events: Path, count: int) -> None:
    while not events.exists() or events.read_text().count('"step": "verdict"') < count:
        assert run.poll() is None, run.communicate()


def test_a_hang_ends_at_the_deadline_and_a_power_cycle_brings_the_station_back(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    """The worker of p0 hangs so that it does not even hear that it shall end; the power command of the station, here a
    file that the device looks at, brings the device back."""
    clocked = Clocked(quarkctl.folder, quarkctl.env)
    relay = quarkctl.folder / "relay"
    code = f"import sys; open({str(relay)!r}, 'a').write(sys.argv[1])"
    power = f"power = {{ command = {json.dumps([sys.executable, '-c', code, '{action}'])} }}\n"
    head = "[rig]\nattempt_s = 1000\ndeadline_s = 9000\nretries = 1\n"
    three.write_rig(quarkctl.folder, head, lambda i: power if i == 0 else "")
    held, reached = once(half_uploaded)
    three.devices[0].silent = lambda d: held(d) and not relay.exists()
    run = clocked.start("rig", "flash", "new.bin", "--where", "p0", "--json")
    assert reached.wait(60)
    worker = worker_of(three.devices[0], state_of_its_own)
    os.kill(worker, signal.SIGSTOP)
    clocked.ahead(1000)
    while not has_sigterm(worker, "ShdPnd"):
        assert run.poll() is None, run.communicate()
    clocked.ahead(1000 + fleet.GRACE_S)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, out + err
    assert json.loads(out)["stations"][0]["attempts"] == 2
    assert relay.read_text() == "cycle"
    assert three.devices[0].version == "1.1.0"


def test_without_a_way_back_a_hang_is_a_verdict_in_time(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    clocked = Clocked(quarkctl.folder, quarkctl.env)
    three.devices[2].silent, reached = once(half_uploaded)
    run = clocked.start("rig", "flash", "new.bin", "--all", "--json", "--deadline", "1000", "--events=e.jsonl")
    assert reached.wait(60)
    worker = worker_of(three.devices[2], state_of_its_own)
    os.kill(worker, signal.SIGSTOP)  # so that its own patience does not end before
    wait_for_verdicts(run, quarkctl.folder / "e.jsonl", 2)
    clocked.ahead(1000)
    while not has_sigterm(worker, "ShdPnd"):
        assert run.poll() is None, run.communicate()
    three.devices[2].silent = lambda _: False
    os.kill(worker, signal.SIGCONT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 9, out + err
    found = {s["station"]: s for s in json.loads(out)["stations"]}
    assert found["p2"]["verdict"] == "timeout"
    assert found["p2"]["error"] == "not finished within 1000 s for all steps"
    assert three.devices[2].version == "1.0.0" and three.devices[2].whole
    assert processes_of(state_of_its_own) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_no_lock_and_no_device_half_done(
    number: signal.Signals, three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    halfway = []
    for device in three.devices:
        device.silent, reached = once(half_uploaded)
        halfway.append(reached)
    process = quarkctl.start("rig", "flash", "new.bin", "--all", "--json")
    assert all(reached.wait(60) for reached in halfway)
    process.send_signal(number)
    while process.poll() is None and not all(
        has_sigterm(p, "SigIgn") for p in processes_of(state_of_its_own) if p != process.pid
    ):
        pass
    for device in three.devices:
        device.silent = lambda _: False  # not before: they would be flashed
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    for found in json.loads(out)["stations"]:
        assert found["verdict"] == "interrupted" and "in flash" in found["error"]
    assert all(d.whole and d.version == "1.0.0" for d in three.devices)
    assert processes_of(state_of_its_own) == []
    again = quarkctl("rig", "flash", "new.bin", "--all", "--json")
    assert again.code == 0, again.out
    for station in stations(again).values():
        assert "goes on with the flash of 1.1.0" in station["steps"][0]["facts"]["resumed"]


def test_the_last_worker_of_a_killed_run_gives_it_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    folder = runs.Folder(Run("r1", "", "plan", "", "", "1", 5.0), pytest.fail)
    folder.live([{"station": "a", "state": "working", "step": "flash", "device": "usb:1"}])
    other = os.dup(folder._lock.fileno())  # as another worker has it, which has not done yet
    folder.abandoned()
    assert runs.load(folder.path / "run.json").verdict == "running"
    os.close(other)
    folder.abandoned()
    found = runs.load(folder.path / "run.json")
    assert found.verdict == "lost" and found.stations[0].error == "the process of the run was gone in flash"
    assert runs.load(runs.outbox() / "r1.json") == found


def test_a_worker_that_does_not_hear_that_it_shall_end_is_gone_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(task: steps.Task, progress: Callable[[Event], None]) -> None:
        with suppress(KeyboardInterrupt):
            progress(Event("a", "flash", Level.START))
            signal.pause()
        signal.pause()

    monkeypatch.setattr(steps, "carry_out", deaf)
    monkeypatch.setattr(worker, "GONE_S", 0.0)
    task = steps.Task(Station("a"), plan.Step("flash", plan.PowerCycle()), 1, pytest.fail, tmp_path)
    its = worker.start(task, log=tmp_path / "log", foreign_fds=(), cycle_first=False, abandoned=pytest.fail)
    assert os.read(its.fd, 4096)  # it is in its step
    its.stop()
    while os.read(its.fd, 4096):
        pass
    assert its.reap() == signal.SIGKILL


def test_a_killed_run_takes_its_workers_along_and_is_lost_in_history(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    three.devices[0].silent, reached = once(half_uploaded)
    process = quarkctl.start("rig", "flash", "new.bin", "--all", "--wait", "5", "--json", "--events=e.jsonl")
    assert reached.wait(60)
    wait_for_verdicts(process, quarkctl.folder / "e.jsonl", 2)
    process.kill()
    process.communicate()
    while processes_of(state_of_its_own):
        pass
    assert [r["verdict"] for r in quarkctl("rig", "history", "--json").json["runs"]] == ["lost"]
    run = json.loads(next(state_of_its_own.glob("rig/runs/*/run.json")).read_text())
    found = {s["station"]: s for s in run["stations"]}
    assert found["p0"]["verdict"] == "lost" and "gone in flash" in found["p0"]["error"]
    assert all(found[p]["verdict"] == "passed" and found[p]["steps"][0]["measurements"] for p in ("p1", "p2"))
    three.devices[0].silent = lambda _: False
    again = quarkctl("rig", "flash", "new.bin", "--all", "--json")
    assert again.code == 0, again.out
    assert [d.version for d in three.devices] == ["1.1.0"] * 3
    assert processes_of(state_of_its_own) == []


def test_a_run_killed_with_all_its_workers_gets_its_verdict_from_whoever_looks(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path
) -> None:
    three.devices[0].silent, reached = once(half_uploaded)
    process = quarkctl.start("rig", "flash", "new.bin", "--where", "p0", "--json")
    assert reached.wait(60)
    worker = worker_of(three.devices[0], state_of_its_own)
    os.kill(worker, signal.SIGSTOP)  # so that it does not hear of the end of its run
    process.kill()
    process.communicate()
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    while processes_of(state_of_its_own):
        pass
    assert [r["verdict"] for r in quarkctl("rig", "history", "--json").json["runs"]] == ["lost"]


def test_two_paths_of_one_port_are_noticed_before_anything_is_touched(three: Terminals, quarkctl: Quarkctl) -> None:
    (quarkctl.folder / "other").symlink_to(three.devices[1].path)
    with (quarkctl.folder / "rig.toml").open("a") as file:
        file.write(f'[station.twin]\nport = "{quarkctl.folder}/other"\n')
    done = quarkctl("rig", "flash", "new.bin", "--all")
    assert done.code == 6 and f"stations p1 and twin are one device: {three.devices[1].path}" in done.err
    assert all(d.requests == 0 for d in three.devices)
    assert "is the same device as p1" in quarkctl("rig", "doctor").out


def test_a_killed_worker_is_replaced(three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path) -> None:
    three.write_rig(quarkctl.folder, "[rig]\nretries = 1\n")
    silent, reached = once(half_uploaded)
    three.devices[0].silent = silent
    process = quarkctl.start("rig", "flash", "new.bin", "--where", "p0", "--json")
    assert reached.wait(60)
    worker = worker_of(three.devices[0], state_of_its_own)
    three.devices[0].silent = lambda _: False
    os.kill(worker, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert json.loads(out)["stations"][0]["attempts"] == 2


def test_two_runs_on_one_rig_wait_for_each_other(three: Terminals, quarkctl: Quarkctl) -> None:
    three.write_rig(quarkctl.folder, "[rig]\nretries = 9\n")
    three.devices[0].silent, reached = once(half_uploaded)
    first = quarkctl.start("rig", "flash", "new.bin", "--all", "--json")
    assert reached.wait(60)
    (quarkctl.folder / "newer.bin").write_bytes(image("1.2.0"))
    refused = quarkctl("rig", "flash", "newer.bin", "--where", "p0", "--wait", "0", "--json")
    assert refused.code == 10 and stations(refused)["p0"]["verdict"] == "busy"
    assert "held by quarkctl rig flash new.bin --all" in stations(refused)["p0"]["error"]
    second = quarkctl.start("rig", "flash", "newer.bin", "--all", "--json", "--events=second.jsonl")
    waiting = quarkctl.folder / "second.jsonl"
    while not (waiting.exists() and '"verdict"' in waiting.read_text()):  # it has done the stations that were free
        assert second.poll() is None
    three.devices[0].silent = lambda _: False
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert [d.version for d in three.devices] == ["1.2.0"] * 3


def test_a_station_that_fails_again_and_again_is_left_out_until_it_is_released(
    state_of_its_own: Path, quarkctl: Quarkctl
) -> None:
    with Terminals(1) as terminals:
        head = '[rig]\nappear_s = 0\nquarantine_after = 2\n[station.gone]\nserial = "nothing"\n'
        terminals.write_rig(quarkctl.folder, head)
        (quarkctl.folder / "new.bin").write_bytes(image("1.1.0"))
        codes = [quarkctl("rig", "flash", "new.bin", "--all").code for _ in range(2)]
        done = quarkctl("rig", "flash", "new.bin", "--all", "--json")
        assert codes == [9, 9] and done.code == 0  # in the third run it was not asked
        assert stations(done)["gone"]["verdict"] == "quarantined"
        listed = quarkctl("rig", "quarantine", "--json").json["stations"]
        assert listed[0]["station"] == "gone" and listed[0]["reason"].startswith("2 faults in a row, the last: ")
        assert quarkctl("rig", "quarantine", "gone", "--release").out == "gone is in use again\n"
        assert quarkctl("rig", "quarantine", "p0", "--reason", "loose cable").code == 0
        assert quarkctl("rig", "flash", "new.bin", "--all").code == 10  # p0 was not asked, gone is asked again


def test_a_full_disk_costs_the_logs_and_not_the_run(three: Terminals, quarkctl: Quarkctl) -> None:
    """No file may grow beyond 4 KiB: what the kernel then says is what it says when a disk is full."""
    line = " ".join(quarkctl.command("rig", "flash", "new.bin", "--all", "--events=/dev/full"))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 4; {line}"], cwd=quarkctl.folder, env={**os.environ, **quarkctl.env},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cannot write events: No space left on device; the run goes on without" in done.stderr
    assert "File too large; the run goes on without" in done.stderr
    assert [d.version for d in three.devices] == ["1.1.0"] * 3
    run = json.loads(next(Path(quarkctl.env["QUARKCTL_STATE_DIR"]).glob("rig/runs/*/run.json")).read_text())
    assert run["verdict"] == "passed" and [s["verdict"] for s in run["stations"]] == ["passed"] * 3
    assert run["stations"][0]["steps"][0]["measurements"] == []  # evidence had no room


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("flash", "new.bin"), 2, "which stations"),
        (("flash", "new.bin", "--all", "--where", "p0"), 2, "which stations"),
        (("flash", "new.bin", "--where", "tag=none"), 2, "no station fits tag=none"),
        (("flash", "new.bin", "--where", "colour=red"), 2, "selects nothing"),
        (("flash", "missing.bin", "--all"), 6, "cannot read missing.bin"),
        (("flash", "new.bin", "--all", "--rig", "none.toml"), 6, "cannot read none.toml"),
        (("flash", "new.bin", "--all", "--events=/nowhere/e"), 3, "cannot write /nowhere/e"),
        (("diag", "weather", "--all"), 2, "there are no weather checks"),
        (("diag", "battery", "smell", "--all"), 2, "there is no check 'smell'"),
        (("run", "none.toml"), 6, "cannot read none.toml"),
        (("power-cycle", "p0"), 2, "station p0 has no power control"),
        (("power-cycle", "p9"), 2, "there is no station 'p9'"),
        (("quarantine", "--release"), 2, "which station?"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else None,
)
def test_a_wrong_command_touches_no_station(
    args: tuple[str, ...], code: int, told: str, three: Terminals, quarkctl: Quarkctl
) -> None:
    done = quarkctl("rig", *args)
    assert done.code == code and told in done.err and done.err.count("error:") == 1
    assert all(d.requests == 0 for d in three.devices)


def test_a_state_folder_that_cannot_be_written_is_an_error_of_this_computer(
    three: Terminals, quarkctl: Quarkctl
) -> None:
    (quarkctl.folder / "file").write_text("")
    quarkctl.env["QUARKCTL_STATE_DIR"] = str(quarkctl.folder / "file")
    done = quarkctl("rig", "flash", "new.bin", "--all")
    assert done.code == 3 and "cannot make" in done.err
