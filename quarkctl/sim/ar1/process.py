"""A virtual AR1 in a process of its own: ``python -m quarkctl.sim.ar1.process FOLDER BOARD SERIAL``.

It says where it is in ``state.json``, takes commands as JSON lines on ``control.sock``, and ends with its parent or at the
end of its standard input.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quarkctl.errors import QuarkError, UsageWrong
from quarkctl.formats.sahara import Region
from quarkctl.sim.ar1 import boot_rom, factory
from quarkctl.sim.ar1.machine import MODES, VirtualAr1
from quarkctl.sim.ar1.settings import QUIRKS
from quarkctl.sim.usb_ip import UsbIpServer

PROGRAMMER = "prog_firehose_virtual.elf"


class Process:
    """The machine, its USB/IP server, and the commands on them."""

    def __init__(self, folder: Path, board: str, serial: str) -> None:
        self._folder = folder
        self.ar1 = VirtualAr1(folder, factory.settings(board, serial))
        self._usbip = UsbIpServer([self.ar1.port])
        (folder / PROGRAMMER).write_bytes(boot_rom.programmer())
        self.ar1.memory = [
            (Region("DDR CS0", "DDRCS0.BIN", 0x80000000, 1 << 20, 1), bytes(range(256)) * 4096),
            (Region("OCIMEM", "OCIMEM.BIN", 0x14680000, 4096, 1), b"virtual".ljust(4096, b"\0")),
        ]
        self.ar1.changed = lambda _: self.publish()
        self._commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "status": lambda _: None,
            "enter": self._enter,
            "cable": lambda r: self.ar1.unplug() if r["action"] == "unplug" else self.ar1.replug(),
            "power": lambda r: self.ar1.power_cut() if r["action"] == "cut" else self.ar1.enter("system"),
            "fault": self._fault,
            "battery": self._battery,
        }
        self.ar1.enter("fastboot")

    def publish(self) -> None:
        temporary = self._folder / "state.json.new"
        temporary.write_text(json.dumps(self.status()), "utf-8")
        temporary.replace(self._folder / "state.json")

    def status(self) -> dict[str, Any]:
        a = self.ar1
        return {
            "mode": a.mode, "tcp_port": a.tcp_port, "udp_port": a.udp_port, "usbip_port": self._usbip.address[1],
            "serial": a.settings.serial, "board": a.settings.board, "faults": sorted(a.settings.quirks),
            "unlocked": a.remembered.unlocked, "battery_soc_pct": a.remembered.battery_soc_pct,
            "programmer": str(self._folder / PROGRAMMER),
        }  # fmt: skip

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        command = self._commands.get(str(request.get("command")))
        if command is None:
            raise UsageWrong(f"a virtual AR1 knows no command {request.get('command')!r}")
        command(request)
        self.publish()
        return self.status()

    def _enter(self, request: dict[str, Any]) -> None:
        if request["mode"] not in MODES:
            raise UsageWrong(f"there is no mode {request['mode']!r}", hint=f"there are {', '.join(MODES)}")
        self.ar1.enter(str(request["mode"]))

    def _fault(self, request: dict[str, Any]) -> None:
        name = str(request["fault"])
        if name not in QUIRKS:
            raise UsageWrong(f"no fault {name!r}", hint=f"there are {', '.join(QUIRKS)}")
        if request["on"]:
            self.ar1.settings.quirks.add(name)
        else:
            self.ar1.settings.quirks.discard(name)

    def _battery(self, request: dict[str, Any]) -> None:
        self.ar1.remembered.battery_soc_pct = min(max(int(request["soc_pct"]), 0), 100)
        self.ar1.remember()

    def close(self) -> None:
        self._usbip.close()
        self.ar1.close()


def serve(folder: Path, board: str, serial: str) -> None:
    """Until standard input ends. Prints one line when it is ready, or why it is not."""
    folder.mkdir(parents=True, exist_ok=True)
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(folder / "control.sock"))
    control.listen(8)
    process = Process(folder, board, serial)
    threading.Thread(target=_answer_all, args=(control, process), daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.buffer.read()
    control.close()
    process.close()


def _answer_all(control: socket.socket, process: Process) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = control.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5.0)
                connection.sendall(json.dumps(_answer(connection, process)).encode() + b"\n")


def _answer(connection: socket.socket, process: Process) -> dict[str, Any]:
    try:
        return {"ok": process.handle(json.loads(connection.makefile("r").readline(65536)))}
    except QuarkError as error:
        return {"error": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}}
    except (ValueError, KeyError, TypeError) as error:
        return {"error": {"message": f"malformed command: {error!r}", "hint": "", "exit_code": 5}}


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    except QuarkError as failure:
        print(json.dumps({"error": failure.message, "hint": failure.hint}), flush=True)
        sys.exit(failure.exit_code)
