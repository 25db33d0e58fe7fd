"""Stands where `qemu-system-aarch64` stands: takes its arguments and gives its answers, and runs the scripted system of
`tests.ar1_system` on the same storage. For rigs of more pairs than a test computer has processors for kernels.

``python -m tests.rig.ar1_stand_in ARGUMENTS``, in the folder of a virtual AR1; only to start a system, not for what else
the emulator is asked.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tty
from pathlib import Path
from types import SimpleNamespace

from quarkctl.sim.ar1 import factory
from quarkctl.sim.ar1.bootloader import content
from quarkctl.sim.ar1.partitions import Disk
from quarkctl.sim.ar1.storage import Storage
from tests.ar1_system import Script, ScriptedSystem

#: What QEMU says of a system's end.
_REASONS = {"reset": "guest-reset", "off": "guest-shutdown"}
#: Eight of them must leave processors for the rest.
_EVERY_S = 0.5


class Terminal:
    """Tells the supervisor where the system talks, in QEMU's words."""

    def attach(self, guest_port: str) -> int:
        self._held = os.open(guest_port, os.O_RDWR | os.O_NOCTTY)  # else its end is lost until the supervisor opens it
        tty.setraw(self._held)
        print(f"char device redirected to {guest_port} (label host)", flush=True)
        return 1

    def detach(self, attached: int) -> None:
        """Its end is the end of this program."""


def main(arguments: list[str]) -> None:
    words = arguments[arguments.index("-append") + 1].split()
    said = dict(w.removeprefix("androidboot.").split("=", 1) for w in words if w.startswith("androidboot."))
    known = json.loads(Path("../settings.json").read_text("utf-8"))
    settings = factory.settings(known["board"], known["serial"])
    storage = Storage(Path(), settings.sector_bytes, settings.lun_bytes)
    slot = said["slot_suffix"].removeprefix("_")
    version = [int(n) for n in content(storage, Disk(storage), slot).version.split(".")]
    color = said["verifiedbootstate"]
    ar1 = SimpleNamespace(
        storage=storage, settings=settings, reset_reason=said["bootreason"],
        remembered=SimpleNamespace(unlocked=color == "orange"),
    )  # fmt: skip
    Path("console.log").touch()
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.bind("qmp.sock")
        qmp.listen(1)
        system = ScriptedSystem(
            ar1, SimpleNamespace(slot=slot, color=color), Script(version=(version[0], version[1], version[2])),
            Terminal(), _EVERY_S,
        )  # fmt: skip
        channel, _ = qmp.accept()
        with channel:
            event = {"event": "SHUTDOWN", "data": {"reason": _REASONS.get(system.wait(), "")}}
            channel.sendall(json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
