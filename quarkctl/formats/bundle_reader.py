"""Reads a bundle once, from front to back, and gives out nothing that was not verified.

The reader asks for bytes by a function; where they come from (file, pipe, HTTP) is the caller's matter. Memory is bounded
by the three members in front and one chunk.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quarkctl.errors import InputWrong
from quarkctl.formats import archive, bundle, dsse
from quarkctl.formats.archive import Entry
from quarkctl.formats.bundle import CHUNK_BYTES, Manifest, Member
from quarkctl.formats.dsse import Envelope

#: ``read(n)`` returns at most n bytes and nothing at the end.
Read = Callable[[int], bytes]

_AGAIN = "it was damaged or changed: get the bundle again"

_HEAD_BYTES_MAX = {
    bundle.MANIFEST_NAME: bundle.MANIFEST_BYTES_MAX,
    bundle.ENVELOPE_NAME: 2 * bundle.MANIFEST_BYTES_MAX,
    bundle.PROVENANCE_NAME: bundle.MANIFEST_BYTES_MAX,
}


@dataclass(frozen=True)
class Head:
    """The members in front, not verified: whoever trusts the signers of ``envelope`` may parse its payload."""

    envelope: Envelope
    provenance: Envelope
    entries: tuple[Entry, ...]


class Reader:
    """One pass over one bundle: `head`, then `chunks` of each member in the order of the manifest, then `finish`."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._entries: list[Entry] = []
        self._next = 0
        self._manifest: Manifest | None = None
        self.done_bytes = 0

    def head(self) -> Head:
        """Raises InputWrong for anything that is no bundle."""
        parts = {}
        for name in bundle.HEAD_NAMES:
            parts[name] = self._small(name)
        envelope = dsse.parse(parts[bundle.ENVELOPE_NAME], "the signature")
        provenance = dsse.parse(parts[bundle.PROVENANCE_NAME], "the provenance")
        if envelope.payload_type != bundle.PAYLOAD_TYPE or provenance.payload_type != bundle.PROVENANCE_TYPE:
            raise InputWrong("the envelopes hold something else than a bundle's manifest and provenance", hint=_AGAIN)
        if envelope.payload != parts[bundle.MANIFEST_NAME]:
            raise InputWrong("the signed manifest is not the one in front of it", hint=_AGAIN)
        bundle.provenance_about(provenance.payload, envelope.payload)
        return Head(envelope, provenance, tuple(self._entries))

    def begin(self, manifest: Manifest) -> None:
        """Go on with the members of a manifest that was verified."""
        self._manifest = manifest

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of the next member, each chunk verified before it is given out. Raises InputWrong."""
        if self._manifest is None or self._manifest.members[self._next] is not member:
            raise ValueError("members are read in the order of the manifest")
        self._next += 1
        header = archive.local_header(member.entry)
        if self._exactly(len(header), f"in front of {member.name}") != header:
            raise InputWrong(f"what stands in front of {member.name} is not what the manifest says", hint=_AGAIN)
        for index, at in enumerate(range(0, member.size_bytes, CHUNK_BYTES)):
            data = self._exactly(min(CHUNK_BYTES, member.size_bytes - at), f"in {member.name} at byte {at}")
            if hashlib.sha256(data).digest() != member.chunk_hash(index):
                raise InputWrong(
                    f"{member.name}: bytes {at} to {at + len(data)} are not what was signed",
                    hint=_AGAIN,
                )
            yield data
        self._entries.append(member.entry)

    def skip(self, member: Member) -> None:
        """Verify the next member and give nothing out."""
        for _ in self.chunks(member):
            continue

    def finish(self) -> None:
        """After the last member: the directory must be the one that follows from the members, and be the end."""
        if self._manifest is None or self._next != len(self._manifest.members):
            raise ValueError("not every member was read")
        directory = archive.directory(self._entries)
        if self._exactly(len(directory), "in the directory") != directory:
            raise InputWrong("the directory at the end is not that of the members before it", hint=_AGAIN)
        if self._read(1):
            raise InputWrong("something follows the end of the bundle", hint=_AGAIN)

    def _small(self, name: str) -> bytes:
        fixed = self._exactly(archive.LOCAL.size, f"before {name}")
        if name == bundle.MANIFEST_NAME and not archive.looks_like(fixed):
            raise InputWrong("this is no release bundle", hint="quarkctl build bundle makes one")
        entry = archive.parse_local_header(fixed, self._exactly(archive.rest_bytes(fixed), f"before {name}"))
        if entry.name != name:
            raise InputWrong(
                f"{entry.name} stands where {name} must be: no bundle of quarkctl",
                hint="quarkctl build bundle makes one",
            )
        if entry.size_bytes > _HEAD_BYTES_MAX[name]:
            raise InputWrong(f"{name} has {entry.size_bytes} bytes: more than any bundle needs", hint=_AGAIN)
        data = self._exactly(entry.size_bytes, f"in {name}")
        if zlib.crc32(data) != entry.crc32:
            raise InputWrong(f"{name} is damaged: its CRC-32 differs", hint=_AGAIN)
        self._entries.append(entry)
        return data

    def _exactly(self, size: int, where: str) -> bytes:
        data = self._read(size)
        if len(data) < size:
            parts = [data]
            missing = size - len(data)
            while missing and (more := self._read(missing)):
                parts.append(more)
                missing -= len(more)
            data = b"".join(parts)
        self.done_bytes += len(data)
        if len(data) < size:
            raise InputWrong(f"the bundle is cut off {where}", hint="get it again: a part of it is missing")
        return data
