"""Every kind of image: what its content depends on, and the content as segments."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid5

from quarkctl.build.ar1 import agent, filesystem, manifest
from quarkctl.build.ar1.compress import compress
from quarkctl.build.ar1.inputs import Inputs
from quarkctl.build.ar1.kernel import Kernel
from quarkctl.build.ar1.spec import NAMESPACE, Fragment, Image, Protection, Ramdisk, Spec
from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.formats import bootimg, cpio, dtbo
from quarkctl.formats.segments import Segment, whole

#: A kernel or device tree is read whole; larger ones are a mistake.
PART_BYTES_MAX = 512 << 20


@dataclass(frozen=True)
class Sources:
    """Where contents come from. ``work`` is a folder for what is made on the way."""

    spec: Spec
    kernel: Kernel | None
    work: Path
    epoch: int

    def kernel_image(self) -> Path:
        if self.spec.kernel_image:
            return self.spec.kernel_image
        if self.kernel is None:
            raise InputWrong(f"{self.spec.file}: an image uses the kernel, and there is none", hint="[kernel]")
        return self.kernel.image

    def modules(self) -> list[tuple[str, Path]]:
        """File names and files of the kernel's modules, in load order."""
        if not self.spec.kernel_modules:
            return []
        if self.kernel is None:
            raise InputWrong(
                f"{self.spec.file}: kernel.modules are those of Debian's kernel", hint='kernel.image = "debian"'
            )
        paths = [self.kernel.module(m) for m in self.spec.kernel_modules]
        return [(p.name, p) for p in paths]


def read(path: Path) -> bytes:
    """A part that is read whole. Raises InputWrong: also for what has another size than it says, such as a pipe."""
    with File(path) as f:
        if len(f) > PART_BYTES_MAX:
            raise InputWrong(f"{path} has {len(f)} bytes, a part of an image at most {PART_BYTES_MAX}")
        data = f[: len(f)]
    if not data:
        raise InputWrong(f"{path} is empty")
    return data


# --- what contents depend on


def content_id(image: Image, s: Sources, inputs: Inputs) -> list[str]:
    """Ids of everything that the content of an image is made of; an empty text for what only building will name."""
    out: list[str] = []
    if image.kernel:
        out.append(inputs.file(s.kernel_image() if image.kernel == "kernel" else s.spec.folder / image.kernel))
    for ramdisk in [image.ramdisk, *(f.ramdisk for f in image.fragments)]:
        if ramdisk:
            out += _ramdisk_id(ramdisk, s, inputs)
    out += inputs.files([*image.dtbs, *(t.file for t in image.trees)])
    if image.folder:
        out.append(_folder_id(image.folder, manifest.load(image.manifest), inputs))
        if image.manifest:
            inputs.file(image.manifest)
    if image.file:
        out.append(inputs.image(image.file, read_as(image.protection)))
    return out


def read_as(p: Protection | None) -> str:
    """How an image names its content once it has been read: by what protects it, or SHA-256 of all of it."""
    return f"{p.footer}:{p.hash_algorithm}:{p.salt.hex()}:" if p else "sha256:"


def _folder_id(folder: Path, rules: manifest.Manifest, inputs: Inputs) -> str:
    files = manifest.owned(folder, rules)
    inputs.notes += manifest.check(folder, files, rules)
    return inputs.folder(folder, files)


def _ramdisk_id(r: Ramdisk, s: Sources, inputs: Inputs) -> list[str]:
    out = []
    if r.cpio:
        out.append(inputs.file(r.cpio))
    if r.folder:
        out.append(_folder_id(r.folder, manifest.load(r.manifest, ramdisk=True), inputs))
    if r.manifest:
        out.append(inputs.file(r.manifest))
    if r.agent:
        out.append(agent.content_id(s.spec.product, s.spec.version))
        inputs.files(agent.sources())
    if r.modules:
        out += inputs.files([p for _, p in s.modules()])
    return out


# --- contents


