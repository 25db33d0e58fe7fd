"""Root file systems from folders: ext4 by ``mke2fs -d``, erofs by ``mkfs.erofs``, the same bytes anywhere.

Both tools take owners, modes and times from the folder; an image must not. So the tools run first, and then owners and modes
of the manifest are written into the image: by ``debugfs`` for ext4, into the inodes for erofs. Nothing needs root.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from quarkctl.build import tools
from quarkctl.build.ar1.manifest import Owned
from quarkctl.errors import InputWrong

EXT4_TOOLS = {"mke2fs": "e2fsprogs", "debugfs": "e2fsprogs"}
EROFS_TOOLS = {"mkfs.erofs": "erofs-utils"}
_BLOCK = 4096


def ext4(
    folder: Path, files: Sequence[Owned], target: Path, size_bytes: int, label: str, uuid: UUID, epoch: int
) -> None:
    """Make an ext4 image without a journal. ``size_bytes`` 0: as large as it must be. Raises HostUnfit, BuildFailed."""
    tools.require(EXT4_TOOLS)
    _check_links(files)
    needed = _ext4_bytes(files)
    size = size_bytes or needed
    if size < needed // 2:
        raise InputWrong(
            f"ext4 of {size} bytes for files of {_content_bytes(files)} bytes", hint=f"size = {needed} or leave it out"
        )
    target.unlink(missing_ok=True)
    log = target.with_suffix(".log")
    log.unlink(missing_ok=True)
    # A time before 1902 or after 2038 does not fit; E2FSPROGS_FAKE_TIME gives the superblock its times.
    environment = {
        "E2FSPROGS_FAKE_TIME": str(epoch or 1),
        "MKE2FS_CONFIG": "/dev/null",
        "SOURCE_DATE_EPOCH": str(epoch),
    }
    tools.run(
        [
            "mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-I", "256", "-m", "0", "-L", label, "-U", str(uuid),
            "-O", "none,extent,filetype,sparse_super,large_file,dir_index,ext_attr,uninit_bg",
            "-E", f"hash_seed={uuid},lazy_itable_init=0,nodiscard,root_owner=0:0", "-N", str(len(files) + 16 + 11),
            "-d", folder, target, str(size // _BLOCK),
        ], log, environment=environment,
    )  # fmt: skip
    script = target.with_suffix(".debugfs")
    script.write_text(_debugfs(files, epoch), "utf-8")
    tools.run(["debugfs", "-w", "-f", script, target], log, environment=environment)
    told = log.read_text("utf-8", "replace")
    wrong = [line for line in told.splitlines() if re.search(r"not found|No such|Invalid|Usage:|File not", line)]
    if wrong:
        raise tools.BuildFailed(f"debugfs: {wrong[0].strip()}", hint=f"the whole output: {log}")
    script.unlink()
    log.unlink()


def _check_links(files: Sequence[Owned]) -> None:
    """Both tools keep hard links, and a file has one owner and one mode. Raises InputWrong."""
    seen: dict[tuple[int, int], Owned] = {}
    for f in files:
        st = f.path.lstat()
        other = seen.setdefault((st.st_dev, st.st_ino), f)
        if (other.mode, other.uid, other.gid) != (f.mode, f.uid, f.gid):
            raise InputWrong(
                f"{other.name} and {f.name} are one file with two owners or modes", hint="copy one of them"
            )


def _content_bytes(files: Sequence[Owned]) -> int:
    return sum(f.path.lstat().st_size for f in files if stat.S_ISREG(f.mode))


def _ext4_bytes(files: Sequence[Owned]) -> int:
    """Enough room: blocks of files, their extents, inodes, bitmaps, and some to spare."""
    blocks = sum(-(-f.path.lstat().st_size // _BLOCK) + 1 for f in files)
    inodes = (len(files) + 32) * 256 // _BLOCK + 1
    return (blocks + inodes + 64 + (blocks + inodes) // 32) * _BLOCK


def _quoted(name: str) -> str:
    return '"/' + name.replace('"', '""') + '"'


def _debugfs(files: Sequence[Owned], epoch: int) -> str:
    for f in files:
        if "\n" in f.name:
            raise InputWrong(f"{f.path}: a line break in a file name")
    rows = []
    everything = [Owned("", Path(), stat.S_IFDIR | 0o755, 0, 0), *files]
    if not any(f.name == "lost+found" for f in files):
        everything.append(Owned("lost+found", Path(), stat.S_IFDIR | 0o700, 0, 0))
    for f in everything:
        name = _quoted(f.name)
        for field, value in (
            ("mode", f"0{f.mode:o}"), ("uid", str(f.uid)), ("gid", str(f.gid)), ("atime", f"@{epoch}"),
            ("ctime", f"@{epoch}"), ("mtime", f"@{epoch}"), ("crtime", f"@{epoch}"), ("atime_extra", "0"),
            ("ctime_extra", "0"), ("mtime_extra", "0"), ("crtime_extra", "0"), ("generation", "0"),
        ):  # fmt: skip
            rows.append(f"set_inode_field {name} {field} {value}")
    return "\n".join([*rows, "quit", ""])


def erofs(folder: Path, files: Sequence[Owned], target: Path, label: str, uuid: UUID, epoch: int) -> None:
    """Make an uncompressed erofs image. Raises HostUnfit, BuildFailed."""
    tools.require(EROFS_TOOLS)
    _check_links(files)
    target.unlink(missing_ok=True)
    log = target.with_suffix(".log")
    log.unlink(missing_ok=True)
    tools.run(
        [
            "mkfs.erofs", "-T", str(epoch), "-U", str(uuid), "-x-1", "--all-root", "-Eforce-inode-extended,nosbcrc",
            target, folder,
        ], log,
    )  # fmt: skip
    _own_erofs(target, {f.name: f for f in files}, label)
    size = target.stat().st_size
    if size % _BLOCK:
        os.truncate(target, size + -size % _BLOCK)
    log.unlink()


# --- erofs inodes. Source: Linux fs/erofs/erofs_fs.h. Little endian.

_SUPER_AT = 1024
_EXTENDED = struct.Struct(
    "<HHHHQIIIIQII16x"
)  # 64 bytes: format, xattrs, mode, -, size, union, ino, uid, gid, mtime, ...
_DIRENT = struct.Struct("<QHBB")


def _own_erofs(path: Path, files: dict[str, Owned], label: str) -> None:
    """Write owners and modes into every inode, walking the folders from the root."""
    with path.open("r+b") as image:
        image.seek(_SUPER_AT)
        head = image.read(128)
        if head[:4] != b"\xe2\xe1\xf5\xe0":
            raise tools.BuildFailed(f"{path} is no erofs image")
        root = int.from_bytes(head[14:16], "little")
        meta_at = int.from_bytes(head[40:44], "little") * _BLOCK
        image.seek(_SUPER_AT + 64)
        image.write(label.encode()[:16].ljust(16, b"\0"))
        todo: list[tuple[str, int]] = [("", root)]
        while todo:
            name, nid = todo.pop()
            at = meta_at + nid * 32
            image.seek(at)
            raw = bytearray(image.read(64))
            layout, _, _, _, size, first_block = _EXTENDED.unpack(raw)[:6]
            if not layout & 1:
                raise tools.BuildFailed(f"{path}: inode {nid} is not extended")
            owner = files.get(name) or Owned(name, Path(), stat.S_IFDIR | 0o755, 0, 0)
            struct.pack_into("<H", raw, 4, owner.mode)
            struct.pack_into("<II", raw, 24, owner.uid, owner.gid)
            image.seek(at)
            image.write(raw)
            if stat.S_ISDIR(owner.mode):
                content = _erofs_data(image, at, layout >> 1 & 7, size, first_block)
                todo += [(f"{name}/{n}" if name else n, nid) for n, nid in _dirents(content)]


def _erofs_data(image: BinaryIO, at: int, layout: int, size: int, first_block: int) -> bytes:
    """A folder's content: whole blocks from ``first_block`` on; with layout 2 the rest follows the inode."""
    whole = size if layout == 0 else size // _BLOCK * _BLOCK
    image.seek(first_block * _BLOCK)
    data = image.read(whole) if whole else b""
    if layout == 2:
        image.seek(at + 64)
        data += image.read(size - whole)
    return data


def _dirents(content: bytes) -> list[tuple[str, int]]:
    out = []
    for base in range(0, len(content), _BLOCK):
        block = content[base : base + _BLOCK]
        count = _DIRENT.unpack_from(block)[1] // _DIRENT.size
        entries = [_DIRENT.unpack_from(block, n * _DIRENT.size) for n in range(count)]
        for n, (nid, offset, _, _) in enumerate(entries):
            end = entries[n + 1][1] if n + 1 < count else len(block)
            name = block[offset:end].partition(b"\0")[0].decode("utf-8", "surrogateescape")
            if name not in (".", ".."):
                out.append((name, nid))
    return out
