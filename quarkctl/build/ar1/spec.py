"""What an AR1 build is made of: ``firmware/ar1/<product>.toml``, read and checked before anything is built.

The user's page is docs/ar1-images.md. Paths are relative to the file.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from quarkctl.build.ar1.located import Document, Table
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import avb, gpt, toml_places
from quarkctl.formats.mcuboot_image import Version
from quarkctl.formats.toml_places import Path as Keys

SCHEMA = "quarkctl.ar1/1"
#: Names that are derived instead of drawn: GUIDs of disks, partitions and file systems.
NAMESPACE = UUID("9f0c9a52-54d1-5a0c-8f0e-4c9f3a6f7b21")
COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
_NAME = re.compile(r"[a-z0-9_]{1,32}")
_PARTITION = re.compile(r"[!-~]{1,36}")
RELEASE = "quarkctl"
_PIECE_BYTES_MIN = 64 << 10


@dataclass(frozen=True)
class Key:
    """A signer by name, and the AVB algorithm that it is used with (``SHA256_RSA4096``)."""

    signer: str
    algorithm: str


@dataclass(frozen=True)
class Protection:
    """How a partition's image is bound: a footer with a hash or a hash tree. Sizes in bytes."""

    footer: str
    partition: str
    partition_bytes: int
    salt: bytes
    hash_algorithm: str = "sha256"
    fec_roots: int = 2
    key: str = ""
    rollback_index: int = 0
    rollback_index_location: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ramdisk:
    """A cpio archive: made of a folder with a manifest, or given. ``agent`` and ``modules`` are paths in it."""

    folder: Path | None
    manifest: Path | None
    cpio: Path | None
    compress: str
    agent: str = ""
    modules: str = ""


@dataclass(frozen=True)
class Fragment:
    name: str
    type: str
    ramdisk: Ramdisk


@dataclass(frozen=True)
class Tree:
    """A device tree and what a boot loader chooses it by."""

    file: Path
    id: int
    rev: int


@dataclass(frozen=True)
class Member:
    """A logical partition of a super image; ``image`` empty means an empty partition."""

    name: str
    group: str
    image: str


@dataclass(frozen=True)
class Image:
    """One image to build. Which fields are used depends on ``kind``. ``output``: it gets a file of its own; what lies in a
    super image only where that is asked for.
    ``piece_bytes``: sparse files have at most so many; 0 for one of any size."""

    name: str
    kind: str
    protection: Protection | None = None
    sparse: bool = False
    output: bool = True
    piece_bytes: int = 0
    header_version: int = 4
    kernel: str = ""
    kernel_compress: str = "none"
    ramdisk: Ramdisk | None = None
    fragments: tuple[Fragment, ...] = ()
    dtbs: tuple[Path, ...] = ()
    trees: tuple[Tree, ...] = ()
    bootconfig: tuple[str, ...] = ()
    cmdline: str = ""
    os_version: str = ""
    os_patch_level: str = ""
    page_bytes: int = 4096
    folder: Path | None = None
    manifest: Path | None = None
    file: Path | None = None
    size_bytes: int = 0
    label: str = ""
    key: str = ""
    include: tuple[str, ...] = ()
    rollback_index: int = 0
    rollback_index_location: int = 0
    flags: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    metadata_minor: int = 2
    virtual_ab: bool = False
    slot_count: int = 2
    groups: Mapping[str, int] = field(default_factory=dict)
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Partition:
    """A partition of a LUN. ``size_bytes`` 0: it takes what is left. ``attributes``: GPT bits."""

    name: str
    size_bytes: int
    type_guid: UUID
    guid: UUID
    image: str
    attributes: int


@dataclass(frozen=True)
class Lun:
    """A disk. ``size_bytes`` 0: not known; its table is patched to fit where it is written."""

    number: int
    size_bytes: int
    guid: UUID
    partitions: tuple[Partition, ...]


