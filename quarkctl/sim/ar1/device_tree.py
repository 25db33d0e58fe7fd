"""The device tree that the kernel gets: the machine's own, with the overlays of the slot's dtbo applied to it.

Source of the table: AOSP ``system/libufdt/utils/src/dt_table.h``, versions 0 and 1, big endian. libfdt applies the overlays,
in a process of its own (``fdtoverlay``): they are hostile until it has taken them.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from quarkctl.errors import HostUnfit
from quarkctl.sim import qemu
from quarkctl.sim.ar1.partitions import Partitions

_HEADER = struct.Struct(">8I")
_ENTRY = struct.Struct(">4I16x")
_ENTRY_1 = struct.Struct(">4IBxxx12x")
_MAGIC = 0xD7B7AB1E
_ENTRIES_MAX = 256
#: More than the machine would take.
_TREE_MAX = 1 << 20
_TIMEOUT_S = 60.0


class Unfit(Exception):
    """The overlays cannot be read or applied, in one line."""


def overlays(partitions: Partitions, slot: str, board_id: int) -> tuple[tuple[int, bytes], ...]:
    """Index and blob of the entries made for this board, in the order of the table: those with its id, and those with id 0,
    which name none. Nothing where the device has no dtbo. Raises Unfit."""
    name = f"dtbo_{slot}"
    size = partitions.size_bytes(name)
    if size is None:
        return ()
    if size < _HEADER.size:
        raise Unfit(f"{name} holds no table of device trees")
    magic, total, _, entry_bytes, count, at, _, version = _HEADER.unpack(partitions.read(name, 0, _HEADER.size))
    if magic != _MAGIC:
        raise Unfit(f"{name} holds no table of device trees")
    if (
        version > 1
        or total > size
        or count > _ENTRIES_MAX
        or entry_bytes < _ENTRY.size
        or at + count * entry_bytes > total
    ):
        raise Unfit(f"{name}: its table of {count} device trees does not fit")
    table = partitions.read(name, at, count * entry_bytes)
    chosen = []
    for n in range(count):
        length, offset, board, _, packed = _ENTRY_1.unpack_from(table, n * entry_bytes)
        if board not in (0, board_id):
            continue
        if length > _TREE_MAX or offset + length > total:
            raise Unfit(f"{name}: device tree {n} lies outside of it")
        chosen.append((n, _unpacked(partitions.read(name, offset, length), packed & 15 if version else 0, name)))
    if count and not chosen:
        raise Unfit(f"{name}: none of its {count} device trees is made for board {board_id}")
    return tuple(chosen)


def _unpacked(data: bytes, compression: int, name: str) -> bytes:
    if not compression:
        return data
    stream = zlib.decompressobj({1: 15, 2: 31}.get(compression, 15))
    try:
        out = stream.decompress(data, _TREE_MAX)
    except zlib.error as error:
        raise Unfit(f"{name}: a device tree does not unpack: {error}") from None
    if compression > 2 or not stream.eof:
        raise Unfit(f"{name}: a device tree does not unpack")
    return out


def merged(folder: Path, machine: Sequence[str], blobs: Sequence[bytes]) -> bytes:
    """The tree of a QEMU machine (its arguments) with the overlays applied; files are left in ``folder``. The machine makes
    another one each time, since it holds seeds for the kernel's random numbers. Raises Unfit, HostUnfit."""
    apply = qemu.require(*qemu.OVERLAYS)
    names = [f"overlay-{n}.dtbo" for n in range(len(blobs))]
    for name, blob in zip(names, blobs, strict=True):
        (folder / name).write_bytes(blob)
    dump = [*machine, "-machine", "dumpdtb=machine.dtb", "-nodefaults", "-display", "none", "-sandbox", qemu.SANDBOX]
    if said := _run(dump, folder):
        raise HostUnfit(f"{machine[0]} does not tell its device tree: {said}")
    if said := _run([apply, "-i", "machine.dtb", "-o", "tree.dtb", *names], folder):
        raise Unfit(f"its device tree overlay does not apply: {said}")
    return (folder / "tree.dtb").read_bytes()


def _run(command: Sequence[str], folder: Path) -> str:
    """What a failed program said last; empty after success."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False,
            preexec_fn=qemu.die_with_parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it takes longer than {_TIMEOUT_S:g} s"
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""
