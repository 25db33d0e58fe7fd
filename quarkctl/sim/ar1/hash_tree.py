"""The boot loader's look at a hash tree: whether the one on the storage is the one that vbmeta binds. The data under it is
left to the kernel's dm-verity, which reads it anyway.

Source: AOSP external/avb, ``libavb/avb_hashtree_descriptor.h``; the tree from the kernel's
``Documentation/admin-guide/device-mapper/verity.rst``, version 1: levels from the root down, digests padded to a power of
two.
"""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise

from quarkctl.sim.ar1.partitions import Partitions

_DESCRIPTOR = struct.Struct(">I3Q3I2Q32s4I60x")
_ALGORITHMS = ("sha1", "sha256", "sha512")
_FLAG_NOT_AB = 1
#: The only one that the system's kernel maps.
_BLOCK = 4096


class TreeWrong(Exception):
    """The tree is not the one that is bound, in one line."""


def check(partitions: Partitions, slot: str, body: bytes) -> str:
    """``body``: of the descriptor. Raises TreeWrong for a tree that cannot be used. Returns a warning, in one line, for one
    with damage that its error correction may mend; empty where all of it holds."""
    if len(body) < _DESCRIPTOR.size:
        raise TreeWrong("a hash tree descriptor is too short")
    (
        version, image_bytes, tree_at, tree_bytes, data_block, hash_block, roots, fec_at, fec_bytes, algorithm,
        name_bytes, salt_bytes, root_bytes, flags,
    ) = _DESCRIPTOR.unpack_from(body)  # fmt: skip
    tail = body[_DESCRIPTOR.size :]
    if name_bytes + salt_bytes + root_bytes > len(tail):
        raise TreeWrong("a hash tree descriptor is too short")
    base = tail[:name_bytes].decode("utf-8", "replace")
    salt, root = tail[name_bytes:][:salt_bytes], tail[name_bytes + salt_bytes :][:root_bytes]
    name = base if flags & _FLAG_NOT_AB else f"{base}_{slot}"
    kind = algorithm.rstrip(b"\0").decode("ascii", "replace")
    if version != 1 or data_block != _BLOCK or hash_block != _BLOCK or kind not in _ALGORITHMS:
        raise TreeWrong(f"{name}: this board maps no tree of version {version}, {kind}, blocks of {data_block} bytes")
    size = partitions.size_bytes(name)
    if size is None:
        raise TreeWrong(f"{name}: there is no such partition")
    levels = _levels(image_bytes // _BLOCK, _BLOCK // _padded(kind))
    fits = tree_at >= image_bytes and tree_at + tree_bytes <= size and (not roots or tree_at + tree_bytes <= fec_at)
    if (
        not image_bytes or image_bytes % _BLOCK or tree_at % _BLOCK or not fits or fec_at + fec_bytes > size
        or tree_bytes != sum(levels) * _BLOCK or len(root) != hashlib.new(kind).digest_size
    ):  # fmt: skip
        raise TreeWrong(f"{name}: its hash tree does not fit what is there ({size} bytes)")
    if not levels:  # one block of data, which the root digest is of
        return ""
    try:
        blocks = [partitions.read(name, tree_at + n * _BLOCK, _BLOCK) for n in range(sum(levels))]
    except IndexError:
        raise TreeWrong(f"{name}: its extents lie outside of super") from None
    return _judge(name, blocks, levels, _Hash(kind, salt), root, mended=bool(roots and fec_bytes))


def _padded(kind: str) -> int:
    """Room that a digest takes in the tree."""
    size = hashlib.new(kind).digest_size
    return 1 << (size - 1).bit_length()


def _levels(data_blocks: int, per_block: int) -> list[int]:
    """Blocks of each level, from the root down; none for a single block of data."""
    levels: list[int] = []
    count = data_blocks
    while count > 1:
        count = -(-count // per_block)
        levels.insert(0, count)
    return levels


class _Hash:
    def __init__(self, kind: str, salt: bytes) -> None:
        self._salted = hashlib.new(kind, salt)
        self.step = _padded(kind)

    def __call__(self, block: bytes) -> bytes:
        copy = self._salted.copy()
        copy.update(block)
        return copy.digest()


def _judge(name: str, blocks: list[bytes], levels: list[int], digest: _Hash, root: bytes, *, mended: bool) -> str:
    per_block = _BLOCK // digest.step
    above, wrong = 0, 0
    for count, below in pairwise(levels):
        for n in range(below):
            at = n % per_block * digest.step
            found = digest(blocks[above + count + n])
            wrong += found != blocks[above + n // per_block][at : at + len(found)]
        above += count
    top = digest(blocks[0]) == root
    if top and not wrong:
        return ""
    if not any(blocks[0]):
        raise TreeWrong(f"{name}: there is no hash tree")
    used = (levels[1] if len(levels) > 1 else 0) * digest.step
    # A tree whose parts agree with each other, but not with the root, was not damaged: it is the tree of other data.
    if not top and not wrong and used and not any(blocks[0][used:]):
        raise TreeWrong(f"{name}: its hash tree is not the one that vbmeta binds")
    told = f"{wrong + (not top)} of {len(blocks)} blocks of its hash tree are damaged"
    if not mended:
        raise TreeWrong(f"{name}: {told}, and it has no codes to mend them")
    return f"{name}: {told}; the kernel has codes to mend them"
