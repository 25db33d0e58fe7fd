"""Ramdisks: cpio archives in the "newc" format, as the Linux kernel unpacks them.

Source: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``. Owners, modes, device nodes and times are
data here: making an archive needs no root, and the same entries always give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Source, rounded

_MAGIC = b"070701"
_HEADER_BYTES = 110
_FIELDS = (
    "ino", "mode", "uid", "gid", "nlink", "mtime", "filesize", "devmajor", "devminor", "rdevmajor", "rdevminor",
    "namesize", "check",
)  # fmt: skip
_TRAILER = "TRAILER!!!"
#: PATH_MAX of Linux: what the kernel accepts as a name.
_NAME_BYTES_MAX = 4096


@dataclass(frozen=True)
class Entry:
    """A file, folder, link (data: its target) or device node. ``mode`` has type and permissions, as ``st_mode``."""

    name: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)


def build(entries: Iterable[Entry], mtime: int = 0) -> bytes:
    """An archive, entries ordered by name, padded to 512 bytes. Raises InputWrong for names that cannot be."""
    out = bytearray()
    names: set[str] = set()
    for number, e in enumerate(sorted(entries, key=lambda e: e.name), start=1):
        parts = e.name.split("/")
        if not e.name or e.name.startswith("/") or ".." in parts or "\0" in e.name or e.name in names:
            raise InputWrong(f"ramdisk: the name {e.name!r} is empty, absolute, outside or there twice")
        names.add(e.name)
        links = 2 if stat.S_ISDIR(e.mode) else 1
        out += _one(e, number, links, mtime)
    out += _one(Entry(_TRAILER, 0), 0, 1, 0)
    return bytes(out.ljust(rounded(len(out), 512), b"\0"))


def _one(e: Entry, number: int, links: int, mtime: int) -> bytes:
    name = e.name.encode() + b"\0"
    if len(name) > _NAME_BYTES_MAX:
        raise InputWrong(f"ramdisk: the name {e.name[:60]}... has {len(name) - 1} bytes")
    if len(e.data) > 0xFFFFFFFF:
        raise InputWrong(f"ramdisk: {e.name} has {len(e.data)} bytes, cpio holds up to 4 GiB")
    values = (number, e.mode, e.uid, e.gid, links, mtime if e.mode else 0, len(e.data), 0, 0, *e.device, len(name), 0)
    head = _MAGIC + b"".join(b"%08X" % v for v in values) + name
    return head.ljust(rounded(len(head), 4), b"\0") + e.data.ljust(rounded(len(e.data), 4), b"\0")


def looks_like(data: Source) -> bool:
    return bytes(data[:6]) in (_MAGIC, b"070702")


def parse(data: Source) -> Iterator[Entry]:
    """The entries of an archive, or of several behind each other. Raises Damaged with field and offset."""
    at, end = 0, len(data)
    while at < end:
        ahead = bytes(data[at : at + 4096])
        if not ahead[0]:  # padding between archives
            at += len(ahead) - len(ahead.lstrip(b"\0"))
            continue
        raw = bytes(data[at : at + _HEADER_BYTES])
        if len(raw) < _HEADER_BYTES:
            raise Damaged("cpio entry", "header", at, f"is cut off after {len(raw)} bytes")
        if raw[:6] not in (_MAGIC, b"070702"):
            raise Damaged("cpio entry", "magic", at, f"is {raw[:6]!r}, not {_MAGIC!r}")
        values: dict[str, int] = {}
        for n, field in enumerate(_FIELDS):
            digits = raw[6 + 8 * n : 14 + 8 * n]
            if not all(c in b"0123456789abcdefABCDEF" for c in digits):
                raise Damaged("cpio entry", field, at + 6 + 8 * n, f"is {digits!r}, not hexadecimal")
            values[field] = int(digits, 16)
        name_at = at + _HEADER_BYTES
        if not 0 < values["namesize"] <= _NAME_BYTES_MAX or name_at + values["namesize"] > end:
            raise Damaged("cpio entry", "namesize", at + 94, f"is {values['namesize']}")
        body = rounded(name_at + values["namesize"], 4)
        if body + values["filesize"] > end:
            raise Damaged("cpio entry", "filesize", at + 54, f"is {values['filesize']}: it ends behind {end} bytes")
        name = bytes(data[name_at : name_at + values["namesize"]]).rstrip(b"\0").decode("utf-8", "backslashreplace")
        at = rounded(body + values["filesize"], 4)
        if name == _TRAILER:
            continue
        yield Entry(
            name, values["mode"], bytes(data[body : body + values["filesize"]]), values["uid"], values["gid"],
            (values["rdevmajor"], values["rdevminor"]),
        )  # fmt: skip