@dataclass(frozen=True)
class Spec:
    file: Path
    text: str
    product: str
    version: str
    release: str
    libavb_minor: int
    keys: Mapping[str, Key]
    kernel_image: Path | None
    kernel_modules: tuple[str, ...]
    images: Mapping[str, Image]
    sector_bytes: int
    luns: tuple[Lun, ...]
    last_release: Mapping[str, int]

    @property
    def folder(self) -> Path:
        return self.file.parent

    @contextmanager
    def placed(self, *path: str | int) -> Iterator[None]:
        """What is wrong with a part of it is told with its line and column."""
        try:
            yield
        except InputWrong as error:
            if error.message.startswith(f"{self.file}:"):
                raise
            line, column = toml_places.place(self.text, path)
            raise InputWrong(f"{self.file}:{line}:{column}: {error.message}", error.hint) from error


def load(file: Path, *, version: str = "", key: str = "") -> Spec:
    """Read and check a specification. ``key`` takes the place of every signer. Raises InputWrong with line and column."""
    d = Document(file)
    d.text("schema", among=[SCHEMA])
    product = d.text("product")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", product):
        raise d.wrong("product", f"is {product!r}", hint="letters, digits and -, at most 31")
    reader = _Reader(d, file.parent, product, _version(d, version))
    kernel = d.table("kernel", {})
    kernel_image = kernel.text("image", "debian")
    modules = kernel.texts("modules")
    kernel.done()
    avb_table = d.table("avb", {})
    release = avb_table.text("release", RELEASE)
    libavb_minor = avb_table.integer("libavb_minor", 3, high=3)
    avb_table.done()
    keys = reader.keys(key)
    tables = d.named("image")
    reader.find_members(tables)
    images = {name: reader.image(name, t) for name, t in tables}
    sector_bytes, luns = reader.storage(images)
    last = d.table("last_release", {})
    last_release = {k: last.integer(k) for k in last.keys()}  # noqa: SIM118 - a Table is no dict
    d.done()
    _check_references(d, images, keys)
    return Spec(
        file, d.text_of_file, product, reader.version, release, libavb_minor, keys,
        None if kernel_image == "debian" else file.parent / kernel_image, modules, images, sector_bytes, luns,
        last_release,
    )  # fmt: skip


def _version(d: Document, instead: str) -> str:
    """Three numbers: the agent tells them, and the bundle and devices compare them."""
    if instead and _bad_version(instead):
        raise UsageWrong(f"--version is {instead!r}: {_bad_version(instead)}", hint="--version 1.2.3")
    text = d.text("version", instead or ...)
    if _bad_version(text):
        raise d.wrong("version", f"is {text!r}: {_bad_version(text)}", hint='version = "1.2.3"')
    return instead or text


