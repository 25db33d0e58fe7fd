"""Contents that are read once: whoever writes them hashes them on the way, and what protects them follows them.

A raw image with a hash tree is read by columns on every processor, anything else from its beginning to its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from quarkctl import files
from quarkctl.build.ar1.spec import Protection
from quarkctl.errors import InputWrong
from quarkctl.formats import avb, verity
from quarkctl.formats.record import Source, rounded
from quarkctl.formats.segments import Joined, Segment, Span, Zeros, digest, size, whole

#: Makes the vbmeta structure around a descriptor.
Sign = Callable[[avb.Hash | avb.Hashtree], bytes]
Told = Callable[[int], None]


class Content:
    """Segments as a source that is read once, from its beginning to its end.

    ``hear`` gets all of it, ``told`` how far it is. ``also``: a file that it is written into as well.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        hear: Callable[[bytes], object] | None = None,
        told: Told | None = None,
        also: Path | None = None,
    ) -> None:
        self._data, self._hear, self._told, self._also = Joined(segments), hear, told, also
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, at: slice, /) -> bytes:
        start, stop, _ = at.indices(len(self))
        if start != self._at:
            raise AssertionError(f"read at {start}, but {self._at} is next")
        piece = self._data[start:stop]
        self._at = stop
        if self._hear:
            self._hear(piece)
        if self._also:
            _append(self._also, start, [piece])
        if self._told:
            self._told(stop)
        return piece


class Protected:
    """A content with a footer, and a hash tree and codes where it is to have them. ``descriptor`` and ``vbmeta`` are known
    when it has been written, its size before. ``also``: a second file with the same bytes.

    Raises InputWrong when it does not fit its partition (the linter's avb-size).
    """

    descriptor: avb.Hash | avb.Hashtree
    vbmeta: bytes = b""

    def __init__(
        self,
        content: Sequence[Segment],
        p: Protection,
        sign: Sign,
        run: verity.Run,
        told: Told | None = None,
        also: Path | None = None,
    ) -> None:
        self._p, self._sign, self._run, self._told, self._also = p, sign, run, told, also
        self._content_bytes = size(content)
        padding = bytes(-self._content_bytes % verity.BLOCK_BYTES if p.footer == "hashtree" else 0)
        self._content: list[Segment] = [*content, padding] if padding else list(content)
        self._bound_bytes = size(self._content)
        tree_bytes = fec_bytes = 0
        if p.footer == "hashtree":
            tree_bytes = verity.tree_bytes(self._bound_bytes, p.hash_algorithm)
            fec_bytes = verity.fec_bytes(self._bound_bytes + tree_bytes, p.fec_roots) if p.fec_roots else 0
        _check_fit(p, self._content_bytes, tree_bytes, fec_bytes)
        end = rounded(self._bound_bytes + tree_bytes + fec_bytes, avb.BLOCK_BYTES)
        self.size_bytes = p.partition_bytes or end + avb.VBMETA_BYTES_MAX + avb.BLOCK_BYTES

    @property
    def root(self) -> bytes:
        """What names the content that was read, under this salt and algorithm."""
        return self.descriptor.root_digest if isinstance(self.descriptor, avb.Hashtree) else self.descriptor.digest

    def segments(self) -> list[Segment]:
        """All of it, for `write` or whoever else reads it once and in order."""
        p = self._p
        if p.footer == "hash":
            h = hashlib.new(p.hash_algorithm, p.salt)
            return self._parts(h.update, lambda: self._hashed(h.digest()))
        made: list[verity.InOrder] = []  # only where somebody reads: it needs memory

        def hear(piece: bytes) -> None:
            if not made:
                made.append(verity.InOrder(self._bound_bytes, p.salt, p.fec_roots, p.hash_algorithm))
            made[0](piece)

        return self._parts(hear, lambda: self._treed(made[0].done()))

    def _parts(self, hear: Callable[[bytes], object], end: Callable[[], list[Segment]]) -> list[Segment]:
        return [whole(_First(self, Content(self._content, hear, self._told, self._also))), whole(_Rest(self, end))]

    @property
    def rest_bytes(self) -> int:
        """Size of what follows the content."""
        return self.size_bytes - self._bound_bytes

    @property
    def has_tree(self) -> bool:
        return self._p.footer == "hashtree"

    def write(self, path: Path, at: int = 0) -> None:
        """Write all of it into a file, from ``at`` on, by every processor."""
        with closing(files.Into(path, at)) as into:
            if self._also:
                self._also.touch()
                with closing(files.Into(self._also)) as other:
                    rest = self._spread(_Each(into, other))
            else:
                rest = self._spread(into)
        self.append(rest)
        _append(path, at + self._bound_bytes, rest)

    def append(self, rest: Sequence[Segment]) -> None:
        """Write what follows the content into the second file, where there is one."""
        if self._also:
            _append(self._also, self._bound_bytes, rest)

    def finish(self, path: Path) -> None:
        """Write what is missing behind the content, which the file holds already."""
        if self._p.footer == "hash":
            rest = self._hashed(digest(self._content, self._p.hash_algorithm, self._p.salt))
        else:
            rest = self._spread(None)
        _append(path, self._bound_bytes, rest)

    def _spread(self, seen: verity.Seen | None) -> list[Segment]:
        p, first = self._p, self._content[0]
        plain = len(self._content) == 1 and isinstance(first, Span) and first.size == len(first.source)
        data: Source = first.source if plain and isinstance(first, Span) else Joined(self._content)
        if p.fec_roots:
            return self._treed(verity.protect(data, p.salt, p.fec_roots, p.hash_algorithm, self._told, seen, self._run))
        return self._treed(
            verity.Protected(verity.tree(data, p.salt, p.hash_algorithm, self._told, seen, self._run), b"")
        )

    def _hashed(self, found: bytes) -> list[Segment]:
        p = self._p
        return self._footed(avb.Hash(p.partition, self._content_bytes, found, p.salt, p.hash_algorithm), [])

    def _treed(self, made: verity.Protected) -> list[Segment]:
        p, at, tree = self._p, self._bound_bytes, made.tree
        found = avb.Hashtree(
            p.partition, at, at, len(tree.levels), tree.root, p.salt, p.hash_algorithm, p.fec_roots,
            at + len(tree.levels) if made.fec else 0, len(made.fec),
        )  # fmt: skip
        return self._footed(found, [tree.levels, made.fec])

    def _footed(self, found: avb.Hash | avb.Hashtree, tail: list[Segment]) -> list[Segment]:
        """What follows the content: tree, codes, the vbmeta structure at the next block, zeros, and the footer in the last
        block."""
        self.descriptor, self.vbmeta = found, self._sign(found)
        if len(self.vbmeta) > avb.VBMETA_BYTES_MAX:
            raise InputWrong(
                f"avb-size: the vbmeta structure has {len(self.vbmeta)} bytes, there is room for {avb.VBMETA_BYTES_MAX}"
            )
        end = self._bound_bytes + size(tail)
        at = rounded(end, avb.BLOCK_BYTES)
        footer = avb.build_footer(avb.Footer(self._content_bytes, at, len(self.vbmeta)))
        gap = self.size_bytes - at - len(self.vbmeta) - len(footer)
        return [s for s in (*tail, Zeros(at - end), self.vbmeta, Zeros(gap), footer) if len(s)]


