"""An image cut into what a device takes at once. Nothing is copied: a piece is headers and ranges of the file."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from quarkctl.files import File
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.background import Background
from quarkctl.flash.payload import FileRange, Part
from quarkctl.formats import sparse
from quarkctl.formats.segments import Segment, Span, Zeros
from quarkctl.formats.sparse import Chunk, Kind, Sparse

#: Stays in the processor's cache.
_HASH_BYTES = 256 << 10
#: Fewer chunks are written anew.
_COPY_COUNT = 64


@dataclass(frozen=True)
class Piece:
    """``image`` is a sparse image of its own; None: the file as it is."""

    source: Image
    image: Sparse | None

    @property
    def size_bytes(self) -> int:
        return self.image.file_bytes if self.image else len(self.source.file) - self.source.skip_bytes

    def parts(self) -> Iterator[Part]:
        file = self.source.file
        if self.image is None:
            yield FileRange(file, self.source.skip_bytes, self.size_bytes)
            return
        copied = self._copied(self.image) if self.source.sparse else None
        if copied is None:
            yield from _parts(file, sparse.build(self.image))
            return
        head, middle, tail = copied
        yield sparse.build_header(self.image)
        yield from _parts(file, sparse.build_chunks(self.image, head))
        yield middle
        yield from _parts(file, sparse.build_chunks(self.image, tail))

    def _copied(self, image: Sparse) -> tuple[tuple[Chunk, ...], FileRange, tuple[Chunk, ...]] | None:
        """What lies between the first and the last RAW chunk, where it stands in the file as we would write it: the headers
        of a hundred thousand chunks need not be made anew. None where that is not so, or not worth it."""
        first = next((n for n, c in enumerate(image.chunks) if c.kind is Kind.RAW), 0)
        last = next((n for n in range(len(image.chunks) - 1, 0, -1) if image.chunks[n].kind is Kind.RAW), 0)
        if last - first < _COPY_COUNT:
            return None
        head, tail = image.chunks[: first + 1], image.chunks[last:]
        begin = head[-1].offset + head[-1].blocks * image.block_bytes
        end = tail[0].offset - sparse.CHUNK.size
        around = sparse.HEADER.size + sparse.chunks_bytes(head + tail, image.block_bytes)
        ours = image.file_bytes - around
        return (head, FileRange(self.source.file, begin, end - begin), tail) if end - begin == ours else None

    def digest(self, wanted: Callable[[], bool] = lambda: True) -> str:
        """SHA-256 of what is sent, as hexadecimal digits; empty if it is not ``wanted`` any more."""
        total = hashlib.sha256()
        buffer = memoryview(bytearray(_HASH_BYTES))
        for part in self.parts():
            if isinstance(part, bytes):
                total.update(part)
                continue
            for at in range(0, part.size_bytes, _HASH_BYTES):
                if not wanted():
                    return ""
                view = buffer[: part.size_bytes - at]
                part.file.read_into([view], part.offset + at)
                total.update(view)
        return total.hexdigest()


def _parts(file: File, segments: Iterable[Segment]) -> Iterator[Part]:
    for segment in segments:
        if isinstance(segment, Span):
            yield FileRange(file, segment.offset, segment.size)
        elif isinstance(segment, Zeros):
            yield bytes(segment.size)
        else:
            yield segment


def cut(image: Image, limit_bytes: int, offset_bytes: int = 0) -> list[Piece]:
    """The whole file where it fits, else sparse images of at most ``limit_bytes``; always those for an image that does not
    begin where its partition does. Raises InputWrong if no block fits."""
    whole = Piece(image, None)
    if whole.size_bytes <= limit_bytes and not offset_bytes:
        return [whole]
    found = image.sparse
    if found is None:
        size, block = image.size_bytes, image.block_bytes
        blocks = -(-size // block)
        chunk = Chunk(Kind.RAW, 0, blocks, image.skip_bytes)
        found = Sparse(image.file, block, blocks, (chunk,), blocks * block - size)
    if offset_bytes:
        before = offset_bytes // found.block_bytes
        moved = tuple(c._replace(first_block=before + c.first_block) for c in found.chunks)
        found = replace(found, total_blocks=before + found.total_blocks, chunks=moved, turns=())
    # The pieces read the file itself, not the read-ahead that found the chunks.
    found = replace(found, source=image.file)
    return [Piece(image, part) for part in sparse.split(found, limit_bytes)]


class Written:
    """The pieces that a device has, told by their digests: ``note`` gets those of all so far, from a thread.

    Nobody waits for it: a device writes longer than it takes, and one that does not is gone on with. What was not noted
    when this computer failed is written again.
    """

    def __init__(self, note: Callable[[list[str]], None], known: Sequence[str]) -> None:
        self._note = note
        self._known = list(known)
        self._todo: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._wanted = True
        self._worker = Background(self._work)

    def add(self, piece: Piece) -> None:
        self._todo.put(piece)

    def _work(self) -> None:
        while (piece := self._todo.get()) is not None and (digest := piece.digest(lambda: self._wanted)):
            self._known.append(digest)
            self._note(list(self._known))

    def close(self, *, all_done: bool) -> None:
        """The last piece was written, and nothing need be noted; or it was not, and everything before it is noted first.

        Raises what noting raised.
        """
        self._wanted = not all_done
        self._todo.put(None)
        self._worker.result()
