"""Virtual AR1s as they leave the factory: storage, partition table, serial numbers, by board."""

from __future__ import annotations

import zlib

from quarkctl import boards
from quarkctl.sim.ar1.settings import MIB, Settings

#: Main LUN: name and MiB. Slots first, as on A/B devices; `quarkctl flash --via edl` may bring another table.
_MAIN = (
    ("misc", 1), ("vbmeta_a", 1), ("vbmeta_b", 1), ("boot_a", 64), ("boot_b", 64), ("init_boot_a", 16),
    ("init_boot_b", 16), ("vendor_boot_a", 32), ("vendor_boot_b", 32), ("system_a", 128), ("system_b", 128),
    ("super", 512), ("metadata", 16), ("persist", 8), ("userdata", 256),
)  # fmt: skip
_BOOT = (("xbl", 4), ("xbl_config", 1))
_MAIN_BYTES, _BOOT_BYTES = 1536 * MIB, 16 * MIB


def settings(board: str, serial: str) -> Settings:
    """Of one device. UFS has two LUNs to start from besides the main one, eMMC one in all. Raises InputWrong, UsageWrong."""
    profile = boards.load(board)
    memory = str(profile.need("ar1.storage"))
    layout = {0: [(name, size * MIB) for name, size in _MAIN]}
    sizes: tuple[int, ...] = (_MAIN_BYTES,)
    if memory == "ufs":
        sizes = (_MAIN_BYTES, _BOOT_BYTES, _BOOT_BYTES)
        layout[1] = [(name, size * MIB) for name, size in _BOOT]
    return Settings(
        board=board, serial=serial, chip_serial=zlib.crc32(serial.encode()) or 1, memory=memory,
        sector_bytes=int(profile.need("ar1.sector_bytes")), lun_bytes=sizes, layout=layout,
    )  # fmt: skip
