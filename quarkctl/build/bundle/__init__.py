"""Build a release bundle: images of both chips, manifest, signatures, SBOM and provenance in one file.

The same inputs give the same bytes (with a token that signs with ECDSA: all but the signatures).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarkctl import __version__, schemas
from quarkctl.boards import trust
from quarkctl.build.bundle import papers, recipe, seal, write
from quarkctl.build.bundle.recipe import Recipe
from quarkctl.build.bundle.seal import Seal
from quarkctl.build.bundle.write import Content
from quarkctl.build.sign import Signer
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.events import Event, Level, Progress, silent
from quarkctl.formats import archive, bundle
from quarkctl.formats.bundle import HASH_BYTES, Component, Extent, Manifest, Member


@dataclass(frozen=True)
class Request:
    """What to build. Without signers the bundle is unsigned: nothing takes it before ``bundle sign``."""

    recipe: Path
    builds: Path
    out: Path
    signers: Sequence[Signer] = ()


@dataclass(frozen=True)
class Built:
    path: Path
    size_bytes: int
    manifest: Manifest
    manifest_sha256: str
    signed_by: tuple[str, ...]
    development_key: bool

    def as_dict(self) -> dict[str, object]:
        return {
            "file": str(self.path),
            "size_bytes": self.size_bytes,
            "product": self.manifest.product,
            "version": self.manifest.version,
            "chips": {name: str(c.version) for name, c in self.manifest.chips.items()},
            "manifest_sha256": self.manifest_sha256,
            "signed_by": list(self.signed_by),
            "development_key": self.development_key,
        }


def build(request: Request, progress: Progress = silent) -> Built:
    """One pass over the images. Raises InputWrong, HostUnfit, SignaturesWanted; then there is no output."""
    made = recipe.load(request.recipe, request.builds)
    _refuse_development(made, request.signers)
    epoch = source_date_epoch()
    contents = [*(c for p in made.parts for _, c in p.pieces), *made.spare]
    progress(Event(request.out.name, "write", Level.START, "", 0, sum(c.size_bytes for c in contents)))
    components = tuple(
        Component(p.chip, p.target, p.format, p.size_bytes, tuple(Extent(c.name, at) for at, c in p.pieces))
        for p in made.parts
    )
    blank = [_blank(c) for c in contents]
    with write.output(request.out) as output:
        room = len(_front(made, components, blank, epoch, lambda s: s.reserved(request.signers))[1])
        members, end = write.payload(output, room, contents, progress)
        name = f"{made.product}-{made.version}"
        manifest, front, entries = _front(made, components, members, epoch, lambda s: s.signed(request.signers, name))
        for signer in request.signers:
            signer.finish()
        if len(front) != room:  # an ECDSA signature in DER came out shorter than most
            output.move(room, end, len(front))
            end += len(front) - room
        output.put(0, front)
        tail = archive.directory([*entries, *(m.entry for m in members)])
        output.put(end, tail)
        output.end(end + len(tail))
    progress(Event(request.out.name, "write", Level.DONE, f"{(end + len(tail)) / 1e6:.1f} MB"))
    known = trust.development_key_ids()
    key_ids = tuple(s.public_key.id.hex() for s in request.signers)
    return Built(
        request.out, end + len(tail), manifest, seal.digest(manifest), key_ids,
        any(k in known for k in key_ids) or any(seal.is_marked(s) for s in request.signers),
    )  # fmt: skip


def source_date_epoch() -> int:
    """The time that the outputs carry: SOURCE_DATE_EPOCH, else 1970. Raises UsageWrong."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise UsageWrong(f"SOURCE_DATE_EPOCH is {text!r}, no number of seconds")
    return int(text)


def _refuse_development(made: Recipe, signers: Sequence[Signer]) -> None:
    if not trust.is_production(made.product):
        return
    known = trust.development_key_ids()
    for signer in signers:
        seal.refuse_development(signer, made.product)
    if made.rtos_image and made.rtos_image.key_hash.hex() in known:
        raise InputWrong(
            f"the image of the microcontroller is signed with a development key; {made.product} is a product for sale",
            hint="build it with its own key: quarkctl build rtos --key KEY",
        )


def _blank(content: Content) -> Member:
    """A member whose hashes are not known yet: as long in the manifest as the real one."""
    chunks = bytes(HASH_BYTES * bundle.chunk_count(content.size_bytes))
    return Member(content.name, content.size_bytes, 0, bytes(HASH_BYTES), chunks)


def _papers(
    made: Recipe, components: tuple[Component, ...], images: Sequence[Member], epoch: int
) -> list[tuple[str, bytes]]:
    """The small members between the signatures and the images: bill of materials, message sets, tables of the AR1."""
    return [
        (bundle.SBOM_NAME, papers.sbom(made, components, {m.name: m.sha256 for m in images}, epoch)),
        *schemas.members(),
        *made.files,
    ]


def _manifest(
    made: Recipe,
    components: tuple[Component, ...],
    images: Sequence[Member],
    small: Sequence[tuple[str, bytes]],
    epoch: int,
) -> Manifest:
    manifest = Manifest(
        made.product, made.version, made.hardware, made.chips, components,
        (*(bundle.member_of(name, data) for name, data in small), *images), __version__, epoch, made.notes,
    )  # fmt: skip
    bundle.check(manifest)
    return manifest


def _front(
    made: Recipe, components: tuple[Component, ...], images: Sequence[Member], epoch: int,
    seal_by: Callable[[Seal], Seal],
) -> tuple[Manifest, bytes, list[archive.Entry]]:  # fmt: skip
    """All that stands before the images. With images whose hashes are zero, it is as long as the real one."""
    small = _papers(made, components, images, epoch)
    manifest = _manifest(made, components, images, small, epoch)
    body = bundle.build(manifest)
    sealed = seal_by(Seal.new(body, papers.provenance(made, manifest, body)))
    return manifest, *write.head([*sealed.parts(), *small])
