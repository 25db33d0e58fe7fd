"""A small whole file of every image format, and what reads it: for tests that damage files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID, uuid5

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from quarkctl.formats import avb, bootimg, cpio, dtbo, gpt, lp, mcuboot_image, rawprogram, sparse
from quarkctl.formats.segments import joined
from quarkctl.formats.signature import Algorithm, PublicKey

SPACE = UUID("5a1f4c2e-1f27-4e55-9f0b-0d6b6f2a9c11")


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key for all tests of a process."""
    return rsa.generate_private_key(65537, bits)


def signing(bits: int = 2048, hash_name: str = "sha256") -> avb.Signing:
    key = rsa_key(bits)
    how = hashes.SHA256() if hash_name == "sha256" else hashes.SHA512()
    return avb.Signing(
        Algorithm(f"rsa{bits}-{hash_name}"), PublicKey.of(key.public_key()),
        lambda message: key.sign(message, padding.PKCS1v15(), how),
    )  # fmt: skip


def raw_image() -> bytes:
    """Zeros, a pattern, noise, a pattern, zeros: 40 blocks."""
    noise = b"".join(hashlib.sha512(bytes([n])).digest() * 64 for n in range(12))
    return bytes(8 * 4096) + b"\x11\x22\x33\x44" * 4096 + noise + b"\xff" * 4096 * 6 + bytes(10 * 4096)


def table(sector_bytes: int = 4096, sectors: int = 4096) -> gpt.Table:
    kind = [uuid5(SPACE, "boot_a"), uuid5(SPACE, "boot_b"), uuid5(SPACE, "data")]
    first = 2 + gpt.ENTRY_COUNT * gpt.ENTRY.size // sector_bytes
    parts = tuple(
        gpt.Partition(name, kind[n], uuid5(SPACE, f"part {name}"), first + 100 * n, first + 100 * n + 63,
                      gpt.attributes(priority=3, active=1, retry_count=6) if n < 2 else 0)
        for n, name in enumerate(("boot_a", "boot_b", "data"))
    )  # fmt: skip
    return gpt.Table(sector_bytes, sectors, uuid5(SPACE, "disk"), parts)


def descriptors() -> list[avb.Descriptor]:
    return [
        avb.Property("com.android.build.boot.os_version", b"13"),
        avb.Hash("boot", 5000, bytes(range(32)), b"salt" * 8),
        avb.Hashtree("system", 1 << 20, 1 << 20, 12288, bytes(range(32)), b"salt" * 8, fec_roots=2,
                     fec_offset=(1 << 20) + 12288, fec_size=16384),
        avb.KernelCmdline("dm-verity.mode=enforcing", 1),
        avb.Chain("vbmeta_system", 2, avb.key_blob(PublicKey.of(rsa_key().public_key()))),
    ]  # fmt: skip


def boot() -> bytes:
    return joined(
        bootimg.build_boot(bootimg.Boot(4, b"kernel" * 999, b"ramdisk" * 777, "console=x", "13.0.1", "2026-11"))
    )


def vendor_boot() -> bytes:
    fragments = (
        bootimg.Fragment("", "platform", b"one" * 500),
        bootimg.Fragment("modules", "dlkm", b"two" * 700, (7, *[0] * 15)),
    )
    return joined(
        bootimg.build_vendor(bootimg.VendorBoot(4, fragments, b"dtb" * 99, "a=b", b"androidboot.x=1\n", "s1"))
    )


def dtbo_image() -> bytes:
    return joined(dtbo.build([dtbo.Entry(b"\xd0\x0d\xfe\xed" * 8, 1), dtbo.Entry(b"\xd0\x0d\xfe\xed" * 9, 2, 1)]))


def super_contents() -> list[lp.Content]:
    return [lp.Content("system_a", "main_a", [b"s" * 5000]), lp.Content("vendor_a", "main_a", [b"v" * 4096]),
            lp.Content("system_b", "main_b")]  # fmt: skip


def super_metadata(minor: int = 2) -> lp.Metadata:
    groups = [lp.Group("main_a", 1 << 20), lp.Group("main_b", 1 << 20)]
    flags = 1 if minor == 2 else 0
    return lp.place(super_contents(), groups, 4 << 20, minor=minor, flags=flags, metadata_bytes_max=4096)


def super_image() -> bytes:
    m = super_metadata()
    return joined(lp.build([m, m], super_contents()))


def ramdisk() -> bytes:
    return cpio.build(
        [cpio.Entry("init", 0o100755, b"#!/bin/sh\n"), cpio.Entry("dev", 0o040755),
         cpio.Entry("dev/console", 0o020600, device=(5, 1)), cpio.Entry("bin", 0o120777, b"usr/bin")]
    )  # fmt: skip


def footed() -> bytes:
    """A partition of 128 KiB with a hash footer."""
    image = b"boot" * 3000
    digest = hashlib.sha256(b"salt" + image).digest()
    meta = avb.build([avb.Hash("boot", len(image), digest, b"salt")], signing(), release="test")
    at = -(-len(image) // 4096) * 4096
    return (image.ljust(at, b"\0") + meta).ljust((128 << 10) - 64, b"\0") + avb.build_footer(
        avb.Footer(len(image), at, len(meta))
    )


def programs() -> list[rawprogram.Program]:
    return [
        rawprogram.Program("gpt_main0.bin", "PrimaryGPT", 0, rawprogram.Sector(0), 6, 4096),
        rawprogram.Program("super.img", "super", 0, rawprogram.Sector(4096), 100, 4096, sparse=True),
        rawprogram.Program("gpt_backup0.bin", "BackupGPT", 0, rawprogram.Sector(5, from_end=True), 5, 4096),
    ]


def mcuboot() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return mcuboot_image.build(
        b"payload" * 30, version=mcuboot_image.Version(1, 2, 3), load_address=0, header_bytes=64, board="s1-virtual",
        security_counter=1, public_key=PublicKey.of(key.public_key()), sign=key.sign,
    )  # fmt: skip


#: {format: (whole file, what reads it)}
SAMPLES: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
    "sparse": (lambda: joined(sparse.build(sparse.scan(raw_image()))), sparse.parse),
    "gpt": (lambda: gpt.build(table())[0], gpt.parse),
    "gpt backup": (lambda: gpt.build(table())[1], gpt.parse_backup),
    "rawprogram": (lambda: rawprogram.build_programs(programs()), rawprogram.parse_programs),
    "patch": (
        lambda: rawprogram.build_patches(rawprogram.grow_patches(table(), 0, 2)), rawprogram.parse_patches,
    ),
    "vbmeta": (lambda: avb.build(descriptors(), signing(), release="test", rollback_index=7), avb.parse),
    "footer": (footed, avb.of_partition),
    "boot": (boot, bootimg.parse_boot),
    "vendor_boot": (vendor_boot, bootimg.parse_vendor),
    "dtbo": (dtbo_image, dtbo.parse),
    "super": (super_image, lp.parse),
    "ramdisk": (ramdisk, lambda data: list(cpio.parse(data))),
    "mcuboot": (mcuboot, mcuboot_image.parse),
}  # fmt: skip
