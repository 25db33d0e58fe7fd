"""The AR1's running system, from the host's end of its serial port; and a scripted one in its place, without QEMU."""

from __future__ import annotations

import hashlib
import os
import queue
import random
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from quarkctl import schemas
from quarkctl.formats import frame
from quarkctl.formats.stream import Decoder, Sample
from quarkctl.link.serial_port import SerialOpener
from quarkctl.sim.ar1.bootloader import Start, content
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.partitions import RETRY_MAX, SLOTS, Disk, Slot, other_slot

SCHEMA = schemas.telemetry()
ACTIONS = SCHEMA.enums["ar1_action"]
#: Of a boot in QEMU on a busy computer.
PATIENCE_S = 60.0


class Talk:
    """What the system says, and requests to it."""

    def __init__(self, port: str) -> None:
        self.link = SerialOpener(f"test:{port}", lambda: port, 1_000_000).open()
        self._decoder = Decoder(SCHEMA)
        self.samples: list[Sample] = []

    def until(self, wanted: Callable[[Sample], bool], again: bytes = b"") -> Sample:
        """The first sample from now on that is wanted. ``again`` is sent whenever a second passed in silence about it."""
        deadline, due = time.monotonic() + PATIENCE_S, time.monotonic() + 1.0
        while time.monotonic() < deadline:
            new = list(self._decoder.feed(self.link.read(1.0), 0))
            self.samples += new
            for sample in new:
                if wanted(sample):
                    return sample
            if again and time.monotonic() >= due:
                self.link.write(again)
                due = time.monotonic() + 1.0
        raise AssertionError(f"the system did not say it; it said {[s.message.name for s in self.samples[-20:]]}")

    def message(self, name: str) -> dict[str, Any]:
        return dict(self.until(lambda s: s.message.name == name).values)

    def request(self, action: str) -> int:
        """The error of the answer. Asked again until it is answered, but for what ends the system: the same words must not
        meet the next one."""
        nonce = random.getrandbits(31) + 1
        message = SCHEMA.messages["ar1_request"]
        body = SCHEMA.pack(message, {"action": ACTIONS[action], "nonce": nonce})
        wire = frame.build(frame.Frame(message.type or 0, 0, 0, 0, body), SCHEMA.crc_seed)
        self.link.write(wire)
        leaves = action.startswith("reboot") or action == "power_off"
        answered = self.until(
            lambda s: s.message.name == "ar1_answer" and s.values["nonce"] == nonce, b"" if leaves else wire
        )
        return int(answered.values["error"])

    def close(self) -> None:
        self.link.close()


@dataclass
class Script:
    """How the scripted system behaves from its next start on."""

    healthy: bool = True
    #: The next system hangs, panics, or is reset by somebody right after its start: ``hung``, ``panic``, ``reset``.
    ends_once: str = ""
    version: tuple[int, int, int] = (1, 0, 0)


class Terminal(Protocol):
    """Who is told where the system talks."""

    def attach(self, guest_port: str) -> int: ...
    def detach(self, attached: int) -> None: ...