class _First:
    """The content of something protected."""

    def __init__(self, owner: Protected, content: Content) -> None:
        self.owner, self._content = owner, content

    def __len__(self) -> int:
        return len(self._content)

    def __getitem__(self, at: slice, /) -> bytes:
        return self._content[at]


class _Rest:
    """What follows it, made when somebody reads that."""

    def __init__(self, owner: Protected, end: Callable[[], list[Segment]]) -> None:
        self.owner, self._end = owner, end
        self._made: Joined | None = None

    def __len__(self) -> int:
        return self.owner.rest_bytes

    def __getitem__(self, at: slice, /) -> bytes:
        if self._made is None:
            rest = self._end()
            self.owner.append(rest)
            self._made = Joined(rest)
        return self._made[at]


class _Each:
    """Gives what it hears to all of them."""

    def __init__(self, *seen: verity.Seen) -> None:
        self._seen = seen

    def __call__(self, at: int, piece: bytes, /) -> None:
        for s in self._seen:
            s(at, piece)


def write(path: Path, segments: Iterable[Segment]) -> None:
    """Write segments into a new file, zeros as holes, and hash trees by every processor."""
    path.unlink(missing_ok=True)
    with path.open("xb", buffering=0) as file:
        at = 0
        for s in segments:
            source = s.source if isinstance(s, Span) else None
            if isinstance(source, _First) and source.owner.has_tree:
                source.owner.write(path, at)
                at += source.owner.size_bytes
            elif not (isinstance(source, _Rest) and source.owner.vbmeta):
                at = files.append(file.fileno(), at, [s], holes=True)
        file.truncate(at)


def _append(path: Path, at: int, segments: Iterable[Segment]) -> None:
    """Write segments into a file that has nothing from ``at`` on."""
    path.touch()
    with path.open("r+b", buffering=0) as file:
        end = files.append(file.fileno(), at, segments, holes=True)
        if end > file.seek(0, 2):
            file.truncate(end)


def _check_fit(p: Protection, length: int, tree_bytes: int, fec_bytes: int) -> None:
    """The linter's avb-size. Raises InputWrong with every part of the sum."""
    total = rounded(length, 4096) + tree_bytes + fec_bytes + avb.VBMETA_BYTES_MAX + avb.BLOCK_BYTES
    if p.partition_bytes and total > p.partition_bytes:
        parts = f"image {length}" + (f" + tree {tree_bytes} + codes {fec_bytes}" if tree_bytes else "")
        raise InputWrong(
            f"avb-size: {p.partition}: {parts} + vbmeta {avb.VBMETA_BYTES_MAX} + footer {avb.BLOCK_BYTES} is {total} bytes, "
            f"the partition has {p.partition_bytes}",
            hint=f'partition_size = "{-(-total // (1 << 20))} MiB" or a smaller image',
        )