def _bad_version(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+(\+\d+)?", text, re.ASCII):
        return "it must be three numbers"
    try:
        Version.parse(text)
    except UsageWrong as error:
        return error.message.partition(": ")[2]
    return ""


def _check_references(d: Document, images: Mapping[str, Image], keys: Mapping[str, Key]) -> None:
    for image in images.values():
        at: Keys = ("image", image.name)
        key, key_at = (image.key, (*at, "key")) if image.kind == "vbmeta" else ("", at)
        if image.protection and image.protection.key:
            key, key_at = image.protection.key, (*at, "avb", "key")
        if key and key not in keys:
            raise d.wrong(key_at, f"is {key!r}", hint=f"[keys.{key}] is missing" + _near(key, keys))
        members = [(m.image, (*at, "partition", n, "image")) for n, m in enumerate(image.members) if m.image]
        included = [(o, (*at, "include", n)) for n, o in enumerate(image.include)]
        for other, other_at in [*included, *members]:
            if other not in images:
                raise d.wrong(other_at, f"is {other!r}", hint=f"[image.{other}] is missing" + _near(other, images))
        for n, other in enumerate(image.include):
            if images[other].protection is None and images[other].kind != "vbmeta":
                raise d.wrong(
                    (*at, "include", n), f"is {other!r}, which has no avb table", hint="leave it out, or add one"
                )
            if other in image.include[:n]:
                raise d.wrong((*at, "include", n), f"is {other!r}, which stands there already", hint="once is enough")
            if other == image.name:
                raise d.wrong((*at, "include", n), "is itself", hint="leave it out")


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; {near[0]}?" if near else ""


class _Reader:
    def __init__(self, d: Document, folder: Path, product: str, version: str) -> None:
        self.d, self.folder, self.product, self.version = d, folder, product, version
        self.members: set[str] = set()

    def find_members(self, images: Sequence[tuple[str, Table]]) -> None:
        """The names of what is to lie in super images."""
        for _, t in images:
            if t.says("kind", "super"):
                self.members |= {p.text("image", "") for p in t.tables("partition")}

    def guid(self, *what: object) -> UUID:
        return uuid5(NAMESPACE, "/".join(str(w) for w in (self.product, *what)))

    def path(self, t: Table, key: str, *, folder: bool = False, needed: bool = True) -> Path | None:
        name = t.text(key, ... if needed else "")
        if not name:
            return None
        path = self.folder / name
        if folder and not path.is_dir():
            raise t.wrong(key, f"is {name!r}: there is no such folder")
        if not folder and not path.is_file():
            raise t.wrong(key, f"is {name!r}: there is no such file")
        return path

    def keys(self, instead: str) -> dict[str, Key]:
        out = {}
        for name, t in self.d.named("keys"):
            signer = t.text("signer")
            if signer.partition(":")[0] not in ("pkcs11", "helper", "detached"):
                if not (instead or (self.folder / signer).is_file()):
                    raise t.wrong(
                        "signer",
                        f"is {signer!r}: there is no such file",
                        hint="a PEM file, or pkcs11:, helper: or detached:",
                    )
                signer = str(self.folder / signer)
            algorithm = t.text("algorithm", "SHA256_RSA4096", among=list(avb.ALGORITHM_NAMES.values())[1:])
            t.done()
            out[name] = Key(instead or signer, algorithm)
        return out

    def image(self, name: str, t: Table) -> Image:
        if not _NAME.fullmatch(name):
            raise self.d.wrong(("image", name), "must be lower case letters, digits and _, at most 32")
        kind = t.text("kind", among=list(_KINDS))
        fields: dict[str, Any] = _KINDS[kind](self, name, t)
        protection = self.protection(name, t) if "avb" in t and kind not in ("vbmeta", "super") else None
        sparse, piece_bytes = self._sparse(t, kind)
        output = t.flag("output", name not in self.members)
        if not output and name not in self.members:
            raise t.wrong(
                "output", "is for images that lie in a super image: this one lies nowhere else", "leave it out"
            )
        t.done()
        return Image(name, kind, protection, sparse, output, piece_bytes, **fields)

    def _sparse(self, t: Table, kind: str) -> tuple[bool, int]:
        """``true``, or the size that its pieces may have."""
        pieces = t.size("sparse", low=_PIECE_BYTES_MIN) if t.is_text("sparse") else 0
        sparse = bool(pieces) or t.flag("sparse", False)
        if sparse and kind == "vbmeta":
            raise t.wrong("sparse", "is for what is flashed in pieces; a vbmeta image is small", hint="leave it out")
        return sparse, pieces

    def protection(self, name: str, image: Table) -> Protection:
        t = image.table("avb")
        footer = t.text("footer", among=["hash", "hashtree"])
        partition = t.text("partition", name)
        size = t.size("partition_size", ... if footer == "hash" else 0, multiple=4096)
        salt = t.text("salt", "")
        if not re.fullmatch(r"([0-9a-fA-F]{2}){0,64}", salt):
            raise t.wrong("salt", "is not hexadecimal of at most 64 bytes")
        derived = hashlib.sha256(f"{self.product}|{partition}|{self.version}".encode()).digest()
        made = Protection(
            footer, partition, size, bytes.fromhex(salt) if salt else derived,
            t.text("hash", "sha256", among=["sha256", "sha512"]),
            t.integer("fec_roots", 2, high=24) if footer == "hashtree" else 0, t.text("key", ""),
            t.integer("rollback_index", 0), t.integer("rollback_index_location", 0, high=31), t.words("properties"),
        )  # fmt: skip
        if made.fec_roots == 1:
            raise t.wrong("fec_roots", "is 1", hint="0 for none, or 2 to 24")
        if made.key and not made.rollback_index_location:
            raise t.wrong(
                "", "has a key of its own, so a vbmeta chains it, and needs a rollback index location",
                hint="rollback_index_location = 1, unique",
            )  # fmt: skip
        if "partition_size" in t and not size:
            raise t.wrong("partition_size", "is 0", hint='such as "64 MiB"')
        t.done()
        return made

    def ramdisk(self, t: Table) -> Ramdisk:
        folder = self.path(t, "folder", folder=True, needed=False)
        cpio = self.path(t, "cpio", needed=False)
        made = Ramdisk(
            folder, self.path(t, "manifest", needed=False), cpio,
            t.text("compress", "lz4", among=COMPRESSIONS), t.text("agent", ""), t.text("modules", ""),
        )  # fmt: skip
        if cpio and (folder or made.agent or made.modules or made.manifest):
            raise t.wrong("cpio", "is a whole ramdisk: nothing can be added to it")
        if not (cpio or folder or made.agent or made.modules):
            raise t.wrong("", "is empty", hint="folder, cpio, agent or modules")
        t.done()
        return made

    def boot(self, name: str, t: Table) -> dict[str, Any]:
        kernel = t.text("kernel", "")
        if kernel and kernel != "kernel" and not (self.folder / kernel).is_file():
            raise t.wrong("kernel", f"is {kernel!r}: there is no such file", hint='"kernel" means the one of [kernel]')
        return {
            "header_version": t.integer("header_version", 4, low=3, high=4), "kernel": kernel,
            "kernel_compress": t.text("kernel_compress", "none", among=["none", "gzip", "lz4"]),
            "ramdisk": self.ramdisk(t.table("ramdisk")) if "ramdisk" in t else None, "cmdline": t.text("cmdline", ""),
            "os_version": t.text("os_version", ""), "os_patch_level": t.text("os_patch_level", ""),
        }  # fmt: skip

    def vendor_boot(self, name: str, t: Table) -> dict[str, Any]:
        fragments = []
        for f in t.tables("fragment"):
            kind = f.text("type", "platform", among=["none", "platform", "recovery", "dlkm"])
            label = f.text("name", "")
            ramdisk = self.ramdisk(f.table("ramdisk"))
            f.done()
            fragments.append(Fragment(label, kind, ramdisk))
        if not fragments:
            raise t.wrong("", "has no ramdisk", hint=f"[[image.{name}.fragment]]")
        return {
            "header_version": t.integer("header_version", 4, low=3, high=4), "fragments": tuple(fragments),
            "dtbs": tuple(self._files(t, "dtb")), "bootconfig": t.texts("bootconfig"), "cmdline": t.text("cmdline", ""),
            "page_bytes": t.size("page_size", 4096), "label": t.text("product", ""),
        }  # fmt: skip

    def _files(self, t: Table, key: str) -> list[Path]:
        out = []
        for n, name in enumerate(t.texts(key)):
            if not (self.folder / name).is_file():
                raise t.wrong(key, f"names {name!r}: there is no such file", element=n)
            out.append(self.folder / name)
        return out

    def dtbo(self, name: str, t: Table) -> dict[str, Any]:
        trees = []
        for e in t.tables("tree"):
            file = self.path(e, "file")
            if file is not None:
                trees.append(Tree(file, e.integer("id", 0, high=2**32 - 1), e.integer("rev", 0, high=2**32 - 1)))
            e.done()
        return {"trees": tuple(trees), "page_bytes": t.size("page_size", 2048)}

    def filesystem(self, name: str, t: Table) -> dict[str, Any]:
        return {
            "folder": self.path(t, "folder", folder=True),
            "manifest": self.path(t, "manifest", needed=False),
            "size_bytes": t.size("size", 0, multiple=4096),
            "label": self._label(t, name[:16]),
        }

    def _label(self, t: Table, default: str) -> str:
        label = t.text("label", default)
        if len(label.encode()) > 16 or not label.isprintable():
            raise t.wrong("label", f"is {label!r}", hint="at most 16 letters")
        return label

    def raw(self, name: str, t: Table) -> dict[str, Any]:
        return {"file": self.path(t, "file")}

    def vbmeta(self, name: str, t: Table) -> dict[str, Any]:
        return {
            "key": t.text("key"), "include": t.texts("include"), "rollback_index": t.integer("rollback_index", 0),
            "rollback_index_location": t.integer("rollback_index_location", 0, high=31),
            "flags": t.integer("flags", 0, high=3),
            "properties": t.words("properties"),
        }  # fmt: skip

    def super(self, name: str, t: Table) -> dict[str, Any]:
        version = t.text("metadata_version", "10.2", among=["10.0", "10.1", "10.2"])
        virtual_ab = t.flag("virtual_ab", False)
        groups = {}
        for group, g in t.named("group"):
            groups[group] = g.size("maximum_size", 0)
            g.done()
        members = []
        for m in t.tables("partition"):
            members.append(Member(m.text("name"), m.text("group", among=list(groups)), m.text("image", "")))
            m.done()
        if virtual_ab and version != "10.2":
            raise t.wrong("virtual_ab", "needs metadata_version 10.2")
        return {
            "size_bytes": t.size("size", multiple=4096), "metadata_minor": int(version[-1]), "virtual_ab": virtual_ab,
            "slot_count": t.integer("slots", 2, low=1, high=3), "groups": groups, "members": tuple(members),
        }  # fmt: skip

    # --- storage

    def storage(self, images: Mapping[str, Image]) -> tuple[int, tuple[Lun, ...]]:
        t = self.d.table("storage", {})
        sector_bytes = t.integer("sector_size", 4096)
        if sector_bytes not in gpt.SECTOR_BYTES:
            raise t.wrong("sector_size", f"is {sector_bytes}", hint="512 (eMMC) or 4096 (UFS)")
        slots = t.table("slots", {})
        bits = {}
        for slot, priority in (("a", 3), ("b", 2)):
            s = slots.table(slot, {})
            values = {"priority": priority, "active": int(slot == "a"), "retry_count": 7, "successful": 0}
            bits[slot] = gpt.attributes(
                **{k: s.integer(k, v, high=(1 << gpt.ATTRIBUTES[k][1]) - 1) for k, v in values.items()}
            )
            s.done()
        slots.done()
        luns = tuple(self._lun(x, sector_bytes, bits, images) for x in t.tables("lun"))
        numbers = [x.number for x in luns]
        if len(set(numbers)) != len(numbers):
            raise t.wrong("lun", f"numbers are {numbers}: one stands twice")
        t.done()
        return sector_bytes, luns

    def _lun(self, t: Table, sector_bytes: int, bits: dict[str, int], images: Mapping[str, Image]) -> Lun:
        number = t.integer("number", high=255)
        size = t.size("size", 0, multiple=sector_bytes)
        parts: list[Partition] = []
        for p in t.tables("partition"):
            name = p.text("name")
            image = p.text("image", "")
            if image and image not in images:
                raise p.wrong("image", f"is {image!r}", hint=f"[image.{image}] is missing" + _near(image, images))
            if parts and not parts[-1].size_bytes:
                raise p.wrong("", f"comes after {parts[-1].name}, which grows", hint="what grows must be the last one")
            length = 0 if p.says("size", "grow") else p.size("size", multiple=sector_bytes, low=sector_bytes)
            ab = p.flag("ab", False)
            if ab and not length:
                raise p.wrong("size", "is grow, and there are two of it", hint="a size, or ab = false")
            if not _PARTITION.fullmatch(name + ("_a" if ab else "")):
                raise p.wrong(
                    "name", f"is {name!r}", hint="1 to 36 plain letters, digits and signs, _a and _b included"
                )
            both = p.text("slots", "a", among=["a", "both"])
            extra = gpt.attributes(read_only=int(p.flag("read_only", False)))
            for slot in ("a", "b") if ab else ("",):
                full = f"{name}_{slot}" if slot else name
                kind = p.text(f"type_{slot}" if slot else "type", "")
                parts.append(
                    Partition(
                        full, length, self._uuid(p, kind, "type", number, full), self.guid("partition", number, full),
                        image if slot in ("", "a") or both == "both" else "", extra | bits.get(slot, 0),
                    )
                )  # fmt: skip
            p.done()
        t.done()
        return Lun(number, size, self.guid("lun", number), tuple(parts))

    def _uuid(self, t: Table, text: str, *derived: object) -> UUID:
        if not text:
            return self.guid(*derived)
        try:
            return UUID(text)
        except ValueError as error:
            raise t.wrong("type", f"is {text!r}, not a UUID") from error


_KINDS: dict[str, Any] = {
    "boot": _Reader.boot, "vendor_boot": _Reader.vendor_boot, "dtbo": _Reader.dtbo, "ext4": _Reader.filesystem,
    "erofs": _Reader.filesystem, "raw": _Reader.raw, "vbmeta": _Reader.vbmeta, "super": _Reader.super,
}  # fmt: skip
