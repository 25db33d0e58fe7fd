"""Start a virtual AR1, find it and command it: from the supervisor of its glasses, and from other processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl.errors import DeviceMissing, HostUnfit, LinkError, LinkTimeout, UsageWrong
from quarkctl.link import Link, lock
from quarkctl.link.ar1 import METHODS_OF_MODE, UsbWay
from quarkctl.link.identity import Device
from quarkctl.link.lock import Lock
from quarkctl.link.serial_port import SerialOpener
from quarkctl.link.tcp import TcpLink
from quarkctl.sim import folder
from quarkctl.sim.ar1.settings import STARTING

_ANSWER_TIMEOUT_S = 10.0
_BAUD = 1_000_000
_POLL_S = 0.1


class Child:
    """The process, which ends when its standard input does: with the supervisor, however that ends."""

    def __init__(self, path: Path, board: str, serial: str, mode: str = "fastboot") -> None:
        """``mode`` is the one to start in. Raises HostUnfit when it does not start."""
        self._path = path
        with (path.parent / "ar1.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "quarkctl.sim.ar1.process", str(path), board, serial, mode],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        line = self._process.stdout.readline() if self._process.stdout else b""
        try:
            said = json.loads(line)
        except ValueError:
            said = {"error": "the virtual AR1 did not start", "hint": f"see {path.parent / 'ar1.log'}"}
        if "error" in said:
            self.close()
            raise HostUnfit(said["error"], said.get("hint", ""))

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def request(path: Path, **fields: Any) -> dict[str, Any]:
    """One command for the virtual AR1 in this folder. Raises LinkError, UsageWrong."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(_ANSWER_TIMEOUT_S)
        try:
            channel.connect(str(path / "control.sock"))
            channel.sendall(json.dumps(fields).encode() + b"\n")
            answer = json.loads(channel.makefile("r").readline())
        except (OSError, ValueError) as error:
            raise LinkError(f"the virtual AR1 does not answer: {error}") from error
    if "error" in answer:
        e = answer["error"]
        raise UsageWrong(e["message"], e["hint"])
    return dict(answer["ok"])


def state(name: str) -> dict[str, Any]:
    """What the virtual AR1 of running glasses says of itself. Raises DeviceMissing where it was never switched on."""
    folder.load(name)
    try:
        return dict(json.loads((folder.folder_of(name) / "ar1" / "state.json").read_text("utf-8")))
    except (OSError, ValueError):
        raise DeviceMissing(
            f"the AR1 of {name} is off", hint=f"switch it on: quarkctl sim ar1 fastboot --name {name}"
        ) from None


def port(name: str) -> str:
    """Path of the running system's own serial port, for telemetry and requests; another one each time its cable is
    plugged in. Raises DeviceMissing while no system runs."""
    now = state(name)
    if not now["port"]:
        raise DeviceMissing(
            f"the AR1 of {name} is in mode {now['mode']}: no system runs that could talk"
            if now["mode"] != "system" else f"the AR1's cable of {name} is unplugged",
            hint=f"quarkctl sim ar1 --name {name}",
        )  # fmt: skip
    return str(now["port"])


def wait(name: str, timeout_s: float) -> dict[str, Any]:
    """Until the boot loader has done its work and a started system talks. Returns the state. Raises LinkTimeout."""
    deadline = time.monotonic() + timeout_s
    while (now := state(name))["mode"] == STARTING or (now["mode"] == "system" and not now["heard"]):
        if time.monotonic() > deadline:
            raise LinkTimeout(
                f"the AR1 of {name} does not talk after {timeout_s:g} s",
                hint=f"quarkctl sim console --ar1 --name {name}",
            )
        time.sleep(_POLL_S)
        request(folder.folder_of(name) / "ar1", command="status")
    return now


@dataclass
class SimWay:
    """To a virtual AR1, in whatever mode it is: fastboot over TCP, everything else over USB/IP."""

    name: str

    @property
    def identity(self) -> str:
        return f"sim:{self.name}/ar1"

    def hold(self) -> Lock:
        return lock.hold(self.identity)

    def resolve(self) -> str:
        return port(self.name) if state(self.name)["mode"] == "system" else f"sim:{self.name}"

    def open(self) -> Link:
        from quarkctl.link.usbip import Backend

        now = state(self.name)
        if now["mode"] == "system":
            return SerialOpener(self.identity, lambda: port(self.name), _BAUD).open()
        if now["mode"] in ("fastboot", "fastbootd"):
            return TcpLink("127.0.0.1", int(now["tcp_port"]))
        if now["mode"] not in ("edl", "dump"):
            raise DeviceMissing(
                f"the AR1 of {self.name} is in mode {now['mode']}: nothing of it is on the bus",
                hint=f"quarkctl sim ar1 fastboot --name {self.name}",
            )
        backend = Backend("127.0.0.1", int(now["usbip_port"]))
        return UsbWay(self.identity, "1-1", lambda: backend).open()


def device(name: str) -> Device:
    """As a device that can be flashed. Raises DeviceMissing."""
    now = state(name)
    mode = str(now["mode"])
    way = SimWay(name)
    return Device(
        way.identity, str(now["port"]) or f"sim:{name}", f"{now['board']}, AR1 in {mode}", lambda: f"sim:{name}",
        board=str(now["board"]), serial=str(now["serial"]), mode=mode, methods=METHODS_OF_MODE.get(mode, ()),
        names=(f"sim:{name}",), way=way,
    )  # fmt: skip


def devices() -> list[Device]:
    """The AR1s of all running glasses that were switched on."""
    found = []
    for instance in folder.running():
        try:
            found.append(device(instance.name))
        except DeviceMissing:
            continue
    return found
