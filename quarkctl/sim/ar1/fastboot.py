"""The boot loader's fastboot, and fastbootd: what a device does with commands, over any wire.

Source: AOSP ``system/core/fastboot/README.md`` and the behaviour of fastbootd and common boot loaders.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from quarkctl.formats.fastboot import Kind, Reply, build_reply
from quarkctl.sim.ar1 import bootloader
from quarkctl.sim.ar1.logical import Logical, LogicalError
from quarkctl.sim.ar1.partitions import RETRY_MAX, SLOTS, Disk, Partition, other_slot
from quarkctl.sim.ar1.settings import MIB, Remembered, Settings
from quarkctl.sim.ar1.storage import MediaError, Storage

_COMMAND_MAX = 4096
_ERASE_FIRST = ("userdata", "metadata")
_PIECE = MIB
#: What an answer holds besides its kind and, in `getvar all`, its name.
_TEXT_MAX = 180
#: More than an answer of the protocol may have (256, formerly 64).
_LONG = 1000


class Wire(Protocol):
    """How commands and data come. All raise OSError when the other end is gone."""

    def receive_command(self) -> bytes: ...

    def receive_into(self, view: memoryview) -> int: ...

    def send(self, data: bytes) -> None: ...


class Refused(Exception):
    """FAIL, with its text."""


class Device(Protocol):
    """The machine around the boot loader."""

    settings: Settings
    remembered: Remembered
    storage: Storage
    reset_reason: str
    boot_failure: str
    boot_once: bytes

    def remember(self) -> None: ...


@dataclass
class Buffers:
    """Memory of one start of the boot loader: what was downloaded, and what is staged to be taken: a download, until a
    command stages something else. It outlives the connections, whatever they are made over."""

    download: memoryview | None = None
    staged: bytes | memoryview = b""
    #: A command is carried out.
    busy: bool = False
    _memory: mmap.mmap | None = None

    def take(self, size_bytes: int) -> mmap.mmap:
        """Room for a download: that of the one before, as in a boot loader, whose memory is always there. New pages would
        take longer than the bytes that come. Nobody else gets it, and nothing is there to be flashed, until it is `put`."""
        memory, self._memory = self._memory, None
        self.download, self.staged = None, b""
        return memory if memory is not None and len(memory) >= size_bytes else mmap.mmap(-1, size_bytes)

    def put(self, memory: mmap.mmap, size_bytes: int) -> None:
        """The download is whole."""
        self._memory = memory
        self.download = self.staged = memoryview(memory)[:size_bytes]

    @contextmanager
    def used(self) -> Iterator[None]:
        """While a command is carried out."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def restarted(self) -> Buffers:
        """Those of the next start: the memory with nothing in it. A command that still runs keeps what it works with."""
        if self.busy:
            return Buffers()
        memory, self._memory = self._memory, None
        self.download, self.staged = None, b""
        return Buffers(_memory=memory)


