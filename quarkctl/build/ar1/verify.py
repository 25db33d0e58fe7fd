"""What was built, read back by readers written a second time.

They share nothing with the writers but the definitions of the formats: numbers are taken out of the files by offset, RSA is
a power, hash trees are hashed block by block, and code words are tested by their syndromes. Every block of a hash tree is
checked, and every code word. What the file system knows as a hole is not read: it cannot be anything but zeros.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from functools import cache

from quarkctl.errors import VerificationFailed
from quarkctl.files import File
from quarkctl.formats.record import Source
from quarkctl.formats.verity import Run, here

_BLOCK = 4096
#: Columns of code words that are read at a time.
_COLUMNS = 128 * 1024
#: What is read at a time where there are no code words.
_RUN_BYTES = 1 << 20
Told = Callable[[int], None]


def failed(what: str, told: str) -> VerificationFailed:
    return VerificationFailed(
        f"{what}: what was built does not verify: {told}", hint="this is a bug in quarkctl: report it"
    )


def _be(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")


def _le(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "little")


def _need(condition: bool, what: str, told: str) -> None:
    if not condition:
        raise failed(what, told)


def vbmeta(what: str, data: bytes, modulus: int | None) -> list[tuple[int, bytes]]:
    """Hash and signature of a vbmeta structure (modulus None: it must be unsigned). Returns (tag, descriptor) pairs."""
    _need(data[:4] == b"AVB0", what, "no magic")
    auth_bytes, aux_bytes = _be(data, 12, 8), _be(data, 20, 8)
    auth, aux = data[256 : 256 + auth_bytes], data[256 + auth_bytes : 256 + auth_bytes + aux_bytes]
    algorithm = _be(data, 28, 4)
    if modulus is None:
        _need(algorithm == 0 and not auth_bytes, what, "it is signed and should not be")
    else:
        name, prefix = ("sha256", "3031300d060960864801650304020105000420") if algorithm < 4 else (
            "sha512", "3051300d060960864801650304020305000440")  # fmt: skip
        digest = hashlib.new(name, data[:256] + aux).digest()
        _need(auth[_be(data, 32, 8) :][: _be(data, 40, 8)] == digest, what, "its hash is another")
        signature = auth[_be(data, 48, 8) :][: _be(data, 56, 8)]
        size = (modulus.bit_length() + 7) // 8
        block = pow(int.from_bytes(signature, "big"), 65537, modulus).to_bytes(size, "big")
        tail = bytes.fromhex(prefix) + digest
        _need(block == b"\0\1" + b"\xff" * (size - 3 - len(tail)) + b"\0" + tail, what, "its signature does not hold")
        blob = aux[_be(data, 64, 8) :][: _be(data, 72, 8)]
        _need(int.from_bytes(blob[8 : 8 + size], "big") == modulus, what, "it carries another key")
    area, found = aux[_be(data, 96, 8) :][: _be(data, 104, 8)], []
    while area:
        length = 16 + _be(area, 8, 8)
        found.append((_be(area, 0, 8), area[:length]))
        area = area[length:]
    return found


def partition(what: str, image: Source, modulus: int | None, told: Told | None = None, run: Run = here) -> bytes:
    """Footer, vbmeta structure and every byte that its descriptor binds. Returns the bytes of the descriptor."""
    footer = bytes(image[len(image) - 64 : len(image)])
    _need(footer[:4] == b"AVBf", what, "no footer in the last 64 bytes")
    original, at, size = (_be(footer, o, 8) for o in (12, 20, 28))
    _need(original <= at and at % _BLOCK == 0 and at + size <= len(image) - 64, what, "the footer points elsewhere")
    found = vbmeta(what, bytes(image[at : at + size]), modulus)
    bound = [(tag, d) for tag, d in found if tag in (1, 2)]
    _need(len(bound) == 1, what, f"{len(bound)} descriptors bind it")
    tag, d = bound[0]
    if tag == 2:
        length, algorithm = _be(d, 16, 8), d[24:56].rstrip(b"\0").decode()
        _, salt, digest = _tail(d, 132, 56)
        h = hashlib.new(algorithm, salt)
        for begin in range(0, length, 1 << 20):
            h.update(image[begin : min(begin + (1 << 20), length)])
        _need(h.digest() == digest, what, "the hash in its descriptor is another")
    else:
        _hashtree(what, image, d, told, run)
    return d


def _tail(d: bytes, at: int, sizes: int) -> tuple[bytes, bytes, bytes]:
    n, s, r = (_be(d, sizes + 4 * i, 4) for i in range(3))
    return d[at : at + n], d[at + n : at + n + s], d[at + n + s : at + n + s + r]


def _hashtree(what: str, image: Source, d: bytes, told: Told | None, run: Run) -> None:
    size, tree_at, tree_bytes, roots = _be(d, 20, 8), _be(d, 28, 8), _be(d, 36, 8), _be(d, 52, 4)
    fec_at, fec_bytes = _be(d, 56, 8), _be(d, 64, 8)
    algorithm = d[72:104].rstrip(b"\0").decode()
    _, salt, root = _tail(d, 180, 104)
    slot = 32 if len(root) <= 32 else 64
    levels = bytes(image[tree_at : tree_at + tree_bytes])
    # Level sizes from the leaves up; in the image the leaves come last.
    sizes, blocks = [], size // _BLOCK
    while blocks > 1:
        blocks = -(-blocks * slot // _BLOCK)
        sizes.append(blocks * _BLOCK)
    _need(sum(sizes) == tree_bytes, what, f"a tree of {tree_bytes} bytes for {size} bytes of data")
    hashed = _Hashed(algorithm, salt)
    end = tree_bytes - sizes[0] if sizes else 0
    leaves = levels[end:] if sizes else root.ljust(slot, b"\0")
    below = leaves
    for level_bytes in sizes[1:]:
        level = levels[end - level_bytes : end]
        end -= level_bytes
        made = hashed(below)
        _need(level == made.ljust(level_bytes, b"\0"), what, "its hash tree is not one")
        below = level
    if sizes:
        _need(hashlib.new(algorithm, salt + below).digest() == root, what, "the root of its hash tree is another")
    _need(not leaves[size // _BLOCK * slot :].strip(b"\0"), what, "its hash tree is not padded with zeros")

    covered = tree_at + tree_bytes
    row_bytes = -(-(covered // _BLOCK) // (255 - roots)) * _BLOCK if roots else covered
    if roots:
        _need(fec_bytes == row_bytes * roots, what, f"{fec_bytes} bytes of codes for {covered} bytes")
    step = _COLUMNS if roots else _RUN_BYTES
    column = _Column(what, image, size, covered, row_bytes, step, leaves, (algorithm, salt), roots, fec_at)
    done = 0
    for read in run(column, range(0, row_bytes, step)):
        done += read
        if told:
            told(min(done, size))


class _Column:
    """Every block in ``step`` columns of the rows against its leaf, and every code word by its syndromes.

    Without codes all is one row. Returns how many bytes there are in these columns.
    """

    def __init__(
        self,
        what: str,
        image: Source,
        size: int,
        covered: int,
        row_bytes: int,
        step: int,
        leaves: bytes,
        hashed_with: tuple[str, bytes],
        roots: int,
        fec_at: int,
    ) -> None:
        self._what, self._image, self._size, self._covered = what, image, size, covered
        self._row_bytes, self._step = row_bytes, step
        self._leaves, self._hashed_with, self._roots, self._fec_at = leaves, hashed_with, roots, fec_at

    def __call__(self, at: int, /) -> int:
        image, size, roots, leaves = self._image, self._size, self._roots, self._leaves
        width = min(self._step, self._row_bytes - at)
        hashed = _Hashed(*self._hashed_with)
        nothing, of_nothing = bytes(width), hashed(bytes(_BLOCK)) * (width // _BLOCK)
        sums = _Syndromes(width, roots) if roots else None
        begins = range(at, self._covered, self._row_bytes)
        for row, begin in enumerate(begins):
            stop = min(begin + width, self._covered)
            slots = (begin // _BLOCK * hashed.slot, min(stop, size) // _BLOCK * hashed.slot)
            known = leaves[slots[0] : slots[1]] if begin < size else b""
            piece = b"" if isinstance(image, File) and image.is_hole(begin, stop) else bytes(image[begin:stop])
            if piece == nothing[: len(piece)]:
                _need(known == of_nothing[: len(known)], self._what, "its hash tree is not that of its data")
                continue
            _need(known == hashed(piece[: max(size - begin, 0)]), self._what, "its hash tree is not that of its data")
            if sums:
                sums.add(254 - row, piece)
        if sums:
            words = bytes(image[self._fec_at + roots * at : self._fec_at + roots * (at + width)])
            for n in range(roots):
                sums.add(roots - 1 - n, words[n::roots])
            _need(sums.zero(), self._what, f"its codes do not fit at columns {at} to {at + width - 1}")
        return width * len(begins)


class _Hashed:
    """Blocks hashed one by one, as they stand in a tree."""

    def __init__(self, algorithm: str, salt: bytes) -> None:
        self._base = hashlib.new(algorithm, salt)
        self.slot = 32 if self._base.digest_size <= 32 else 64
        self._gap = bytes(self.slot - self._base.digest_size)

    def __call__(self, data: bytes) -> bytes:
        view, copy = memoryview(data), self._base.copy
        out: list[bytes] = []
        for at in range(0, len(data), _BLOCK):
            h = copy()
            h.update(view[at : at + _BLOCK])
            out += (h.digest(), self._gap)
        return b"".join(out)


@cache
def _bits_of_power(exponent: int) -> tuple[int, ...]:
    """Bits of 2^exponent."""
    value = 1
    for _ in range(exponent):
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return tuple(n for n in range(8) if value >> n & 1)


class _Syndromes:
    """Whether code words side by side are 0 at the generator's roots 1, 2, 4...: their sums with powers of each root.

    Rows are added to those of eight sums, for each root, that the bits of the power ask for; the eight sums are evaluated
    like a polynomial.
    """

    def __init__(self, width: int, roots: int) -> None:
        import numpy as np

        self._plain = np.zeros(width, np.uint8)
        self._sums = np.zeros((roots, 8, width), np.uint8)

    def add(self, power: int, row: bytes) -> None:
        import numpy as np

        bytes_of = np.frombuffer(row, np.uint8)
        self._plain[: len(bytes_of)] ^= bytes_of
        for root in range(1, len(self._sums)):
            for bit in _bits_of_power(power * root % 255):
                self._sums[root, bit, : len(bytes_of)] ^= bytes_of

    def zero(self) -> bool:
        import numpy as np

        doubled = np.array([x << 1 ^ (0x11D if x & 0x80 else 0) for x in range(256)], np.uint8)
        for sums in self._sums[1:]:
            value = np.zeros_like(self._plain)
            for bit in reversed(range(8)):
                value = doubled[value] ^ sums[bit]
            if value.any():
                return False
        return not self._plain.any()


def chained(what: str, d: bytes, modulus: int) -> None:
    """A chain descriptor carries the key that signed the partition."""
    n, k = _be(d, 20, 4), _be(d, 24, 4)
    blob = d[92 + n : 92 + n + k]
    _need(
        int.from_bytes(blob[8 : 8 + _be(blob, 0, 4) // 8], "big") == modulus, what, "a chain descriptor has another key"
    )


def table(what: str, main: bytes, backup: bytes, sector: int) -> None:
    """Both copies of a partition table: CRCs, mirrored places, entries inside and apart."""
    heads = (main[sector : sector + 92], backup[-sector:][:92])
    arrays = (main[2 * sector :], backup[:-sector])
    for head, array in zip(heads, arrays, strict=True):
        _need(head[:8] == b"EFI PART", what, "no signature")
        _need(zlib.crc32(head[:16] + bytes(4) + head[20:]) == _le(head, 16, 4), what, "a header's CRC is another")
        _need(
            zlib.crc32(array[: _le(head, 80, 4) * _le(head, 84, 4)]) == _le(head, 88, 4),
            what,
            "the entries' CRC is another",
        )
    _need(arrays[0] == arrays[1], what, "the copies differ")
    _need(
        (_le(heads[0], 24, 8), _le(heads[0], 32, 8)) == (_le(heads[1], 32, 8), _le(heads[1], 24, 8)),
        what,
        "not mirrored",
    )
    low, high = _le(heads[0], 40, 8), _le(heads[0], 48, 8)
    spans = sorted(
        (_le(arrays[0], o + 32, 8), _le(arrays[0], o + 40, 8))
        for o in range(0, len(arrays[0]), 128)
        if any(arrays[0][o : o + 16])
    )
    edge = low
    for first, last in spans:
        _need(edge <= first <= last <= high, what, f"a partition at {first} to {last}")
        edge = last + 1


def super_image(what: str, data: Source, members: dict[str, tuple[int, Source | None]]) -> dict[str, tuple[int, int]]:
    """Every copy of the metadata, and that partitions are where it says. Returns {name: (offset, size)}."""
    places: dict[str, tuple[int, int]] = {}
    for geometry_at in (4096, 8192):
        g = bytes(data[geometry_at : geometry_at + 52])
        _need(_le(g, 0, 4) == 0x616C4467, what, "no geometry")
        _need(
            hashlib.sha256(g[:8] + bytes(32) + g[40:]).digest() == g[8:40], what, "the geometry's checksum is another"
        )
        size, slots = _le(g, 40, 4), _le(g, 44, 4)
        for copy in range(2 * slots):
            at = 12288 + copy * size
            head = bytes(data[at : at + 256])
            head = head[: _le(head, 8, 4)]
            _need(
                hashlib.sha256(head[:12] + bytes(32) + head[44:]).digest() == head[12:44], what, "a header's checksum"
            )
            tables = bytes(data[at + len(head) : at + len(head) + _le(head, 44, 4)])
            _need(hashlib.sha256(tables).digest() == head[48:80], what, "a table's checksum is another")
            found = _super_tables(head, tables)
            _need(not places or found == places, what, "copies of the metadata differ")
            places = found
    edge = 12288 + 2 * slots * size
    for offset, length in sorted(p for p in places.values() if p[1]):
        _need(edge <= offset and offset + length <= len(data), what, "partitions overlap or end outside")
        edge = offset + length
    for name, (length, _) in members.items():
        _need(name in places and places[name][1] >= length, what, f"{name} is missing or too small")
    return places


def _super_tables(head: bytes, tables: bytes) -> dict[str, tuple[int, int]]:
    (p_at, p_count, p_size), (e_at, _, e_size) = (
        tuple(_le(head, 80 + 12 * n + 4 * i, 4) for i in range(3)) for n in range(2)
    )
    out = {}
    for n in range(p_count):
        row = tables[p_at + n * p_size :][:p_size]
        first, count = _le(row, 40, 4), _le(row, 44, 4)
        extents = [tables[e_at + e * e_size :][:e_size] for e in range(first, first + count)]
        start = _le(extents[0], 12, 8) * 512 if extents else 0
        out[row[:36].rstrip(b"\0").decode()] = (start, sum(_le(e, 0, 8) for e in extents) * 512)
    return out


class Expanded:
    """A sparse image in one or more files as a source of what it expands to: walked once, read at will."""

    def __init__(self, what: str, files: Sequence[Source]) -> None:
        self._runs: list[tuple[int, int, Source, int, bytes]] = []  # begin, end, file, offset in it, pattern
        sizes = {self._walk(what, file) for file in files}
        self._size = max(sizes)
        _need(len(sizes) == 1, what, "its pieces are of images of different sizes")
        self._runs.sort(key=lambda r: r[0])
        edges = [0, *(r[1] for r in self._runs)]
        _need([*(r[0] for r in self._runs), self._size] == edges, what, "chunks overlap or leave something open")

    def _walk(self, what: str, file: Source) -> int:
        head = bytes(file[0:28])
        _need(head[:4] == b"\x3a\xff\x26\xed", what, "no sparse image")
        block, total, count = _le(head, 12, 4), _le(head, 16, 4), _le(head, 20, 4)
        at, begin = 28, 0
        for _ in range(count):
            chunk = bytes(file[at : at + 16])
            kind, blocks, length = _le(chunk, 0, 2), _le(chunk, 4, 4), _le(chunk, 8, 4)
            end = begin + blocks * block
            if kind != 0xCAC3:
                self._runs.append((begin, end, file, at + 12, {0xCAC1: b"", 0xCAC2: chunk[12:16]}[kind]))
            at, begin = at + length, end
        _need(begin == total * block and at == len(file), what, "the chunks do not add up")
        return begin

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        from bisect import bisect_right

        start, stop, _ = part.indices(self._size)
        out, n = [], max(bisect_right(self._runs, start, key=lambda r: r[0]) - 1, 0)
        while start < stop and n < len(self._runs):
            begin, end, file, offset, pattern = self._runs[n]
            high = min(stop, end)
            if high > start:
                if pattern:
                    shift = (start - begin) % 4
                    out.append(((pattern * ((high - start) // 4 + 2))[shift:])[: high - start])
                else:
                    out.append(bytes(file[offset + start - begin : offset + high - begin]))
                start = high
            n += 1
        return b"".join(out)
