"""dm-verity hash trees and their Reed-Solomon codes, as fast as one pass over the data allows.

Sources: Linux ``Documentation/admin-guide/device-mapper/verity.rst`` (version 1, the salt goes first); Linux
``drivers/md/dm-verity-fec.c`` for the interleaving and RS(255, 255-roots) over GF(2^8) with the polynomial 0x11d and
the generator's roots 1, 2, 4, ... In an image the levels of a tree stand top first; there is no superblock.

With two roots, a code word's parity follows from two sums over its bytes d[0..252]: S0 = xor of all, S1 = the Horner sum
S1 = 2*S1 + d[i]. Both are made for many code words at once in 64-bit lanes. The same pass hashes the blocks, so that data
is read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Source, rounded

BLOCK_BYTES = 4096
#: Bytes of a code word; the roots are part of them.
CODE_WORD = 255
#: Columns that one task works on: the sums fit the cache.
_COLUMNS = 128 * 1024
#: Bytes that one task of a tree without codes hashes, and how many of them are read at a time.
_TASK_BYTES = 4 << 20
_WINDOW_BYTES = 256 << 10
_NOTHING = bytes(_WINDOW_BYTES)


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
Result_co = TypeVar("Result_co", covariant=True)


class Job(Protocol[Result_co]):
    """A part of the work, by its number. It can be pickled: another process may do it."""

    def __call__(self, task: int, /) -> Result_co: ...


class Run(Protocol):
    """What spreads a job over processors: as ``map``, results in the order of the tasks."""

    def __call__(self, job: Job[Result_co], tasks: Sequence[int], /) -> Iterator[Result_co]: ...


class Seen(Protocol):
    """Hears of every piece that is not all zeros: its offset and its bytes. It can be pickled, as a `Job`."""

    def __call__(self, at: int, piece: bytes, /) -> None: ...


def here(job: Job[Result_co], tasks: Sequence[int], /) -> Iterator[Result_co]:
    """One after the other."""
    return map(job, tasks)


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


def tree(
    data: Source,
    salt: bytes,
    algorithm: str = "sha256",
    told: Told | None = None,
    seen: Seen | None = None,
    run: Run = here,
) -> Tree:
    """The hash tree of data whose size is a multiple of 4096 and not 0. ``told`` hears the bytes done so far.

    ``seen`` is called with every piece read that is not all zeros: whoever writes the data elsewhere need not read it
    again. Blocks of one repeated word are hashed once for each word. Raises InputWrong for a wrong size.
    """
    size = _checked(data)
    hasher = Blocks(salt, algorithm)
    out: list[bytes] = []
    for n, slots in enumerate(run(_Leaves(data, hasher, seen), range(0, size, _TASK_BYTES))):
        out.append(slots)
        if told:
            told(min((n + 1) * _TASK_BYTES, size))
    return _levels(b"".join(out), hasher)


def protect(
    data: Source,
    salt: bytes,
    roots: int,
    algorithm: str = "sha256",
    told: Told | None = None,
    seen: Seen | None = None,
    run: Run = here,
) -> Protected:
    """Tree and parity of data in one pass. ``roots`` 2 to 24; only 2 is fast. See `tree`. Raises InputWrong."""
    size = _checked(data)
    hasher, words = Blocks(salt, algorithm), _Words(size, roots, algorithm)
    starts = range(0, words.row_bytes, _COLUMNS)
    rows = -(-size // words.row_bytes)
    slots: list[bytes] = [b""] * (rows * len(starts))
    parities: list[Any] = []
    done = 0
    for k, (found, parity) in enumerate(run(_Column(data, hasher, words, seen), starts)):
        slots[k :: len(starts)] = found + [b""] * (rows - len(found))
        parities.append(parity)
        done += len(parity) * rows
        if told:
            told(min(done, size))
    made = _levels(b"".join(slots), hasher)
    return Protected(made, words.parity(parities, made.levels))


class InOrder:
    """Tree and parity of data that is told piece by piece, from its beginning to its end: for whoever reads it in that
    order anyway. ``roots`` 0: no parity. Slower than `protect`, and it holds sums of all code words: a 25th of the data for
    two roots. Raises InputWrong."""

    def __init__(self, size: int, salt: bytes, roots: int, algorithm: str = "sha256") -> None:
        _checked(range(size))
        self._hasher = Blocks(salt, algorithm)
        self._words = _Words(size, roots, algorithm) if roots else None
        row_bytes = self._words.row_bytes if self._words else size
        self._starts = range(0, row_bytes, _COLUMNS)
        self._row_bytes, self._size = row_bytes, size
        self._sums = [self._words.column(min(_COLUMNS, row_bytes - at)) for at in self._starts] if self._words else []
        self._slots: list[bytes] = []
        self._held = bytearray()
        self._at = 0  # where what is held begins

    def __call__(self, piece: bytes | memoryview) -> None:
        """The next bytes, however many."""
        self._held += piece
        while self._held:
            row, column = divmod(self._at, self._row_bytes)
            width = min(_COLUMNS - column % _COLUMNS, self._row_bytes - column, self._size - self._at)
            if len(self._held) < width:
                return
            part = bytes(self._held[:width])
            del self._held[:width]
            self._at += width
            if part == _NOTHING[:width]:
                self._slots.append(self._hasher.nothing(width))
                continue
            self._slots.append(self._hasher(part))
            if self._sums:
                self._sums[column // _COLUMNS].add(row, part)

    def done(self) -> Protected:
        """After the last piece."""
        made = _levels(b"".join(self._slots), self._hasher)
        if not self._words:
            return Protected(made, b"")
        return Protected(made, self._words.parity([s.parity() for s in self._sums], made.levels))


def _checked(data: Sized) -> int:
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


class Blocks:
    """Digests of blocks: H(salt || block), each padded to its slot."""

    def __init__(self, salt: bytes, algorithm: str) -> None:
        self._made_of = salt, algorithm
        self.base = _new(algorithm, salt)
        self.slot = _slot_bytes(algorithm)
        self.padding = bytes(self.slot - self.base.digest_size)
        self._constant: dict[bytes, bytes] = {}

    def __reduce__(self) -> tuple[type[Blocks], tuple[bytes, str]]:
        return Blocks, self._made_of

    def one(self, block: bytes | memoryview) -> bytes:
        h = self.base.copy()
        h.update(block)
        digest: bytes = h.digest()
        return digest

    def __call__(self, data: bytes) -> bytes:
        """Slots of all blocks of ``data``, in order."""
        view, copy, padding = memoryview(data), self.base.copy, self.padding
        out: list[bytes] = []
        add = out.append
        for at in range(0, len(data), BLOCK_BYTES):
            # two comparisons tell nearly all blocks of many words; only then is it worth to look at all of it
            if data[at] == data[at + 4] == data[at + 4092] and data.startswith(data[at : at + 4] * 1024, at):
                add(self._of_word(data[at : at + 4]))
            else:
                h = copy()
                h.update(view[at : at + BLOCK_BYTES])
                add(h.digest())
        return padding.join(out) + padding

    def nothing(self, size: int) -> bytes:
        """Slots of ``size`` bytes of zeros."""
        return (self._of_word(bytes(4)) + self.padding) * (size // BLOCK_BYTES)

    def _of_word(self, word: bytes) -> bytes:
        found = self._constant.get(word)
        if found is None:
            found = self.one(word * (BLOCK_BYTES // 4))
            if len(self._constant) < 256:
                self._constant[word] = found
        return found


class _Leaves:
    """Slots of the blocks from a task's offset on."""

    def __init__(self, data: Source, hasher: Blocks, seen: Seen | None) -> None:
        self._data, self._hasher, self._seen = data, hasher, seen

    def __call__(self, task: int, /) -> bytes:
        end = min(task + _TASK_BYTES, len(self._data))
        return b"".join(self._window(at, min(at + _WINDOW_BYTES, end)) for at in range(task, end, _WINDOW_BYTES))

    def _window(self, at: int, end: int) -> bytes:
        piece = bytes(self._data[at:end])
        if piece == _NOTHING[: len(piece)]:
            return self._hasher.nothing(len(piece))
        if self._seen:
            self._seen(at, piece)
        return self._hasher(piece)


