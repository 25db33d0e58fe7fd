"""Kernel, ramdisk and command line as the boot loader takes them from boot, init_boot and vendor_boot: its own reader.

Source: AOSP ``system/tools/mkbootimg/include/bootimg/bootimg.h``, versions 3 and 4, little endian; the arm64 image header
from the kernel's ``Documentation/arm64/booting.rst``; the legacy LZ4 frame from lz4's ``doc/lz4_Frame_format.md``.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from quarkctl.sim.ar1.partitions import Partitions

_BOOT = struct.Struct("<8sIIII16xI1536s")
_VENDOR = struct.Struct("<8sIIIII2048sI16sIIQ")
_VENDOR_4 = struct.Struct("<IIII")
_FRAGMENT = struct.Struct("<III32s64x")
_PAGE = 4096
_RECOVERY = 2
_FRAGMENTS_MAX = 64
#: Far more than any of them has; bounds what a hostile header asks for.
_KERNEL_MAX = 128 << 20
_LZ4_MAGIC, _LZ4_BLOCK = 0x184C2102, 8 << 20
_BOOTCONFIG_MAX = 64 << 10
#: COMMAND_LINE_SIZE of arm64.
CMDLINE_MAX = 2047
_BOOTCONFIG = re.compile(r'\s*([A-Za-z0-9_.-]+)\s*=\s*"?([^"\s;]*)"?\s*;?\s*')


class Unbootable(Exception):
    """The images cannot be taken apart, in one line."""


@dataclass(frozen=True)
class Images:
    """What is handed to the kernel. ``words`` come from the images, in order. ``unused``: what they bring besides."""

    kernel: bytes
    ramdisk: bytes
    words: tuple[str, ...]
    unused: tuple[str, ...] = ()


def take(partitions: Partitions, slot: str) -> Images:
    """Read the images of a slot. Raises Unbootable."""
    kernel, ramdisk, words = _boot(partitions, f"boot_{slot}")
    if partitions.size_bytes(f"init_boot_{slot}") is not None:
        _, ramdisk, more = _boot(partitions, f"init_boot_{slot}")
        words += more
    vendor, vendor_words, tree_bytes = _vendor(partitions, f"vendor_boot_{slot}")
    if not ramdisk:
        raise Unbootable(f"slot {slot} has no ramdisk")
    unused = (
        (f"vendor_boot_{slot}: its device tree of {tree_bytes} bytes: this board has its own",) if tree_bytes else ()
    )
    return Images(_kernel(kernel, f"boot_{slot}"), vendor + ramdisk, tuple(vendor_words + words), unused)


def _size_of(partitions: Partitions, name: str) -> int:
    size = partitions.size_bytes(name)
    if size is None or size < _PAGE:
        raise Unbootable(f"there is no partition {name}")
    return size


def _boot(partitions: Partitions, name: str) -> tuple[bytes, bytes, list[str]]:
    size = _size_of(partitions, name)
    magic, kernel_bytes, ramdisk_bytes, _, _, version, cmdline = _BOOT.unpack(partitions.read(name, 0, _BOOT.size))
    if magic != b"ANDROID!":
        raise Unbootable(f"{name} holds no boot image")
    if version not in (3, 4):
        raise Unbootable(f"{name} holds a boot image of version {version}")
    ramdisk_at = _PAGE + _paged(kernel_bytes, _PAGE)
    if ramdisk_at + ramdisk_bytes > size:
        raise Unbootable(f"{name}: kernel and ramdisk have {kernel_bytes} and {ramdisk_bytes} bytes, it has {size}")
    kernel = partitions.read(name, _PAGE, kernel_bytes)
    return kernel, partitions.read(name, ramdisk_at, ramdisk_bytes), _text(cmdline).split()


def _vendor(partitions: Partitions, name: str) -> tuple[bytes, list[str], int]:
    """Ramdisk, words, and the size of its device tree."""
    size = _size_of(partitions, name)
    magic, version, page, _, _, ramdisk_bytes, cmdline, _, _, _, dtb_bytes, _ = _VENDOR.unpack(
        partitions.read(name, 0, _VENDOR.size)
    )
    if magic != b"VNDRBOOT":
        raise Unbootable(f"{name} holds no vendor_boot image")
    if version not in (3, 4) or page < 2048 or page & (page - 1) or page > 1 << 20:
        raise Unbootable(f"{name} holds a vendor_boot image of version {version} with pages of {page} bytes")
    at = _paged(_VENDOR.size + (_VENDOR_4.size if version == 4 else 0), page)
    table_at = at + _paged(ramdisk_bytes, page) + _paged(dtb_bytes, page)
    if at + ramdisk_bytes > size or table_at > size:
        raise Unbootable(f"{name}: its ramdisk has {ramdisk_bytes} bytes, it has {size}")
    words = _text(cmdline).split()
    if version == 3:
        return partitions.read(name, at, ramdisk_bytes), words, dtb_bytes
    table_bytes, count, entry_bytes, config_bytes = _VENDOR_4.unpack(
        partitions.read(name, _VENDOR.size, _VENDOR_4.size)
    )
    config_at = table_at + _paged(table_bytes, page)
    if (
        count > _FRAGMENTS_MAX or entry_bytes < _FRAGMENT.size or count * entry_bytes > table_bytes
        or table_at + table_bytes > size or config_bytes > _BOOTCONFIG_MAX or config_at + config_bytes > size
    ):  # fmt: skip
        raise Unbootable(f"{name}: the table of its ramdisks does not fit")
    table = partitions.read(name, table_at, table_bytes)
    pieces = []
    for n in range(count):
        length, offset, kind, _ = _FRAGMENT.unpack_from(table, n * entry_bytes)
        if offset + length > ramdisk_bytes:
            raise Unbootable(f"{name}: ramdisk {n} lies outside")
        if kind != _RECOVERY:
            pieces.append(partitions.read(name, at + offset, length))
    words += _bootconfig(partitions.read(name, config_at, config_bytes))
    return b"".join(pieces), words, dtb_bytes


def _bootconfig(data: bytes) -> list[str]:
    """As words of the command line, for kernels without boot configuration."""
    lines = _text(data).splitlines()
    return [f"{m[1]}={m[2]}" for line in lines if (m := _BOOTCONFIG.fullmatch(line))]


def _paged(size_bytes: int, page: int) -> int:
    return -(-size_bytes // page) * page


def _text(data: bytes) -> str:
    """Up to the first NUL; bytes that are no text are left out, so that they are no option either."""
    return data.split(b"\0")[0].decode("ascii", "ignore")


def _kernel(data: bytes, name: str) -> bytes:
    """The plain arm64 image."""
    try:
        if data[:2] == b"\x1f\x8b":
            stream = zlib.decompressobj(31)
            data = stream.decompress(data, _KERNEL_MAX)
            if not stream.eof:
                raise Unbootable(f"{name}: its kernel is cut short or larger than {_KERNEL_MAX >> 20} MiB")
        elif data[:4] == _LZ4_MAGIC.to_bytes(4, "little"):
            data = _expand_lz4(data)
    except (zlib.error, ValueError) as error:
        raise Unbootable(f"{name}: its kernel does not unpack: {error}") from None
    if data[56:60] != b"ARMd":
        raise Unbootable(f"{name} holds no arm64 kernel")
    return data


def _expand_lz4(data: bytes) -> bytes:
    """Raises ValueError."""
    import lz4.block

    out, at = bytearray(), 4
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if length == _LZ4_MAGIC:
            continue
        if not length or length > len(data) - at:
            break
        try:
            out += lz4.block.decompress(data[at : at + length], uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from None
        if len(out) > _KERNEL_MAX:
            raise ValueError(f"it is larger than {_KERNEL_MAX >> 20} MiB")
        at += length
    return bytes(out)
