"""The manifest of a release bundle (.qfw): for whom it is, what is in it, and the hash of every chunk.

Order of the members, which is the order in which they are read and flashed:

    quarkctl/manifest.json           canonical JSON, this file's subject
    quarkctl/manifest.dsse.json      the same bytes in a DSSE envelope: only this copy is believed
    quarkctl/provenance.dsse.json    in-toto statement about the manifest, in an envelope
    everything that the manifest lists, in its order: quarkctl/sbom.cdx.json, ..., images; then what only the XML names

The manifest lists size, CRC-32, SHA-256 and the SHA-256 of every chunk of each member, so the whole file but the three
members in front is a function of the manifest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import archive, canonical
from quarkctl.formats.archive import Entry
from quarkctl.formats.fields import Fields
from quarkctl.formats.mcuboot_image import Version

SCHEMA = "quarkctl.bundle/1"
PAYLOAD_TYPE = "application/vnd.quarkctl.bundle+json"
PROVENANCE_TYPE = "application/vnd.in-toto+json"
SUFFIX = ".qfw"

MANIFEST_NAME = "quarkctl/manifest.json"
ENVELOPE_NAME = "quarkctl/manifest.dsse.json"
PROVENANCE_NAME = "quarkctl/provenance.dsse.json"
SBOM_NAME = "quarkctl/sbom.cdx.json"
FLASHMAP_NAME = "flashmap.json"
#: Signed digest tables, by which a locked device takes what the flashmap names.
VIP_FOLDER = "quarkctl/vip/"
HEAD_NAMES = (MANIFEST_NAME, ENVELOPE_NAME, PROVENANCE_NAME)

#: One raw packet of Firehose: a chunk's hash is then also the digest of that packet.
CHUNK_BYTES = 1 << 20
HASH_BYTES = 32
CHIPS = ("rtos", "ar1")
#: The AR1's partition that binds and names all the others of its slot: the first of its images.
VBMETA = "vbmeta"
FORMATS = ("mcuboot", "raw", "sparse")
MANIFEST_BYTES_MAX = 16 << 20
COMPONENTS_MAX = 512
MEMBER_BYTES_MAX = 1 << 40
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class Member:
    """One member. ``chunks``: the SHA-256 of each chunk of `CHUNK_BYTES` (the last may be shorter), joined."""

    name: str
    size_bytes: int
    crc32: int
    sha256: bytes
    chunks: bytes

    @property
    def entry(self) -> Entry:
        return Entry(self.name, self.size_bytes, self.crc32)

    def chunk_hash(self, index: int) -> bytes:
        return self.chunks[index * HASH_BYTES : (index + 1) * HASH_BYTES]


@dataclass(frozen=True)
class Extent:
    """A member's place in the component. What no extent covers is left as it is on the device."""

    member: str
    offset_bytes: int


@dataclass(frozen=True)
class Component:
    """One image for one place of one chip: ``slot`` of the microcontroller, or a partition's name of the AR1."""

    chip: str
    target: str
    format: str
    size_bytes: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True)
