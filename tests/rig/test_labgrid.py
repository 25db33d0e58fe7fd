"""labgrid as the engine: a real coordinator, two exporters on two ports, virtual glasses flashed through them.

All of it runs from an environment of its own, build/venv-labgrid: labgrid's fork of pyserial is installed over pyserial.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarkctl.build import rtos
from tests.conftest import ROOT, Glasses, Quarkctl
from tests.rig.conftest import processes_of

#: Programs of labgrid, and quarkctl beside it.
BIN = ROOT / "build" / "venv-labgrid" / "bin"


class BesideLabgrid(Quarkctl):
    @staticmethod
    def command(*args: str | Path) -> list[str]:
        return [str(BIN / "quarkctl"), *map(str, args)]


@pytest.fixture
def quarkctl(tmp_path: Path) -> Quarkctl:
    return BesideLabgrid(tmp_path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Lab:
    """Processes of labgrid, in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._start("coordinator", [str(BIN / "labgrid-coordinator"), "-l", self.address], "Coordinator ready")

    def _start(self, name: str, command: list[str], ready: str) -> None:
        process = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.processes[name] = process
        said = []
        for line in process.stdout or ():
            said.append(line)
            if ready in line:
                break
        else:
            raise AssertionError(f"{name} did not start: {''.join(said)}")
        threading.Thread(target=self._drain, args=[process], daemon=True).start()

    @staticmethod
    def _drain(process: subprocess.Popen[str]) -> None:
        with process.stdout or Path(os.devnull).open() as said:
            said.read()

    def export(self, name: str, device: str, port: int) -> None:
        file = self.folder / f"{name}.yaml"
        file.write_text(f"glasses:\n  QuarkBench:\n    device: '{device}'\n    port: {port}\n    board: s1-virtual\n")
        command = BesideLabgrid.command("rig", "export", file, "--coordinator", self.address, "--name", name)
        self._start(name, command, "resource config file")

    def client(self, *args: str) -> str:
        done = subprocess.run(
            [str(BIN / "labgrid-client"), "-x", self.address, *args], cwd=self.folder, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def place(self, name: str, exporter: str, **tags: str) -> None:
        self.client("-p", name, "create")
        self.client("-p", name, "add-match", f"{exporter}/glasses/*")
        if tags:
            self.client("-p", name, "set-tags", *(f"{k}={v}" for k, v in tags.items()))

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        lab.close()


def stations(out: str) -> dict[str, Any]:
    return {s["station"]: s for s in json.loads(out)["stations"]}


@pytest.mark.qemu
def test_glasses_are_flashed_through_two_exporters_and_one_that_is_killed_comes_back(
    lab: Lab, glasses: Callable[..., Glasses], firmware: Callable[..., rtos.Built], quarkctl: Quarkctl
) -> None:
    ports = [free_port(), free_port()]
    # Idle: on a busy computer this takes minutes, in which glasses that film become too hot to be flashed.
    devices = [glasses(load="idle", name=f"lab-{i}").device for i in (1, 2)]
    for i, (device, port) in enumerate(zip(devices, ports, strict=True), 1):
        lab.export(f"rig{i}", device, port)
        lab.place(f"glasses{i}", f"rig{i}", board="s1-virtual", shelf=str(i))
    args = ("--coordinator", lab.address, "--retries", "3", "--json")
    image = firmware("1.1.0").image
    run = quarkctl.start("rig", "flash", image, "--all", "--events=e.jsonl", *args)
    events = quarkctl.folder / "e.jsonl"

    def uploading() -> bool:
        lines = [json.loads(line) for line in (events.read_text() if events.exists() else "").splitlines()[:-1]]
        return any(e["station"] == "glasses1" and e["step"] == "upload" and e["done_bytes"] > 20_000 for e in lines)

    while not uploading():
        assert run.poll() is None, run.communicate()
    lab.kill("rig1")  # and with it its bridge
    lab.export("rig1", devices[0], ports[0])  # what a supervisor does
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, out + err
    found = stations(out)
    assert found["glasses1"]["attempts"] > 1 and found["glasses2"]["attempts"] == 1
    assert found["glasses1"]["device"] == "labgrid:glasses1"
    assert "acquired: None" in lab.client("-p", "glasses1", "show")
    again = quarkctl("rig", "flash", image, "--where", "tag=shelf=2", *args)
    assert stations(again.out)["glasses2"]["steps"][0]["facts"]["result"] == "unchanged"
    assert list(stations(again.out)) == ["glasses2"]

    # Somebody else has the place: told by name, and not waited for.
    lab.client("-p", "glasses2", "acquire")
    busy = quarkctl("rig", "flash", image, "--where", "glasses2", "--wait", "0", *args)
    assert busy.code == 10 and stations(busy.out)["glasses2"]["verdict"] == "busy"
    assert "acquired" in stations(busy.out)["glasses2"]["error"]
    lab.client("-p", "glasses2", "release")

    # labgrid's own tests, with our driver and strategy.
    (quarkctl.folder / "env.yaml").write_text(
        "targets:\n  main:\n    resources:\n      RemotePlace: {name: glasses2}\n    drivers:\n      QuarkRtosDriver: {}\n"
        f"      QuarkStrategy: {{image: '{image}'}}\n"
        f"imports: [quarkctl.rig.labgrid.drivers]\noptions: {{coordinator_address: '{lab.address}'}}\n"
    )
    (quarkctl.folder / "test_lab.py").write_text(
        "def test_it(strategy):\n    strategy.transition('flashed')\n    strategy.transition('booted')\n"
    )
    lab.client("-p", "glasses2", "acquire")
    done = subprocess.run(
        [str(BIN / "pytest"), "-q", "-c", os.devnull, "--lg-env", "env.yaml", "test_lab.py"],
        cwd=quarkctl.folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    lab.client("-p", "glasses2", "release")
    assert "1 passed" in done.stdout, done.stdout


def test_a_killed_run_leaves_no_place_acquired(lab: Lab, quarkctl: Quarkctl, state_of_its_own: Path) -> None:
    """The exporter's device is not there: the run waits for it, and is killed."""
    lab.export("rig1", "sim:nobody", free_port())
    lab.place("glasses1", "rig1")
    run = quarkctl.start("rig", "diag", "battery", "--all", "--coordinator", lab.address, "--events")
    assert run.stdout
    while '"listen"' not in (line := run.stdout.readline()) and '"worker"' not in line:
        assert run.poll() is None
    assert "acquired: None" not in lab.client("-p", "glasses1", "show")
    run.kill()
    run.communicate()
    while "acquired: None" not in lab.client("-p", "glasses1", "show"):
        pass
    assert processes_of(state_of_its_own) == []


def test_without_a_coordinator_there_is_an_error_and_no_wait(quarkctl: Quarkctl, state_of_its_own: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = quarkctl("rig", "diag", "battery", "--all", "--coordinator", address)
    assert done.code == 4 and f"coordinator {address}" in done.err and "labgrid-coordinator -l" in done.err


@pytest.mark.parametrize("args", [("diag", "battery", "--all", "--coordinator", "127.0.0.1:1"), ("export", "e.yaml")])
def test_without_labgrid_the_user_is_told_how_to_get_it(args: tuple[str, ...], tmp_path: Path) -> None:
    done = Quarkctl(tmp_path)("rig", *args)
    assert done.code == 3 and "labgrid is not installed" in done.err and "quarkctl[labgrid]" in done.err


def test_all_other_tests_have_the_real_pyserial() -> None:
    def digest(file: Path) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")

    files = [f for f in importlib.metadata.files("pyserial") or () if f.hash]
    assert files and [f for f in files if f.hash and digest(Path(f.locate())) != f.hash.value] == []