@dataclass
class ScriptedSystem:
    """Stands where `QemuSystem` stands: slots on the storage, frames on the port, requests carried out at once."""

    ar1: VirtualAr1 | SimpleNamespace
    start: Start | SimpleNamespace
    script: Script
    port: Terminal
    #: Seconds between two reports of itself.
    every_s: float = 0.05
    _ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._fd, other = os.openpty()
        os.set_blocking(self._fd, False)  # what nobody takes is dropped
        self._attached = self.port.attach(os.ttyname(other))
        os.close(other)
        self._seq, self._boot_id, self._last = 0, random.getrandbits(32), (0, 0, 0)
        self._began = time.monotonic()
        ends, self.script.ends_once = self.script.ends_once, ""
        if ends:
            self._ended.put(ends)
        self._stop, self._closing = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=t, name="scripted system", daemon=True) for t in (self._serve, self._tick)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> str:
        ended = self._ended.get()
        self._end()
        return ended

    def kill(self) -> None:
        self._ended.put("died")
        self._end()

    def _end(self) -> None:
        """Nothing of it touches the storage afterwards."""
        self._stop.set()
        self.port.detach(self._attached)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._closing:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    # --- what it says -------------------------------------------------------------------------------------------------

    def _send(self, name: str, **fields: Any) -> None:
        message = SCHEMA.messages[name]
        source = 2 | (self._boot_id & 15) << 4
        time_us = int((time.monotonic() - self._began) * 1e6)
        made = frame.Frame(message.type or 0, source, self._seq & 0xFFFF, time_us, SCHEMA.pack(message, fields))
        self._seq += 1
        with suppress(BlockingIOError):
            os.write(self._fd, frame.build(made, SCHEMA.crc_seed))

    def _tell(self) -> None:
        storage = self.ar1.storage
        disk = Disk(storage)
        states = [disk.slot(s) for s in SLOTS]
        found = [content(storage, disk, s) for s in SLOTS]
        slot = SLOTS.index(self.start.slot)
        versions = [[int(n) for n in (*f.version.split("."), "0", "0", "0")[:3] if n.isdigit()] for f in found]
        major, minor, revision = self.script.version
        reasons = SCHEMA.enums["reset_reason"]
        self._send(
            "hello", layout_hash=SCHEMA.layout_hash, protocol_version=1, boot_id=self._boot_id, boot_count=1,
            build_id=list(hashlib.sha256(self.start.slot.encode()).digest()[:8]), board=self.ar1.settings.board,
            serial=self.ar1.settings.serial, version_major=major, version_minor=minor, version_revision=revision,
            slot=slot, image_state=0 if states[slot].successful else 1, reset_reason=reasons[self.ar1.reset_reason],
            rollback_reason=0, selftest_count=6, selftest_passed=6 if self.script.healthy else 5,
        )  # fmt: skip
        self._send(
            "ar1_system", slot=slot, boot_state={"green": 1, "orange": 3}[self.start.color],
            locked=0 if self.ar1.remembered.unlocked else 1, verity_state=1, verity_failed_blocks=0,
            verity_corrected_errors=0, slot_state=[s.bits >> 48 for s in states],
            slot_version=[v[0] << 24 | v[1] << 16 | v[2] if len(v) == 3 else 0 for v in versions],
            rollback_index=[f.rollback_index for f in found],
            vbmeta_a_digest=list(bytes.fromhex(found[0].digest or "00" * 32)[:8]),
            vbmeta_b_digest=list(bytes.fromhex(found[1].digest or "00" * 32)[:8]),
        )  # fmt: skip

    def _tick(self) -> None:
        """Often, since nobody who opens the port should wait."""
        with suppress(OSError):
            self._tell()
            while not self._stop.wait(self.every_s):
                self._tell()

    # --- what it does -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        splitter = frame.Splitter()
        message = SCHEMA.messages["ar1_request"]
        with suppress(OSError):
            while not self._stop.is_set():
                if not select.select([self._fd], [], [], 0.05)[0]:
                    continue
                for _, run in splitter.feed(os.read(self._fd, 4096)):
                    got = frame.parse(run, SCHEMA.crc_seed)
                    if got and got.type == message.type:
                        self._request(**SCHEMA.unpack(message, got.payload))

    def _request(self, action: int, nonce: int) -> None:
        if (action, nonce) != self._last[:2]:
            self._last = (action, nonce, self._act(action))
        self._send("ar1_answer", action=action, nonce=nonce, error=self._last[2])
        self._tell()
        name = next(k for k, v in ACTIONS.items() if v == action)
        if name.startswith("reboot") and not self._last[2]:
            self._ended.put("reset")
        elif name == "power_off":
            self._ended.put("off")

    def _act(self, action: int) -> int:
        disk = Disk(self.ar1.storage)
        mine, other = self.start.slot, other_slot(self.start.slot)
        name = next(k for k, v in ACTIONS.items() if v == action)
        commands = {"reboot_bootloader": b"bootonce-bootloader", "reboot_fastbootd": b"boot-fastboot",
                    "reboot_edl": b"bootonce-edl"}  # fmt: skip
        if name == "confirm":
            if not self.script.healthy:
                return 1
            there = replace(disk.slot(other), active=False, priority=2)
            disk.set_slots(**{mine: Slot(True, True, False, RETRY_MAX, 3), other: there})
        elif name in ("trial", "untrial"):
            if not disk.slot(mine).successful:
                return 1
            if name == "trial":
                disk.activate(other, 1)
            else:
                disk.settle(mine)
        elif name in commands:
            place = disk.partitions["misc"]
            self.ar1.storage.write(place.lun, place.offset, commands[name].ljust(32, b"\0"))
        return 0


def scripted(folder: Path, settings: Any, script: Script | None = None) -> tuple[VirtualAr1, HostPort, Script]:
    """A virtual AR1 with the real boot loader and a scripted system. ``HostPort.port`` is the path of its serial port;
    changes to the script count from the next start on."""
    script = script or Script()
    port = HostPort()
    ar1 = VirtualAr1(folder, settings, lambda device, start: ScriptedSystem(device, start, script, port))
    return ar1, port, script
