"""What must hold before anything is signed. Each refusal has a name, a size, a limit and a cure.

The rules that need no more than the specification are here; those about sizes stand where the sizes are known:
`images.check_fit` (avb-size), `storage` (gpt-overlap, gpt-ab-type, xml-fit), ``formats.lp.check`` (super-fit),
``formats.rawprogram.check`` (xml-sparse-symbolic), ``formats.bootimg`` (boot-header), ``formats.dtbo`` (dtbo-table).
"""

from __future__ import annotations

from collections.abc import Mapping

from quarkctl.build.ar1 import storage
from quarkctl.build.ar1.spec import Image, Spec
from quarkctl.errors import InputWrong
from quarkctl.formats import avb
from quarkctl.formats.signature import PublicKey


def check(spec: Spec, keys: Mapping[str, PublicKey], *, development: bool) -> None:
    """Raises InputWrong for the first rule that is broken."""
    for image in spec.images.values():
        with spec.placed("image", image.name):
            _boot_header(spec, image)
            if image.kind == "vbmeta":
                _vbmeta(spec, image, development=development)
            if image.kind == "super":
                _super(spec, image)
    _keys(spec, keys)
    _rollback(spec)
    _partitions(spec)
    for n, lun in enumerate(spec.luns):
        with spec.placed("storage", "lun", n):
            storage.check_slots(lun)


def _boot_header(spec: Spec, image: Image) -> None:
    if image.kind == "boot" and not image.kernel and "init" not in image.name:
        raise InputWrong(
            f"boot-header: {image.name} has no kernel; only init_boot images have none", hint='kernel = "kernel"'
        )
    if image.kind == "boot" and not image.kernel and image.ramdisk is None:
        raise InputWrong(
            f"boot-header: {image.name} has neither kernel nor ramdisk", hint=f"[image.{image.name}.ramdisk]"
        )
    if any(not line.strip() or "\n" in line for line in image.bootconfig):
        raise InputWrong(f"bootconfig: {image.name} has an empty line", hint='bootconfig = ["androidboot.hardware=s1"]')


def _vbmeta(spec: Spec, image: Image, *, development: bool) -> None:
    if image.flags & (avb.FLAG_HASHTREE_DISABLED | avb.FLAG_VERIFICATION_DISABLED) and not development:
        raise InputWrong(
            f"avb-flags: {image.name} has flags {image.flags}: verification would be off",
            hint="flags = 0, or a development key",
        )
    if not image.include:
        raise InputWrong(
            f"{image.name} includes nothing, so nothing would be verified", hint='include = ["boot", "system"]'
        )
    minor = 2 if image.rollback_index_location else 0
    if minor > spec.libavb_minor:
        raise InputWrong(
            f"avb-minor: {image.name} needs libavb 1.{minor}, the board has 1.{spec.libavb_minor}",
            hint="rollback_index_location = 0, or avb.libavb_minor",
        )


def _keys(spec: Spec, keys: Mapping[str, PublicKey]) -> None:
    for name, key in keys.items():
        wanted = spec.keys[name].algorithm.partition("_")[2].lower()
        if key.kind != wanted:
            with spec.placed("keys", name):
                raise InputWrong(
                    f"avb-weak: the key {name} is {key.kind}, its algorithm is {spec.keys[name].algorithm}",
                    hint=f'algorithm = "SHA256_{key.kind.upper()}"'
                    if key.kind.startswith("rsa")
                    else "openssl genrsa -out key.pem 4096",
                )


def _rollback(spec: Spec) -> None:
    used: dict[int, str] = {}
    for image in spec.images.values():
        with spec.placed("image", image.name):
            _rollback_of(spec, image, used)


def _rollback_of(spec: Spec, image: Image, used: dict[int, str]) -> None:
    chained = image.protection.rollback_index_location if image.protection and image.protection.key else None
    if image.kind == "vbmeta" and image.rollback_index_location:
        chained = image.rollback_index_location
    if chained:
        if chained in used:
            raise InputWrong(
                f"avb-rollback: {used[chained]} and {image.name} both use the location {chained}",
                hint="one for each",
            )
        used[chained] = image.name
    own = image.protection.rollback_index if image.protection else 0
    index = image.rollback_index if image.kind == "vbmeta" else own
    last = spec.last_release.get(image.name, 0)
    if index < last:
        raise InputWrong(
            f"avb-rollback: {image.name} has rollback index {index}, the last release had {last}: devices would refuse",
            hint=f"rollback_index = {last} or more",
        )


def _super(spec: Spec, image: Image) -> None:
    names = [m.name for m in image.members]
    for member in image.members:
        if names.count(member.name) > 1:
            raise InputWrong(f"super-fit: {image.name}: two partitions are called {member.name}")
        if member.image and spec.images[member.image].kind in ("super", "vbmeta"):
            raise InputWrong(f"super-fit: {image.name}: {member.image} does not go into a super image")
        if member.image and spec.images[member.image].sparse:
            raise InputWrong(
                f"super-fit: {member.image} is sparse; inside {image.name} it must be raw", hint="sparse = false"
            )


def _partitions(spec: Spec) -> None:
    """A partition that verified boot names must be there, once, and large enough for what protects it."""
    names: dict[str, int] = {}
    inside = {m.image for i in spec.images.values() for m in i.members if m.image}
    for n, lun in enumerate(spec.luns):
        for p in lun.partitions:
            with spec.placed("storage", "lun", n):
                if p.name in names:
                    raise InputWrong(f"gpt-overlap: {p.name} is on LUN {names[p.name]} and on LUN {lun.number}")
                names[p.name] = lun.number
                if p.image in inside and not spec.images[p.image].output:
                    raise InputWrong(
                        f"xml-files: {p.name} on LUN {lun.number} names {p.image}, which is only a part of super",
                        hint=f"output = true for [image.{p.image}]",
                    )
    logical = {m.name.removesuffix("_a") for i in spec.images.values() for m in i.members}
    for image in spec.images.values():
        bound = image.protection.partition if image.protection else ""
        if bound and spec.luns and not {bound, f"{bound}_a"} & set(names) and bound not in logical:
            with spec.placed("image", image.name):
                raise InputWrong(
                    f"xml-files: {image.name} protects the partition {bound}, which no LUN and no super image has",
                    hint="partition = the name without slot",
                )
