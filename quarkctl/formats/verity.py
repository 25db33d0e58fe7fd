"""dm-verity hash trees and their Reed-Solomon codes, as fast as one pass over the data allows.

Sources: Linux ``Documentation/admin-guide/device-mapper/verity.rst`` (version 1, the salt goes first); Linux
``drivers/md/dm-verity-fec.c`` for the interleaving and RS(255, 255-roots) over GF(2^8) with the polynomial 0x11d and
the generator's roots 1, 2, 4, ... In an image the levels of a tree stand top first; there is no superblock.

With two roots, a code word's parity follows from two sums over its bytes d[0..252]: S0 = xor of all, S1 = the Horner sum
S1 = 2*S1 + d[i]. Both run over many code words at once in 64-bit lanes. The same pass hashes the blocks, so that data
is read once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Source, rounded
from quarkctl.formats.sparse import constant_rows

BLOCK_BYTES = 4096
#: Bytes of a code word; the roots are part of them.
CODE_WORD = 255
#: Columns that one step works on: the sums fit the cache, and threads wait for each other less than with shorter ones.
_COLUMNS = 256 * 1024
#: From so many doublings in a row on, one look into a table costs less.
_TABLE_PAYS = 3
#: Blocks hashed by one task of a tree without codes.
_TREE_WINDOW = 2 << 20


@dataclass(frozen=True)
class Tree:
    """``levels``: all levels as stored, top first; empty for data of one block. ``root``: the root digest."""

    root: bytes
    levels: bytes


@dataclass(frozen=True)
class Protected:
    """A tree and the parity over data and tree."""

    tree: Tree
    fec: bytes


Told = Callable[[int], None]


def tree_bytes(size: int, algorithm: str = "sha256") -> int:
    """Size of the tree of ``size`` bytes of data."""
    total = 0
    digest = _slot_bytes(algorithm)
    while size > BLOCK_BYTES:
        size = rounded(-(-size // BLOCK_BYTES) * digest, BLOCK_BYTES)
        total += size
    return total


def fec_bytes(size: int, roots: int) -> int:
    """Size of the parity of ``size`` bytes (data and tree)."""
    return fec_rounds(size, roots) * roots * BLOCK_BYTES


def fec_rounds(size: int, roots: int) -> int:
    blocks = rounded(size, BLOCK_BYTES) // BLOCK_BYTES
    return rounded(blocks, CODE_WORD - roots) // (CODE_WORD - roots)


def workers() -> int:
    """Threads worth having: hashing lets other threads run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tree(data: Source, salt: bytes, algorithm: str = "sha256", told: Told | None = None) -> Tree:
    """The hash tree of data whose size is a multiple of 4096 and not 0. ``told`` hears the bytes done so far.

    Blocks of one repeated word are hashed once for each word. Raises InputWrong for a wrong size.
    """
    size = _checked(data)
    hasher = _Blocks(salt, algorithm)
    done = 0
    out: list[bytes] = []

    def window(at: int) -> bytes:
        return hasher(data[at : min(at + _TREE_WINDOW, size)])

    with ThreadPoolExecutor(workers()) as pool:
        for part in pool.map(window, range(0, size, _TREE_WINDOW)):
            out.append(part)
            done += _TREE_WINDOW
            if told:
                told(min(done, size))
    return _levels(b"".join(out), hasher)


def protect(data: Source, salt: bytes, roots: int, algorithm: str = "sha256", told: Told | None = None) -> Protected:
    """Tree and parity of data in one pass. ``roots`` 2 to 24; only 2 is fast. See `tree`."""
    if roots != 2:
        made = tree(data, salt, algorithm, told)
        return Protected(made, fec_of(data, made.levels, roots))
    return _protect_fast(data, salt, algorithm, told)


def _checked(data: Source) -> int:
    size = len(data)
    if not size or size % BLOCK_BYTES:
        raise InputWrong(f"a hash tree needs whole blocks of {BLOCK_BYTES} bytes, the image has {size} bytes")
    return size


# --- hashing


def _slot_bytes(algorithm: str) -> int:
    """Bytes of a digest in the tree: the next power of two."""
    size: int = _new(algorithm).digest_size
    return 1 << (size - 1).bit_length()


def _new(algorithm: str, data: bytes = b"") -> Any:
    if algorithm == "blake2b-256":
        return hashlib.blake2b(data, digest_size=32)
    if algorithm not in ("sha1", "sha256", "sha512"):
        raise InputWrong(f"dm-verity: the hash algorithm {algorithm!r} is not known")
    return hashlib.new(algorithm, data, usedforsecurity=False)