def boot(image: Image, s: Sources) -> list[Segment]:
    kernel = b""
    if image.kernel:
        kernel = read(s.kernel_image() if image.kernel == "kernel" else s.spec.folder / image.kernel)
        kernel = compress(kernel, image.kernel_compress)
    return bootimg.build_boot(
        bootimg.Boot(
            image.header_version, kernel, ramdisk(image.ramdisk, s) if image.ramdisk else b"", image.cmdline,
            image.os_version, image.os_patch_level,
        )
    )  # fmt: skip


def vendor_boot(image: Image, s: Sources) -> list[Segment]:
    def fragment(f: Fragment) -> bootimg.Fragment:
        return bootimg.Fragment(f.name, f.type, ramdisk(f.ramdisk, s))

    dtb = b"".join(read(d) for d in image.dtbs)
    lines = "".join(f"{line}\n" for line in image.bootconfig).encode()
    return bootimg.build_vendor(
        bootimg.VendorBoot(
            image.header_version, tuple(fragment(f) for f in image.fragments), dtb, image.cmdline, lines, image.label,
            image.page_bytes,
        )
    )  # fmt: skip


def device_trees(image: Image, _: Sources) -> list[Segment]:
    entries = [dtbo.Entry(read(t.file), t.id, t.rev) for t in image.trees]
    return dtbo.build(entries, image.page_bytes)


def ramdisk(r: Ramdisk, s: Sources) -> bytes:
    """A compressed cpio archive. A given archive that is compressed already stays as it is."""
    if r.cpio:
        data = read(r.cpio)
        return compress(data, r.compress) if cpio.looks_like(data) else data
    rules = manifest.load(r.manifest, ramdisk=True)
    entries: dict[str, cpio.Entry] = {}
    for f in manifest.owned(r.folder, rules) if r.folder else []:
        content = b""
        if stat.S_ISLNK(f.mode):
            content = str(f.path.readlink()).encode()
        elif stat.S_ISREG(f.mode):
            with File(f.path) as opened:
                content = opened[: len(opened)]
        entries[f.name] = cpio.Entry(f.name, f.mode, content, f.uid, f.gid)
    for node in rules.nodes:
        entries[node.name] = node
    if r.agent:
        entries[r.agent] = cpio.Entry(
            r.agent, stat.S_IFREG | 0o755, agent.build(s.work, s.spec.product, s.spec.version)
        )
    if r.modules:
        files = s.modules()
        for name, path in files:
            entries[f"{r.modules}/{name}"] = cpio.Entry(f"{r.modules}/{name}", stat.S_IFREG | 0o644, read(path))
        order = "".join(f"{name}\n" for name, _ in files).encode()
        entries[f"{r.modules}/modules.load"] = cpio.Entry(f"{r.modules}/modules.load", stat.S_IFREG | 0o644, order)
    for name in list(entries):  # the kernel makes no folders by itself
        for parent in PurePosixPath(name).parents:
            if parent.name:
                entries.setdefault(str(parent), cpio.Entry(str(parent), stat.S_IFDIR | 0o755))
    return compress(cpio.build(entries.values(), s.epoch), r.compress)


def make_filesystem(image: Image, s: Sources, target: Path) -> None:
    """An ext4 or erofs image at ``target``."""
    if image.folder is None:
        raise InputWrong(f"{image.name} has no folder")
    files = manifest.owned(image.folder, manifest.load(image.manifest))
    uuid = uuid5(NAMESPACE, f"{s.spec.product}/filesystem/{image.name}")
    if image.kind == "ext4":
        filesystem.ext4(image.folder, files, target, image.size_bytes, image.label, uuid, s.epoch)
    else:
        filesystem.erofs(image.folder, files, target, image.label, uuid, s.epoch)
        if image.size_bytes and target.stat().st_size > image.size_bytes:
            made = target.stat().st_size
            raise InputWrong(
                f"erofs has {made} bytes, size is {image.size_bytes}", hint=f"size = {made} or leave it out"
            )


CONTENTS: dict[str, Callable[[Image, Sources], list[Segment]]] = {
    "boot": boot, "vendor_boot": vendor_boot, "dtbo": device_trees,
    "raw": lambda image, _: [whole(File(image.file))] if image.file else [],
}  # fmt: skip
