"""A virtual AR1 in a process of its own, for measurements: ``python -m tests.bench.ar1_device FOLDER SETTINGS``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quarkctl.sim.ar1 import boot_rom
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.settings import Settings
from quarkctl.sim.usb_device import OutEndpoint
from quarkctl.sim.usb_ip import UsbIpServer
from quarkctl.sim.usb_preload import Testbed


class Device:
    """The measuring process's side."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.programmer = folder / "prog.elf"
        self.programmer.write_bytes(boot_rom.programmer(20_000))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.ar1_device", str(folder), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.ports = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        return dict(json.loads(self._process.stdout.readline()))

    def tell(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class Wire:
    """A cable that carries ``rate`` bytes a second to the device; 0: as many as the processor moves."""

    def __init__(self) -> None:
        self.rate, self._free = 0.0, 0.0
        take = OutEndpoint.read

        def paced(endpoint: OutEndpoint, size_bytes: int) -> bytes | memoryview:
            data = take(endpoint, size_bytes)
            if self.rate:
                now = time.perf_counter()
                # What was late catches up for as long as one transfer takes, no longer: idle time is not saved up.
                self._free = max(self._free, now - len(data) / self.rate) + len(data) / self.rate
                time.sleep(max(self._free - now, 0.0))
            return data

        OutEndpoint.read = paced  # type: ignore[method-assign]


def serve(folder: Path, settings: dict[str, Any]) -> None:
    layout = {int(k): [(n, s) for n, s in v] for k, v in settings.pop("layout").items()}
    quirks = set(settings.pop("quirks", ()))
    preload = bool(settings.pop("preload", False))
    ar1 = VirtualAr1(folder / "ar1", Settings(layout=layout, quirks=quirks, **settings))
    usbip = UsbIpServer([ar1.port])
    bed = Testbed(folder / "usb", [ar1.port]) if preload else None
    environment = bed.environment() if bed else {}
    wire = Wire()
    print(json.dumps({"tcp": ar1.tcp_port, "usbip": usbip.address[1], "environment": environment}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "rate" in command:
            rate = float(command["rate"])
            ar1.storage.pace = (lambda n, rate=rate: time.sleep(n / rate)) if rate else None
        if "wire" in command:
            wire.rate = float(command["wire"])
        if "cut_after" in command:
            ar1.storage.cut_after(int(command["cut_after"]), ar1.power_cut)
        if "enter" in command:
            ar1.enter(command["enter"])
        print(json.dumps({"mode": ar1.mode}), flush=True)
    usbip.close()
    ar1.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
