"""Many frames at once: the same result as `quarkctl.formats.frame.unwrap` on every run, some hundred times faster.

Four facts carry it, all properties of frames of at most `FAST_MAX` bytes:

1. No COBS code of such a frame is 0xff, so each of its groups but the last stands for a zero, and a sequence of encoded
   frames is one COBS string: it decodes, in one C call, to the frames with a zero between them.
2. A delimiter that is changed from 0 to 1 is a COBS code that stands for a zero and nothing else. So nothing need be taken
   out, and what is decoded stands where its code stood: the frame of the run at ``wire[i:]`` is at ``decoded[i:]``.
3. A frame behind its own CRC has a constant remainder, so the CRC of K frames of one length behind each other is a constant
   too: one C call checks K frames. Where it differs, the K are halved until the guilty ones are found.
4. Damage heals: chains of COBS codes meet again. What fails its CRC, and what touches a place where the zero between two
   frames is missing (there a code led across the border), is decoded once more from its own bytes, alone.

K frames have less than 11 kB together, where CRC-32 still finds every error of three bits (Koopman, "32-Bit Cyclic
Redundancy Codes for Internet Applications", 2002: Hamming distance 4 up to 91 607 bits for this polynomial).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from quarkctl.formats.frame import (
    CRC_BYTES,
    FAST_MAX,
    HEADER,
    HELLO_TYPE,
    SMP_FIRST,
    SMP_NEXT,
    Kind,
    Splitter,
    seed_of,
    unwrap,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Encoded bytes that are decoded by one call.
_CHUNK = 48 * 1024
#: A chunk that does not decode is halved until it has no more runs than this; then each is tried alone.
_GIVE_UP = 4
#: CRC-32 of any message that is followed by its own CRC-32, little endian.
_RESIDUE = 0x2144DF1C
#: Rows that are checked by one call, and their bytes: see above.
_BATCH_ROWS = 128
_BATCH_BYTES_MAX = 11_000
#: Least bytes of a decoded frame.
_LEAST = HEADER.size + CRC_BYTES


@dataclass
class Frames:
    """Runs of a piece of wire, in the order of their coming. Arrays of one length, but ``decoded``.

    The run stands at ``wire[start:end]``. ``whole`` says, after `check`, that it is a frame; then
    ``decoded[start : start + size]`` are its header, payload and CRC, and ``kind`` is its type.
    """

    wire: bytes
    decoded: NDArray[Any]
    start: NDArray[Any]
    end: NDArray[Any]
    size: NDArray[Any]
    kind: NDArray[Any]
    whole: NDArray[Any]
    smp_lines: int
    _groups: dict[tuple[int, int], tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)

    def part(self, low: int, high: int) -> Frames:
        """Some of the runs, without the account of lines."""
        at = slice(low, high)
        arrays = (self.start[at], self.end[at], self.size[at], self.kind[at], self.whole[at])
        return Frames(self.wire, self.decoded, *arrays, smp_lines=0)

    def hellos(self, known: int) -> Iterator[tuple[int, int]]:
        """(index, layout hash) of every whole hello, from the first on that may say another hash than ``known``. Their CRCs
        start at 0, so no layout need be known for it."""
        import numpy as np

        raw, at, least = np.frombuffer(self.wire, np.uint8), HEADER.size, _LEAST + 2
        maybe = np.flatnonzero((raw[self.start + 1] == HELLO_TYPE) & (self.size >= least))
        start = self.start[maybe]
        said = self.decoded[start + at] | self.decoded[start + at + 1].astype(np.uint16) << 8
        plain = (said == known) & (self.decoded[start] == HELLO_TYPE) & (self.decoded[start - 1] == 0)
        maybe = maybe[int(np.argmin(plain)) :] if maybe.size and not plain.all() else maybe[:0]
        for i, start, end in zip(maybe.tolist(), self.start[maybe].tolist(), self.end[maybe].tolist(), strict=True):
            one = unwrap(self.wire[start:end], 0)
            if one and one[0] == HELLO_TYPE and len(one) >= least:
                yield i, int.from_bytes(one[at : at + 2], "little")

    def of(self, kind: int, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """(indices, rows) of the whole frames of this type and decoded size."""
        import numpy as np

        if (kind, size) not in self._groups:
            index = np.flatnonzero((self.kind == kind) & (self.size == size) & self.whole)
            self._groups[kind, size] = index, self.gather(self.start[index], size)
        return self._groups[kind, size]

    def gather(self, start: NDArray[Any], size: int) -> NDArray[Any]:
        """``size`` bytes from each of these places, as one void item each."""
        import numpy as np

        places = max(self.decoded.size - size + 1, 0)
        rows: NDArray[Any] = np.ndarray((places,), f"V{size}", self.decoded, strides=(1,))[start]
        return rows


def decode(wire: bytes) -> Frames:
    """All runs of a piece of wire that begins and ends with a delimiter, `check` to follow. Runs that are SMP console lines
    are counted and left out."""
    import numpy as np

    raw = np.frombuffer(wire, np.uint8)
    empty = raw == 0
    edges = np.flatnonzero(empty[1:] != empty[:-1])
    edges += 1
    codes = raw + empty.view(np.uint8)
    del empty
    start, end, lines = _without_smp(wire, codes, edges[::2].copy(), edges[1::2].copy())
    size = end - start - 1
    for i in np.flatnonzero(size > FAST_MAX).tolist():
        codes[start[i] : end[i]] = 1  # its 0xff would shift what follows
    decoded = np.frombuffer(bytearray(b"\0").join(_decoded(codes, start)), np.uint8)
    return Frames(wire, decoded, start, end, size, decoded[start], np.zeros(size.size, bool), lines)


def check(frames: Frames, crc_seed: int) -> None:
    """Sets ``whole``: first in groups of one type and size, then one by one where that failed."""
    import numpy as np

    kind, start, size, decoded = frames.kind, frames.start, frames.size, frames.decoded
    np.greater_equal(size, _LEAST, out=frames.whole)
    capped = np.minimum(size, FAST_MAX + 1).astype(np.uint8)
    crossed = decoded[start - 1] | decoded[start + capped]
    alone = [crossed.nonzero()[0]]  # there a code led across a border
    order = np.argsort(kind, kind="stable")
    counts, high = np.bincount(kind), 0
    for number in counts.nonzero()[0].tolist():
        low, high = high, high + int(counts[number])
        members = order[low:high]
        sizes = capped[members]
        same = sizes == sizes[0]
        for one in (sizes[:1] if same.all() else np.unique(sizes)).tolist():
            index = members[sizes == one]
            if one > FAST_MAX:
                alone.append(index)
            elif one >= _LEAST:
                rows = frames.gather(start[index], one)
                frames._groups[number, one] = index, rows
                failing = _failing(rows, one, seed_of(number, crc_seed))
                if failing:
                    alone.append(index[failing])
    if len(alone) > 1 or alone[0].size:
        found = np.unique(np.concatenate(alone))
        _alone(frames, found[size[found] >= _LEAST], crc_seed)


def _alone(frames: Frames, index: NDArray[Any], crc_seed: int) -> None:
    """The last word on runs that failed in company, or that never could go with others.

    One damaged run spoils those behind it until the codes meet again: these are decoded together once more, without
    it, and only what fails then is decoded from its own bytes."""
    import numpy as np

    behind = index[1:][np.diff(index) == 1]
    behind = behind[frames.size[behind] <= FAST_MAX]
    for stretch in np.split(behind, np.flatnonzero(np.diff(behind) != 1) + 1) if behind.size else ():
        low, high = int(frames.start[stretch[0]]), int(frames.end[stretch[-1]])
        again = _decode(frames.wire[low:high].replace(b"\0", b"\1"))
        if again is not None:
            frames.decoded[low - 1 : high] = memoryview(b"\0" + again + b"\0")
    view = frames.decoded.data
    whole, keys = [], set()
    found = (a[index].tolist() for a in (frames.start, frames.end, frames.size, frames.kind))
    for i, at, end, size, kind in zip(index.tolist(), *found, strict=True):
        keys.add((kind, size))
        if (
            size > FAST_MAX
            or zlib.crc32(view[at : at + size], seed_of(view[at], crc_seed)) != _RESIDUE
            or view[at - 1]
            or view[at + size]
        ):
            raw = unwrap(frames.wire[at:end], crc_seed)
            if raw is None:
                continue
            view[at : at + len(raw)] = raw
            frames.size[i] = len(raw)
        whole.append(i)
        keys.add((view[at], int(frames.size[i])))
    frames.whole[index] = False
    frames.whole[whole] = True
    frames.kind[index] = frames.decoded[frames.start[index]]
    for key in keys:  # taken before, with other members
        frames._groups.pop(key, None)


def _failing(rows: NDArray[Any], size: int, seed: int) -> list[int]:
    """Indices of the rows whose CRC fails. Batch by batch; a batch that fails is halved until the guilty row is alone."""
    crc, view, out = zlib.crc32, memoryview(rows.view("u1").data), []
    batch = max(min(_BATCH_ROWS, _BATCH_BYTES_MAX // size), 1)
    step, end = batch * size, len(view)
    full = _remainder(batch, size, seed)
    suspect = [at for at in range(0, end - step + 1, step) if crc(view[at : at + step]) != full]
    if end % step and crc(view[end - end % step :]) != _remainder(end % step // size, size, seed):
        suspect.append(end - end % step)
    pending = [(at, min(step, end - at)) for at in reversed(suspect)]
    while pending:
        at, length = pending.pop()
        if length == size:
            out.append(at // size)
            continue
        half = length // (2 * size) * size
        first = crc(view[at : at + half]) != _remainder(half // size, size, seed)
        rest = length - half
        if not first or crc(view[at + half : at + length]) != _remainder(rest // size, size, seed):
            pending.append((at + half, rest))
        if first:
            pending.append((at, half))
    return out


def _without_smp(
    wire: bytes, codes: NDArray[Any], start: NDArray[Any], end: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], int]:
    """(start, end) of the runs without SMP lines, whose bytes become delimiters in ``codes``, and the lines' count."""
    import numpy as np

    first = codes[start]
    maybe = np.flatnonzero((first == SMP_FIRST[0]) | (first == SMP_NEXT[0]))
    pairs = codes[start[maybe]] | codes[start[maybe] + 1].astype(np.uint16) << 8  # a run is followed by a delimiter
    smp = maybe[(pairs == _SMP_PAIRS[0]) | (pairs == _SMP_PAIRS[1])]
    lines = 0
    for i in smp.tolist():
        rest = 0
        for kind, run in Splitter().feed(wire[start[i] - 1 : end[i] + 1]):
            lines += kind is Kind.SMP_LINE
            rest = len(run) if kind is Kind.RUN else rest
        codes[start[i] : end[i] - rest] = 1
        start[i] = end[i] - rest
    left = np.flatnonzero(end - start) if smp.size else slice(None)
    return start[left], end[left], lines