class Fastboot:
    """One connection to the boot loader (or to fastbootd, ``userspace``). ``serve`` returns the mode to go to."""

    def __init__(self, device: Device, buffers: Buffers, *, userspace: bool = False) -> None:
        self._device = device
        self._settings = device.settings
        self._userspace = userspace
        self._buffers = buffers
        self._wire: Wire
        self._next = ""

    # --- the loop -----------------------------------------------------------------------------------------------------

    def serve(self, wire: Wire) -> str:
        """Answer commands until one of them leads away. Raises OSError when the wire breaks."""
        self._wire = wire
        self._next = ""
        while not self._next:
            raw = wire.receive_command()
            if not raw or "mute" in self._settings.quirks:
                continue
            if "garbage" in self._settings.quirks:
                wire.send(b"MORE\xff\x00")
                continue
            try:
                with self._buffers.used():
                    text = self._command(raw)
            except Refused as refusal:
                self._reply(Kind.FAIL, str(refusal))
            except MediaError as error:
                self._reply(Kind.FAIL, f"storage: {error}")
            except (LogicalError, IndexError) as error:  # whatever lies in super
                self._reply(Kind.FAIL, f"super: {error}")
            else:
                self._reply(Kind.OKAY, text)
            if "late_logs" in self._settings.quirks and not self._next:
                self._info("this comes late")
        return self._next

    def _reply(self, kind: Kind, text: str = "", size_bytes: int = 0) -> None:
        self._wire.send(build_reply(Reply(kind, text, size_bytes)))

    def _info(self, text: str) -> None:
        self._reply(Kind.INFO, text)

    def _command(self, raw: bytes) -> str:
        if len(raw) > _COMMAND_MAX or any(c < 32 or c > 126 for c in raw):
            raise Refused("malformed command")
        while "endless_info" in self._settings.quirks:
            self._info("still busy")
        if "long_answers" in self._settings.quirks:
            self._wire.send(b"INFO" + b"x" * _LONG)
        text = raw.decode("ascii")
        name, _, argument = text.partition(":")
        first, _, rest = text.partition(" ")
        simple: dict[str, Callable[[], str]] = {
            "reboot": lambda: self._leave("system"),
            "continue": lambda: self._leave("system"),
            "reboot-bootloader": lambda: self._leave("fastboot"),
            "reboot-fastboot": lambda: self._leave("fastbootd"),
            "reboot-recovery": lambda: self._leave("recovery"),
            "reboot-edl": lambda: self._leave("edl"),
            "powerdown": lambda: self._leave("off"),
            "shutdown": lambda: self._leave("off"),
            "upload": self._upload,
            "boot": self._boot,
        }
        with_argument: dict[str, Callable[[str], str]] = {
            "getvar": self._getvar,
            "download": self._download_data,
            "flash": self._flash,
            "erase": self._erase,
            "set_active": self._set_active,
            "fetch": self._fetch,
            "snapshot-update": self._snapshot,
            "create-logical-partition": self._create_logical,
            "delete-logical-partition": self._delete_logical,
            "resize-logical-partition": self._resize_logical,
            "update-super": self._update_super,
            "gsi": self._gsi,
        }
        if text in simple:
            return simple[text]()
        if name in with_argument and argument:
            return with_argument[name](argument)
        if first == "flashing":
            return self._flashing(rest)
        if first == "oem":
            return self._oem(rest)
        raise Refused("unknown command")

    def _leave(self, mode: str) -> str:
        self._next = mode
        return ""

    # --- variables ----------------------------------------------------------------------------------------------------

    def _getvar(self, name: str) -> str:
        if name == "all":
            for key, value in self._variables().items():
                self._info(f"{key}:{value}")
            return ""
        found = self._variables()
        if name not in found:
            if "empty_unknown" in self._settings.quirks:
                return ""
            raise Refused("unknown variable")
        return found[name]

    def _number(self, value: int, bare: str = "x") -> str:
        return format(value, bare) if "bare_numbers" in self._settings.quirks else f"{value:#x}"

    def _variables(self) -> dict[str, str]:
        s, r, disk = self._settings, self._device.remembered, Disk(self._device.storage)
        yes = {True: "yes", False: "no"}
        values = {
            "version": "0.4", "version-bootloader": "virtual-1.0", "version-baseband": "none",
            "product": s.board, "hw-revision": "virtual", "variant": f"virtual {s.memory}", "serialno": s.serial,
            "secure": yes[not r.unlocked], "unlocked": yes[r.unlocked], "is-userspace": yes[self._userspace],
            "max-download-size": self._number(s.max_download_bytes, "d"),
            "battery-voltage": str(3200 + 10 * r.battery_soc_pct),
            "battery-soc": str(r.battery_soc_pct), "battery-soc-ok": yes[r.battery_soc_pct >= 15],
            "snapshot-update-status": r.snapshot, "super-partition-name": "super",
            "slot-count": "2" if disk.has_slots else "0", "erase-block-size": self._number(s.sector_bytes),
            "logical-block-size": self._number(s.sector_bytes),
            "reset-reason": self._device.reset_reason, "boot-failure": _one_word(self._device.boot_failure),
        }  # fmt: skip
        if self._userspace:
            values["max-fetch-size"] = self._number(256 * MIB)
        if disk.has_slots:
            values["current-slot"] = disk.current_slot
            for slot in SLOTS:
                values |= {f"{key}:{slot}": value for key, value in self._slot(disk, slot).items()}
        values |= {f"stored-rollback-index:{k}": str(v) for k, v in r.rollback.items()}
        everything = {p.name: p.size_bytes for p in disk.partitions.values()}
        logical = self._logical_sizes(disk)
        for name, size in {**everything, **logical}.items():
            values[f"partition-size:{name}"] = self._number(size)
            values[f"partition-type:{name}"] = "ext4" if name in _ERASE_FIRST else "raw"
            values[f"is-logical:{name}"] = yes[name in logical]
            slotted = name[-2:] in ("_a", "_b") and {f"{name[:-2]}_a", f"{name[:-2]}_b"} <= {*everything, *logical}
            values[f"has-slot:{name[:-2] if slotted else name}"] = yes[slotted]
        return values

    def _slot(self, disk: Disk, slot: str) -> dict[str, str]:
        """Of the boot control, and of what lies in the slot now."""
        yes = {True: "yes", False: "no"}
        state, found = disk.slot(slot), bootloader.content(self._device.storage, disk, slot)
        reason = self._device.remembered.reasons.get(slot, "") if state.unbootable else ""
        return {
            "slot-successful": yes[state.successful], "slot-unbootable": yes[state.unbootable],
            "slot-retry-count": str(state.retry_count), "slot-priority": str(state.priority),
            "slot-active": yes[state.active], "slot-vbmeta-digest": found.digest, "slot-version": found.version,
            "slot-rollback-index": str(found.rollback_index),
            "slot-reason": _one_word(reason),
        }  # fmt: skip

    def _logical_sizes(self, disk: Disk) -> dict[str, int]:
        if not self._userspace or "super" not in disk.partitions:
            return {}
        return Logical.read(self._device.storage, disk.partitions["super"]).sizes()

    # --- data ---------------------------------------------------------------------------------------------------------

    def _download_data(self, argument: str) -> str:
        try:
            size = int(argument, 16)
        except ValueError:
            raise Refused("malformed size") from None
        if len(argument) != 8 or not 0 < size <= self._settings.max_download_bytes:
            raise Refused("data size not acceptable")
        self._require_unlocked("download")
        memory = self._buffers.take(size)
        announced = size - 1 if "wrong_data_size" in self._settings.quirks else size
        self._reply(Kind.DATA, size_bytes=announced)
        got = 0
        with memoryview(memory)[:size] as view:
            while got < size:
                got += self._wire.receive_into(view[got:])
                if "reboots_away" in self._settings.quirks:
                    self._next = "system"
                    raise ConnectionResetError
        if "early_nak" in self._settings.quirks:
            raise Refused("the data was refused in the middle of it")
        self._buffers.put(memory, size)
        return ""

    def _require_unlocked(self, what: str) -> None:
        if not self._device.remembered.unlocked:
            raise Refused(f"{what} is not allowed on locked devices")

    def _upload(self) -> str:
        if not self._buffers.staged:
            raise Refused("nothing is staged")
        data, self._buffers.staged = self._buffers.staged, b""
        self._send_data(bytes(data))
        return ""

    def _send_data(self, data: bytes) -> None:
        self._reply(Kind.DATA, size_bytes=len(data))
        self._wire.send(data)

    def _fetch(self, argument: str) -> str:
        words = argument.split(":")
        self._require_unlocked("fetch")
        if not self._userspace or words[0] not in ("vendor_boot", "vendor_boot_a", "vendor_boot_b"):
            raise Refused("fetch is not allowed for this partition")
        place = self._place(words[0])
        try:
            offset = int(words[1], 16) if len(words) > 1 else 0
            size = int(words[2], 16) if len(words) > 2 else place.size_bytes - offset
        except ValueError:
            raise Refused("malformed range") from None
        if offset < 0 or size <= 0 or offset + size > place.size_bytes:
            raise Refused("outside the partition")
        self._send_data(self._device.storage.read(place.lun, place.offset + offset, size))
        return ""

    # --- partitions ---------------------------------------------------------------------------------------------------

    def _place(self, name: str) -> Partition:
        disk = Disk(self._device.storage)
        if name not in disk.partitions:
            raise Refused(f"partition {name} does not exist")
        return disk.partitions[name]

    def _writable(self, name: str) -> Callable[[int, memoryview], None]:
        """A writer into the partition, physical or logical; it refuses what lies outside."""
        storage = self._device.storage
        disk = Disk(storage)
        write: Callable[[int, memoryview], None]
        if name in disk.partitions:
            place = disk.partitions[name]
            size, write = place.size_bytes, partial(_write_at, storage, place)
        elif name in self._logical_sizes(disk):
            logical = Logical.read(storage, disk.partitions["super"])
            size, write = logical.sizes()[name], logical.writer(name)
        else:
            raise Refused(f"partition {name} does not exist")

        def bounded(offset: int, data: memoryview) -> None:
            if offset + len(data) > size:
                raise Refused(f"partition {name} has {size} bytes: too small")
            write(offset, data)

        return bounded

    def _flash(self, name: str) -> str:
        self._require_unlocked("flash")
        if self._device.remembered.battery_soc_pct < 15:
            raise Refused("battery too low")
        if self._buffers.download is None:
            raise Refused("no image was downloaded")
        write = self._writable(name)
        self._info(f"writing {name}")
        with self._buffers.download[:] as view:
            if self._settings.discard:
                return ""
            if bytes(view[:4]) == b"\x3a\xff\x26\xed":
                expand(view, write)
            else:
                for at in range(0, len(view), _PIECE):
                    write(at, view[at : at + _PIECE])
        if self._device.remembered.snapshot == "snapshotted":
            self._device.remembered.snapshot = "none"
            self._device.remember()
        return ""

    def _erase(self, name: str) -> str:
        self._require_unlocked("erase")
        place = self._place(name)
        self._device.storage.erase(place.lun, place.offset, place.size_bytes)
        return ""

    def _set_active(self, slot: str) -> str:
        return self._activate(slot, "set_active", RETRY_MAX)

    def _activate(self, slot: str, command: str, tries: int) -> str:
        self._require_unlocked(command)
        disk = Disk(self._device.storage)
        if not disk.has_slots or slot not in SLOTS:
            raise Refused(f"there is no slot {slot}")
        if self._device.remembered.snapshot == "merging":
            raise Refused("a snapshot is being merged")
        disk.activate(slot, tries)
        if self._device.remembered.reasons.pop(slot, ""):
            self._device.remember()
        return ""

    def _untrial(self) -> str:
        """Take back a slot that is to be tried: the one that was confirmed is the next to start again."""
        self._require_unlocked("untrial")
        disk = Disk(self._device.storage)
        armed = disk.current_slot
        there = other_slot(armed)
        if not armed or disk.slot(armed).successful or not disk.slot(there).successful:
            raise Refused("no slot is on trial beside one that was confirmed")
        disk.settle(there)
        return ""

    def _logical(self) -> Logical:
        self._require_unlocked("changing logical partitions")
        if not self._userspace:
            raise Refused("only fastbootd changes logical partitions")
        return Logical.read(self._device.storage, self._place("super"))

    def _create_logical(self, argument: str) -> str:
        name, _, size = argument.rpartition(":")
        return self._change(lambda table: table.create(name, _decimal(size)))

    def _resize_logical(self, argument: str) -> str:
        name, _, size = argument.rpartition(":")
        return self._change(lambda table: table.resize(name, _decimal(size)))

    def _delete_logical(self, name: str) -> str:
        return self._change(lambda table: table.delete(name))

    def _change(self, change: Callable[[Logical], None]) -> str:
        table = self._logical()
        try:
            change(table)
        except LogicalError as error:
            raise Refused(str(error)) from None
        return ""

    def _update_super(self, argument: str) -> str:
        name, _, option = argument.partition(":")
        self._require_unlocked("update-super")
        image = self._buffers.download
        if not self._userspace or image is None or option not in ("", "wipe"):
            raise Refused("needs fastbootd and a downloaded image")
        place = self._place(name)
        try:
            Logical.install(self._device.storage, place, bytes(image[: 2 * MIB]), wipe=option == "wipe")
        except LogicalError as error:
            raise Refused(str(error)) from None
        return ""

    def _snapshot(self, action: str) -> str:
        self._require_unlocked("snapshot-update")
        r = self._device.remembered
        if action not in ("cancel", "merge"):
            raise Refused("cancel or merge")
        if action == "cancel" and r.snapshot == "merging":
            raise Refused("a merge cannot be cancelled")
        r.snapshot = "none"
        self._device.remember()
        return ""

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _flashing(self, action: str) -> str:
        r = self._device.remembered
        if action == "get_unlock_ability":
            self._info("get_unlock_ability: 1")
            return ""
        changes = {
            "unlock": ("unlocked", True), "lock": ("unlocked", False),
            "unlock_critical": ("critical_unlocked", True), "lock_critical": ("critical_unlocked", False),
        }  # fmt: skip
        if action not in changes:
            raise Refused("unknown flashing command")
        name, value = changes[action]
        if getattr(r, name) != value:
            setattr(r, name, value)
            if name == "unlocked":  # what the last owner kept must not be read by the next one
                for partition in _ERASE_FIRST:
                    place = Disk(self._device.storage).partitions.get(partition)
                    if place:
                        self._device.storage.erase(place.lun, place.offset, place.size_bytes)
            self._device.remember()
        return ""

    def _oem(self, text: str) -> str:
        words = text.split()
        if words[:1] == ["digest"] and len(words) in (2, 4) and "no_digest" not in self._settings.quirks:
            digest = self._digest(words[1], words[2:])
            if "digest_lies" in self._settings.quirks:
                digest = digest[::-1]
            self._info(digest.hex())
            return ""
        if words[:1] == ["trial"] and len(words) == 2:
            return self._activate(words[1], "trial", 1)
        if words == ["untrial"]:
            return self._untrial()
        if words == ["edl"]:
            return self._leave("edl")
        if words == ["device-info"]:
            self._info(f"Device unlocked: {str(self._device.remembered.unlocked).lower()}")
            return ""
        if words[:1] == ["stage"]:
            self._buffers.staged = b" ".join(w.encode() for w in words[1:]) or bytes(self._buffers.download or b"")
            return ""
        raise Refused("unknown oem command")

    def _digest(self, name: str, words: Sequence[str]) -> bytes:
        """Of a range of a partition, physical or logical; of all of it without ``words``."""
        storage, disk = self._device.storage, Disk(self._device.storage)
        logical = self._logical_sizes(disk)
        if name in logical and name not in disk.partitions:
            total, lun = logical[name], disk.partitions["super"].lun
            pieces = Logical.read(storage, disk.partitions["super"]).extents(name)
        else:
            place = self._place(name)
            total, lun, pieces = place.size_bytes, place.lun, [(place.offset, place.size_bytes)]
        try:
            offset, size = (int(w, 0) for w in words) if words else (0, total)
        except ValueError:
            raise Refused("malformed range") from None
        if offset < 0 or size < 0 or offset + size > total:
            raise Refused("outside the partition")
        found = hashlib.sha256()
        for start, length in pieces:
            end = start + min(length, offset + size)
            for at in range(start + offset, end, _PIECE):
                found.update(storage.read(lun, at, min(_PIECE, end - at)))
            size -= max(min(length - offset, size), 0)
            offset = max(offset - length, 0)
        return found.digest()

    def _boot(self) -> str:
        self._require_unlocked("boot")
        if self._buffers.download is None or bytes(self._buffers.download[:8]) != b"ANDROID!":
            raise Refused("the downloaded image is no boot image")
        self._info("starting the downloaded image")
        self._device.boot_once = bytes(self._buffers.download)
        return self._leave("system")

    def _gsi(self, action: str) -> str:
        """A system image that was installed beside the device's own: this device never has one."""
        if not self._userspace:
            raise Refused("only fastbootd knows of system images beside its own")
        if action not in ("wipe", "disable", "status"):
            raise Refused("wipe, disable or status")
        if action != "status":
            raise Refused("no other system image is installed")
        self._info("normal")
        return ""


