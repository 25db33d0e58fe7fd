"""Android sparse images: parse, make from raw bytes, split, build.

Source: AOSP system/core/libsparse, ``sparse_format.h``. Little endian. Nothing here holds an image: a `Sparse` is a list
of chunks that point into their source, and `build` gives segments for a writer.
"""

from __future__ import annotations

import gc
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, partial
from itertools import accumulate, islice, pairwise, repeat
from operator import add, itemgetter
from typing import Any, NamedTuple

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Record, Source
from quarkctl.formats.segments import Joined, Segment, Span, Zeros, whole

MAGIC = 0xED26FF3A
BLOCK_BYTES = 4096
HEADER = Record(
    "sparse image", "<",
    "magic:I major_version:H minor_version:H file_hdr_sz:H chunk_hdr_sz:H blk_sz:I total_blks:I total_chunks:I "
    "image_checksum:I",
)  # fmt: skip
CHUNK = Record("sparse chunk", "<", "chunk_type:H reserved1:H chunk_sz:I total_sz:I")
#: Larger blocks are no image but a hostile number: lengths of Python objects have 63 bits.
_BLOCK_BYTES_MAX = 1 << 28
#: ``total_sz`` has 32 bits.
_RAW_BYTES_MAX = (1 << 32) - 1 - CHUNK.size
#: How much of a raw image is looked at in one go.
_WINDOW_BYTES = 256 << 10
#: A chunk header and the first word after it; and how much is read for many of them, more where they repeat themselves.
_PLAIN = struct.Struct("<2H3I")
_AHEAD_BYTES, _AHEAD_BYTES_MAX = 1 << 16, 1 << 20


class Kind(IntEnum):
    RAW = 0xCAC1
    FILL = 0xCAC2
    DONT_CARE = 0xCAC3
    CRC32 = 0xCAC4


class Chunk(NamedTuple):
    """``blocks`` blocks from ``first_block`` on. RAW: the source from ``offset`` on; FILL: ``fill``, as a number."""

    kind: Kind
    first_block: int
    blocks: int
    offset: int = 0
    fill: int = 0


class Turns(NamedTuple):
    """Two chunks that take turns up to ``end_block``: each pair stands ``blocks`` blocks and ``stride`` bytes behind the one
    before it. ``first`` and ``second`` are the first pair."""

    first: Chunk
    second: Chunk
    blocks: int
    stride: int
    end_block: int

    def goes_on_at(self, first: Chunk, second: Chunk) -> bool:
        """Whether these two are the next pair."""
        times, rest = divmod(first.first_block - self.first.first_block, self.blocks)
        return not rest and first.first_block == self.end_block and all(
            b == a._replace(first_block=a.first_block + times * self.blocks,
                            offset=a.offset + times * self.stride if a.kind is Kind.RAW else 0)
            for a, b in ((self.first, first), (self.second, second))
        )  # fmt: skip


