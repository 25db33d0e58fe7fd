"""Small slots that the virtual AR1's boot loader takes for whole ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from quarkctl.formats import avb, bootimg, dtbo
from quarkctl.formats.segments import joined
from quarkctl.formats.signature import Algorithm, PublicKey
from quarkctl.sim.ar1.bootloader import Bootloader
from quarkctl.sim.ar1.partitions import FACTORY, RETRY_MAX, Disk, Slot, make
from quarkctl.sim.ar1.settings import Remembered, Settings
from quarkctl.sim.ar1.storage import Storage

KIB = 1024
_SIZES = {"boot": 64, "init_boot": 16, "vendor_boot": 16, "dtbo": 8, "vbmeta": 64}
LAYOUT = [*((f"{n}_{s}", kib * KIB) for n, kib in _SIZES.items() for s in "ab"), ("misc", 8 * KIB)]
LUN_BYTES = 1024 * KIB
CONFIRMED = replace(FACTORY, successful=True)
#: What `oem trial` makes of a slot.
ARMED = Slot(active=True, retry_count=1, priority=3)
SPARE = Slot(priority=2)


@cache
def _signing(key: str) -> avb.Signing:
    """``board``: the key that the board trusts; any other word: another one."""
    private = rsa.generate_private_key(65537, 2048)
    return avb.Signing(
        Algorithm.RSA2048_SHA256, PublicKey.of(private.public_key()),
        lambda message: private.sign(message, padding.PKCS1v15(), hashes.SHA256()),
    )  # fmt: skip


def _blob() -> bytes:
    return avb.key_blob(_signing("board").key)


def kernel(mark: bytes) -> bytes:
    """As much of an arm64 image as a boot loader looks at."""
    return (bytes(56) + b"ARMd" + mark).ljust(9000, b"k")


def images(
    version: str = "1.0.0", *, rollback_index: int = 0, key: str = "board", flags: int = 0, signed: bool = True,
    chained: Mapping[str, tuple[int, int]] | None = None, without: Sequence[str] = (),
    cmdline: str = "console=ttyAMA0 quiet", unbound: Sequence[str] = (),
) -> dict[str, bytes]:  # fmt: skip
    """{partition without suffix: bytes}. ``chained``: {partition: (location, rollback index)}."""
    mark = version.encode()
    made: dict[str, bytes] = {
        "boot": joined(bootimg.build_boot(bootimg.Boot(4, kernel(mark), b"", "", "13", "2026-11"))),
        "init_boot": joined(bootimg.build_boot(bootimg.Boot(4, b"", b"init " + mark, "", "13", "2026-11"))),
        "vendor_boot": joined(bootimg.build_vendor(bootimg.VendorBoot(
            4, (bootimg.Fragment("", "platform", b"modules "),), b"", cmdline, b"androidboot.hardware=virtual\n", "t",
        ))),
        "dtbo": joined(dtbo.build([dtbo.Entry(b"tree " + mark, id=1)])),
    }  # fmt: skip
    descriptors: list[avb.Descriptor] = [avb.Property("quark.version", mark)]
    for name, data in list(made.items()):
        bound = avb.Hash(name, len(data), hashlib.sha256(b"salt" + data).digest(), b"salt")
        if name in (chained or {}):
            location, index = (chained or {})[name]
            inner = avb.build([bound], _signing("board"), release="test", rollback_index=index)
            at = -(-len(data) // 4096) * 4096
            footer = avb.build_footer(avb.Footer(len(data), at, len(inner)))
            size = _SIZES[name] * KIB
            made[name] = (data.ljust(at, b"\0") + inner).ljust(size - 64, b"\0") + footer
            descriptors.append(avb.Chain(name, location, _blob()))
        elif name not in unbound:
            descriptors.append(bound)
    how = _signing(key) if signed else None
    made["vbmeta"] = avb.build(descriptors, how, release="test", rollback_index=rollback_index, flags=flags)
    return {name: data for name, data in made.items() if name not in without}


class Board:
    """Storage with two slots, and what the board remembers."""

    def __init__(self, folder: Path, sector_bytes: int = 4096, *, locked: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(
            serial="T-1", sector_bytes=sector_bytes, lun_bytes=(LUN_BYTES,), layout={0: LAYOUT},
            root_key_digest=hashlib.sha256(_blob()).hexdigest(),
        )  # fmt: skip
        self.storage = Storage(folder, sector_bytes, self.settings.lun_bytes)
        make(self.storage, 0, LAYOUT)
        self.remembered = Remembered(unlocked=not locked)
        self.said: list[str] = []

    def put(self, slot: str, made: Mapping[str, bytes]) -> None:
        disk = Disk(self.storage)
        for name, data in made.items():
            place = disk.partitions[f"{name}_{slot}"]
            self.storage.write(place.lun, place.offset, data)

    def damage(self, partition: str, offset: int = 4096, size_bytes: int = 1) -> None:
        place = Disk(self.storage).partitions[partition]
        old = self.storage.read(place.lun, place.offset + offset, size_bytes)
        self.storage.write(place.lun, place.offset + offset, bytes(b ^ 0xFF for b in old))

    def slots(self, **states: Slot) -> None:
        Disk(self.storage).set_slots(**states)

    def slot(self, name: str) -> Slot:
        return Disk(self.storage).slot(name)

    @property
    def boot(self) -> Bootloader:
        return Bootloader(self.settings, self.remembered, self.storage, lambda: None, self.said.append)


TRIES = RETRY_MAX