def _levels(leaves: bytes, hasher: Blocks) -> Tree:
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
    """S0 and S1 of a run of code words, ``width`` bytes of every row side by side.

    S1 is the sum of 2^(252-n) * row n. Every factor is a sum of some of 1, 2, 4, ... 128, so each row is added to those of
    eight partial sums that its factor asks for, and only the partial sums are multiplied, once, at the end. Rows go in by
    twos, which saves additions where both ask for the same sum; rows of zeros cost nothing.
    """

    def __init__(self, width: int) -> None:
        import numpy as np

        self._width = width
        lanes = rounded(width, 8) // 8
        self._parts = np.zeros((9, lanes), np.uint64)  # the last is S0
        self._both = np.empty(lanes, np.uint64)
        self._held: tuple[Any, int] | None = None

    def add(self, n: int, row: bytes | memoryview) -> None:
        """Row ``n``; what is missing at its end is zero."""
        import numpy as np

        lanes, asked = np.frombuffer(row, np.uint64), _factor(n) | 0x100
        if self._held is None:
            self._held = lanes, asked
            return
        first, asked_first = self._held
        if len(first) != len(lanes):
            self._add(first, asked_first)
            self._held = lanes, asked
            return
        both = self._both[: len(lanes)]
        np.bitwise_xor(first, lanes, out=both)
        self._add(both, asked & asked_first)
        self._add(first, asked_first & ~asked)
        self._add(lanes, asked & ~asked_first)
        self._held = None

    def _add(self, lanes: Any, asked: int) -> None:
        import numpy as np

        for bit in range(9):
            if asked >> bit & 1:
                part = self._parts[bit, : len(lanes)]
                np.bitwise_xor(part, lanes, out=part)

    def parity(self) -> Any:
        """Two bytes of parity for each column: an array of shape (columns, 2)."""
        import numpy as np

        if self._held is not None:
            self._add(*self._held)
        s, t = self._parts[7], self._both
        for bit in range(6, -1, -1):
            np.right_shift(s, np.uint64(7), out=t)
            np.bitwise_and(t, np.uint64(0x0101010101010101), out=t)
            np.multiply(t, np.uint64(0x1D), out=t)
            np.bitwise_and(s, np.uint64(0x7F7F7F7F7F7F7F7F), out=s)
            np.left_shift(s, np.uint64(1), out=s)
            np.bitwise_xor(s, t, out=s)
            np.bitwise_xor(s, self._parts[bit], out=s)
        s0, s1 = self._parts[8].view(np.uint8)[: self._width], s.view(np.uint8)[: self._width]
        out = np.empty((self._width, 2), np.uint8)
        out[:, 0] = _times(_INVERSE_OF_3)[s0 ^ _times(4)[s1]]
        np.bitwise_xor(s0, out[:, 0], out=out[:, 1])
        return out


