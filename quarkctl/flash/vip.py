"""Validated image programming: the exact packets of a flash, as a pure function of the files and the payload, and sending
them beside their digest tables.

The same packets as linux-msm/qdl sends (``firehose.c``): its tables serve us, and ours serve it. So nothing is asked,
skipped, coalesced or read back here, and a write that stopped begins anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from quarkctl.errors import DeviceRefused, InputWrong
from quarkctl.flash.ar1_image import Extent, Image
from quarkctl.flash.edl_sources import (
    BOOT_LABELS,
    Work,
    Write,
    check_order,
    erase_attributes,
    nand_attributes,
    patch_attributes,
)
from quarkctl.flash.firehose import PAYLOAD_BYTES, Programmer
from quarkctl.formats import firehose, vip
from quarkctl.formats.rawprogram import Erase, Patch
from quarkctl.formats.sparse import Kind
from quarkctl.formats.vip import Tables

#: Behind every storage.
_END = 1 << 64
_TABLE_S = 30.0
_TABLE_MAX = 1 << 20


@dataclass(frozen=True)
class Command:
    """One command, and the raw data that follows its acknowledgement (``size_bytes`` 0: none)."""

    tag: str
    attributes: dict[str, object]
    image: Image | None = None
    extent: Extent | None = None
    size_bytes: int = 0

    @property
    def document(self) -> bytes:
        return firehose.build(self.tag, self.attributes, pad=False)

    def pieces(self, payload_bytes: int) -> Iterator[memoryview]:
        """Its raw data; each piece is valid until the next one."""
        if self.image is None or self.extent is None:
            return iter(())
        buffer = memoryview(bytearray(min(payload_bytes, self.size_bytes)))
        return self.image.pieces(self.extent.offset, self.extent.size_bytes, repeat(buffer), pad_to=self.size_bytes)


def commands(work: Work, memory: str, payload_bytes: int = PAYLOAD_BYTES, *, restart: bool = True) -> list[Command]:
    """Everything that is sent, in order. Raises InputWrong for what is not known without asking the device."""
    out = [
        Command("configure", {"MemoryName": memory, "MaxPayloadSizeToTargetInBytes": payload_bytes, "Verbose": 0,
                              "ZlpAwareHost": 1, "SkipStorageInit": 0})
    ]  # fmt: skip
    check_order([_place(e) for e in work.entries if not isinstance(e, Patch)])
    sector_bytes = next((w.sector_bytes for w in work.writes if w.sector_bytes), 0)
    for entry in work.entries:
        if isinstance(entry, Erase):
            out.append(_erase(entry, entry.sector_bytes or sector_bytes))
        elif isinstance(entry, Patch):
            out.append(Command("patch", patch_attributes(entry)))
        else:
            out += _programs(entry, payload_bytes)
    luns = [w.lun for w in work.writes if w.label in BOOT_LABELS]
    if luns:
        out.append(Command("setbootablestoragedrive", {"value": luns[0]}))
    if restart:
        out.append(Command("power", {"value": "reset", "DelayInSeconds": 10}))
    return out


def _place(entry: Write | Erase) -> tuple[int, int, int, str]:
    """For `check_order`. Nothing tells here how large the storage is: what is counted from its end lies behind the rest."""
    first = _END - entry.start.number if entry.start.from_end else entry.start.number
    if isinstance(entry, Erase):
        return entry.lun, first, first + entry.sectors if entry.sectors else _END, ""
    return entry.lun, first, first + -(-entry.image.size_bytes // max(entry.sector_bytes, 1)), entry.label


def _erase(erase: Erase, sector_bytes: int) -> Command:
    if not sector_bytes:
        raise InputWrong(f"an <erase> of LUN {erase.lun} has no SECTOR_SIZE_IN_BYTES: digest tables need it")
    return Command("erase", erase_attributes(erase, sector_bytes))


def _programs(write: Write, payload_bytes: int) -> list[Command]:
    if write.sector_bytes and payload_bytes % write.sector_bytes:
        raise InputWrong(f"a payload of {payload_bytes} bytes is no whole number of sectors of {write.sector_bytes}")
    if write.partition or not write.sector_bytes:
        raise InputWrong(
            f"{write.label} has no place and sector size of its own: digest tables need both",
            hint="give rawprogram XML",
        )
    return [_program(write, extent) for extent in _extents(write)]


def _extents(write: Write) -> list[Extent]:
    """One a chunk of a sparse image, as qdl sends them."""
    image = write.image
    if image.sparse is None:
        return [Extent(0, image.size_bytes)]
    if image.block_bytes % write.sector_bytes:
        raise InputWrong(
            f"{image.path.name} has blocks of {image.block_bytes} bytes, sectors have {write.sector_bytes}"
        )
    return [
        Extent(c.first_block * image.block_bytes, c.blocks * image.block_bytes)
        for c in image.sparse.chunks
        if c.kind is not Kind.DONT_CARE
    ]


def _program(write: Write, extent: Extent) -> Command:
    sector = write.sector_bytes
    sectors = -(-extent.size_bytes // sector)
    if write.sectors and extent.offset // sector + sectors > write.sectors:
        raise InputWrong(
            f"{write.image.path.name} has {write.image.size_bytes} bytes, {write.label} holds {write.sectors * sector}"
        )
    start = str(write.start) if not extent.offset else str(write.start.number + extent.offset // sector)
    attributes: dict[str, object] = {
        "SECTOR_SIZE_IN_BYTES": sector, "num_partition_sectors": sectors, "physical_partition_number": write.lun,
        "start_sector": start, "filename": write.image.path.name, **nand_attributes(write),
    }  # fmt: skip
    return Command("program", attributes, write.image, extent, sectors * sector)


def digests(todo: list[Command], payload_bytes: int = PAYLOAD_BYTES) -> list[bytes]:
    """SHA-256 of every packet."""
    out: list[bytes] = []
    for command in todo:
        out.append(hashlib.sha256(command.document).digest())
        out += [hashlib.sha256(piece).digest() for piece in command.pieces(payload_bytes)]
    return out


def tables(work: Work, memory: str, payload_bytes: int = PAYLOAD_BYTES, *, restart: bool = True) -> Tables:
    """The digest tables of a flash: a pure function of the files and the payload size."""
    return vip.build(digests(commands(work, memory, payload_bytes, restart=restart), payload_bytes))


@dataclass(frozen=True)
class Signed:
    """Tables as they are sent: the signed first one, and the chained ones."""

    signed: bytes
    chained: tuple[bytes, ...]

    def check(self, expected: Tables) -> None:
        """Raises InputWrong where they are for other files: a programmer would refuse the first packet that differs."""
        if expected.to_sign not in self.signed or self.chained != expected.chained:
            raise InputWrong(
                "the digest tables are for other files, another payload or other options",
                hint="make them anew with `quarkctl ar1 vip-tables` and have them signed, or give the files they are for",
            )


def load(folder: Path) -> Signed:
    """``DigestsToSign.bin.mbn`` and the chained tables beside it. Raises InputWrong."""

    def read(name: str) -> bytes | None:
        path = folder / name
        try:
            return path.read_bytes() if path.stat().st_size <= _TABLE_MAX else b""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputWrong(f"cannot read {path}: {error.strerror}") from error

    return collect(read, str(folder))


def collect(read: Callable[[str], bytes | None], where: str) -> Signed:
    """From files by name; None for one that is not there. Raises InputWrong."""
    tables: list[bytes] = []
    for name in (vip.SIGNED_NAME, *(vip.CHAINED_NAME.format(n) for n in range(vip.CHAINED_MAX))):
        data = read(name)
        if data is None and tables:
            break
        if not data:
            raise InputWrong(f"{where}: {name} is missing or no digest table")
        tables.append(data)
    return Signed(tables[0], tuple(tables[1:]))


class Escort:
    """Sends each table before the first packet that it lists."""

    def __init__(self, programmer: Programmer, signed: Signed) -> None:
        self._programmer = programmer
        self._tables = [(signed.signed, vip.SIGNED_COUNT), *((t, vip.CHAINED_COUNT) for t in signed.chained)]
        self._left = 0

    def __call__(self) -> None:
        """Before each packet. Raises DeviceRefused."""
        if not self._left:
            if not self._tables:
                raise InputWrong("there are more packets than the digest tables list")
            table, self._left = self._tables.pop(0)
            response = self._programmer.give_table(table, _TABLE_S)
            if not response.ok:
                raise DeviceRefused(
                    "the device refused a digest table: " + ("; ".join(response.logs[-2:]) or "without a reason"),
                    hint="is the first table signed for this device?",
                )
        self._left -= 1
