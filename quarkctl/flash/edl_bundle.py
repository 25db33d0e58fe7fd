"""The AR1's part of a release bundle in emergency download: what its flashmap names, each chunk verified when it is read.

A device in this mode tells neither product nor version: what can be checked is who signed, and for what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.flash import edl_sources
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.bundle import Incoming
from quarkctl.flash.edl_sources import Work
from quarkctl.formats.bundle import CHUNK_BYTES, FLASHMAP_NAME, VIP_FOLDER, Member

#: Flashmap, XML, tables and programmers are read whole.
_SMALL_BYTES_MAX = 64 << 20


class VerifiedMember(File):
    """A member as a file of its own. A chunk is compared with the signed list each time that it is read."""

    def __init__(self, path: Path, member: Member, offset: int) -> None:
        self._bundle = File(path)
        self.path = path.with_name(member.name.rpartition("/")[2])
        self.fd = -1  # nobody sends its bytes past `__getitem__`
        self._member = member
        self._offset = offset
        self._held: tuple[int, bytes] = (-1, b"")

    def __len__(self) -> int:
        return self._member.size_bytes

    def __getitem__(self, at: slice, /) -> bytes:
        start, stop, _ = at.indices(len(self))
        parts = []
        while start < stop:
            index, inside = divmod(start, CHUNK_BYTES)
            part = self._chunk(index)[inside : inside + stop - start]
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            if offset + len(view) > len(self):
                raise InputWrong(f"{self.path} ends before byte {offset + len(view)}")
            view[:] = self[offset : offset + len(view)]
            offset += len(view)

    def _chunk(self, index: int) -> bytes:
        held, data = self._held  # read once: another thread may replace it
        if held != index:
            at = index * CHUNK_BYTES
            size = min(CHUNK_BYTES, len(self) - at)
            data = self._bundle[self._offset + at : self._offset + at + size]
            if len(data) < size or hashlib.sha256(data).digest() != self._member.chunk_hash(index):
                raise InputWrong(
                    f"{self._bundle.path}: {self._member.name}: bytes {at} to {at + size} are not what was signed",
                    hint="the file was damaged or changed: get the bundle again",
                )
            self._held = (index, data)
        return data

    def will_need(self, offset: int, size_bytes: int) -> None:
        return

    def is_hole(self, start: int, stop: int) -> bool:
        return False

    def fingerprint(self) -> str:
        return self._member.sha256.hex()

    def close(self) -> None:
        self._bundle.close()


@dataclass(frozen=True)
class Members:
    """The files that a bundle's flashmap and XML name. {name: (member, offset in the bundle)}"""

    path: Path
    places: Mapping[str, tuple[Member, int]]

    def open(self, name: str) -> VerifiedMember:
        if name not in self.places:
            raise InputWrong(f"the bundle has no member {name}", hint="`quarkctl bundle show` lists them")
        return VerifiedMember(self.path, *self.places[name])

    def text(self, name: str) -> bytes:
        with self.open(name) as file:
            if len(file) > _SMALL_BYTES_MAX:
                raise InputWrong(f"{name} has {len(file)} bytes: more than such a file needs")
            return file[:]

    def image(self, name: str, skip_bytes: int, *, may_be_sparse: bool) -> Image:
        file = self.open(name)
        return Image(file.path, skip_bytes=skip_bytes, may_be_sparse=may_be_sparse, file=file)

    def programmer(self, name: str) -> bytes:
        return self.text(name)


def read(path: Path) -> Work:
    """Raises InputWrong: not signed by the product's keys, damaged, or without a flashmap."""
    incoming = Incoming(str(path), whole=True)
    try:
        if not incoming.rereadable:
            raise InputWrong(f"{path} is a pipe", hint="emergency download reads here and there: give a file")
        members = Members(path, incoming.places())
    finally:
        incoming.close()
    if FLASHMAP_NAME not in members.places:
        raise InputWrong(
            f"{path} has nothing for emergency download",
            hint="its recipe names no rawprogram; `quarkctl flash` updates both chips with it",
        )
    work = edl_sources.parse_flashmap(FLASHMAP_NAME, members.text(FLASHMAP_NAME), members)
    tables = {
        name.removeprefix(VIP_FOLDER): members.text(name) for name in members.places if name.startswith(VIP_FOLDER)
    }
    note = f"{incoming.manifest.product} {incoming.manifest.version}: the device does not tell what it has now"
    return replace(work, board=incoming.manifest.product, tables=tables, dropped=(*work.dropped, note))
