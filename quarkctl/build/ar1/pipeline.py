"""From a specification to images: what changed is built, checked, signed, read back, and published together."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from quarkctl import files
from quarkctl.build import processors, sign
from quarkctl.build.alone import only_one
from quarkctl.build.ar1 import cache, images, kernel, lint, protect, spec, stamp, storage, verify
from quarkctl.build.ar1.inputs import Inputs, sha256_of
from quarkctl.build.ar1.request import Built, Request
from quarkctl.build.ar1.spec import Image, Protection, Spec
from quarkctl.build.ar1.storage import Written
from quarkctl.build.ar1.untouched import Signature, intact, signature
from quarkctl.errors import InputWrong
from quarkctl.events import Event, Level, Progress
from quarkctl.files import File
from quarkctl.formats import avb, gpt, lp, sparse, toml_places, verity
from quarkctl.formats.record import Source
from quarkctl.formats.segments import Joined, Segment, Span, size, whole

_DIGEST_BYTES_MAX = 64 << 20
_DEVELOPMENT = "development"


@dataclass(frozen=True)
class Made:
    """An image that was built, now or before. ``segments``: its bytes."""

    key: str
    segments: tuple[Segment, ...]
    vbmeta: bytes
    content_bytes: int

    @property
    def size_bytes(self) -> int:
        return size(self.segments)


@dataclass
class Begun:
    """An image whose bytes are to be written: they can be read once, and then its content has a name.

    ``ids``: of what it is made of, an empty text for its ``file``. ``made_file``: of a file system that a program made.
    """

    image: Image
    ids: list[str]
    owner: str
    segments: list[Segment] = field(default_factory=list)
    content_bytes: int = 0
    protected: protect.Protected | None = None
    hashed: Any = None
    file_before: Signature | None = None
    made_file: Path | None = None
    also: Path | None = None

    @property
    def vbmeta(self) -> bytes:
        return self.protected.vbmeta if self.protected else b""

    def content_id(self) -> str:
        """Of the file, after it was read."""
        found = self.protected.root if self.protected else self.hashed.digest()
        return images.read_as(self.image.protection) + found.hex()


def build(request: Request, asked: dict[str, str], record: dict[str, Any], progress: Progress) -> Built:
    """Build what changed since ``record``. See `quarkctl.build.ar1.request.build`."""
    request.out.mkdir(parents=True, exist_ok=True)
    with only_one(str(request.out)):
        return _Build(request, asked, record, progress).run()


class _Build:
    def __init__(self, request: Request, asked: dict[str, str], record: dict[str, Any], progress: Progress) -> None:
        self.request, self.asked, self.progress = request, asked, progress
        self.spec: Spec = spec.load(request.spec, version=request.version, key=request.key)
        self.kept = cache.Cache(str(request.out))
        #: Steps of earlier builds with the folders that hold their files.
        self.old: list[tuple[str, dict[str, Any]]] = [
            (folder, r["cache"]["steps"])
            for folder, r in [(str(request.out), record), *((self.kept.folder(n), r) for n, r in self.kept.builds.items())]
            if r
        ]  # fmt: skip
        self.processors = processors.Processors()
        self.inputs = Inputs(
            {
                k: (v[0], v[1])
                for r in (*self.kept.builds.values(), record)
                for k, v in r.get("cache", {}).get("inputs", {}).items()
            },
        )
        self.tool = stamp.tool_id()
        self.work = request.out / cache.WORK
        self.staged = self.work / "new"
        self.signers: dict[str, sign.Signer] = {}
        self.made: dict[str, Made] = {}
        self.steps: dict[str, Any] = {}
        self.fresh: list[str] = []
        self.sources: images.Sources
        self._open: list[File | files.Into] = []
        members = [m.image for i in self.spec.images.values() for m in i.members if m.image]
        self.members = set(members)
        #: Those that are written right into their super image.
        self.inside = {m for m in members if members.count(m) == 1}
        self.begun: dict[str, Begun] = {}
        self.digests: dict[str, str | None] = {}

    def run(self) -> Built:
        try:
            epoch = int(self.asked["epoch"])
        except ValueError as error:
            raise InputWrong(f"SOURCE_DATE_EPOCH is {self.asked['epoch']!r}, not a number") from error
        shutil.rmtree(self.staged, ignore_errors=True)
        self.staged.mkdir(parents=True)
        if self.kept.damaged:
            self.tell(
                "cache", Level.NOTE, f"somebody changed {len(self.kept.damaged)} earlier builds: removed, not used"
            )
            self.kept.clean()
        try:
            self.sources = images.Sources(self.spec, self._kernel(), self.work, epoch)
            keys = {name: self.signer(name).public_key for name in self.spec.keys}
            luns = storage.tables(self.spec)
            lint.check(self.spec, keys, development=self.development)
            for image in self.spec.images.values():
                if image.kind not in ("vbmeta", "super"):
                    self.image(image)
            for image in self.spec.images.values():
                if image.kind == "super":
                    self.super(image)
            for image in self._vbmetas():
                self.vbmeta(image)
            written = self._written()
            for name, data in storage.outputs(self.spec, luns, written).items():
                self.stage_small(name, data)
            self._tell_sparse(written)
            for s in self.signers.values():
                s.finish()
            self.verify(keys, luns)
            return self.publish()
        finally:
            self.processors.close()
            for file in self._open:
                file.close()
            shutil.rmtree(self.staged, ignore_errors=True)

    # --- what the build is made of

    @property
    def development(self) -> bool:
        return any(_DEVELOPMENT in Path(k.signer).name for k in self.spec.keys.values())

    def _kernel(self) -> kernel.Kernel | None:
        used = any(i.kernel == "kernel" for i in self.spec.images.values()) or self.spec.kernel_modules
        if not used or (self.spec.kernel_image and not self.spec.kernel_modules):
            return None
        found = kernel.find()
        if found is None:
            self.tell("kernel", Level.START, "fetching Debian's arm64 cloud kernel")
            found = kernel.fetch()
            self.tell("kernel", Level.DONE, found.version)
        return found

    def signer(self, name: str) -> sign.Signer:
        text = self.spec.keys[name].signer
        if text not in self.signers:
            self.signers[text] = sign.load(text)
        return self.signers[text]

    def signing(self, key: str, artifact: str) -> avb.Signing | None:
        if not key:
            return None
        signer = self.signer(key)
        number = next(n for n, name in avb.ALGORITHM_NAMES.items() if name == self.spec.keys[key].algorithm)
        algorithm = avb.ALGORITHMS[number]
        return avb.Signing(
            algorithm,
            signer.public_key,
            lambda message: signer.sign(message, f"{self.spec.product}/{artifact}", algorithm),
        )

    def tell(self, step: str, level: Level, text: str = "", done: int = 0, total: int = 0) -> None:
        self.progress(Event(self.spec.product, step, level, text, done, total))

    def told(self, step: str, total: int) -> Callable[[int], None]:
        return lambda done: self.tell(step, Level.PROGRESS, "", done, total)

    def place(self, name: str) -> str:
        """Where an image is to lie, seen from the output folder. Those for super only are out of the way."""
        image = self.spec.images[name]
        if name not in self.members:
            return f"{name}.img"
        return f"logical/{name}.img" if image.output else f"{cache.WORK}/logical/{name}.img"

    def outputs(self, name: str) -> list[str]:
        """The files of an image that was made."""
        step = self.steps.get(name)
        return [f for f, _ in step["files"]] if step else [self.place(name)]

    def stage(self, place: str) -> Path:
        """A path for a new output."""
        path = self.staged / place
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open(self, path: Path) -> File:
        file = File(path)
        self._open.append(file)
        return file

    # --- images

    def key(self, image: Image, *more: object) -> str:
        plain = replace(image, folder=None, manifest=None, file=None, dtbs=(), trees=(), ramdisk=None, fragments=())
        shapes = [
            (r.compress, r.agent, r.modules)
            for r in [image.ramdisk, *(f.ramdisk for f in image.fragments)]
            if r is not None
        ]
        what = [
            self.tool, self.spec.product, self.spec.version, self.spec.release, self.asked["epoch"], repr(plain),
            repr(shapes), repr([(f.name, f.type) for f in image.fragments]), repr([(t.id, t.rev) for t in image.trees]),
            image.name in self.members, *map(repr, more),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def image(self, image: Image) -> None:
        """Build an image, or find it. What only super holds is begun here and written there."""
        ids = images.content_id(image, self.sources, self.inputs)
        for note in self.inputs.notes:
            self.tell(image.name, Level.NOTE, note)
        self.inputs.notes.clear()
        p = image.protection
        owner = self.signer(p.key).public_key.id.hex() if p and p.key else ""
        if all(ids) and self.reuse(image, self.key(image, ids, owner)):
            return
        self.tell(image.name, Level.START, image.kind)
        begun = Begun(image, ids, owner)
        with self._named(image):
            self._begin(begun)
        if image.name in self.inside:
            self.begun[image.name] = begun
            self.made[image.name] = Made("", tuple(begun.segments), b"", begun.content_bytes)
            return
        target = self.stage(self.place(image.name))
        if begun.made_file and not image.sparse:
            if begun.protected:
                begun.protected.finish(begun.made_file)
            begun.made_file.replace(target)
            where = [target]
        else:
            where = self._write(image, target, begun.segments)
            if begun.made_file:
                begun.made_file.unlink()
        key = self._named_key(begun)
        if found := self.find(image, key):
            for path in where:  # it only looked changed
                path.unlink()
            self.take(image, *found)
        else:
            self.keep(image, key, where, [whole_of(self.open(w)) for w in where], begun.vbmeta, begun.content_bytes)
        self.tell(image.name, Level.DONE, f"{self.made[image.name].size_bytes} bytes")

    def _begin(self, begun: Begun) -> None:
        """Content and what is to protect it. Raises InputWrong when it does not fit."""
        image, p = begun.image, begun.image.protection
        begun.file_before = signature(image.file) if image.file else None
        if image.kind in ("ext4", "erofs"):
            begun.made_file = self.work / f"{image.name}.img"
            images.make_filesystem(image, self.sources, begun.made_file)
            content: list[Segment] = [whole_of(self.open(begun.made_file))]
        else:
            content = images.CONTENTS[image.kind](image, self.sources)
            self._open += [s.source for s in content if isinstance(s, Span) and isinstance(s.source, File)]
        begun.content_bytes = size(content)
        if image.name in self.inside and image.output:
            begun.also = self.stage(self.place(image.name))
        told = self.told(image.name, begun.content_bytes)
        if p:
            begun.protected = protect.Protected(
                content, p, lambda d: self._own_vbmeta(image.name, p, d), self.processors.map, told, begun.also
            )
            begun.segments = begun.protected.segments()
        else:
            begun.hashed = hashlib.sha256() if image.file else None
            hear = begun.hashed.update if begun.hashed else None
            begun.segments = [whole(protect.Content(content, hear, told, begun.also))]

    def _named_key(self, begun: Begun) -> str:
        """The key of an image that was read."""
        ids = begun.ids
        if begun.image.file and begun.file_before:
            ids = [begun.content_id()]
            self.inputs.learn(begun.image.file, begun.file_before, ids[0])
        return self.key(begun.image, ids, begun.owner)

    @contextmanager
    def _named(self, image: Image) -> Iterator[None]:
        """What is wrong with a content is told with its place in the specification."""
        try:
            yield
        except InputWrong as error:
            if error.message.startswith("avb-size"):
                raise
            line, column = toml_places.place(self.spec.text, ("image", image.name))
            where = f"{self.spec.file}:{line}:{column}: image.{image.name}"
            raise InputWrong(f"{where}: {error.message}", error.hint) from error

    def _own_vbmeta(self, name: str, p: Protection, descriptor: avb.Hash | avb.Hashtree) -> bytes:
        properties = [avb.Property(k, v.encode()) for k, v in p.properties.items()]
        return avb.build(
            [descriptor, *properties], self.signing(p.key, name), release=self.spec.release,
            rollback_index=p.rollback_index,
        )  # fmt: skip

    def _write(self, image: Image, target: Path, segments: list[Segment]) -> list[Path]:
        """Write an image as its specification wants it. Returns the files."""
        if not image.sparse:
            protect.write(target, segments)
            return [target]
        source = Joined(segments)
        if len(source) % sparse.BLOCK_BYTES:
            raise InputWrong(
                f"{target.name}: a sparse image needs whole blocks of 4096 bytes, here are {len(source)} bytes"
            )
        if not image.piece_bytes:
            files.write_at(target, sparse.stream(source))
            return [target]
        where = []
        for n, parts in groupby(sparse.stream_pieces(source, image.piece_bytes), lambda part: part[0]):
            where.append(target.with_name(f"{target.name}.{n}"))
            files.write_at(where[-1], ((at, data) for _, at, data in parts))
        return where

    def find(self, image: Image, key: str) -> tuple[str, dict[str, Any]] | None:
        """The same image of an earlier build, when nobody touched its files: its folder, and its steps there."""
        for folder, steps in self.old:
            if _has(folder, steps, image.name, key):
                return folder, steps
        return None

    def reuse(self, image: Image, key: str) -> bool:
        if found := self.find(image, key):
            self.take(image, *found)
        return bool(found)

    def take(self, image: Image, folder: str, steps: dict[str, Any]) -> None:
        """Take an image of an earlier build. What lies in its super image stays there until that is built or taken."""
        old = steps[image.name]
        where = [Path(folder, f) for f, _ in old["files"]]
        segments: tuple[Segment, ...]
        if "span" in old:
            offset, length = old["span"]
            held = _Later(lambda: _super_content(old, [self.open(p) for p in where]), offset + length)
            segments = (Span(held, offset, length),)
        else:
            for (f, _), path in zip(old["files"], where, strict=True):
                if folder != str(self.request.out) and not (self.staged / f).exists():
                    cache.link(str(path), str(self.stage(f)))
            segments = tuple(whole_of(self.open(p)) for p in where)
            self.steps[image.name] = old
        self.made[image.name] = Made(old["key"], segments, bytes.fromhex(old["vbmeta"]), old["content_bytes"])

    def keep(
        self, image: Image, key: str, where: list[Path], segments: list[Span], vbmeta: bytes, content_bytes: int
    ) -> None:
        """Remember an image that was written."""
        self.made[image.name] = Made(key, tuple(segments), vbmeta, content_bytes)
        self.steps[image.name] = _step(self.staged, self.made[image.name], where)
        self.fresh.append(image.name)

    # --- super

    def super(self, image: Image) -> None:
        """Build a super image, and with it what lies only in it: each of its bytes is written once."""
        begun = [self.begun[m.image] for m in image.members if m.image in self.begun]
        if not begun and self._take_super(image, self._super_key(image)):
            return
        self.tell(image.name, Level.START, "super")
        slots = ("_a", "_b") if image.slot_count > 1 else ("",)
        groups = [lp.Group(g + s, limit) for g, limit in image.groups.items() for s in slots]
        contents = []
        for m in image.members:
            for s in slots:
                held = self.made[m.image].segments if m.image and s in ("", "_a") else ()
                contents.append(lp.Content(m.name + s, m.group + s, held))
        try:
            metadata = lp.place(
                contents, groups, image.size_bytes, minor=image.metadata_minor, flags=int(image.virtual_ab),
                slot_count=image.slot_count,
            )  # fmt: skip
            segments = lp.build([metadata] * image.slot_count, contents)
        except InputWrong as error:
            raise InputWrong(f"super-fit: {error.message.removeprefix('super: ')}", error.hint) from error
        where = self._write(image, self.stage(self.place(image.name)), segments)
        for b in begun:
            self.made[b.image.name] = replace(self.made[b.image.name], key=self._named_key(b), vbmeta=b.vbmeta)
            if b.made_file:
                b.made_file.unlink()
            self.tell(b.image.name, Level.DONE, f"{self.made[b.image.name].size_bytes} bytes")
        key = self._super_key(image)
        written = [p for p in [*where, *(b.also for b in begun)] if p]
        if begun and self._take_super(image, key, written):
            return
        self.keep(image, key, where, [whole_of(self.open(w)) for w in where], b"", size(segments))
        places = {p.name: p.extents[0].start * lp.SECTOR_BYTES for p in metadata.partitions if p.extents}
        for m in image.members:
            if m.image in self.inside and m.image not in self.steps:
                self._keep_inside(m.image, image, where, places[m.name + slots[0]])
        self.tell(image.name, Level.DONE, f"{self.made[image.name].size_bytes} bytes")

    def _super_key(self, image: Image) -> str:
        return self.key(image, [self.made[m.image].key for m in image.members if m.image])

    def _take_super(self, image: Image, key: str, written: list[Path] | None = None) -> bool:
        """Take the super image of an earlier build, and what lies only in it; ``written`` is not needed then."""
        found = self.find(image, key)
        # Those that were taken with files of their own stay: links to these have been made, which changes their times.
        inside = [m.image for m in image.members if m.image in self.inside and m.image not in self.steps]
        if not found or not all(_has(*found, name, self.made[name].key) for name in inside):
            return False
        for path in written or ():
            path.unlink()
        for name in inside:
            self.take(self.spec.images[name], *found)
            self.steps[name] = found[1][name]
        self.take(image, *found)
        return True

    def _keep_inside(self, name: str, holder: Image, where: list[Path], at: int) -> None:
        """Remember an image that was written into a super image; the file of its own, where it has one, is as good."""
        image, made = self.spec.images[name], self.made[name]
        begun = self.begun.get(name)
        if begun and begun.also:
            self.keep(image, made.key, [begun.also], [whole_of(self.open(begun.also))], made.vbmeta, made.content_bytes)
            return
        self.steps[name] = {
            **_step(self.staged, made, where), "span": [at, made.size_bytes], "sparse": holder.sparse,
        }  # fmt: skip
        if begun:
            self.fresh.append(name)

    # --- vbmeta

    def _vbmetas(self) -> list[Image]:
        """vbmeta images, those that others include first. Raises InputWrong for a circle."""
        todo = {i.name: i for i in self.spec.images.values() if i.kind == "vbmeta"}
        out: list[Image] = []
        while todo:
            ready = [i for i in todo.values() if not any(n in todo for n in i.include)]
            if not ready:
                raise InputWrong(f"{self.spec.file}: {', '.join(todo)} include each other")
            out += ready
            for i in ready:
                del todo[i.name]
        return out

    def vbmeta(self, image: Image) -> None:
        chains: list[avb.Descriptor] = []
        included: list[avb.Descriptor] = []
        minor = 0
        for name in image.include:
            other = self.spec.images[name]
            key = other.key if other.kind == "vbmeta" else other.protection.key if other.protection else ""
            if key:
                p = other.protection
                location = other.rollback_index_location if p is None else p.rollback_index_location
                if not location:
                    raise InputWrong(
                        f"avb-rollback: {name} is chained without a location", hint="rollback_index_location = 1"
                    )
                partition = name if p is None else p.partition
                chains.append(avb.Chain(partition, location, avb.key_blob(self.signer(key).public_key)))
            else:
                parsed = avb.parse(self.made[name].vbmeta)
                included += parsed.descriptors
                minor = max(minor, parsed.required_minor)
        told = {avb.VERSION_PROPERTY: self.spec.version} if image.name == "vbmeta" else {}
        properties = [avb.Property(k, v.encode()) for k, v in {**told, **image.properties}.items()]
        data = avb.build(
            [*chains, *properties, *avb.ordered(included)], self.signing(image.key, image.name), release=self.spec.release,
            rollback_index=image.rollback_index, flags=image.flags, required_minor=minor,
        )  # fmt: skip
        if avb.parse(data).required_minor > self.spec.libavb_minor:
            raise InputWrong(
                f"avb-minor: {image.name} needs libavb 1.{avb.parse(data).required_minor}, the board has "
                f"1.{self.spec.libavb_minor}",
                hint="avb.libavb_minor, where the board's boot loader is newer",
            )
        padded = data.ljust(-(-len(data) // 4096) * 4096, b"\0")
        self.stage_small(f"{image.name}.img", padded)
        self.made[image.name] = Made(hashlib.sha256(data).hexdigest(), (padded,), data, len(data))

    # --- outputs

    def stage_small(self, name: str, data: bytes) -> None:
        """Stage an output unless the very same file is there already."""
        self.digests[name] = hashlib.sha256(data).hexdigest()
        target = self.request.out / name
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return
        (self.staged / name).write_bytes(data)
        if Path(name).stem not in self.fresh:
            self.fresh.append(Path(name).stem if name.endswith(".img") else name)

    def _written(self) -> dict[str, Written]:
        out = {}
        for name, made in self.made.items():
            image = self.spec.images[name]
            if image.output:
                plain = image.sparse and not made.vbmeta
                length = made.content_bytes if plain else self._expanded_bytes(name)
                out[name] = Written(tuple(self.outputs(name)), length, image.sparse)
        return out

    def _tell_sparse(self, written: Mapping[str, Written]) -> None:
        """The files that XML names must be raw for programs that know no sparse files, and they do not complain."""
        named = {p.image for lun in self.spec.luns for p in lun.partitions if p.image}
        for name in sorted(n for n in named if written[n].sparse):
            self.tell(
                name, Level.NOTE,
                f'{written[name].files[0]} is sparse: qdl of before mid-2025, such as Debian 12\'s, writes it as it is; '
                f'sparse = false in [image.{name}] suits every program',
            )  # fmt: skip

    def _expanded_bytes(self, name: str) -> int:
        """Bytes of an image on the device."""
        source = Joined(self.made[name].segments)
        if not self.spec.images[name].sparse:
            return len(source)
        head = sparse.HEADER.parse(source)
        return int(head.total_blks * head.blk_sz)

    def now(self, name: str) -> Path:
        """Where an output is at this moment."""
        staged = self.staged / name
        return staged if staged.exists() else self.request.out / name

    def verify(self, keys: Mapping[str, Any], luns: Mapping[int, gpt.Table]) -> None:
        """Read everything new again with the second readers. Raises VerificationFailed."""
        fresh = [n for n in self.fresh if n in self.spec.images]
        total = sum(self.made[n].size_bytes for n in fresh)
        self.tell("verify", Level.START, "", 0, total)
        bound: dict[str, bytes] = {}
        for image in self.spec.images.values():
            if image.kind == "super":
                self._verify_super(image, keys, bound, changed=image.name in fresh)
            elif image.protection and image.output and image.name in fresh:
                bound[image.name] = self._verify_partition(image, self._read_back(image), keys)
        for image in self.spec.images.values():
            if image.kind == "vbmeta":
                data = self.now(f"{image.name}.img").read_bytes()
                found = verify.vbmeta(image.name, data, keys[image.key].native.public_numbers().n)
                self._verify_included(image, found, bound, keys)
        for n, table in luns.items():
            verify.table(
                f"gpt_main{n}.bin", self.now(f"gpt_main{n}.bin").read_bytes(), self.now(f"gpt_backup{n}.bin").read_bytes(),
                table.sector_bytes,
            )  # fmt: skip
        self.tell("verify", Level.DONE, "read back")

    def _modulus(self, image: Image, keys: Mapping[str, Any]) -> int | None:
        p = image.protection
        return int(keys[p.key].native.public_numbers().n) if p and p.key else None

    def _read_back(self, image: Image) -> Source:
        """An image that was written: what is small is read once and for all, and gets its digest."""
        read: list[Source] = []
        for place in self.outputs(image.name):
            path = self.now(place)
            if path.stat().st_size > _DIGEST_BYTES_MAX:
                read.append(self.open(path))
            else:
                data = path.read_bytes()
                self.digests[place] = hashlib.sha256(data).hexdigest()
                read.append(data)
        return verify.Expanded(image.name, read) if image.sparse else read[0]

    def _verify_partition(self, image: Image, source: Source, keys: Mapping[str, Any]) -> bytes:
        told = self.told("verify", len(source))
        # what is in memory is small: sending it to others would take longer than reading it here
        run = self.processors.map if len(source) > _DIGEST_BYTES_MAX else verity.here
        return verify.partition(image.name, source, self._modulus(image, keys), told, run)

    def _verify_super(self, image: Image, keys: Mapping[str, Any], bound: dict[str, bytes], *, changed: bool) -> None:
        if not changed:
            return
        suffix = "_a" if image.slot_count > 1 else ""
        source = self._read_back(image)
        wanted = {m.name + suffix: (self.made[m.image].size_bytes, None) for m in image.members if m.image}
        places = verify.super_image(image.name, source, dict(wanted))
        for m in image.members:
            if m.image and self.spec.images[m.image].protection:
                offset, _ = places[m.name + suffix]
                part = Joined([Span(source, offset, self.made[m.image].size_bytes)])
                bound[m.image] = self._verify_partition(self.spec.images[m.image], part, keys)

    def _verify_included(
        self, image: Image, found: list[tuple[int, bytes]], bound: Mapping[str, bytes], keys: Mapping[str, Any]
    ) -> None:
        here = [d for _, d in found]
        for name in image.include:
            other = self.spec.images[name]
            key = other.key if other.kind == "vbmeta" else other.protection.key if other.protection else ""
            if key:
                partition = (name if other.protection is None else other.protection.partition).encode()
                d = next((d for tag, d in found if tag == 4 and d[92 : 92 + len(partition)] == partition), b"")
                verify.chained(f"{image.name}: {name}", d, keys[key].native.public_numbers().n)
            elif name in bound and bound[name] not in here:
                raise verify.failed(image.name, f"the descriptor of {name} is not the one in its footer")

    def publish(self) -> Built:
        """Move everything staged into its place, then write the record: without it nothing counts as built."""
        out = self.request.out
        published = [n for n, i in self.spec.images.items() if i.output]
        names = [f for n in published for f in self.outputs(n)]
        names += [f"{kind}{lun.number}{end}" for lun in self.spec.luns for kind, end in
                  (("gpt_main", ".bin"), ("gpt_backup", ".bin"), ("rawprogram", ".xml"), ("patch", ".xml"))]  # fmt: skip
        for step in self.steps.values():
            step["sha256"] = {f: self.digests[f] if f in self.digests else step.get("sha256", {}).get(f) or
                              _digest(self.now(f)) for f, _ in step["files"]}  # fmt: skip
            self.digests |= step["sha256"]
        where = {n: self.now(n) for n in names} | {
            f: self.now(f) for step in self.steps.values() for f, _ in step["files"]
        }
        record: dict[str, Any] = {
            "schema": stamp.SCHEMA, "product": self.spec.product, "version": self.spec.version,
            "development_key": self.development,
            "files": {n: {"bytes": where[n].stat().st_size, "sha256": self.digests[n]} for n in names},
            "partitions": self._partitions(),
            "signatures": [r.as_dict() for s in self.signers.values() for r in s.log],
            "kernel": self._kernel_told(), "kept": {},
            "cache": {
                "request": self.asked, "tool": self.tool, "spec": hashlib.sha256(self.spec.text.encode()).hexdigest(),
                "inputs": self.inputs.used, "folders": self.inputs.folders,
                "outputs": {n: signature(p) for n, p in where.items()}, "steps": self.steps,
            },
        }  # fmt: skip
        cache.publish(str(out), record)
        return Built.of(self.kept.sign(self.kept.keep(record), record), out, self.fresh)

    def _kernel_told(self) -> dict[str, str]:
        k = self.sources.kernel
        return {"package": k.package, "version": k.version, "sha256": k.sha256} if k else {}

    def _partitions(self) -> dict[str, Any]:
        """What each vbmeta structure binds: for people and for the flasher."""
        out: dict[str, Any] = {}
        for name, made in self.made.items():
            if self.spec.images[name].kind == "vbmeta" or not made.vbmeta:
                continue
            for d in avb.parse(made.vbmeta).descriptors:
                if isinstance(d, avb.Hashtree):
                    out[d.partition] = {
                        "image": name, "bytes": d.image_size, "root_digest": d.root_digest.hex(), "salt": d.salt.hex(),
                        "tree_bytes": d.tree_size, "fec_roots": d.fec_roots, "fec_bytes": d.fec_size,
                    }  # fmt: skip
                elif isinstance(d, avb.Hash):
                    out[d.partition] = {
                        "image": name,
                        "bytes": d.image_size,
                        "digest": d.digest.hex(),
                        "salt": d.salt.hex(),
                    }
        return out


def _has(folder: str, steps: dict[str, Any], name: str, key: str) -> bool:
    """Whether an earlier build has the same image, and nobody touched its files."""
    old = steps.get(name)
    return old is not None and old["key"] == key and all(intact(Path(folder, f), sig) for f, sig in old["files"])


def _step(staged: Path, made: Made, where: list[Path]) -> dict[str, Any]:
    """What the record tells of an image, so that another build can take it."""
    return {
        "key": made.key, "vbmeta": made.vbmeta.hex(), "content_bytes": made.content_bytes,
        "files": [[str(path.relative_to(staged)), signature(path)] for path in where],
    }  # fmt: skip


def whole_of(file: File) -> Span:
    return Span(file, 0, len(file))


class _Later:
    """A source that is opened when it is read first."""

    def __init__(self, opened: Callable[[], Source], size_bytes: int) -> None:
        self._opened, self._size = opened, size_bytes
        self._source: Source | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: slice, /) -> bytes | memoryview:
        if self._source is None:
            self._source = self._opened()
        return self._source[at]


def _super_content(step: dict[str, Any], opened: list[File]) -> Source:
    """The bytes of the super image that a step's files hold."""
    if step["sparse"]:
        return sparse.Expanded(sparse.merged([sparse.parse(f) for f in opened]))
    return opened[0]


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None for a large one, whose hash tree names it: nothing is read only for that."""
    if path.stat().st_size > _DIGEST_BYTES_MAX:
        return None
    return sha256_of(path)
