"""What a microcontroller says about itself over SMP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import DeviceRefused, ProtocolError, UsageWrong
from quarkctl.flash.smp import Client
from quarkctl.formats import smp
from quarkctl.formats.mcuboot_image import Version


@dataclass(frozen=True)
class SlotImage:
    """One sound image on the device. ``hash`` is the image hash (TLV), not that of the file."""

    slot: int
    version: Version
    hash: bytes
    active: bool
    confirmed: bool
    pending: bool


@dataclass(frozen=True)
class DeviceState:
    """Facts at one moment. Fields of our own group are empty for a stranger's SMP server."""

    board: str = ""
    serial: str = ""
    mode: str = ""
    boot_id: int = 0
    slot: int = -1
    image_state: int = 0
    reset_reason: int = 0
    rollback_reason: int = 0
    security_counter: int = 0
    key_hash: bytes = b""
    ar1_version: Version | None = None
    images: tuple[SlotImage, ...] = ()
    slot_bytes: int = 0
    #: {slot: what ``image`` must be in an upload to it}; empty where the server does not tell.
    upload_images: Mapping[int, int] = field(default_factory=dict)

    @property
    def active(self) -> SlotImage | None:
        return next((i for i in self.images if i.active), None)

    @property
    def confirmed(self) -> SlotImage | None:
        """What runs after a restart, if nothing else is asked for."""
        return next((i for i in self.images if i.confirmed), None)

    @property
    def recovery(self) -> bool:
        """Only the bootloader answers: no image runs."""
        return self.mode == "recovery"


@dataclass(frozen=True)
class Health:
    passed: int = 0
    total: int = 0
    failed: str = ""
    bus_mv: int = 0
    soc_pct: Mapping[str, int] = field(default_factory=dict)
    hottest_decic: int | None = None

    @property
    def good(self) -> bool:
        return self.total > 0 and self.passed == self.total


def probe(client: Client) -> DeviceState:
    """Ask everything that a plan needs. Raises LinkTimeout when nobody answers."""
    client.negotiate()
    identity = read_identity(client)
    slots = _optional(client, smp.ImageCommand.SLOT_INFO)
    return _state(identity, read_images(client), slots)


def read_identity(client: Client, **how: float) -> Mapping[str, Any]:
    """Our own identity group; empty for a server that does not have it."""
    try:
        return client.read(smp.Group.QUARK, smp.Quark.IDENTITY, None, **how)
    except DeviceRefused:
        return {}


def read_images(client: Client) -> tuple[SlotImage, ...]:
    answer = client.read(smp.Group.IMAGE, smp.ImageCommand.STATE)
    images = answer.get("images", [])
    if not isinstance(images, list):
        raise ProtocolError("the device's image list is no list")
    return tuple(_slot_image(i) for i in images if isinstance(i, Mapping) and _number(i, "image") == 0)


def read_health(client: Client) -> Health | None:
    """None for a server that has no self-test."""
    try:
        answer = client.read(smp.Group.QUARK, smp.Quark.HEALTH)
    except DeviceRefused:
        return None
    soc = {side: int(answer[f"soc_{side}"]) for side in ("left", "right") if isinstance(answer.get(f"soc_{side}"), int)}
    return Health(
        _number(answer, "passed"),
        _number(answer, "total"),
        str(answer.get("failed", "")),
        _number(answer, "bus_mv"),
        soc,
        _number(answer, "hottest_decic") if "hottest_decic" in answer else None,
    )


def read_fault(client: Client) -> bytes:
    """Crash record of an earlier run, empty if there is none."""
    try:
        record = client.read(smp.Group.QUARK, smp.Quark.FAULT).get("record", b"")
    except DeviceRefused:
        return b""
    return record if isinstance(record, bytes) else b""


def _optional(client: Client, command: smp.ImageCommand) -> Mapping[str, Any]:
    try:
        return client.read(smp.Group.IMAGE, command)
    except DeviceRefused:
        return {}


def _number(answer: Mapping[str, Any], key: str, default: int = 0) -> int:
    """An integer of the answer; whatever else a device sends in its place counts as nothing."""
    value = answer.get(key, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _slot_image(raw: Mapping[str, Any]) -> SlotImage:
    digest, version = raw.get("hash", b""), raw.get("version")
    if not isinstance(digest, bytes) or not isinstance(version, str):
        raise ProtocolError("the device's image list is malformed")
    try:
        parsed = Version.parse(version)
    except UsageWrong as error:
        raise ProtocolError(f"the device's image list is malformed: {error.message}") from error
    return SlotImage(
        _number(raw, "slot"),
        parsed,
        digest,
        bool(raw.get("active")),
        bool(raw.get("confirmed")),
        bool(raw.get("pending")),
    )


def _state(identity: Mapping[str, Any], images: tuple[SlotImage, ...], slots: Mapping[str, Any]) -> DeviceState:
    slot_bytes, uploads = 0, {}
    listed = slots.get("images")
    if isinstance(listed, list) and listed and isinstance(listed[0], Mapping):
        parts = listed[0].get("slots", [])
        sizes = [int(s["size"]) for s in parts if isinstance(s, Mapping) and isinstance(s.get("size"), int)]
        slot_bytes = min(sizes, default=0)
        uploads = {
            _number(s, "slot"): _number(s, "upload_image_id")
            for s in parts
            if isinstance(s, Mapping) and isinstance(s.get("upload_image_id"), int)
        }
    key_hash, ar1 = identity.get("key_hash", b""), _number(identity, "ar1_version")
    return DeviceState(
        board=str(identity.get("board", "")),
        serial=str(identity.get("serial", "")),
        mode=str(identity.get("mode", "")),
        boot_id=_number(identity, "boot_id"),
        slot=_number(identity, "slot", -1),
        image_state=_number(identity, "image_state"),
        reset_reason=_number(identity, "reset_reason"),
        rollback_reason=_number(identity, "rollback_reason"),
        security_counter=_number(identity, "security_counter"),
        key_hash=key_hash if isinstance(key_hash, bytes) else b"",
        ar1_version=Version.unpacked(ar1 & 0xFFFFFFFF) if ar1 else None,
        images=images,
        slot_bytes=slot_bytes,
        upload_images=uploads,
    )