class _Blocks:
    """Digests of blocks: H(salt || block), each padded to its slot."""

    def __init__(self, salt: bytes, algorithm: str) -> None:
        self.base = _new(algorithm, salt)
        self.slot = _slot_bytes(algorithm)
        self.padding = bytes(self.slot - self.base.digest_size)
        self._constant: dict[int, bytes] = {}

    def one(self, block: bytes | memoryview) -> bytes:
        h = self.base.copy()
        h.update(block)
        digest: bytes = h.digest()
        return digest

    def __call__(self, data: bytes | memoryview) -> bytes:
        """Slots of all blocks of ``data``, in order."""
        import numpy as np

        words = np.frombuffer(data, "<u4").reshape(-1, BLOCK_BYTES // 4)
        constant = constant_rows(words)
        view, copy, padding = memoryview(data), self.base.copy, self.padding
        out: list[bytes] = []
        add = out.append
        if not constant.any():
            for at in range(0, len(view), BLOCK_BYTES):
                h = copy()
                h.update(view[at : at + BLOCK_BYTES])
                add(h.digest())
            return padding.join(out) + padding
        values = words[:, 0].tolist()
        for n, same in enumerate(constant.tolist()):
            if same:
                add(self._of_word(values[n]))
            else:
                h = copy()
                h.update(view[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES])
                add(h.digest())
        return padding.join(out) + padding

    def _of_word(self, word: int) -> bytes:
        found = self._constant.get(word)
        if found is None:
            found = self.one(word.to_bytes(4, "little") * (BLOCK_BYTES // 4))
            if len(self._constant) < 256:
                self._constant[word] = found
        return found


def _levels(leaves: bytes, hasher: _Blocks) -> Tree:
    """The upper levels over the slots of all data blocks."""
    if len(leaves) == hasher.slot:
        return Tree(leaves[: hasher.base.digest_size], b"")
    levels = [leaves.ljust(rounded(len(leaves), BLOCK_BYTES), b"\0")]
    while len(levels[-1]) > BLOCK_BYTES:
        upper = hasher(levels[-1])
        levels.append(upper.ljust(rounded(len(upper), BLOCK_BYTES), b"\0"))
    return Tree(hasher.one(levels[-1]), b"".join(reversed(levels)))


# --- Reed-Solomon


def _multiply(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


@cache
def _times(factor: int) -> Any:
    """A table: every byte times ``factor``."""
    import numpy as np

    return np.array([_multiply(x, factor) for x in range(256)], np.uint8)


#: 1/3: the parity of two roots solves p_hi + p_lo = S0, 2*p_hi + p_lo = 4*S1.
_INVERSE_OF_3 = next(x for x in range(256) if _multiply(x, 3) == 1)


class _Sums:
    """S0 and S1 of a run of code words, ``width`` bytes of every row side by side."""

    def __init__(self, width: int) -> None:
        import numpy as np

        lanes = rounded(width, 8) // 8
        self.width = width
        self.s0, self.s1, self._t = (np.zeros(lanes, np.uint64) for _ in range(3))
        self._doublings = 0

    def double(self) -> None:
        """S1 = 2*S1, once something is added to it: rows of zeros only count."""
        self._doublings += 1

    def _catch_up(self) -> None:
        import numpy as np

        if self._doublings > _TABLE_PAYS:
            factor = 1
            for _ in range(self._doublings):
                factor = _multiply(factor, 2)
            bytes_of = self.s1.view(np.uint8)
            bytes_of[:] = _times(factor)[bytes_of]
        else:
            for _ in range(self._doublings):
                self._double()
        self._doublings = 0

    def _double(self) -> None:
        import numpy as np

        s, t = self.s1, self._t
        np.right_shift(s, np.uint64(7), out=t)
        np.bitwise_and(t, np.uint64(0x0101010101010101), out=t)
        np.multiply(t, np.uint64(0x1D), out=t)
        np.bitwise_and(s, np.uint64(0x7F7F7F7F7F7F7F7F), out=s)
        np.left_shift(s, np.uint64(1), out=s)
        np.bitwise_xor(s, t, out=s)

    def add(self, row: bytes | memoryview) -> None:
        """The row's bytes; what is missing at its end is zero."""
        import numpy as np

        self._catch_up()
        lanes = np.frombuffer(row, np.uint64)
        np.bitwise_xor(self.s0[: len(lanes)], lanes, out=self.s0[: len(lanes)])
        np.bitwise_xor(self.s1[: len(lanes)], lanes, out=self.s1[: len(lanes)])

    def parity(self) -> Any:
        """Two bytes of parity for each column, as stored."""
        import numpy as np

        self._catch_up()
        s0, s1 = self.s0.view(np.uint8)[: self.width], self.s1.view(np.uint8)[: self.width]
        out = np.empty((self.width, 2), np.uint8)
        out[:, 0] = _times(_INVERSE_OF_3)[s0 ^ _times(4)[s1]]
        np.bitwise_xor(s0, out[:, 0], out=out[:, 1])
        return out


def _protect_fast(data: Source, salt: bytes, algorithm: str, told: Told | None) -> Protected:
    size = _checked(data)
    hasher = _Blocks(salt, algorithm)
    total = size + tree_bytes(size, algorithm)
    rows = CODE_WORD - 2
    row_bytes = fec_rounds(total, 2) * BLOCK_BYTES
    full = -(-size // row_bytes)  # rows that hold data; the tree goes on in the last of them
    starts = list(range(0, row_bytes, _COLUMNS))
    sums = {at: _Sums(min(_COLUMNS, row_bytes - at)) for at in starts}
    slots: list[bytes] = [b""] * (full * len(starts))
    nothing = bytes(_COLUMNS)

    def column(at: int) -> None:
        run = sums[at]
        for n in range(full):
            begin = n * row_bytes + at
            piece = data[begin : min(begin + run.width, size)] if begin < size else b""
            if n:
                run.double()
            if len(piece):
                slots[n * len(starts) + at // _COLUMNS] = hasher(piece)
                if piece != nothing[: len(piece)]:
                    run.add(piece)

    done = 0
    with ThreadPoolExecutor(workers()) as pool:
        for at, _ in zip(starts, pool.map(column, starts), strict=True):
            done += min(sums[at].width * full, size)
            if told:
                told(min(done, size))
    made = _levels(b"".join(slots), hasher)
    levels = made.levels
    for at in starts:
        run = sums[at]
        for n in range(full - 1, rows):
            if n >= full:
                run.double()
            begin = n * row_bytes + at - size  # in the tree
            low, high = max(begin, 0), min(begin + run.width, len(levels))
            if low < high:
                run.add(bytes(low - begin) + levels[low:high])
    return Protected(made, b"".join(sums[at].parity().tobytes() for at in starts))


def fec_of(data: Source, levels: bytes, roots: int) -> bytes:
    """The parity over data and tree, for any number of roots from 2 to 24, by polynomial division."""
    import numpy as np

    if not 2 <= roots <= 24:
        raise InputWrong(f"FEC with {roots} roots", hint="2 to 24; 2 is what is made fast")
    size = len(data)
    total = size + len(levels)
    rows, row_bytes = CODE_WORD - roots, fec_rounds(total, roots) * BLOCK_BYTES
    tables = [_times(g) for g in _generator(roots)]
    out: list[bytes] = []
    for at in range(0, row_bytes, _COLUMNS):
        width = min(_COLUMNS, row_bytes - at)
        parity = [np.zeros(width, np.uint8) for _ in range(roots)]
        for n in range(rows):
            row = np.frombuffer(_piece(data, levels, n * row_bytes + at, width), np.uint8)
            feedback = row ^ parity[0]
            parity = [p ^ t[feedback] for p, t in zip([*parity[1:], np.uint8(0)], tables, strict=True)]
        out.append(np.stack(parity, axis=1).tobytes())
    return b"".join(out)


def _piece(data: Source, levels: bytes, at: int, width: int) -> bytes:
    size = len(data)
    head = bytes(data[at : min(at + width, size)]) if at < size else b""
    low = max(at + len(head) - size, 0)
    return (head + levels[low : low + width - len(head)]).ljust(width, b"\0")


@cache
def _generator(roots: int) -> tuple[int, ...]:
    """Coefficients of (x - 1)(x - 2)(x - 4)..., highest power first, without the leading 1."""
    polynomial = [1]
    root = 1
    for _ in range(roots):
        longer = [*polynomial, 0]
        for n, c in enumerate(polynomial):
            longer[n + 1] ^= _multiply(c, root)
        polynomial, root = longer, _multiply(root, 2)
    return tuple(polynomial[1:])
