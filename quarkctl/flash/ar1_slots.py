"""The two slots of the AR1 and where the image of a release is in them. Pure: from what boot loader or system say.

Source: decision 21. Which image a slot holds is named by the SHA-256 of its vbmeta structure, since that binds everything
else; a slot whose writing was begun has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quarkctl.errors import UsageWrong
from quarkctl.flash.transaction import State
from quarkctl.formats import fastboot
from quarkctl.formats.mcuboot_image import Version

SLOTS = ("a", "b")
#: What a chip says of a digest in a telemetry frame.
DIGEST_BYTES_MIN = 8


@dataclass(frozen=True)
class Slot:
    """``digest``: of the vbmeta structure, or its first bytes; empty where there is none. ``tries``: starts that are left to
    a slot that is not successful."""

    digest: bytes = b""
    version: Version | None = None
    rollback_index: int = 0
    active: bool = False
    successful: bool = False
    unbootable: bool = False
    tries: int = 0
    reason: str = ""

    def holds(self, digest: bytes) -> bool:
        return len(self.digest) >= DIGEST_BYTES_MIN and digest.startswith(self.digest)

    @property
    def armed(self) -> bool:
        """The next start tries it."""
        return self.active and not self.successful and not self.unbootable and self.tries > 0


@dataclass(frozen=True)
class Slots:
    """``running`` is ``a`` or ``b``, empty in the boot loader, where nothing runs."""

    a: Slot
    b: Slot
    running: str = ""

    def __getitem__(self, name: str) -> Slot:
        return {"a": self.a, "b": self.b}[name]

    @property
    def active(self) -> str:
        return next((n for n in SLOTS if self[n].active), "a")

    @property
    def settled(self) -> str:
        """The slot that runs after a restart with nothing armed: a successful one, else the one that runs or is active."""
        sound = [n for n in SLOTS if self[n].successful and not self[n].unbootable]
        for name in (self.running, self.active, *sound):
            if name in sound:
                return name
        return self.running or self.active

    def target(self, digest: bytes) -> str:
        """The slot that holds the image, or is to get it."""
        holding = [n for n in SLOTS if self[n].holds(digest)]
        for name in (self.running or self.active, *holding):
            if name in holding:
                return name
        return other(self.settled)

    def state(self, digest: bytes) -> State:
        name = self.target(digest)
        slot = self[name]
        if not slot.holds(digest):
            return State.OLD
        if name == self.settled:
            return State.CONFIRMED  # or never confirmed, and nothing is there to go back to
        if name == self.running:
            return State.TRIAL
        return State.ARMED if slot.armed else State.WRITTEN


def other(slot: str) -> str:
    return {"a": "b", "b": "a"}[slot]


def from_variables(variables: Mapping[str, str]) -> Slots:
    """From ``getvar all``. A variable that is missing counts as empty."""

    def yes(name: str) -> bool:
        return variables.get(name) == "yes"

    def slot(n: str) -> Slot:
        return Slot(
            _digest(variables.get(f"slot-vbmeta-digest:{n}", "")), version_of(variables.get(f"slot-version:{n}", "")),
            _number(variables.get(f"slot-rollback-index:{n}", "")),
            variables.get("current-slot", "").lstrip("_") == n, yes(f"slot-successful:{n}"), yes(f"slot-unbootable:{n}"),
            _number(variables.get(f"slot-retry-count:{n}", "")), variables.get(f"slot-reason:{n}", ""),
        )  # fmt: skip

    return Slots(slot("a"), slot("b"))


def from_attributes(digest: bytes, version: Version | None, rollback_index: int, attributes: int) -> Slot:
    """From a telemetry frame: ``attributes`` are bits 48 to 55 of the boot partition's GPT entry."""
    return Slot(
        digest if any(digest) else b"", version, rollback_index, bool(attributes & 1 << 2), bool(attributes & 1 << 6),
        bool(attributes & 1 << 7), attributes >> 3 & 7,
    )  # fmt: skip


def version_of(text: str) -> Version | None:
    """None for what is no version: the device's word, not ours."""
    try:
        return Version.parse(text) if text else None
    except UsageWrong:
        return None


def _number(text: str) -> int:
    return fastboot.parse_number(text) if text else 0


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
