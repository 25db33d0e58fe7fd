"""Virtual AR1s as they leave the factory: storage, partition table, serial numbers, by board."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

from quarkctl import boards
from quarkctl.errors import InputWrong
from quarkctl.formats.rawprogram import Program, parse_programs
from quarkctl.sim.ar1.fastboot import Refused, expand
from quarkctl.sim.ar1.partitions import FACTORY, Disk
from quarkctl.sim.ar1.settings import MIB, Settings
from quarkctl.sim.ar1.storage import Storage

_ZEROS = bytes(MIB)
#: Name and KiB. Partitions and sizes are those of firmware/ar1, where a build brings its own table.
_DATA = (("super", 32 << 10), ("userdata", 28 << 10))
_SLOTTED = (("boot", 32 << 10), ("init_boot", 8 << 10), ("vendor_boot", 8 << 10), ("dtbo", 1 << 10), ("vbmeta", 64))
_START = (*((f"{name}_{slot}", kib) for name, kib in _SLOTTED for slot in ("a", "b")), ("misc", 1 << 10))
_XBL = (("xbl", 4 << 10), ("xbl_config", 1 << 10))

#: {kind of memory: size of each LUN in MiB and what is in it}. UFS starts from LUN 1 or 2; eMMC is one LUN.
_MEMORIES = {
    "ufs": ((64, _DATA), (8, _XBL), (8, ()), (8, ()), (128, _START)),
    "emmc": ((192, (*_START, *_DATA)),),
}


def settings(board: str, serial: str) -> Settings:
    """Of one device. Raises InputWrong, UsageWrong."""
    profile = boards.load(board)
    memory = str(profile.need("ar1.storage"))
    luns = _MEMORIES[memory]
    return Settings(
        board=board, serial=serial, chip_serial=zlib.crc32(serial.encode()) or 1, memory=memory,
        sector_bytes=int(profile.need("ar1.sector_bytes")), lun_bytes=tuple(size * MIB for size, _ in luns),
        layout={n: [(name, kib << 10) for name, kib in parts] for n, (_, parts) in enumerate(luns)},
        root_key_digest=str(profile.need("ar1.avb_key.development")),
    )  # fmt: skip


def install(folder: Path, board: str, images: Path) -> None:
    """Make the storage of a new device in ``folder``, with what the programs of a build say. Slot a is confirmed, as that
    of a microcontroller that leaves the factory. Raises InputWrong."""
    made = settings(board, "")
    programs = [(file, p) for file in sorted(images.glob("rawprogram*.xml")) for p in parse_programs(_read(file))]
    if not programs:
        raise InputWrong(f"{images} holds no rawprogram*.xml", hint=f"quarkctl build ar1 --board {board}")
    folder.mkdir(parents=True)
    storage = Storage(folder, made.sector_bytes, made.lun_bytes)
    try:
        for file, program in programs:
            if program.filename:
                try:
                    _write(storage, program, images / program.filename)
                except (IndexError, Refused) as error:
                    raise InputWrong(
                        f"{file.name}: {program.filename} does not fit a virtual {board}: {error}",
                        hint=f"quarkctl build ar1 --board {board}",
                    ) from error
        disk = Disk(storage)
        if disk.has_slots:
            disk.set_slots(a=replace(FACTORY, successful=True), b=replace(disk.slot("b"), active=False))
    finally:
        storage.close()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputWrong(f"cannot read {file}: {error.strerror}") from error


def _write(storage: Storage, program: Program, file: Path) -> None:
    sector, start = storage.sector_bytes, program.start.number
    if program.sector_bytes != sector:
        raise IndexError(f"it is made for sectors of {program.sector_bytes} bytes, not {sector}")
    if not 0 <= program.lun < len(storage.lun_bytes):
        raise IndexError(f"there is no LUN {program.lun}")
    first = storage.lun_bytes[program.lun] // sector - start if program.start.from_end else start

    def write(offset: int, piece: memoryview) -> None:
        if piece != _ZEROS[: len(piece)]:  # a new file reads zero: what is zero stays a hole
            storage.write(program.lun, first * sector + offset, piece)

    with memoryview(_read(file)) as data:
        if program.sparse:
            expand(data, write)
        else:
            for at in range(0, len(data), MIB):
                write(at, data[at : at + MIB])