class ChipRelease:
    """What one chip gets. ``rollback_index``: the security counter (rtos) or AVB rollback index (ar1), never to go down.

    ``needs``: {other chip: least version that this version runs beside}.
    """

    version: Version
    rollback_index: int
    needs: Mapping[str, Version] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A release. ``hardware``: board revisions it is for; empty means all."""

    product: str
    version: str
    hardware: tuple[str, ...]
    chips: Mapping[str, ChipRelease]
    components: tuple[Component, ...]
    members: tuple[Member, ...]
    tool_version: str
    source_date_epoch: int
    notes: Mapping[str, str] = field(default_factory=dict)

    def member(self, name: str) -> Member:
        """Raises InputWrong where there is none."""
        found = next((m for m in self.members if m.name == name), None)
        if found is None:
            raise InputWrong(f"the bundle has no member {name}", hint="`quarkctl bundle show` lists them")
        return found

    def allows(self, versions: Mapping[str, Version]) -> bool:
        """May these versions run together? Those that ran together before the update may: ask only where one is new.

        A chip that this release brings, in its new version, must find each other chip at the least version that it needs;
        where the release brings both and says nothing, it needs the other's new version.
        """
        for chip, release in self.chips.items():
            if versions.get(chip) != release.version:
                continue
            for other, version in versions.items():
                least = release.needs.get(other)
                if least is None and other in self.chips:
                    least = self.chips[other].version
                if other != chip and least is not None and version < least:
                    return False
        return True


def build(manifest: Manifest) -> bytes:
    m = manifest
    return canonical.build(
        {
            "schema": SCHEMA, "product": m.product, "version": m.version, "hardware": list(m.hardware),
            "tool_version": m.tool_version, "source_date_epoch": m.source_date_epoch, "chunk_bytes": CHUNK_BYTES,
            "notes": dict(m.notes),
            "chips": {name: {"version": str(c.version), "rollback_index": c.rollback_index,
                             "needs": {k: str(v) for k, v in c.needs.items()}} for name, c in m.chips.items()},
            "components": [{"chip": c.chip, "target": c.target, "format": c.format, "size_bytes": c.size_bytes,
                            "extents": [vars(e) for e in c.extents]} for c in m.components],
            "members": [{"name": e.name, "size_bytes": e.size_bytes, "crc32": f"{e.crc32:08x}",
                         "sha256": e.sha256.hex(), "chunks": base64.b64encode(e.chunks).decode()} for e in m.members],
        }
    )  # fmt: skip


def parse(data: bytes) -> Manifest:
    """Read a manifest, to be called with verified bytes only. Raises InputWrong."""
    raw = Fields(canonical.parse(data, "the manifest"), "the manifest")
    schema = raw.text("schema")
    if schema != SCHEMA:
        raise InputWrong(
            f"the bundle is of kind {schema!r}, this quarkctl knows {SCHEMA}", hint="use the quarkctl that made it"
        )
    chunk_bytes = raw.number("chunk_bytes")
    if chunk_bytes != CHUNK_BYTES:
        raise InputWrong(f"the manifest has chunks of {chunk_bytes} bytes, not {CHUNK_BYTES}")
    chips = raw.object("chips")
    manifest = Manifest(
        product=raw.text("product"), version=raw.text("version"), hardware=raw.texts("hardware"),
        chips={name: _chip(name, chips.object(name)) for name in chips.names()},
        components=tuple(_component(c) for c in raw.objects("components")),
        members=tuple(_member(m) for m in raw.objects("members")),
        tool_version=raw.text("tool_version"), source_date_epoch=raw.number("source_date_epoch"),
        notes=raw.table("notes"),
    )  # fmt: skip
    raw.end()
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """What must hold in every manifest, read or made. Raises InputWrong."""
    m = manifest
    for what, name in (("product", m.product), ("version", m.version)):
        if not NAME.fullmatch(name):
            raise InputWrong(f"{name!r} is no {what} of a bundle")
    if not m.components or len(m.components) > COMPONENTS_MAX or len(m.members) > archive.MEMBERS_MAX:
        raise InputWrong("a bundle has 1 to 512 components and at most 4096 members")
    archive.check_names([*HEAD_NAMES, *(e.name for e in m.members)])
    sizes = {e.name: e.size_bytes for e in m.members}
    used: list[str] = []
    for c in m.components:
        _check_component(c, m, sizes)
        used += [e.member for e in c.extents]
    if len(set(used)) != len(used):
        raise InputWrong("a member belongs to two components")
    names = [e.name for e in m.members]
    first = names.index(used[0])
    if names[first : first + len(used)] != used:
        raise InputWrong("the images do not follow each other in the order of the components")
    if len({(c.chip, c.target) for c in m.components}) != len(m.components):
        raise InputWrong("two components have the same target")
    if set(m.chips) != {c.chip for c in m.components}:
        raise InputWrong("the chips of the manifest are not those of its components")
    for name, release in m.chips.items():
        if not set(release.needs) <= set(CHIPS) - {name}:
            raise InputWrong(f"{name}: needs names something else than the other chip")
    new = {name: c.version for name, c in m.chips.items()}
    if not m.allows(new):
        raise InputWrong("the versions in this bundle do not fit each other: see `needs`")


def _check_component(component: Component, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    c, at = component, 0
    where = f"{c.chip} {c.target}"
    if not NAME.fullmatch(c.target):
        raise InputWrong(f"{c.target!r} is no target of a component")
    for e in c.extents:
        if e.member not in sizes:
            raise InputWrong(f"{where}: there is no member {e.member}")
        if e.offset_bytes < at:
            raise InputWrong(f"{where}: {e.member} overlaps what is before it")
        at = e.offset_bytes + sizes[e.member]
    whole = len(c.extents) == 1 and c.extents[0].offset_bytes == 0 and at == c.size_bytes
    if at > c.size_bytes or not c.extents or (c.format != "sparse" and not whole):
        raise InputWrong(f"{where}: the extents do not make an image of {c.size_bytes} bytes")


def _chip(name: str, raw: Fields) -> ChipRelease:
    if name not in CHIPS:
        raise InputWrong(f"there is no chip {name!r}")
    needs = raw.table("needs")
    release = ChipRelease(
        _version(raw.text("version")), raw.number("rollback_index", most=(1 << 32) - 1),
        {k: _version(v) for k, v in needs.items()},
    )  # fmt: skip
    raw.end()
    return release


def _version(text: str) -> Version:
    try:
        version = Version.parse(text)
    except UsageWrong as error:
        raise InputWrong(error.message) from error
    if str(version) != text:
        raise InputWrong(f"the version {text!r} is written in another way than {version}")
    return version


def _component(raw: Fields) -> Component:
    extents = []
    for e in raw.objects("extents"):
        extents.append(Extent(e.text("member"), e.number("offset_bytes", most=MEMBER_BYTES_MAX)))
        e.end()
    component = Component(
        raw.text("chip"), raw.text("target"), raw.text("format"), raw.number("size_bytes", 1, MEMBER_BYTES_MAX),
        tuple(extents),
    )  # fmt: skip
    if component.chip not in CHIPS or component.format not in FORMATS:
        raise InputWrong(f"{raw.where}: chip {component.chip!r} or format {component.format!r} is not known")
    if (component.chip == "rtos") != (component.format == "mcuboot") or (
        component.chip == "rtos" and component.target != "slot"
    ):
        raise InputWrong(f"{raw.where}: the microcontroller takes an MCUboot image for its slot, and only that")
    raw.end()
    return component


def _member(raw: Fields) -> Member:
    member = Member(
        raw.text("name"), raw.number("size_bytes", 0, MEMBER_BYTES_MAX),
        int.from_bytes(raw.hexes("crc32", 4), "big"), raw.hexes("sha256", HASH_BYTES), raw.base64("chunks"),
    )  # fmt: skip
    if len(member.chunks) != chunk_count(member.size_bytes) * HASH_BYTES:
        raise InputWrong(f"{raw.where}: not one hash a chunk")
    raw.end()
    return member


def chunk_count(size_bytes: int) -> int:
    return -(-size_bytes // CHUNK_BYTES)


def member_of(name: str, data: bytes) -> Member:
    """The member that holds these bytes."""
    import zlib

    chunks = b"".join(hashlib.sha256(data[at : at + CHUNK_BYTES]).digest() for at in range(0, len(data), CHUNK_BYTES))
    return Member(name, len(data), zlib.crc32(data), hashlib.sha256(data).digest(), chunks)


def provenance_about(payload: bytes, manifest: bytes) -> Mapping[str, Any]:
    """The in-toto statement of a bundle. Raises InputWrong when it is about another manifest."""
    statement = canonical.parse(payload, "the provenance")
    digest = hashlib.sha256(manifest).hexdigest()
    subjects: Sequence[Any] = statement.get("subject", []) if isinstance(statement.get("subject"), list) else []
    named = [s for s in subjects if isinstance(s, dict) and s.get("name") == MANIFEST_NAME]
    if [s.get("digest") for s in named] != [{"sha256": digest}]:
        raise InputWrong("the provenance is that of another bundle")
    return statement