_SMP_PAIRS = tuple(int.from_bytes(pair, "little") for pair in (SMP_FIRST, SMP_NEXT))


def _decoded(codes: NDArray[Any], start: NDArray[Any]) -> Iterator[bytes]:
    """Pieces that join, with a zero between them, to the decoded wire; zeros where decoding failed."""
    import numpy as np

    # A piece begins at a delimiter, so that none of its runs depends on another piece.
    places = np.searchsorted(start, np.arange(_CHUNK, codes.size, _CHUNK))
    cuts = np.unique(np.concatenate([[0], places, [start.size]])).tolist()
    pending = list(pairwise(cuts))[::-1] or [(0, 0)]
    while pending:
        low, high = pending.pop()
        begin = int(start[low]) - 1 if low else 0
        end = int(start[high]) - 1 if high < start.size else codes.size
        out = _decode(codes[begin:end].tobytes())
        if out is not None:
            yield out
        elif high - low > _GIVE_UP:
            middle = (low + high) // 2
            pending += [(middle, high), (low, middle)]
        else:
            yield bytes(end - begin - 1)


def _decode(encoded: bytes) -> bytes | None:
    """Runs and delimiters of 1 as frames with a zero for each delimiter, one byte less than given; None on failure."""
    from cobs import cobs

    try:
        out = bytes(cobs.decode(encoded))
    except cobs.DecodeError:
        return None
    return out if len(out) == len(encoded) - 1 else None


@lru_cache(maxsize=65536)
def _remainder(count: int, size: int, seed: int) -> int:
    """CRC-32 (start value 0) of ``count`` whole frames of ``size`` bytes whose own CRCs started at ``seed``."""
    zeros = bytes(size)
    step = _RESIDUE ^ zlib.crc32(zeros, seed)
    value = 0
    for _ in range(count):
        value = step ^ zlib.crc32(zeros, value)
    return value
