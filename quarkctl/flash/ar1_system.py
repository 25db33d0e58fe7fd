"""The running system of the AR1, over its serial port: what it says of itself, and what it is asked to do.

Source: decision 21. Frames are those of every telemetry stream; a request is repeated under its number until it is
answered, and is carried out once.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from quarkctl import schemas
from quarkctl.errors import DeviceRefused, LinkLost, LinkTimeout
from quarkctl.flash.ar1_slots import Slots, from_attributes
from quarkctl.formats import frame
from quarkctl.formats.frame import Frame, Kind, Splitter
from quarkctl.formats.mcuboot_image import Version
from quarkctl.formats.schema import Value
from quarkctl.link import Link

#: Both messages come once a second.
REPORT_S = 5.0
ANSWER_S = 10.0
_REPEAT_S = 1.0
#: Enum chip of protocols/stream.toml.
_AR1 = 2


@dataclass(frozen=True)
class Report:
    """What the system said in one hello and the ar1_system message after it. ``hottest_decic``: None without sensors."""

    boot_id: int
    board: str
    serial: str
    slots: Slots
    reset_reason: str
    rollback_reason: str
    selftest_passed: int
    selftest_count: int
    locked: bool
    verity_state: str
    verity_failed_blocks: int
    verity_corrected_errors: int
    hottest_decic: int | None = None

    @property
    def healthy(self) -> bool:
        return self.selftest_passed == self.selftest_count and self.verity_state != "failed"


class System:
    """One open port. Not for two threads."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._splitter = Splitter()
        self._find = schemas.finder()
        self._schema = schemas.telemetry()
        self._latest: dict[str, Mapping[str, Value]] = {}
        self._zones: list[int] = []
        self._seq = 0

    def report(self, timeout_s: float = REPORT_S) -> Report:
        """What it says from now on: earlier words are forgotten. Raises LinkTimeout, LinkLost, LayoutMismatch."""
        while self._take(self.link.read(0.0)):
            continue
        self._latest.clear()
        until = time.monotonic() + timeout_s
        while not {"hello", "ar1_system"} <= self._latest.keys():
            left = until - time.monotonic()
            if left <= 0:
                raise LinkTimeout(
                    f"the AR1's system says nothing of itself on {self.link.name}",
                    hint="does it run? `quarkctl ar1 getvar boot-failure` tells why the boot loader kept it",
                )
            self._take(self.link.read(left))
        return self._made(self._latest["hello"], self._latest["ar1_system"])

    def ask(self, action: str) -> None:
        """Have it done; what comes back means that it is on the storage. Raises DeviceRefused with the system's reason."""
        request, nonce = self._request(action)
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            self.link.write(request)
            if self._answered(action, nonce, min(_REPEAT_S, until - time.monotonic())):
                return
        raise LinkTimeout(f"the AR1's system does not answer {action} on {self.link.name}", hint="restart the AR1")

    def restart(self, action: str = "reboot") -> None:
        """Ask once: the same words must not meet the system that starts next. The answer may be lost with this one."""
        request, nonce = self._request(action)
        with suppress(LinkLost):
            self.link.write(request)
            self._answered(action, nonce, _REPEAT_S)

    def _request(self, action: str) -> tuple[bytes, int]:
        schema = self._schema
        message, nonce = schema.messages["ar1_request"], secrets.randbits(31) + 1
        payload = schema.pack(message, {"action": schema.enums["ar1_action"][action], "nonce": nonce})
        self._seq += 1
        return frame.build(Frame(message.type or 0, 0, self._seq & 0xFFFF, 0, payload), schema.crc_seed), nonce

    def _answered(self, action: str, nonce: int, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            self._take(self.link.read(left))
            answer = self._latest.pop("ar1_answer", None)
            if answer and answer["nonce"] == nonce:
                _raise_refusal(action, answer["error"])
                return True
        return False

    def _take(self, data: bytes) -> bool:
        for kind, run in self._splitter.feed(data):
            found = frame.parse(run, self._schema.crc_seed) if kind is Kind.RUN else None
            if found is None or found.source & 0xF != _AR1:
                continue
            message = self._schema.by_type.get(found.type)
            if message is None or len(found.payload) != message.size_bytes:
                continue
            values = self._schema.named(message, self._schema.unpack(message, found.payload))
            if message.name == "hello" and values["layout_hash"] != self._schema.layout_hash:
                self._schema = self._find(int(str(values["layout_hash"])))
            self._latest[message.name] = values
            if message.name == "ar1_thermal":
                self._zones = [z for z in _numbers(values["zone_decic"]) if z > -32768]
        return bool(data)

    def _made(self, hello: Mapping[str, Value], system: Mapping[str, Value]) -> Report:
        running = "ab"[int(str(hello["slot"])) & 1]
        states, versions = _numbers(system["slot_state"]), _numbers(system["slot_version"])
        slots = [
            from_attributes(
                bytes(_numbers(system[f"vbmeta_{n}_digest"])), _unpacked(versions[k]), _numbers(system["rollback_index"])[k],
                states[k],
            )
            for k, n in enumerate("ab")
        ]  # fmt: skip
        return Report(
            int(str(hello["boot_id"])), str(hello["board"]), str(hello["serial"]), Slots(slots[0], slots[1], running),
            str(hello["reset_reason"]), str(hello["rollback_reason"]), int(str(hello["selftest_passed"])),
            int(str(hello["selftest_count"])), bool(int(str(system["locked"]))), str(system["verity_state"]),
            int(str(system["verity_failed_blocks"])), int(str(system["verity_corrected_errors"])),
            max(self._zones, default=None),
        )  # fmt: skip


def _raise_refusal(action: str, error: Value) -> None:
    number = int(str(error))
    if not number:
        return
    why = "a self-test fails" if number == errno.EPERM and action == "confirm" else os.strerror(number)
    raise DeviceRefused(f"the AR1's system refused to {action}: {why}")


def _unpacked(version: int) -> Version | None:
    return Version(version >> 24, version >> 16 & 0xFF, version & 0xFFFF) if version else None


def _numbers(value: Value) -> list[int]:
    return [int(v) for v in value] if isinstance(value, list) else []
