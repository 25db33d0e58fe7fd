"""An image cut into what a device takes at once. Nothing is copied: a piece is headers and ranges of the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from quarkctl.files import File
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.payload import FileRange, Part
from quarkctl.formats import sparse
from quarkctl.formats.segments import Segment, Span, Zeros
from quarkctl.formats.sparse import Chunk, Kind, Sparse

_HASH_BYTES = 1 << 20
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

    def digest(self) -> str:
        """SHA-256 of what is sent, as hexadecimal digits."""
        total = hashlib.sha256()
        for part in self.parts():
            if isinstance(part, bytes):
                total.update(part)
            else:
                for at in range(part.offset, part.offset + part.size_bytes, _HASH_BYTES):
                    total.update(part.file[at : min(at + _HASH_BYTES, part.offset + part.size_bytes)])
        return total.hexdigest()


def _parts(file: File, segments: Iterable[Segment]) -> Iterator[Part]:
    for segment in segments:
        if isinstance(segment, Span):
            yield FileRange(file, segment.offset, segment.size)
        elif isinstance(segment, Zeros):
            yield bytes(segment.size)
        else:
            yield segment


def cut(image: Image, limit_bytes: int) -> list[Piece]:
    """The whole file where it fits, else sparse images of at most ``limit_bytes``. Raises InputWrong if no block fits."""
    whole = Piece(image, None)
    if whole.size_bytes <= limit_bytes:
        return [whole]
    found = image.sparse
    if found is None:
        size, block = image.size_bytes, image.block_bytes
        blocks = -(-size // block)
        chunk = Chunk(Kind.RAW, 0, blocks, image.skip_bytes)
        found = Sparse(image.file, block, blocks, (chunk,), blocks * block - size)
    # The pieces read the file itself, not the read-ahead that found the chunks.
    found = replace(found, source=image.file)
    return [Piece(image, part) for part in sparse.split(found, limit_bytes)]
