"""A virtual AR1 in a process of its own: ``python -m quarkctl.sim.ar1.process FOLDER BOARD SERIAL MODE``.

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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from quarkctl.errors import QuarkError, UsageWrong
from quarkctl.formats.sahara import Region
from quarkctl.sim.ar1 import boot_rom, factory, system
from quarkctl.sim.ar1.bootloader import Start
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.logical import Logical, LogicalError
from quarkctl.sim.ar1.machine import MODES, VirtualAr1
from quarkctl.sim.ar1.partitions import SLOTS, Disk
from quarkctl.sim.ar1.settings import QUIRKS
from quarkctl.sim.ar1.system import QemuSystem
from quarkctl.sim.qemu import AR1_SOCKET
from quarkctl.sim.usb_ip import UsbIpServer

PROGRAMMER = "prog_firehose_virtual.elf"


class Process:
    """The machine, its USB/IP server, and the commands on them."""

    def __init__(self, folder: Path, board: str, serial: str, mode: str) -> None:
        self._folder = folder
        self.host_port = HostPort()
        self.ar1 = VirtualAr1(folder, factory.settings(board, serial), self._launch, partial(system.merge, folder))
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
            "cable": self._cable,
            "power": self._power,
            "fault": self._fault,
            "battery": self._battery,
            "lock": self._lock,
            "flip": self._flip,
            "cut": self._cut,
        }
        self._was_on = True
        self.ar1.enter(mode)

    def _launch(self, ar1: VirtualAr1, start: Start) -> QemuSystem:
        socket_path = self._folder.parent / AR1_SOCKET
        return QemuSystem(
            self._folder, start, ar1.storage.paths, ar1.settings.sector_bytes, self.host_port,
            f"../{AR1_SOCKET}" if socket_path.exists() else "",
        )  # fmt: skip

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
            "programmer": str(self._folder / PROGRAMMER), "slot": a.slot, "slots": self._slots(),
            "port": self.host_port.port if a.mode == "system" else "", "reset_reason": a.reset_reason,
            "boot_failure": a.boot_failure, "heard": a.mode == "system" and self.host_port.heard,
        }  # fmt: skip

    def _slots(self) -> dict[str, Any]:
        """What the partition table says of the slots; they change under a running system."""
        disk, reasons, out = Disk(self.ar1.storage), self.ar1.remembered.reasons, {}
        for slot in SLOTS if disk.has_slots else ():
            state = disk.slot(slot)
            out[slot] = {**asdict(state), "reason": reasons.get(slot, "") if state.unbootable else ""}
        return out

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

    def _cable(self, request: dict[str, Any]) -> None:
        if request["action"] == "unplug":
            self.ar1.unplug()
            self.host_port.unplug()
        else:
            self.ar1.replug()
            self.host_port.plug()

    def _power(self, request: dict[str, Any]) -> None:
        """Of the whole glasses. It comes back as the power key would bring it, unless it was switched off before."""
        if request["action"] == "cut":
            self._was_on = self.ar1.mode != "off"
            self.ar1.power_cut(str(request.get("reason", "power_on")))
        elif self.ar1.mode == "off" and self._was_on:
            self.ar1.enter("system")

    def _lock(self, request: dict[str, Any]) -> None:
        """What `flashing lock` and `unlock` do, without a host."""
        self.ar1.remembered.unlocked = not request["on"]
        self.ar1.remember()

    def _flip(self, request: dict[str, Any]) -> None:
        """Damage bytes of a partition, physical or logical: each of them becomes another one."""
        name, offset, size = str(request["partition"]), int(request["offset"]), int(request["size_bytes"])
        storage, disk = self.ar1.storage, Disk(self.ar1.storage)
        if name in disk.partitions:
            place = disk.partitions[name]
            lun, pieces = place.lun, [(place.offset, place.size_bytes)]
        elif "super" in disk.partitions:
            lun = disk.partitions["super"].lun
            try:
                pieces = Logical.read(storage, disk.partitions["super"]).extents(name)
            except LogicalError as error:
                raise UsageWrong(str(error)) from error
        else:
            raise UsageWrong(f"there is no partition {name}")
        if offset < 0 or size <= 0 or offset + size > sum(length for _, length in pieces):
            raise UsageWrong(f"{name} has {sum(length for _, length in pieces)} bytes")
        for start, length in pieces:
            count = min(size, length - offset)
            if count > 0:
                data = storage.read(lun, start + offset, count)
                storage.write(lun, start + offset, bytes(b ^ 0xFF for b in data))
                size, offset = size - count, 0
            else:
                offset -= length

    def _cut(self, request: dict[str, Any]) -> None:
        """Let the power of the AR1 fail in the middle of a write, after so many bytes more."""
        size = int(request["after_bytes"])
        if size < 1:
            raise UsageWrong(f"no power fails after {size} bytes", hint="1 is the next byte that is written")
        self.ar1.storage.cut_after(size, self.ar1.power_cut)

    def _battery(self, request: dict[str, Any]) -> None:
        self.ar1.remembered.battery_soc_pct = min(max(int(request["soc_pct"]), 0), 100)
        self.ar1.remember()

    def close(self) -> None:
        self._usbip.close()
        self.ar1.close()
        self.host_port.close()


def serve(folder: Path, board: str, serial: str, mode: str) -> None:
    """Until standard input ends. Prints one line when it is ready, or why it is not."""
    folder.mkdir(parents=True, exist_ok=True)
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(folder / "control.sock"))
    control.listen(8)
    process = Process(folder, board, serial, mode)
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
        serve(Path(sys.argv[1]), *sys.argv[2:5])
    except QuarkError as failure:
        print(json.dumps({"error": failure.message, "hint": failure.hint}), flush=True)
        sys.exit(failure.exit_code)