def _one_word(text: str) -> str:
    """As a variable's value: clients look for its end of the name at the last colon."""
    plain = text.replace(": ", ", ").replace(":", " ")
    return "".join(c for c in plain if c.isascii() and c.isprintable())[:_TEXT_MAX]


def _write_at(storage: Storage, place: Partition, offset: int, data: memoryview) -> None:
    storage.write(place.lun, place.offset + offset, data)


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Refused("malformed size")
    return int(text)


_SPARSE_HEADER = struct.Struct("<I4H4I")
_CHUNK = struct.Struct("<2H2I")


def expand(view: memoryview, write: Callable[[int, memoryview], None]) -> None:
    """Write an Android sparse image. Raises Refused for one that is damaged."""
    try:
        _, major, _, header_bytes, chunk_bytes, block_bytes, blocks, chunks, _ = _SPARSE_HEADER.unpack_from(view)
        if major != 1 or not block_bytes or block_bytes % 4 or header_bytes < 28 or chunk_bytes < 12:
            raise Refused("unknown sparse format")
        at, block = header_bytes, 0
        for _ in range(chunks):
            kind, _, count, total = _CHUNK.unpack_from(view, at)
            if total < chunk_bytes:
                raise Refused("damaged sparse chunk")
            body = view[at + chunk_bytes : at + total]
            if kind == 0xCAC1 and len(body) == count * block_bytes:
                for start in range(0, len(body), _PIECE):
                    write(block * block_bytes + start, body[start : start + _PIECE])
            elif kind == 0xCAC2 and len(body) == 4:
                _fill(bytes(body), block * block_bytes, count * block_bytes, write)
            elif kind not in (0xCAC3, 0xCAC4):
                raise Refused("damaged sparse chunk")
            block += count if kind != 0xCAC4 else 0
            at += total
    except struct.error:
        raise Refused("the sparse image is cut short") from None
    if block != blocks or at != len(view):
        raise Refused("the sparse image does not add up")


def _fill(pattern: bytes, offset: int, size_bytes: int, write: Callable[[int, memoryview], None]) -> None:
    piece = memoryview(pattern * (min(size_bytes, _PIECE) // 4))
    for at in range(0, size_bytes, _PIECE):
        write(offset + at, piece[: size_bytes - at])
