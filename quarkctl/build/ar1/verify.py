"""What was built, read back by readers written a second time.

They share nothing with the writers but the definitions of the formats: numbers are taken out of the files by offset, RSA is
a power, hash trees are hashed block by block, and code words are tested by their syndromes. Every block of a hash tree is
checked, and every code word with two roots; of other codes, evenly spread samples. What the file system knows as a hole
is not read: it cannot be anything but zeros.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quarkctl.errors import VerificationFailed
from quarkctl.files import File
from quarkctl.formats.record import Source
from quarkctl.formats.verity import workers

_BLOCK = 4096
_FEC_SAMPLES = 32
#: Columns of code words that are read at a time.
_COLUMNS = 256 * 1024
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


def partition(what: str, image: Source, modulus: int | None, told: Told | None = None) -> bytes:
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
        _hashtree(what, image, d, told)
    return d


def _tail(d: bytes, at: int, sizes: int) -> tuple[bytes, bytes, bytes]:
    n, s, r = (_be(d, sizes + 4 * i, 4) for i in range(3))
    return d[at : at + n], d[at + n : at + n + s], d[at + n + s : at + n + s + r]


def _hashtree(what: str, image: Source, d: bytes, told: Told | None) -> None:
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
    base = hashlib.new(algorithm, salt)
    gap = bytes(slot - base.digest_size)

    def hashed(data: bytes) -> bytes:
        view, copy, out = memoryview(data), base.copy, []
        for at in range(0, len(data), _BLOCK):
            h = copy()
            h.update(view[at : at + _BLOCK])
            out.append(h.digest())
            out.append(gap)
        return b"".join(out)

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
    rows = 255 - roots
    row_bytes = -(-(covered // _BLOCK) // rows) * _BLOCK if roots else 0
    if roots:
        _need(fec_bytes == row_bytes * roots, what, f"{fec_bytes} bytes of codes for {covered} bytes")
        _samples(what, image, covered, roots, row_bytes, fec_at)
    stride = row_bytes if roots == 2 else covered  # other codes are only sampled: one row takes it all
    nothing = bytes(_COLUMNS)
    of_nothing = hashed(nothing)

    def column(at: int) -> int:
        """Every block in these columns against its leaf, and with two roots every code word by its syndromes."""
        width = min(_COLUMNS, stride - at)
        sums = _Syndromes(width) if roots == 2 else None
        done = 0
        for row, begin in enumerate(range(at, covered, stride)):
            stop = min(begin + width, covered)
            known = leaves[begin // _BLOCK * slot : min(stop, size) // _BLOCK * slot] if begin < size else b""
            done += max(min(stop, size) - begin, 0)
            piece = b"" if isinstance(image, File) and image.is_hole(begin, stop) else bytes(image[begin:stop])
            if piece == nothing[: len(piece)]:
                _need(known == of_nothing[: len(known)], what, "its hash tree is not that of its data")
                continue
            _need(known == hashed(piece[: max(size - begin, 0)]), what, "its hash tree is not that of its data")
            if sums:
                sums.add(254 - row, piece)
        if sums:
            pairs = bytes(image[fec_at + 2 * at : fec_at + 2 * (at + width)])
            sums.add(1, pairs[0::2])
            sums.add(0, pairs[1::2])
            _need(sums.zero(), what, f"its codes do not fit at columns {at} to {at + width - 1}")
        return done

    total = 0
    with ThreadPoolExecutor(workers()) as pool:
        for done in pool.map(column, range(0, stride, _COLUMNS)):
            total += done
            if told:
                told(min(total, size))


class _Syndromes:
    """Whether code words side by side are 0 at the generator's roots 1 and 2: their sum, and their sum with powers of 2.

    Rows of equal bits in their power of 2 are added up first; the eight sums are evaluated like a polynomial.
    """

    def __init__(self, width: int) -> None:
        import numpy as np

        self._sums = np.zeros((9, width), np.uint8)

    def add(self, power: int, row: bytes) -> None:
        import numpy as np

        bytes_of = np.frombuffer(row, np.uint8)
        factor = 1
        for _ in range(power):
            factor = factor << 1 ^ (0x11D if factor & 0x80 else 0)
        for bit in [n for n in range(8) if factor >> n & 1] + [8]:
            self._sums[bit, : len(bytes_of)] ^= bytes_of

    def zero(self) -> bool:
        import numpy as np

        doubled = np.array([x << 1 ^ (0x11D if x & 0x80 else 0) for x in range(256)], np.uint8)
        value = np.zeros_like(self._sums[0])
        for bit in reversed(range(8)):
            value = doubled[value] ^ self._sums[bit]
        return not value.any() and not self._sums[8].any()


def _samples(what: str, image: Source, covered: int, roots: int, row_bytes: int, fec_at: int) -> None:
    """Syndromes of some code words, by the book: a code word is 0 at every root of the generator (1, 2, 4, ...)."""
    rounds = row_bytes // _BLOCK
    count = min(4 if roots == 2 else _FEC_SAMPLES, rounds)  # with two roots all of them follow
    for sample in range(count):
        column = sample * (rounds - 1) // max(count - 1, 1) * _BLOCK + sample * 131 % _BLOCK
        word = [
            image[at : at + 1][0] if at < covered else 0 for at in range(column, (255 - roots) * row_bytes, row_bytes)
        ]
        word += image[fec_at + column * roots : fec_at + (column + 1) * roots]
        for power in range(roots):
            value = 0
            for byte in word:
                for _ in range(power):
                    value = value << 1 ^ (0x11D if value & 0x80 else 0)
                value ^= byte
            _need(value == 0, what, f"its codes do not fit at column {column}")


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
    """A sparse file as a source of what it expands to: walked once, read at will."""

    def __init__(self, what: str, path: Path) -> None:
        self._file = File(path)
        head = self._file[0:28]
        _need(head[:4] == b"\x3a\xff\x26\xed", what, "no sparse image")
        block, total, count = _le(head, 12, 4), _le(head, 16, 4), _le(head, 20, 4)
        self._runs: list[tuple[int, int, int, bytes]] = []  # begin, end, offset in the file, pattern
        at, begin = 28, 0
        for _ in range(count):
            chunk = self._file[at : at + 16]
            kind, blocks, length = _le(chunk, 0, 2), _le(chunk, 4, 4), _le(chunk, 8, 4)
            end = begin + blocks * block
            pattern = {0xCAC1: b"", 0xCAC2: chunk[12:16], 0xCAC3: bytes(4)}[kind]
            self._runs.append((begin, end, at + 12, pattern))
            at, begin = at + length, end
        self._size = total * block
        _need(begin == self._size and at == len(self._file), what, "the chunks do not add up")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        from bisect import bisect_right

        start, stop, _ = part.indices(self._size)
        out, n = [], max(bisect_right(self._runs, start, key=lambda r: r[0]) - 1, 0)
        while start < stop and n < len(self._runs):
            begin, end, offset, pattern = self._runs[n]
            high = min(stop, end)
            if high > start:
                if pattern:
                    shift = (start - begin) % 4
                    out.append(((pattern * ((high - start) // 4 + 2))[shift:])[: high - start])
                else:
                    out.append(self._file[offset + start - begin : offset + high - begin])
                start = high
            n += 1
        return b"".join(out)

    def close(self) -> None:
        self._file.close()
