"""Protocol-only stations: SMP servers behind pseudo-terminals, many in one thread, with faults to order.

The protocol itself is that of `tests.flash.smp_server`; here is what a device does around it: two slots, a restart, and
being slow, silent or gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import threading
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from quarkctl.build import sign
from quarkctl.formats import mcuboot_image
from quarkctl.formats.mcuboot_image import Version
from tests.conftest import ROOT
from tests.flash.smp_server import Model, Settings


def image(version: str, payload_bytes: int = 4000, board: str = "s1-virtual") -> bytes:
    """A small signed image that virtual boards trust."""
    signer = sign.load(ROOT / "firmware" / "rtos" / "keys" / "development.pem")
    payload = hashlib.sha256(version.encode()).digest() * (payload_bytes // 32)
    return mcuboot_image.build(
        payload, version=Version.parse(version), load_address=0x0100_0000, header_bytes=0x400, board=board,
        security_counter=1, public_key=signer.public_key, sign=lambda m: signer.sign(m, version),
    )  # fmt: skip


@dataclass
class Device:
    """One station. ``silent`` is asked at each request: True means no answer."""

    path: str
    master: int
    slots: list[bytes]
    active: int = 0
    pending: int | None = None
    confirmed: bool = True
    silent: Callable[[Device], bool] = lambda _: False
    delay_s: float = 0.0
    requests: int = 0
    restarts: int = 0
    model: Model = field(default_factory=lambda: Model(Settings(rate=0.0, buf_size=1024)))

    def __post_init__(self) -> None:
        self.model.answer = self.answer

    @property
    def version(self) -> str:
        return str(mcuboot_image.parse(self.slots[self.active]).version)

    @property
    def whole(self) -> bool:
        """The slot that starts holds a sound image, and it is permanent."""
        parsed = mcuboot_image.parse(self.slots[self.active])
        return parsed.hash_ok and self.confirmed

    def power_cycle(self) -> None:
        """What is not confirmed is gone; an upload under way is forgotten."""
        self.restarts += 1
        if self.pending is not None:
            self.active, self.pending, self.confirmed = self.pending, None, False
        elif not self.confirmed:
            self.active, self.confirmed = 1 - self.active, True
        self.model.size = 0
        self.model.stored.clear()

    def answer(self, group: int, command: int, request: dict[str, Any]) -> dict[str, Any] | None:
        self.requests += 1
        if self.silent(self):
            return None
        if self.delay_s:
            time.sleep(self.delay_s)
        if (group, command) == (0, 5):
            self.power_cycle()
            return {}
        if (group, command) == (1, 0):
            if "hash" in request:
                self._set_state(request)
            return {"images": [i for i in map(self._slot, (0, 1)) if i]}
        if (group, command) == (1, 1):
            spare = 1 - self.active
            if request["off"] != 0 and not self.model.size:
                return {"rc": 6}
            answer = self.model.serve(group, command, request)
            if isinstance(answer, dict) and answer.get("off") == self.model.size:
                self.slots[spare] = bytes(self.model.stored)
            return dict(answer) if isinstance(answer, dict) else None
        answer = self.model.serve(group, command, request)
        return dict(answer) if isinstance(answer, dict) else None

    def _set_state(self, request: dict[str, Any]) -> None:
        for slot in (0, 1):
            if self.slots[slot] and mcuboot_image.parse(self.slots[slot]).digest == request["hash"]:
                if request.get("confirm"):
                    self.confirmed = True
                elif slot != self.active:
                    self.pending = slot

    def _slot(self, slot: int) -> dict[str, Any] | None:
        if not self.slots[slot]:
            return None
        parsed = mcuboot_image.parse(self.slots[slot])
        active = slot == self.active
        return {
            "slot": slot, "version": str(parsed.version), "hash": parsed.digest, "active": active, "bootable": True,
            "confirmed": active and self.confirmed, "pending": self.pending == slot, "permanent": False,
        }  # fmt: skip


class Terminals:
    """Devices served by one thread while the context lasts."""

    def __init__(self, count: int, version: str = "1.0.0") -> None:
        self.devices = []
        factory = image(version)
        for _ in range(count):
            master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self.devices.append(Device(os.ttyname(slave), master, [factory, b""]))
            os.close(slave)
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self.lock = threading.Lock()

    def rig(self, head: str = "", more: Callable[[int], str] = lambda _: "") -> str:
        """rig.toml of these stations, p0, p1 and so on."""
        return head + "".join(f'[station.p{i}]\nport = "{d.path}"\n{more(i)}' for i, d in enumerate(self.devices))

    def write_rig(self, folder: Path, head: str = "", more: Callable[[int], str] = lambda _: "") -> None:
        (folder / "rig.toml").write_text(self.rig(head, more))

    def __enter__(self) -> Terminals:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (self._woken, self._wake, *(d.master for d in self.devices)):
            os.close(fd)

    def _serve(self) -> None:
        # A terminal that nobody has open is always ready, with an error: it is looked at again a little later.
        closed = set(self.devices_by_fd())
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for fd in closed:
                selector.register(fd, selectors.EVENT_READ)
            resting: dict[int, float] = {}
            devices = self.devices_by_fd()
            while True:
                for key, _ in selector.select(0.02 if resting else None):
                    if key.fd == self._woken:
                        return
                    if not self._feed(devices[key.fd]):
                        selector.unregister(key.fd)
                        resting[key.fd] = time.monotonic() + 0.02
                for fd in [fd for fd, until in resting.items() if time.monotonic() >= until]:
                    del resting[fd]
                    selector.register(fd, selectors.EVENT_READ)

    def devices_by_fd(self) -> dict[int, Device]:
        return {d.master: d for d in self.devices}

    def _feed(self, device: Device) -> bool:
        try:
            data = os.read(device.master, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        with self.lock:
            device.model.receive(data, time.monotonic())
            due, device.model.due = device.model.due, []
        for _, answer in due:
            with contextlib.suppress(BlockingIOError):
                os.write(device.master, answer)
        return True