@dataclass(frozen=True)
class Sparse:
    """An image of ``total_blocks`` blocks. ``tail_bytes`` are missing from the last RAW block (read as zeros). ``turns``:
    where the chunks of a parsed file repeat themselves, as far as that was seen."""

    source: Source
    block_bytes: int
    total_blocks: int
    chunks: tuple[Chunk, ...]
    tail_bytes: int = 0
    turns: tuple[Turns, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of the expanded image."""
        return self.total_blocks * self.block_bytes

    @cached_property
    def file_bytes(self) -> int:
        """Size of the sparse file that `build` makes."""
        return HEADER.size + chunks_bytes(self.chunks, self.block_bytes)

    def read(self, chunk: Chunk) -> Iterator[Segment]:
        """What a RAW or FILL chunk expands to, in segments of bounded size."""
        total = chunk.blocks * self.block_bytes
        if chunk.kind is Kind.RAW:
            yield from self._raw(chunk)
        elif chunk.kind is Kind.FILL and chunk.fill:
            step = min(total, 1 << 20)
            block = chunk.fill.to_bytes(4, "little") * (step // 4)
            for at in range(0, total, step):
                yield block[: min(step, total - at)]
        elif chunk.kind is Kind.FILL:
            yield Zeros(total)

    def _raw(self, chunk: Chunk) -> Iterator[Segment]:
        total = chunk.blocks * self.block_bytes
        missing = max(chunk.offset + total - len(self.source), 0) if self.tail_bytes else 0
        yield Span(self.source, chunk.offset, total - missing)
        if missing:
            yield bytes(missing)


class Expanded:
    """A sparse image as the source that it expands to; what is not there (DONT_CARE) reads as zeros."""

    def __init__(self, image: Sparse) -> None:
        self._image = image

    def __len__(self) -> int:
        return self._image.size_bytes

    def __getitem__(self, at: slice, /) -> bytes:
        start, stop, _ = at.indices(len(self))
        block = self._image.block_bytes
        chunks = self._image.chunks
        out = bytearray(max(stop - start, 0))
        for c in chunks[max(bisect_right(chunks, start // block, key=lambda c: c.first_block) - 1, 0) :]:
            begin = c.first_block * block
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, begin + c.blocks * block)
            if low >= high or c.kind is Kind.DONT_CARE:
                continue
            if c.kind is Kind.RAW:
                piece = self._image.source[c.offset + low - begin : c.offset + high - begin]
            else:
                word = c.fill.to_bytes(4, "little")
                piece = (word * ((high - low) // 4 + 2))[(low - begin) % 4 :][: high - low]
            out[low - start : low - start + len(piece)] = piece
        return bytes(out)


def looks_like(data: Source) -> bool:
    return len(data) >= 4 and bytes(data[:4]) == MAGIC.to_bytes(4, "little")


def parse(data: Source, *, sector_bytes: int = 0, size_bytes_max: int = 0) -> Sparse:
    """All chunks of a sparse file, every length checked against the file.

    ``sector_bytes`` and ``size_bytes_max`` are those of the target, 0 where none is known. Memory grows with the number
    of chunks, which the file's size bounds. CRC32 chunks are dropped. Raises Damaged with field and offset.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look for cycles among a hundred thousand chunks, again and again: half of the time
    try:
        return _parse(data, sector_bytes, size_bytes_max)
    finally:
        if collecting:
            gc.enable()


def _parse(data: Source, sector_bytes: int, size_bytes_max: int) -> Sparse:
    h = HEADER.parse(data)
    _check_header(h, sector_bytes, size_bytes_max)
    chunks: list[Chunk] = []
    raw, filled, hole = int(Kind.RAW), int(Kind.FILL), int(Kind.DONT_CARE)
    head, block_bytes, total_blocks = h.chunk_hdr_sz, h.blk_sz, h.total_blks
    # Looked up once: an image may have a hundred thousand chunks.
    unpack, append, make = _PLAIN.unpack_from, chunks.append, partial(tuple.__new__, Chunk)
    raw_kind, fill_kind, hole_kind = Kind.RAW, Kind.FILL, Kind.DONT_CARE
    at, block, end = h.file_hdr_sz, 0, len(data)
    if h.total_chunks * h.chunk_hdr_sz > max(end - at, 0):
        raise HEADER.wrong("total_chunks", 0, f"is {h.total_chunks}: more than {max(end - at, 0)} bytes can hold")
    window, base, last, ahead = b"", 0, -1, _AHEAD_BYTES
    numbers = iter(range(h.total_chunks))
    third, known = -1, 0  # number of the third chunk of the window, and how many chunks there are then
    turns: list[Turns] = []
    for number in numbers:
        inside = at - base
        if number == third and len(chunks) == known and head == CHUNK.size:
            first, second = chunks[-2:]
            pair_blocks = block - first.first_block
            times = min(_repeats(window, first, second, block_bytes) - 1, (h.total_chunks - number) // 2,
                        (end - at) // inside, (total_blocks - block) // pair_blocks)  # fmt: skip
            ahead = min(2 * ahead, _AHEAD_BYTES_MAX) if (times + 2) * inside > last else _AHEAD_BYTES
            if times > 0:
                chunks += _again(first, second, times, inside, pair_blocks)
                block, at = block + times * pair_blocks, at + times * inside
                if turns and turns[-1].goes_on_at(first, second):
                    turns[-1] = turns[-1]._replace(end_block=block)
                else:
                    turns.append(Turns(first, second, pair_blocks, inside, block))
                next(islice(numbers, 2 * times - 2, None), None)
                continue
        if not 0 <= inside <= last:
            window, base, inside = bytes(data[at : at + ahead]), at, 0
            last = len(window) - _PLAIN.size
            third, known = number + 2, len(chunks) + 2
        if last >= 0:  # a plain chunk, as nearly all are; images may have a hundred thousand
            kind, _, blocks, total, fill = unpack(window, inside)
            if blocks and at + total <= end and block + blocks <= total_blocks:
                if kind == raw and total == head + blocks * block_bytes:
                    append(make((raw_kind, block, blocks, at + head, 0)))
                    block, at = block + blocks, at + total
                    continue
                if kind == filled and total == head + 4 == _PLAIN.size:
                    append(make((fill_kind, block, blocks, 0, fill)))
                    block, at = block + blocks, at + total
                    continue
                if kind == hole and total == head:
                    append(make((hole_kind, block, blocks, 0, 0)))
                    block, at = block + blocks, at + total
                    continue
        c = CHUNK.parse(data, at)
        chunk = _chunk(c, number, at, block, h)
        if at + c.total_sz > end:
            raise CHUNK.wrong("total_sz", at, f"is {c.total_sz}: chunk {number} ends behind the file of {end} bytes")
        if block + c.chunk_sz > h.total_blks:
            raise CHUNK.wrong(
                "chunk_sz",
                at,
                f"is {c.chunk_sz}: chunks have {block + c.chunk_sz} blocks, the header says {h.total_blks}",
            )
        if chunk.kind is Kind.FILL:
            body = at + h.chunk_hdr_sz
            chunk = chunk._replace(fill=int.from_bytes(data[body : body + 4], "little"))
        if chunk.kind is not Kind.CRC32:
            block += c.chunk_sz
            if chunk.blocks:
                chunks.append(chunk)
        at += c.total_sz
    if block != h.total_blks:
        raise HEADER.wrong("total_blks", 0, f"is {h.total_blks}, the chunks have {block} blocks")
    if at != end:
        raise Damaged("sparse image", "end", at, f"is followed by {end - at} bytes of something else")
    return Sparse(data, h.blk_sz, h.total_blks, tuple(chunks), turns=tuple(turns))


def _repeats(window: bytes, first: Chunk, second: Chunk, block_bytes: int) -> int:
    """How often the two chunks at the beginning of a window stand in it one after the other, with the same headers: where
    data and holes take turns, they are compared by columns instead of one by one. 0 where something else is between them.
    """
    middle = _chunk_bytes(first, block_bytes)
    stride = middle + _chunk_bytes(second, block_bytes)
    headers = [(0, first), (middle, second)]
    if stride + middle + _PLAIN.size > len(window) or any(
        window[at : at + 2] != c.kind.to_bytes(2, "little") for at, c in headers
    ):
        return 0
    times = len(window) // stride + 1
    for at, c in headers:
        for byte in range(at, at + CHUNK.size + (4 if c.kind is Kind.FILL else 0)):
            column = window[byte::stride]
            times = min(times, len(column) - len(column.lstrip(column[:1])))
    return times


def _again(first: Chunk, second: Chunk, times: int, stride: int, blocks: int) -> list[Chunk]:
    """The same two chunks ``times`` more, each ``stride`` bytes and ``blocks`` blocks further."""
    out = [first] * (2 * times)
    make = partial(tuple.__new__, Chunk)
    for at, c in enumerate((first, second)):
        begins = range(c.first_block + blocks, c.first_block + blocks * (times + 1), blocks)
        offsets = range(c.offset + stride, c.offset + stride * (times + 1), stride) if c.kind is Kind.RAW else repeat(0)
        out[at::2] = map(make, zip(repeat(c.kind), begins, repeat(c.blocks), offsets, repeat(c.fill)))
    return out


def _check_header(h: Any, sector_bytes: int, size_bytes_max: int) -> None:
    if h.magic != MAGIC:
        raise HEADER.wrong("magic", 0, f"is {h.magic:#010x}, not {MAGIC:#010x}")
    if h.major_version != 1:
        raise HEADER.wrong("major_version", 0, f"is {h.major_version}, only 1 is known")
    if h.file_hdr_sz < HEADER.size:
        raise HEADER.wrong("file_hdr_sz", 0, f"is {h.file_hdr_sz}, less than {HEADER.size}")
    if h.chunk_hdr_sz < CHUNK.size:
        raise HEADER.wrong("chunk_hdr_sz", 0, f"is {h.chunk_hdr_sz}, less than {CHUNK.size}")
    if not h.blk_sz or h.blk_sz % 4:
        raise HEADER.wrong("blk_sz", 0, f"is {h.blk_sz}, not a multiple of 4")
    if h.blk_sz > _BLOCK_BYTES_MAX:
        raise HEADER.wrong("blk_sz", 0, f"is {h.blk_sz}, more than {_BLOCK_BYTES_MAX}")
    if sector_bytes and h.blk_sz % sector_bytes:
        raise HEADER.wrong("blk_sz", 0, f"is {h.blk_sz}, not a multiple of the sector of {sector_bytes} bytes")
    if size_bytes_max and h.total_blks * h.blk_sz > size_bytes_max:
        raise HEADER.wrong(
            "total_blks", 0, f"is {h.total_blks}: {h.total_blks * h.blk_sz} bytes, the target holds {size_bytes_max}"
        )


def _chunk(c: Any, number: int, at: int, block: int, h: Any) -> Chunk:
    if c.chunk_type not in set(Kind):
        vendor = " (a vendor's own kind, also written by some tools as 'encrypted')" if c.chunk_type == 0xCAC5 else ""
        raise CHUNK.wrong("chunk_type", at, f"is {c.chunk_type:#06x}{vendor}: chunk {number} is of no known kind")
    kind = Kind(c.chunk_type)
    body_bytes = {Kind.RAW: c.chunk_sz * h.blk_sz, Kind.FILL: 4, Kind.DONT_CARE: 0, Kind.CRC32: 4}[kind]
    if c.total_sz != h.chunk_hdr_sz + body_bytes:
        raise CHUNK.wrong(
            "total_sz", at, f"is {c.total_sz}, chunk {number} ({kind.name}) needs {h.chunk_hdr_sz + body_bytes}"
        )
    if kind is Kind.CRC32 and c.chunk_sz:
        raise CHUNK.wrong("chunk_sz", at, f"is {c.chunk_sz}: a CRC32 chunk has no blocks")
    return Chunk(kind, block, c.chunk_sz, at + h.chunk_hdr_sz if kind is Kind.RAW else 0)


def scan(source: Source, block_bytes: int = BLOCK_BYTES) -> Sparse:
    """A raw image as chunks: blocks of one repeated 32-bit word are FILL, the rest is RAW; neighbours are joined.

    The same chunks as AOSP's img2simg. Zeros are FILL 0, never DONT_CARE: what lies on the target is not known.
    """
    chunks: list[Chunk] = []
    for first, fill, piece in _runs(source, block_bytes):
        blocks = len(piece) // block_bytes
        if chunks and _goes_on(chunks[-1], fill, blocks, block_bytes):
            chunks[-1] = chunks[-1]._replace(blocks=chunks[-1].blocks + blocks)
        else:
            chunks.append(_chunk_of(first, fill, blocks, block_bytes))
    total, tail = -(-len(source) // block_bytes), -len(source) % block_bytes
    return Sparse(source, block_bytes, total, tuple(chunks), tail)


def stream(source: Source, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes | memoryview]]:
    """The sparse file of a raw image, read once: (offset in the file, bytes) in no order, headers last.

    The same bytes as ``build(scan(source))``.
    """
    return ((at, data) for _, at, data in stream_pieces(source, 0, block_bytes))


def stream_pieces(
    source: Source, size_bytes_max: int, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, int, bytes | memoryview]]:
    """The sparse files of a raw image of at most ``size_bytes_max`` bytes each (0: one file), read once: (number of the
    file, offset in it, bytes), one file after the other.

    Together they claim the same as those of `split`, but every file is filled: who reads once cannot know how long a chunk
    gets before it decides where to cut it. Raises InputWrong when not even one block fits.
    """
    if size_bytes_max:
        _room_of(size_bytes_max, block_bytes)
    writer = _Writer(-(-len(source) // block_bytes), block_bytes, size_bytes_max)
    for _, fill, piece in _runs(source, block_bytes):
        yield from writer.add(fill, piece)
    yield from writer.end()


class _Writer:
    """Sparse files that grow: a chunk's header is known when it ends, a file's when it is full."""

    def __init__(self, total_blocks: int, block_bytes: int, size_bytes_max: int) -> None:
        self._total, self._block_bytes = total_blocks, block_bytes
        #: Where chunks end at the latest: one for what belongs to other files may have to follow. 0: anywhere.
        self._end = size_bytes_max - CHUNK.size if size_bytes_max else 0
        self._file, self._at, self._count = 0, HEADER.size, 0
        self._chunk: Chunk | None = None  # what goes on at _at
        self._block = 0  # the next one

    def add(self, fill: int, piece: memoryview) -> Iterator[tuple[int, int, bytes | memoryview]]:
        """The next blocks: all of the word ``fill``, or of anything (-1)."""
        block_bytes = self._block_bytes
        while blocks := len(piece) // block_bytes:
            if self._chunk is None or not _goes_on(self._chunk, fill, blocks, block_bytes):
                yield from self._end_chunk()
                if not self._room(fill):
                    yield from self._next_file()
                self._chunk = _chunk_of(self._block, fill, 0, block_bytes)
            fits = min(blocks, self._room(fill))
            if not fits:
                yield from self._next_file()
                continue
            if fill < 0:
                yield self._file, self._at + CHUNK.size + self._chunk.blocks * block_bytes, piece[: fits * block_bytes]
            piece = piece[fits * block_bytes :]
            self._chunk = self._chunk._replace(blocks=self._chunk.blocks + fits)
            self._block += fits

    def end(self) -> Iterator[tuple[int, int, bytes]]:
        """What is missing from the last file."""
        yield from self._end_chunk()
        yield from self._hole(self._block, self._total - self._block)
        yield self._file, 0, _file_header(self._block_bytes, self._total, self._count)

    def _room(self, fill: int) -> int:
        """How many blocks more fit the chunk that goes on, or one that begins here."""
        if not self._end or (fill >= 0 and self._chunk):
            return self._total
        room = self._end - self._at - CHUNK.size
        if fill >= 0:
            return self._total if room >= 4 else 0
        return max(room // self._block_bytes - (self._chunk.blocks if self._chunk else 0), 0)

    def _end_chunk(self) -> Iterator[tuple[int, int, bytes]]:
        if self._chunk is None:
            return
        fill = self._chunk.fill.to_bytes(4, "little") if self._chunk.kind is Kind.FILL else b""
        yield self._file, self._at, _chunk_header(self._chunk, self._block_bytes) + fill
        self._at += _chunk_bytes(self._chunk, self._block_bytes)
        self._chunk, self._count = None, self._count + 1

    def _hole(self, first: int, blocks: int) -> Iterator[tuple[int, int, bytes]]:
        if blocks:
            self._chunk = Chunk(Kind.DONT_CARE, first, blocks)
            yield from self._end_chunk()

    def _next_file(self) -> Iterator[tuple[int, int, bytes]]:
        yield from self.end()
        self._file, self._at, self._count = self._file + 1, HEADER.size, 0
        yield from self._hole(0, self._block)


def _goes_on(chunk: Chunk, fill: int, blocks: int, block_bytes: int) -> bool:
    """Whether blocks of one word, or of anything (-1), can be added to a chunk."""
    if fill < 0:
        return chunk.kind is Kind.RAW and (chunk.blocks + blocks) * block_bytes <= _RAW_BYTES_MAX
    return chunk.kind is Kind.FILL and chunk.fill == fill


def _chunk_of(first: int, fill: int, blocks: int, block_bytes: int) -> Chunk:
    if fill < 0:
        return Chunk(Kind.RAW, first, blocks, first * block_bytes)
    return Chunk(Kind.FILL, first, blocks, 0, fill)


def _runs(source: Source, block_bytes: int) -> Iterator[tuple[int, int, memoryview]]:
    """Neighbouring blocks of one kind: (first block, the repeated word or -1, their bytes). A part of a block is RAW."""
    if block_bytes < 16 or block_bytes % 16:
        raise InputWrong(f"a sparse image of blocks of {block_bytes} bytes is not possible", hint="a multiple of 16")
    step = max(_WINDOW_BYTES // block_bytes, 1) * block_bytes
    nothing = bytes(step)
    for begin in range(0, len(source), step):
        window = bytes(source[begin : min(begin + step, len(source))])
        count, tail = divmod(len(window), block_bytes)
        view, first = memoryview(window), begin // block_bytes
        if not tail and window == nothing[: len(window)]:
            yield first, 0, view
            continue
        marks = _marks(window, count, block_bytes)
        low, kind = 0, -1
        if 0 in marks:
            for n, mark in enumerate(marks):
                found = -1 if mark else _word(window, n * block_bytes, block_bytes)
                if found != kind:
                    if n:
                        yield first + low, kind, view[low * block_bytes : n * block_bytes]
                    low, kind = n, found
        if low < count:
            yield first + low, kind, view[low * block_bytes : count * block_bytes]
        if tail:
            padded = window[-tail:] + bytes(block_bytes - tail)
            yield first + count, -1, memoryview(padded)


def _marks(window: bytes, count: int, block_bytes: int) -> bytes:
    """A byte for each block: 0 where it may repeat a word. Three bytes of each are compared, of all blocks at once."""
    end = count * block_bytes
    first, middle, last = (
        int.from_bytes(window[at:end:block_bytes], "little") for at in (0, block_bytes // 2 - 4, block_bytes - 4)
    )
    return ((first ^ middle) | (first ^ last)).to_bytes(count, "little")


def _word(window: bytes, at: int, block_bytes: int) -> int:
    """The word that a block repeats, -1 if it does not."""
    word = window[at : at + 4]
    return int.from_bytes(word, "little") if window.startswith(word * (block_bytes // 4), at) else -1


def without_holes(image: Sparse) -> Sparse:
    """The image with FILL 0 turned into DONT_CARE: only for a target that is known to be erased."""
    return replace(
        image,
        chunks=tuple(
            c._replace(kind=Kind.DONT_CARE) if c.kind is Kind.FILL and not c.fill else c for c in image.chunks
        ),
        turns=(),
    )


def build(image: Sparse) -> Iterator[Segment]:
    """The sparse file, segment by segment."""
    yield build_header(image)
    yield from build_chunks(image, image.chunks)


def build_header(image: Sparse) -> bytes:
    return _file_header(image.block_bytes, image.total_blocks, len(image.chunks))


def _file_header(block_bytes: int, blocks: int, chunks: int) -> bytes:
    return HEADER.build(
        magic=MAGIC, major_version=1, file_hdr_sz=HEADER.size, chunk_hdr_sz=CHUNK.size, blk_sz=block_bytes,
        total_blks=blocks, total_chunks=chunks,
    )  # fmt: skip


def build_chunks(image: Sparse, chunks: Sequence[Chunk]) -> Iterator[Segment]:
    """Some chunks of an image, segment by segment."""
    head = b""
    for chunk in chunks:
        head += _chunk_header(chunk, image.block_bytes)
        if chunk.kind is Kind.RAW:
            yield head
            yield from image.read(chunk)
            head = b""
        elif chunk.kind is Kind.FILL:
            head += chunk.fill.to_bytes(4, "little")
    if head:
        yield head


def chunks_bytes(chunks: Sequence[Chunk], block_bytes: int) -> int:
    """What chunks need in a sparse file, with their headers."""
    raw, filled, head = Kind.RAW, Kind.FILL, CHUNK.size
    body = [blocks * block_bytes if kind is raw else 4 if kind is filled else 0 for kind, _, blocks, _, _ in chunks]
    return head * len(chunks) + sum(body)


def _chunk_header(chunk: Chunk, block_bytes: int) -> bytes:
    return CHUNK.build(chunk_type=chunk.kind, chunk_sz=chunk.blocks, total_sz=_chunk_bytes(chunk, block_bytes))


def _chunk_bytes(chunk: Chunk, block_bytes: int) -> int:
    if chunk.kind is Kind.RAW:
        return CHUNK.size + chunk.blocks * block_bytes
    return CHUNK.size + 4 if chunk.kind is Kind.FILL else CHUNK.size


def split(image: Sparse, size_bytes_max: int) -> list[Sparse]:
    """Pieces whose files have at most ``size_bytes_max`` bytes each, as fastboot's max-download-size asks.

    Every piece is a whole sparse image that claims all blocks; what belongs to other pieces is DONT_CARE. A chunk that
    does not fit is cut only if more than 1/8 of the piece is left, as libsparse does. Raises InputWrong when not even
    one block fits.
    """
    block_bytes = image.block_bytes
    room_max = _room_of(size_bytes_max, block_bytes)
    raw, filled, head = Kind.RAW, Kind.FILL, CHUNK.size  # looked up once: there may be a hundred thousand chunks
    chunks = [c for c in image.chunks if c[0] is raw or c[0] is filled]
    # A hole before a chunk costs a DONT_CARE, but not at the beginning of a piece.
    gaps = [0 if c[1] == before[1] + before[2] else head for before, c in pairwise(chunks)]
    gaps[:0] = [0] if chunks else []
    sizes = [head + blocks * block_bytes if kind is raw else head + 4 for kind, _, blocks, _, _ in chunks]
    ends = [0, *accumulate(map(add, gaps, sizes))]
    pieces: list[list[Chunk]] = []
    rest: Chunk | None = None  # of a chunk that was cut
    at = 0
    while rest or at < len(chunks):
        piece: list[Chunk] = []
        room = room_max
        if rest and _chunk_bytes(rest, block_bytes) <= room:
            piece.append(rest)
            room -= _chunk_bytes(rest, block_bytes)
            rest = None
        if not rest:
            limit = ends[at] + room + (0 if piece or at == len(chunks) else gaps[at])
            stop = bisect_right(ends, limit, lo=at) - 1
            piece += chunks[at:stop]
            room, at = limit - ends[stop], stop
            last = chunks[at] if at < len(chunks) else None
            if last and last.kind is Kind.RAW and (room > room_max // 8 or not piece):
                room -= gaps[at] if piece else 0
                rest, at = last, at + 1
        if rest:
            fitting = (room - CHUNK.size) // block_bytes
            if fitting > 0:
                piece.append(rest._replace(blocks=fitting))
                rest = rest._replace(
                    first_block=rest.first_block + fitting, blocks=rest.blocks - fitting,
                    offset=rest.offset + fitting * block_bytes,
                )  # fmt: skip
        pieces.append(piece)
    return [replace(image, chunks=_framed(p, image.total_blocks), turns=()) for p in pieces or [[]]]


def _room_of(size_bytes_max: int, block_bytes: int) -> int:
    """What chunks may need in a piece. Raises InputWrong when not even one block fits."""
    frame = HEADER.size + 2 * CHUNK.size  # header, leading and trailing DONT_CARE
    if size_bytes_max - frame < CHUNK.size + block_bytes:
        raise InputWrong(
            f"a piece of {size_bytes_max} bytes cannot hold a block",
            hint=f"at least {frame + CHUNK.size + block_bytes} bytes",
        )
    return size_bytes_max - frame


def merged(pieces: Sequence[Sparse]) -> Sparse:
    """The image that pieces make together: what each of them leaves alone is taken from the others."""
    source = Joined(whole(p.source) for p in pieces)
    chunks: list[Chunk] = []
    at = 0
    for p in pieces:
        chunks += [c._replace(offset=c.offset + at) for c in p.chunks if c.kind is not Kind.DONT_CARE]
        at += len(p.source)
    return Sparse(source, pieces[0].block_bytes, pieces[0].total_blocks, tuple(sorted(chunks, key=itemgetter(1))))


def _framed(chunks: Sequence[Chunk], total_blocks: int) -> tuple[Chunk, ...]:
    out: list[Chunk] = []
    at = 0
    end = chunks[-1].first_block + chunks[-1].blocks if chunks else 0
    if chunks and end - chunks[0].first_block == sum(map(itemgetter(2), chunks)):  # no hole between them, as mostly
        out = [Chunk(Kind.DONT_CARE, 0, chunks[0].first_block)] if chunks[0].first_block else []
        out += chunks
        chunks, at = [], end
    for c in chunks:
        if c.first_block > at:
            out.append(Chunk(Kind.DONT_CARE, at, c.first_block - at))
        out.append(c)
        at = c.first_block + c.blocks
    if at < total_blocks:
        out.append(Chunk(Kind.DONT_CARE, at, total_blocks - at))
    return tuple(out)
