"""A device in emergency download, from whatever state it was found in to a programmer that takes commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarkctl import state
from quarkctl.errors import InputWrong, LinkError, ProtocolError
from quarkctl.flash.firehose import Programmer
from quarkctl.flash.journal import Journal
from quarkctl.flash.sahara import Sahara
from quarkctl.formats import gpt
from quarkctl.formats.firehose import StorageInfo
from quarkctl.formats.record import Damaged
from quarkctl.link import Opener
from quarkctl.link.ar1 import EDL, expect
from quarkctl.link.usb import UsbLink

#: A boot ROM says HELLO by then, a fresh programmer its greeting; silence means that something was begun before.
HELLO_S = 1.0
#: An open raw phase is closed with at most this much more than what the journal knows to be missing.
_CLOSING_MAX = 4 << 20
_TABLE_BYTES = 64 << 10
_LUN_MAX = 32
_POWER_CYCLE = "power-cycle it into emergency download, then repeat"


def _left_idle(identity: str) -> Path:
    """A file that exists while a programmer that we started may still run. It names the computer's start: after another
    one nobody knows what the programmer was told last."""
    return state.folder("programmers") / state.file_name(identity)


def forget_programmer(identity: str) -> None:
    """It does not run any more."""
    _left_idle(identity).unlink(missing_ok=True)


def _runs_idle(identity: str) -> bool:
    """A programmer that we started waits for commands, unless the journal knows of an open write."""
    try:
        return _left_idle(identity).read_text("utf-8") == state.boot_id()
    except (OSError, UnicodeDecodeError):
        return False


@dataclass
class EdlDevice:
    """An open device. ``sector_bytes`` is 0 until it is known; ``luns`` are asked for when they are needed."""

    link: UsbLink
    programmer: Programmer
    memory: str
    sector_bytes: int = 0
    luns: dict[int, StorageInfo | None] = field(default_factory=dict)

    def info(self, lun: int) -> StorageInfo | None:
        if lun not in self.luns:
            self.luns[lun] = self.programmer.storage_info(lun)
        return self.luns[lun]

    def sectors(self, lun: int) -> int:
        """Of a LUN; 0 where the device does not tell."""
        info = self.info(lun)
        return info.sector_count if info else 0

    def attributes(self, lun: int, start: object, sectors: int) -> dict[str, object]:
        """Of a command that works on sectors, in the frozen order."""
        return {
            "SECTOR_SIZE_IN_BYTES": self.sector_bytes, "num_partition_sectors": sectors,
            "physical_partition_number": lun, "start_sector": start,
        }  # fmt: skip

    def table(self, lun: int) -> gpt.Table | None:
        """The partition table of a LUN, primary or backup; None where there is none."""
        size, sectors = self.sector_bytes, self.sectors(lun)
        count = min(2 + _TABLE_BYTES // size, sectors or 2 + _TABLE_BYTES // size)
        raw = b"".join(self.programmer.read(self.attributes(lun, 0, count), count * size))
        try:
            return gpt.parse(raw, size)
        except Damaged:
            if sectors < count:
                return None
        raw = b"".join(self.programmer.read(self.attributes(lun, sectors - count, count), count * size))
        try:
            return gpt.parse_backup(raw, size)
        except Damaged:
            return None

    def tables(self) -> dict[int, gpt.Table]:
        """Of all LUNs that have one."""
        info = self.info(0)
        count = min(max(info.lun_count if info else 1, 1), _LUN_MAX)
        return {lun: table for lun in range(count) if (table := self.table(lun))}

    def find_sector_size(self, given: int) -> None:
        """The profile's or the files' size, the device's own word, or the one with which a sector can be read.

        Raises InputWrong where the files are made for another size, ProtocolError where none is found.
        """
        info = self.info(0)
        said = info.sector_bytes if info else 0
        if said and given and said != given:
            raise InputWrong(
                f"the files are made for sectors of {given} bytes, the device has {said}",
                hint=f"take the files for {'UFS' if said == 4096 else 'eMMC'} storage",
            )
        self.sector_bytes = said or given
        for size in (512, 4096) if not self.sector_bytes else ():
            self.sector_bytes = size
            response = self.programmer.ask("read", self.attributes(0, 1, 1))
            if response.ok:
                self.programmer.drain_read(size)
                break
            self.sector_bytes = 0
        if not self.sector_bytes:
            raise ProtocolError("the device does not tell the size of its sectors", hint="name the board: --board")
        self.programmer.use_sectors(self.sector_bytes)


def open_device(
    opener: Opener, images: Mapping[int, bytes], memory: str, told: Callable[[str], None], journal: Journal,
    moved: Callable[[int], None], *, assume_idle: bool = False, vip: bool = False,
) -> EdlDevice:  # fmt: skip
    """Open the device and bring a programmer to the point where it takes commands.

    Nothing is sent into a phase that might take it for data. Raises LinkError with the exact reason where only a power
    cycle helps, InputWrong without a programmer.
    """
    link = opener.open()
    expect(link, EDL)
    if not isinstance(link, UsbLink):
        raise LinkError(f"{link.name} is no USB device")
    try:
        first = link.read(HELLO_S)
        programmer = _from(link, first, images, told, journal, moved, assume_idle=assume_idle, pad=not vip)
        journal.count(0, 0)
        if not vip:
            programmer.configure(memory)
        return EdlDevice(link, programmer, memory)
    except BaseException:
        link.close()
        raise


def _from(
    link: UsbLink, first: bytes, images: Mapping[int, bytes], told: Callable[[str], None], journal: Journal,
    moved: Callable[[int], None], *, assume_idle: bool, pad: bool,
) -> Programmer:  # fmt: skip
    if first.lstrip().startswith(b"<"):
        programmer = Programmer(link, told, first, pad=pad)
        programmer.greet()
        return programmer
    if first:
        if not images:
            raise InputWrong(
                "the device waits for a programmer, and there is none beside the files",
                hint="name it: --programmer prog_firehose.elf",
            )
        forget_programmer(journal.identity)
        sahara = Sahara(link, first)
        sahara.upload(images, moved)
        _left_idle(journal.identity).write_text(state.boot_id(), "utf-8")
        programmer = Programmer(link, told, sahara.rest, pad=pad)
        programmer.greet()
        return programmer
    if not pad:
        raise LinkError(
            "the device says nothing: with digest tables a flash begins at its first packet or not at all",
            hint=_POWER_CYCLE,
        )
    return _silent(link, told, journal, assume_idle=assume_idle, pad=pad)


def _silent(
    link: UsbLink, told: Callable[[str], None], journal: Journal, *, assume_idle: bool, pad: bool
) -> Programmer:
    """It says nothing: a programmer that waits for a command, one that waits for data, or a ROM whose HELLO was eaten."""
    programmer = Programmer(link, told, pad=pad)
    if not journal.fresh and not assume_idle and not _runs_idle(journal.identity):
        raise LinkError(
            "the device says nothing, and it is not known what it was told before",
            hint=f"{_POWER_CYCLE}; or, if you know that its programmer waits for commands: --assume-idle",
        )
    sent_bytes, size_bytes = journal.counted
    if size_bytes and journal.fresh:
        _close_raw(programmer, size_bytes, sent_bytes)
    if not programmer.alive():
        raise LinkError(
            "the device does not answer: its boot ROM waits for somebody who was there before, or its programmer hangs",
            hint=_POWER_CYCLE,
        )
    return programmer


def _close_raw(programmer: Programmer, size_bytes: int, sent_bytes: int) -> None:
    """A write was under way when the last run ended. What is missing of its data is known to within one transfer: zeros
    end the phase, and what stands on the storage then is compared and written again like everything else."""
    left = min(max(size_bytes - sent_bytes, 0), size_bytes)
    if not programmer.close_phase(left, _CLOSING_MAX):
        raise LinkError(
            "a write was interrupted and the device still waits for the rest of its data, of unknown length",
            hint=f"{_POWER_CYCLE}: what was written until then is kept and skipped",
        )
