"""Android boot, init_boot and vendor_boot images, versions 3 and 4.

Source: AOSP system/tools/mkbootimg, ``include/bootimg/bootimg.h``. Little endian. Pages of boot images are 4096 bytes,
those of vendor_boot images are what their header says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Record, Source, rounded, text
from quarkctl.formats.segments import Segment, Span

PAGE_BYTES = 4096
BOOT = Record(
    "boot image header", "<",
    "magic:8s kernel_size:I ramdisk_size:I os_version:I header_size:I reserved:4I header_version:I cmdline:1536s",
)  # fmt: skip
#: The GKI signature of Android 12; later versions write none, and neither do we.
_SIGNATURE = Record("boot image header", "<", "signature_size:I")
VENDOR = Record(
    "vendor_boot header", "<",
    "magic:8s header_version:I page_size:I kernel_addr:I ramdisk_addr:I ramdisk_size:I cmdline:2048s tags_addr:I "
    "name:16s header_size:I dtb_size:I dtb_addr:Q",
)  # fmt: skip
_VENDOR_4 = Record("vendor_boot header", "<", "table_size:I entry_count:I entry_size:I bootconfig_size:I")
_FRAGMENT = Record("vendor ramdisk table entry", "<", "size:I offset:I type:I name:32s board_id:16I")

FRAGMENT_TYPES = {"none": 0, "platform": 1, "recovery": 2, "dlkm": 3}


@dataclass(frozen=True)
class Boot:
    """A boot or init_boot image. Parts are segments or, of a parsed image, spans of it."""

    header_version: int
    kernel: Segment
    ramdisk: Segment
    cmdline: str = ""
    os_version: str = ""
    os_patch_level: str = ""
    signature: Segment = b""


@dataclass(frozen=True)
class Fragment:
    """A part of the vendor ramdisk."""

    name: str
    type: str
    data: Segment
    board_id: tuple[int, ...] = (0,) * 16


@dataclass(frozen=True)
class VendorBoot:
    """A vendor_boot image. Version 3 has exactly one nameless fragment and no boot configuration."""

    header_version: int
    fragments: tuple[Fragment, ...]
    dtb: Segment
    cmdline: str = ""
    bootconfig: bytes = b""
    product: str = ""
    page_bytes: int = 4096
    kernel_address: int = 0x10008000
    ramdisk_address: int = 0x11000000
    tags_address: int = 0x10000100
    dtb_address: int = 0x11F00000
    unknown_types: tuple[int, ...] = field(default=(), compare=False)


# --- building


def build_boot(boot: Boot) -> list[Segment]:
    """Raises InputWrong for a version, command line or date that does not fit."""
    if boot.header_version not in (3, 4):
        raise InputWrong(f"boot image version {boot.header_version}", hint="3 or 4")
    head = BOOT.build(
        magic=b"ANDROID!", kernel_size=len(boot.kernel), ramdisk_size=len(boot.ramdisk),
        os_version=os_version(boot.os_version, boot.os_patch_level),
        header_size=BOOT.size + (4 if boot.header_version == 4 else 0), header_version=boot.header_version,
        cmdline=_cmdline(boot.cmdline, 1536),
    )  # fmt: skip
    if boot.header_version == 4:
        head += _SIGNATURE.build(signature_size=len(boot.signature))
    parts: list[Segment] = [head, boot.kernel, boot.ramdisk]
    if boot.header_version == 4 and len(boot.signature):
        parts.append(boot.signature)
    return _paged(parts, PAGE_BYTES)


def build_vendor(v: VendorBoot) -> list[Segment]:
    """Raises InputWrong for names, versions or sizes that do not fit."""
    if v.header_version not in (3, 4):
        raise InputWrong(f"vendor_boot version {v.header_version}", hint="3 or 4")
    if v.page_bytes < 2048 or v.page_bytes & (v.page_bytes - 1):
        raise InputWrong(f"vendor_boot: pages of {v.page_bytes} bytes", hint="a power of two from 2048 on")
    if v.header_version == 3 and (len(v.fragments) != 1 or v.bootconfig):
        raise InputWrong(
            f"vendor_boot version 3 holds one ramdisk and no bootconfig, here are {len(v.fragments)} fragments and "
            f"{len(v.bootconfig)} bytes",
            hint="header_version = 4",
        )
    names = [f.name for f in v.fragments]
    for name in names if v.header_version == 4 else []:
        if names.count(name) > 1 or name == "default" or len(name.encode()) > 31:
            raise InputWrong(
                f"vendor_boot: the fragment name {name!r} is {'taken' if names.count(name) > 1 else 'reserved or too long'}",
                hint="up to 31 bytes, each once, and not `default`",
            )
    ramdisk: list[Segment] = [f.data for f in v.fragments]
    size = sum(len(s) for s in ramdisk)
    head = VENDOR.build(
        magic=b"VNDRBOOT", header_version=v.header_version, page_size=v.page_bytes, kernel_addr=v.kernel_address,
        ramdisk_addr=v.ramdisk_address, ramdisk_size=size, cmdline=_cmdline(v.cmdline, 2048), tags_addr=v.tags_address,
        name=_name(v.product, 16), header_size=VENDOR.size + (_VENDOR_4.size if v.header_version == 4 else 0),
        dtb_size=len(v.dtb), dtb_addr=v.dtb_address,
    )  # fmt: skip
    if v.header_version == 3:
        return [*_paged([head], v.page_bytes), *_joined(ramdisk, v.page_bytes), *_paged([v.dtb], v.page_bytes)]
    table, at = b"", 0
    for f in v.fragments:
        table += _FRAGMENT.build(
            size=len(f.data), offset=at, type=FRAGMENT_TYPES[f.type], name=_name(f.name, 32), board_id=f.board_id
        )
        at += len(f.data)
    head += _VENDOR_4.build(
        table_size=len(table),
        entry_count=len(v.fragments),
        entry_size=_FRAGMENT.size,
        bootconfig_size=len(v.bootconfig),
    )
    return [
        *_paged([head], v.page_bytes), *_joined(ramdisk, v.page_bytes), *_paged([v.dtb, table, v.bootconfig], v.page_bytes),
    ]  # fmt: skip


def os_version(version: str, patch_level: str) -> int:
    """``13.0.1`` and ``2026-11`` as the header has them; 0 for empty texts. Raises InputWrong."""
    a = b = c = year = month = 0
    if version:
        if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", version):
            raise InputWrong(f"os_version {version!r}", hint="such as 13 or 13.0.1")
        a, b, c = (int(n) for n in [*version.split("."), "0", "0"][:3])
    if patch_level:
        if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])(-\d\d)?", patch_level):
            raise InputWrong(f"os_patch_level {patch_level!r}", hint="such as 2026-11")
        year, month = (int(n) for n in patch_level.split("-")[:2])
        year -= 2000
    if max(a, b, c) > 127:
        raise InputWrong(f"os_version {version!r}: the parts are at most 127")
    return (a << 14 | b << 7 | c) << 11 | year << 4 | month


def _cmdline(words: str, room: int) -> bytes:
    raw = words.encode()
    if len(raw) >= room or b"\0" in raw:
        raise InputWrong(
            f"the kernel command line has {len(raw)} bytes, there is room for {room - 1}"
            if len(raw) >= room
            else "the kernel command line has a NUL byte",
            hint="make it shorter, or put it into the bootconfig of vendor_boot",
        )
    return raw


def _name(name: str, room: int) -> bytes:
    raw = name.encode()
    if len(raw) > room - 1:
        raise InputWrong(f"the name {name!r} has {len(raw)} bytes, there is room for {room - 1}")
    return raw


def _paged(parts: Sequence[Segment], page: int) -> list[Segment]:
    out: list[Segment] = []
    for part in parts:
        if len(part):
            out.append(part)
            if len(part) % page:
                out.append(bytes(-len(part) % page))
    return out


def _joined(parts: Sequence[Segment], page: int) -> list[Segment]:
    size = sum(len(p) for p in parts)
    return [*(p for p in parts if len(p)), *([bytes(-size % page)] if size % page else [])]


# --- parsing


def looks_like(data: Source) -> bool:
    return bytes(data[:8]) in (b"ANDROID!", b"VNDRBOOT")


def parse_boot(data: Source) -> Boot:
    """A boot or init_boot image, with or without an AVB footer behind it. Raises Damaged with field and offset."""
    h = BOOT.parse(data)
    if h.magic != b"ANDROID!":
        raise BOOT.wrong("magic", 0, f"is {h.magic!r}")
    if h.header_version not in (3, 4):
        raise BOOT.wrong("header_version", 0, f"is {h.header_version}; 3 and 4 are read")
    expected = BOOT.size + (4 if h.header_version == 4 else 0)
    # mkbootimg of Android 10 writes 1596 into version 3
    if not expected <= h.header_size <= PAGE_BYTES:
        raise BOOT.wrong("header_size", 0, f"is {h.header_size}, not {expected}")
    signature_size = _SIGNATURE.parse(data, BOOT.size).signature_size if h.header_version == 4 else 0
    at = PAGE_BYTES
    kernel, at = _part(data, BOOT, "kernel_size", at, h.kernel_size, PAGE_BYTES)
    ramdisk, at = _part(data, BOOT, "ramdisk_size", at, h.ramdisk_size, PAGE_BYTES)
    signature: Segment = b""
    if signature_size:
        if at + signature_size > len(data):
            raise Damaged(
                "boot image header", "signature_size", BOOT.size, f"is {signature_size}: it ends behind the file"
            )
        signature = Span(data, at, signature_size)
    return Boot(h.header_version, kernel, ramdisk, text(h.cmdline), *_os_version(h.os_version), signature)


def parse_vendor(data: Source) -> VendorBoot:
    """A vendor_boot image. Raises Damaged with field and offset."""
    h = VENDOR.parse(data)
    if h.magic != b"VNDRBOOT":
        raise VENDOR.wrong("magic", 0, f"is {h.magic!r}")
    if h.header_version not in (3, 4):
        raise VENDOR.wrong("header_version", 0, f"is {h.header_version}; 3 and 4 are read")
    if not 2048 <= h.page_size <= 1 << 20 or h.page_size & (h.page_size - 1):
        raise VENDOR.wrong("page_size", 0, f"is {h.page_size}, not a power of two from 2048 to 1 MiB")
    page = h.page_size
    at = rounded(VENDOR.size + (_VENDOR_4.size if h.header_version == 4 else 0), page)
    ramdisk_at = at
    ramdisk, at = _part(data, VENDOR, "ramdisk_size", at, h.ramdisk_size, page)
    dtb, at = _part(data, VENDOR, "dtb_size", at, h.dtb_size, page)
    fragments: list[Fragment] = [Fragment("", "none", ramdisk)] if h.header_version == 3 else []
    bootconfig, unknown = b"", []
    if h.header_version == 4:
        v = _VENDOR_4.parse(data, VENDOR.size)
        if v.entry_size < _FRAGMENT.size or v.entry_count * v.entry_size != v.table_size:
            raise Damaged(
                "vendor_boot header", "table_size", VENDOR.size,
                f"is {v.table_size}, not {v.entry_count} entries of {v.entry_size} bytes ({_FRAGMENT.size} at least)",
            )  # fmt: skip
        if at + v.table_size > len(data):
            raise Damaged(
                "vendor_boot header", "table_size", VENDOR.size, f"is {v.table_size}: it ends behind the file"
            )
        for n in range(v.entry_count):
            where = at + n * v.entry_size
            e = _FRAGMENT.parse(data, where)
            if e.offset + e.size > h.ramdisk_size:
                raise _FRAGMENT.wrong(
                    "size", where, f"is {e.size} from {e.offset} on, the ramdisk has {h.ramdisk_size} bytes"
                )
            kind = next((k for k, number in FRAGMENT_TYPES.items() if number == e.type), "none")
            if e.type not in FRAGMENT_TYPES.values():
                unknown.append(e.type)
            fragments.append(Fragment(text(e.name), kind, Span(data, ramdisk_at + e.offset, e.size), e.board_id))
        at = rounded(at + v.table_size, page)
        if v.bootconfig_size > 1 << 20 or at + v.bootconfig_size > len(data):
            raise Damaged(
                "vendor_boot header",
                "bootconfig_size",
                VENDOR.size + 12,
                f"is {v.bootconfig_size}: behind the file's end",
            )
        bootconfig = bytes(data[at : at + v.bootconfig_size])
    return VendorBoot(
        h.header_version, tuple(fragments), dtb, text(h.cmdline), bootconfig, text(h.name), page, h.kernel_addr,
        h.ramdisk_addr, h.tags_addr, h.dtb_addr, tuple(unknown),
    )  # fmt: skip


def _part(data: Source, record: Record, name: str, at: int, size: int, page: int) -> tuple[Segment, int]:
    if at + size > len(data):
        raise record.wrong(name, 0, f"is {size} from {at:#x} on: it ends behind the file of {len(data)} bytes")
    return (Span(data, at, size) if size else b""), rounded(at + size, page)


def _os_version(raw: int) -> tuple[str, str]:
    version, level = raw >> 11, raw & 0x7FF
    words = f"{version >> 14}.{version >> 7 & 127}.{version & 127}" if version else ""
    return words, f"{2000 + (level >> 4)}-{level & 15:02}" if level else ""
