"""The boot loader's way from a reset to a kernel: which slot, whether it may, and with what words.

The contract is docs/decisions/0021. It reads nothing but what lies on the storage and what the board remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from quarkctl.sim.ar1 import android_boot, device_tree, verified_boot
from quarkctl.sim.ar1.android_boot import Images, Unbootable
from quarkctl.sim.ar1.logical import Logical, LogicalError
from quarkctl.sim.ar1.partitions import RETRY_MAX, SLOTS, Disk, other_slot
from quarkctl.sim.ar1.settings import Remembered, Settings
from quarkctl.sim.ar1.storage import Storage
from quarkctl.sim.ar1.verified_boot import Unverified, Verdict

#: What `misc` may ask for: Android's words, and one of ours.
COMMANDS = {
    b"bootonce-bootloader": "fastboot", b"boot-fastboot": "fastbootd", b"boot-recovery": "recovery", b"bootonce-edl": "edl",
}  # fmt: skip
_COMMAND_BYTES = 32
_NEVER_CONFIRMED = "it was started and never confirmed"
VERSION_PROPERTY = "quark.version"
Say = Callable[[str], None]
Merge = Callable[[Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Start:
    """What is started. ``color`` is Android's: green, orange (unlocked). ``tree``: the device tree; empty for the machine's
    own as it is."""

    slot: str
    images: Images
    cmdline: str
    color: str
    warnings: tuple[str, ...] = ()
    tree: bytes = b""


@dataclass(frozen=True)
class NoStart:
    """Why nothing is."""

    reason: str


class OnStorage:
    """Partitions by name. The table is read once: a start looks at one state of it. ``instead``: contents that stand for
    those of these partitions, once."""

    def __init__(self, storage: Storage, disk: Disk, instead: Mapping[str, bytes] | None = None) -> None:
        self._storage = storage
        self._places = disk.partitions
        self._instead = instead or {}

    def size_bytes(self, name: str) -> int | None:
        if name in self._instead:
            return len(self._instead[name])
        place = self._places.get(name)
        return place.size_bytes if place else None

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        if name in self._instead:
            content = self._instead[name]
            if offset < 0 or size_bytes < 0 or offset + size_bytes > len(content):
                raise IndexError(name)
            return content[offset : offset + size_bytes]
        place = self._places[name]
        if offset < 0 or size_bytes < 0 or offset + size_bytes > place.size_bytes:
            raise IndexError(name)
        return self._storage.read(place.lun, place.offset + offset, size_bytes)


class Mapped(OnStorage):
    """Logical partitions too, as the system will map them."""

    def __init__(self, storage: Storage, disk: Disk) -> None:
        super().__init__(storage, disk)
        self._logical: Logical | None = None
        if "super" in self._places:
            with suppress(LogicalError):
                self._logical = Logical.read(storage, self._places["super"])

    def size_bytes(self, name: str) -> int | None:
        return self._logical.sizes().get(name) if self._in_super(name) and self._logical else super().size_bytes(name)

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        if not self._in_super(name) or not self._logical:
            return super().read(name, offset, size_bytes)
        return self._logical.piece(name, offset, size_bytes)

    def _in_super(self, name: str) -> bool:
        return name not in self._places and self._logical is not None and name in self._logical.sizes()


@dataclass
class Bootloader:
    """One device's. ``say`` gets a line for everything that matters. ``merge`` applies overlays to the board's device tree
    (raises `device_tree.Unfit`, HostUnfit); without it there is no tree to apply them to."""

    settings: Settings
    remembered: Remembered
    storage: Storage
    remember: Callable[[], None]
    say: Say = field(default=lambda _: None)
    merge: Merge | None = None

    def asked_mode(self) -> str:
        """The mode that the system asked for before it restarted, once; empty if it did not."""
        disk = Disk(self.storage)
        place = disk.partitions.get("misc")
        if place is None or place.size_bytes < _COMMAND_BYTES:
            return ""
        mode = COMMANDS.get(self.storage.read(place.lun, place.offset, _COMMAND_BYTES).split(b"\0")[0], "")
        if mode:
            self.storage.write(place.lun, place.offset, bytes(_COMMAND_BYTES))
            self.say(f"misc asks for {mode}")
        return mode

    def choose(self, reset_reason: str, boot_once: bytes = b"") -> Start | NoStart:
        """Pay a try, verify, take apart; again until something can be started or no slot is left. ``boot_once`` was
        downloaded, and is started instead of what lies in the slot's boot partition; no slot is blamed for it. Raises
        HostUnfit where the computer lacks what makes a device tree."""
        disk = Disk(self.storage)
        for lun in disk.repair():
            self.say(f"LUN {lun}: one copy of the partition table was damaged or old; written anew")
        if not disk.has_slots:
            return NoStart("there are no partitions boot_a and boot_b")
        partitions, mapped = OnStorage(self.storage, disk), Mapped(self.storage, disk)
        self._raise_rollback(disk, partitions, mapped)
        while True:
            slot = self._pay(disk)
            if not slot:
                told = "; ".join(f"slot {s}: {r}" for s in SLOTS if (r := self.remembered.reasons.get(s)))
                return NoStart(f"no slot can be started: {told or 'both are marked unbootable'}")
            if boot_once:
                partitions = OnStorage(self.storage, disk, {f"boot_{slot}": boot_once})
            verdict = verified_boot.check(
                partitions, slot, self.settings.root_key_digest, _numbers(self.remembered.rollback), mapped
            )
            try:
                if verdict.problems and not self.remembered.unlocked:
                    raise Unbootable(verdict.problems[0])
                images = android_boot.take(partitions, slot)
                chosen = device_tree.overlays(partitions, slot, self.settings.board_id)
                start = self._start(disk, slot, verdict, images, chosen, reset_reason)
            except (Unbootable, device_tree.Unfit) as error:
                if boot_once:
                    return NoStart(f"the downloaded image cannot be started: {error}")
                self._refuse(disk, slot, str(error))
                continue
            for problem in verdict.problems:
                self.say(f"warning: {problem}; the device is unlocked, so it is started all the same")
            if not disk.slot(slot).successful:
                self.remembered.reasons[slot] = _NEVER_CONFIRMED
            elif self.remembered.reasons.pop(slot, ""):
                self.say(f"slot {slot} was confirmed")
            self.remember()
            for damage in verdict.damage:
                self.say(f"warning: {damage}")
            for unused in images.unused:
                self.say(f"not used: {unused}")
            self.say(f"starting slot {slot}, {start.color}")
            return start

    def _raise_rollback(self, disk: Disk, partitions: OnStorage, mapped: Mapped) -> None:
        """Of slots that were confirmed: nothing older starts from now on."""
        stored = _numbers(self.remembered.rollback)
        before = dict(stored)
        for slot in SLOTS:
            if not disk.slot(slot).successful:
                continue
            verdict = verified_boot.check(partitions, slot, self.settings.root_key_digest, stored, mapped)
            if not verdict.problems:
                for location, index in verdict.rollback.items():
                    stored[location] = max(index, stored.get(location, 0))
        stored = {k: v for k, v in stored.items() if v}
        if stored != before:
            self.remembered.rollback = {str(k): v for k, v in sorted(stored.items())}
            self.remember()
            self.say(f"stored rollback indexes: {self.remembered.rollback}")

    def _pay(self, disk: Disk) -> str:
        """The slot to start, one try poorer where it was never confirmed. Empty where none is left."""
        for slot in disk.order:
            state = disk.slot(slot)
            if state.unbootable:
                continue
            if state.successful:
                return slot
            if state.retry_count:
                disk.set_slots(**{slot: replace(state, retry_count=state.retry_count - 1)})
                self.say(f"slot {slot} was never confirmed: {state.retry_count - 1} tries are left after this one")
                return slot
            self._give_up(disk, slot)
        return ""

    def _give_up(self, disk: Disk, slot: str) -> None:
        reason = self.remembered.reasons.setdefault(slot, "it has no tries")
        there = other_slot(slot)
        changed = {slot: replace(disk.slot(slot), unbootable=True, active=False, priority=0)}
        if not disk.slot(there).unbootable:
            changed[there] = replace(disk.slot(there), active=True, priority=3)
        disk.set_slots(**changed)
        self.remember()
        self.say(f"slot {slot} is given up: {reason}")

    def _refuse(self, disk: Disk, slot: str, reason: str) -> None:
        self.say(f"slot {slot} is refused: {reason}")
        self.remembered.reasons[slot] = reason
        self.remember()
        state = disk.slot(slot)
        if state.successful:
            disk.set_slots(**{slot: replace(state, successful=False, retry_count=RETRY_MAX)})

    def _start(
        self, disk: Disk, slot: str, verdict: Verdict, images: Images, overlays: Sequence[tuple[int, bytes]],
        reset_reason: str,
    ) -> Start:  # fmt: skip
        color = "orange" if self.remembered.unlocked else "green"
        ours = {
            "slot_suffix": f"_{slot}",
            "serialno": self.settings.serial,
            "bootreason": reset_reason,
            "verifiedbootstate": color,
            "vbmeta.device_state": "unlocked" if self.remembered.unlocked else "locked",
            "vbmeta.avb_version": "1.3",
            "vbmeta.hash_alg": "sha256",
            "vbmeta.size": str(verdict.size_bytes),
            "vbmeta.digest": verdict.digest.hex(),
            "veritymode": "eio",
            "dtbo_idx": ",".join(str(index) for index, _ in overlays),
        }
        other = other_slot(slot)
        if disk.slot(other).unbootable:
            never = self.remembered.reasons.get(other) == _NEVER_CONFIRMED
            ours["quark.given_up"] = "not_confirmed" if never else "bad_image"
        words = [f"androidboot.{k}={v}" for k, v in ours.items() if v]
        known = {w.partition("=")[0] for w in words}
        # A word that the boot loader says is not said by an image.
        words += [w for w in (*images.words, *verdict.words) if w.partition("=")[0] not in known]
        cmdline = " ".join([*words, "panic=1"])
        if len(cmdline) > android_boot.CMDLINE_MAX:
            raise Unbootable(f"the command line has {len(cmdline)} bytes, {android_boot.CMDLINE_MAX} is the limit")
        tree = self.merge([blob for _, blob in overlays]) if overlays and self.merge else b""
        return Start(slot, images, cmdline, color, tuple(verdict.problems), tree)


def _numbers(stored: dict[str, int]) -> dict[int, int]:
    return {int(k): v for k, v in stored.items()}


@dataclass(frozen=True)
class Content:
    """What lies in a slot: empty fields where it is no vbmeta structure."""

    digest: str = ""
    version: str = ""
    rollback_index: int = 0


def content(storage: Storage, disk: Disk, slot: str) -> Content:
    try:
        top = verified_boot.load(OnStorage(storage, disk), slot, verify=False)
    except Unverified:
        return Content()
    version = "".join(c for c in top.properties.get(VERSION_PROPERTY, "") if c.isprintable() and c.isascii())
    return Content(top.digest.hex(), version[:64], top.rollback_index)