@cache
def _factor(n: int) -> int:
    """2^(252-n): what row ``n`` counts in S1."""
    return 1 if n == CODE_WORD - 3 else _multiply(_factor(n + 1), 2)


class _Division:
    """The parity of a run of code words by polynomial division, for any number of roots. Rows come in their order."""

    def __init__(self, width: int, roots: int) -> None:
        import numpy as np

        self._tables = [_times(g) for g in _generator(roots)]
        self._rests = [np.zeros(width, np.uint8) for _ in self._tables]
        self._nothing = np.zeros(width, np.uint8)
        self._next = 0

    def add(self, n: int, row: bytes | memoryview) -> None:
        """Row ``n``; what is missing at its end is zero, as are rows that are left out."""
        import numpy as np

        for _ in range(self._next, n):
            self._step(self._nothing)
        lanes = np.frombuffer(row, np.uint8)
        if len(lanes) < len(self._nothing):
            lanes = np.concatenate((lanes, self._nothing[len(lanes) :]))
        self._step(lanes)
        self._next = n + 1

    def _step(self, row: Any) -> None:
        feedback = row ^ self._rests[0]
        follow = [*self._rests[1:], self._nothing]
        self._rests = [rest ^ times[feedback] for rest, times in zip(follow, self._tables, strict=True)]

    def parity(self) -> Any:
        """An array of shape (columns, roots)."""
        import numpy as np

        for _ in range(self._next, CODE_WORD - len(self._tables)):
            self._step(self._nothing)
        self._next = CODE_WORD - len(self._tables)
        return np.stack(self._rests, axis=1)


class _Words:
    """The code words over data of ``size`` bytes and its tree: where they lie and how they are made. The parity of data and
    tree is that of the data, with zeros for the tree, plus that of the tree alone; so data need not wait for its tree.
    """

    def __init__(self, size: int, roots: int, algorithm: str) -> None:
        if not 2 <= roots <= 24:
            raise InputWrong(f"FEC with {roots} roots", hint="2 to 24; 2 is what is made fast")
        self._size, self._roots = size, roots
        self._total = size + tree_bytes(size, algorithm)
        self.row_bytes = fec_rounds(self._total, roots) * BLOCK_BYTES

    def column(self, width: int) -> _Sums | _Division:
        return _Sums(width) if self._roots == 2 else _Division(width, self._roots)

    def parity(self, of_data: Sequence[Any], levels: bytes) -> bytes:
        """As stored, from the parities of the data's columns and the tree."""
        out = []
        for at, parity in zip(range(0, self.row_bytes, _COLUMNS), of_data, strict=True):
            sums = self.column(len(parity))
            for n in range(self._size // self.row_bytes, -(-self._total // self.row_bytes)):
                begin = n * self.row_bytes + at - self._size  # in the tree
                row = bytes(max(-begin, 0)) + levels[max(begin, 0) : max(begin + len(parity), 0)]
                if row:
                    sums.add(n, row[: len(parity)])
            out.append((parity ^ sums.parity()).tobytes())
        return b"".join(out)


class _Column:
    """From a task's column on: slots of the blocks of every row, and the parity over the rows."""

    def __init__(self, data: Source, hasher: Blocks, words: _Words, seen: Seen | None) -> None:
        self._data, self._hasher, self._words, self._seen = data, hasher, words, seen

    def __call__(self, task: int, /) -> tuple[list[bytes], Any]:
        size, row_bytes = len(self._data), self._words.row_bytes
        width = min(_COLUMNS, row_bytes - task)
        sums = self._words.column(width)
        slots: list[bytes] = []
        for n, begin in enumerate(range(task, size, row_bytes)):
            piece = bytes(self._data[begin : min(begin + width, size)])
            if piece == _NOTHING[: len(piece)]:
                slots.append(self._hasher.nothing(len(piece)))
                continue
            slots.append(self._hasher(piece))
            sums.add(n, piece)
            if self._seen:
                self._seen(begin, piece)
        return slots, sums.parity()


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
