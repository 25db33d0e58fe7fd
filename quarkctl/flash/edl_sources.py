"""What is to be written in emergency download, from the files that tools exchange: rawprogram and patch XML, contents.xml,
flashmap.json, single images. Everything is read and checked here, before a device is looked for.

Source: linux-msm/qdl (``program.c``, ``patch.c``, ``contents.c``, ``flashmap.c``).
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.files import File
from quarkctl.flash import split
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.fastboot_plan import SECDATA, split_target
from quarkctl.formats import bundle, rawprogram
from quarkctl.formats.firehose import MEMORY_KINDS
from quarkctl.formats.rawprogram import Erase, Patch, Program, Sector
from quarkctl.formats.sahara import PROGRAMMER_ID

#: Label of a partition that the boot ROM starts from, by LUN: it must be told after they were written.
BOOT_LABELS = ("xbl", "xbl_a", "sbl1")
_FLASHMAP_VERSIONS = ("1.1.0", "1.2.0-qdl")
_JSON_MAX = 1 << 20
_PROGRAMMER_MAX = 64 << 20
_PROGRAMMER_NAMES = ("prog_*firehose*.elf", "prog_*firehose*.mbn", "prog_*.elf", "prog_*.mbn")
IMAGE_SUFFIXES = frozenset({".img", ".simg", ".bin", ".elf", ".mbn"})
IMAGE_ID_COUNT = 128


@dataclass(frozen=True)
class Write:
    """One image and its place. ``sectors``: room there, 0 up to the end of the LUN. ``sector_bytes`` 0: as the device has.

    ``partition``: the place is that partition of the device's own table; start and LUN are found there (``lun`` -1: any).
    """

    image: Image
    lun: int
    start: Sector
    sectors: int
    sector_bytes: int
    label: str
    partition: str = ""
    #: Of NAND; 0 elsewhere.
    pages_per_block: int = 0
    last_sector: int = 0


Entry = Write | Erase | Patch


@dataclass(frozen=True)
class Work:
    """Everything for one kind of memory, ``entries`` in the order of the documents. ``dropped``: entries that only concern
    files of the host, or other things to say. ``board``: the product that the files are for, where they tell."""

    memory: str = ""
    programmers: Mapping[int, Path | bytes] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    dropped: tuple[str, ...] = ()
    board: str = ""
    #: Signed digest tables that came with the files.
    tables: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def writes(self) -> tuple[Write, ...]:
        return tuple(e for e in self.entries if isinstance(e, Write))

    @cached_property
    def erases(self) -> tuple[Erase, ...]:
        return tuple(e for e in self.entries if isinstance(e, Erase))

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        return tuple(e for e in self.entries if isinstance(e, Patch))

    def close(self) -> None:
        for write in self.writes:
            write.image.close()


def read(sources: Sequence[str]) -> Work:
    """A folder behind another one, or beside XML files, is where files may lie that they name.

    Raises InputWrong, UsageWrong for what is missing, damaged or contradicts itself.
    """
    paths = [Path(s) for s in sources]
    if all(p.is_dir() for p in paths):
        return _folder(paths[0], tuple(paths[1:]))
    if len(paths) == 1 and paths[0].suffix == bundle.SUFFIX:
        from quarkctl.flash import edl_bundle

        return edl_bundle.read(paths[0])
    beside = tuple(p for p in paths if p.is_dir())
    split.check_complete(split_target(source)[0] for source in sources)
    work = _joined(_one(source, beside) for source, path in zip(sources, paths, strict=True) if path not in beside)
    described = next((p.parent for p in paths if p.suffix in (".xml", ".json")), None)
    return work if work.programmers or not described else replace(work, programmers=_programmer_beside(described))


def _one(source: str, beside: tuple[Path, ...]) -> Work:
    path = Path(source)
    if path.suffix == ".json":
        return _flashmap(path, beside)
    return _xml(path, beside) if path.suffix == ".xml" else Work(entries=(_single(source),))


def _joined(parts: Iterable[Work], start: Work | None = None) -> Work:
    """All of them, one behind the other; none stays open when one cannot be had. Raises InputWrong."""
    work = start or Work()
    try:
        for part in parts:
            work = _join(work, part)
    except BaseException:
        work.close()
        raise
    return work


def _join(first: Work, second: Work) -> Work:
    if first.memory and second.memory and first.memory != second.memory:
        second.close()
        raise InputWrong(f"the files are for {first.memory} and for {second.memory}: one kind of memory at a time")
    return Work(
        first.memory or second.memory, {**first.programmers, **second.programmers}, first.entries + second.entries,
        first.dropped + second.dropped, first.board or second.board,
    )  # fmt: skip


def _text(path: Path, limit_bytes: int = rawprogram.XML_BYTES_MAX) -> bytes:
    with File(path) as file:
        if not 0 < len(file) <= limit_bytes:
            raise InputWrong(f"{path} is empty or larger than {limit_bytes} bytes")
        return file[:]


# --- folders and single files -----------------------------------------------------------------------------------------


def _folder(folder: Path, beside: tuple[Path, ...]) -> Work:
    """flashmap.json, contents.xml, or all rawprogram and patch files. Raises InputWrong."""
    for name, reader in (("flashmap.json", _flashmap), ("contents.xml", _contents)):
        if (folder / name).is_file():
            return reader(folder / name, beside)
    found = sorted(folder.glob("rawprogram*.xml")) + sorted(folder.glob("patch*.xml"))
    if not found:
        raise InputWrong(f"{folder} holds no flashmap.json, contents.xml or rawprogram*.xml")
    return _joined((_xml(path, beside) for path in found), Work(programmers=_programmer_beside(folder)))


def _programmer_beside(folder: Path) -> dict[int, Path | bytes]:
    for pattern in _PROGRAMMER_NAMES:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return {PROGRAMMER_ID: found[0]}
    return {}


def _single(source: str) -> Write:
    """``FILE@PARTITION``, ``FILE@LUN/PARTITION`` or ``FILE@LUN:SECTOR``; without a target: the file's name."""
    path, target = split_target(source)
    image = Image(path)
    target = target or Path(split.whole_name(path)).stem
    match = re.fullmatch(r"(\d{1,3}):(.+)", target)
    if match:
        return Write(image, int(match[1]), Sector.parse(match[2]), 0, 0, target)
    lun, slash, name = target.partition("/")
    if slash and not lun.isdigit():
        image.close()
        raise UsageWrong(f"{target!r} is no place", hint="FILE@PARTITION, FILE@LUN/PARTITION or FILE@LUN:SECTOR")
    return Write(
        image, int(lun) if slash else -1, Sector(0), 0, 0, name if slash else target, name if slash else target
    )


# --- XML --------------------------------------------------------------------------------------------------------------


class Files(Protocol):
    """Where the files are that XML and flashmaps name. All raise InputWrong."""

    def text(self, name: str) -> bytes: ...

    def image(self, name: str, skip_bytes: int, *, may_be_sparse: bool) -> Image: ...

    def programmer(self, name: str) -> Path | bytes: ...


@dataclass(frozen=True)
class Folder:
    """Files by their name. They lie where ``where`` says, else in ``path``, else in one of ``beside``; and always inside of
    ``root`` or ``beside``: a file that comes from elsewhere must not choose what of this computer goes to a device."""

    path: Path
    root: Path
    beside: tuple[Path, ...] = ()
    where: Mapping[str, Path] = field(default_factory=dict)

    def find(self, name: str) -> Path:
        """Raises InputWrong for one that leads out."""
        first = self.where.get(name) or self.path / name
        places = [first, *(folder / name for folder in self.beside)]
        path = next((p for p in places if os.path.exists(p)), first)  # noqa: PTH110 - Path.exists raises for long names
        try:
            real = path.resolve()
            inside = any(real.is_relative_to(f.resolve()) for f in (self.root, *self.beside))
        except (OSError, RuntimeError, ValueError) as error:  # links that go round, a name with a zero byte
            raise InputWrong(f"{rawprogram.shown(name)!r} is no file: {error}") from error
        if not inside:
            raise InputWrong(
                f"{rawprogram.shown(name)!r} leads out of {self.root}",
                hint=f"if it is meant, name the folder too: quarkctl flash ... {real.parent}",
            )
        return path

    def text(self, name: str) -> bytes:
        return _text(self.find(name))

    def image(self, name: str, skip_bytes: int, *, may_be_sparse: bool) -> Image:
        return Image(self.find(name), skip_bytes=skip_bytes, may_be_sparse=may_be_sparse)

    def programmer(self, name: str) -> Path | bytes:
        return self.find(name)


def _xml(path: Path, beside: tuple[Path, ...]) -> Work:
    """rawprogram, patch or contents.xml, told apart by the root."""
    data = _text(path)
    if path.name == "contents.xml" or b"<contents" in data[:4096]:
        return _contents(path, beside)
    return parse_xml(path.name, data, Folder(path.parent, path.parent, beside))


def parse_xml(name: str, data: bytes, files: Files) -> Work:
    """A rawprogram or patch file. Raises InputWrong."""
    try:
        if rawprogram.kind_of(data) == "patches":
            return _patches(rawprogram.parse_patches(data))
        return _programs(data, files)
    except InputWrong as error:
        raise InputWrong(f"{name}: {error.message}", error.hint) from error


def _patches(found: Sequence[Patch]) -> Work:
    kept = tuple(p for p in found if p.filename == "DISK")
    dropped = tuple(f"patch of the host's file {p.filename}" for p in found if p.filename != "DISK")
    return Work(entries=kept, dropped=dropped)


def _programs(data: bytes, files: Files) -> Work:
    found = rawprogram.parse_entries(data)
    rawprogram.check([e for e in found if isinstance(e, Program)])
    named = (e for e in found if isinstance(e, Erase) or e.filename)
    return _joined(Work(entries=(e if isinstance(e, Erase) else _write(e, files),)) for e in named)


def _write(p: Program, files: Files) -> Write:
    image = files.image(p.filename, p.file_sector_offset * p.sector_bytes, may_be_sparse=p.sparse)
    if p.sparse and image.sparse is None:
        image.close()
        raise InputWrong(f"{p.filename} should be a sparse image and is not")
    return Write(image, p.lun, p.start, p.sectors, p.sector_bytes, p.label or p.filename,
                 pages_per_block=p.pages_per_block, last_sector=p.last_sector)  # fmt: skip


def _contents(path: Path, beside: tuple[Path, ...]) -> Work:
    """Qualcomm's description of a build: which XML files and which programmer, and where everything lies.

    One kind of memory and no product flavours: where there are several the user takes the XML files themselves.
    """
    root = rawprogram.parse_xml(_text(path), path.name)
    files: dict[str, Path] = {}
    xml: list[tuple[str, str, str]] = []
    programmer = ""
    for build in root.iterfind("builds_flat/build"):
        base = path.parent / _portable(build.findtext("linux_root_path") or ".")
        for entry in build:
            for where in entry.iterfind("file_path"):
                folder = base / _portable(where.text or ".")
                for name in (n.text.strip() for n in entry.iterfind("file_name") if n.text and "*" not in n.text):
                    files[name] = folder / name
                    if entry.tag in ("partition_file", "partition_patch_file"):
                        xml.append((entry.tag, entry.get("storage_type", "").lower(), name))
                    elif entry.tag == "device_programmer" and entry.get("firehose_type") != "lite":
                        programmer = programmer or name
    kinds = sorted({kind for _, kind, _ in xml if kind})
    if len(kinds) > 1:
        raise InputWrong(
            f"{path.name} describes {', '.join(kinds)}", hint="give the XML files of the one that you mean"
        )
    if not xml:
        raise InputWrong(f"{path.name} names no rawprogram files")
    named = Folder(path.parent, path.parent, beside, files)
    xml.sort(key=lambda x: x[0])  # partition_file before partition_patch_file
    programmers = {PROGRAMMER_ID: named.programmer(programmer)} if programmer else {}
    return _joined((_named(named, name) for _, _, name in xml), Work(kinds[0] if kinds else "", programmers))


def _named(files: Folder, name: str) -> Work:
    file = files.find(name)
    return parse_xml(file.name, _text(file), replace(files, path=file.parent))


def _portable(text: str) -> str:
    """A path of the file: slashes of any kind, and ``${variable:default}`` as its default."""
    return re.sub(r"\$\{[^:}]*:([^}]*)\}", r"\1", text.strip()).replace("\\", "/").lstrip("/") or "."


def _flashmap(path: Path, beside: tuple[Path, ...]) -> Work:
    return parse_flashmap(path.name, _text(path, _JSON_MAX), Folder(path.parent, path.parent, beside))


def parse_flashmap(own_name: str, data: bytes, files: Files) -> Work:
    """qdl's flashmap: one product, its layout, programmers and XML files. Raises InputWrong."""
    try:
        raw = json.loads(data)
        version, products = raw["version"], raw["products"]
        if version not in _FLASHMAP_VERSIONS:
            raise InputWrong(
                f"{own_name} has version {rawprogram.shown(repr(version))}",
                hint=f"known are {', '.join(_FLASHMAP_VERSIONS)}",
            )
        layouts = products[0]["layouts"]
        if len(products) != 1 or len(layouts) != 1:
            raise InputWrong(f"{own_name} describes {len(products)} products", hint="give the XML files that you mean")
        layout = layouts[0]
        named = layout["programmer"]
        if isinstance(named, list):  # several are "ID:FILE"
            named = {str(PROGRAMMER_ID): named[0]} if len(named) == 1 else dict(str(n).split(":", 1) for n in named)
        programmers = {int(k, 0): files.programmer(str(v)) for k, v in named.items()}
        entries = [(str(e["memory"]).lower(), [str(f) for f in e["files"]]) for e in layout["programmable"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputWrong(f"{own_name} is no flashmap: {rawprogram.shown(repr(error))}") from error
    memories = {m for m, _ in entries}
    if len(memories) != 1 or not memories <= set(MEMORY_KINDS):
        raise InputWrong(f"{own_name} is for {', '.join(sorted(memories)) or 'nothing'}: one kind of memory at a time")
    if any(not 0 < k < IMAGE_ID_COUNT for k in programmers):
        raise InputWrong(f"{own_name} names an image id outside of 1 to {IMAGE_ID_COUNT - 1}")
    xml = (parse_xml(name, files.text(name), files) for _, names in entries for name in names)
    return _joined(xml, Work(memories.pop(), programmers))


def check_order(places: Sequence[tuple[int, int, int, str]]) -> None:
    """``places``: LUN, first sector, sector behind the last, and name of each write, or none for an erase, in their order.

    Raises InputWrong for an erase that destroys what was written before it: no other order can be guessed.
    """
    written: dict[int, list[tuple[int, int, str]]] = {}
    for lun, first, end, name in places:
        before = written.setdefault(lun, [])
        if name:
            insort(before, (first, end, name))
            continue
        at = bisect_left(before, (end,)) - 1
        if at >= 0 and before[at][1] > first:
            raise InputWrong(
                f"an <erase> of LUN {lun} from sector {first} on would destroy {before[at][2]}, which is written before it",
                hint="it belongs before that <program>, or its file before the other one; nothing was written",
            )


def patch_attributes(patch: Patch) -> dict[str, object]:
    """Of the command, in the frozen order."""
    return {
        "SECTOR_SIZE_IN_BYTES": patch.sector_bytes, "byte_offset": patch.byte_offset, "filename": patch.filename,
        "physical_partition_number": patch.lun, "size_in_bytes": patch.size_bytes, "start_sector": patch.start,
        "value": patch.value,
    }  # fmt: skip


def erase_attributes(erase: Erase, sector_bytes: int) -> dict[str, object]:
    """Of the command, in the frozen order. A whole LUN has neither start nor size."""
    place = {"num_partition_sectors": erase.sectors, "start_sector": erase.start} if erase.sectors else {}
    pages = {"PAGES_PER_BLOCK": erase.pages_per_block} if erase.pages_per_block else {}
    return {"SECTOR_SIZE_IN_BYTES": sector_bytes, "physical_partition_number": erase.lun, **place, **pages}


def nand_attributes(write: Write) -> dict[str, object]:
    """What stands behind the file's name in a ``<program>`` for NAND; nothing elsewhere."""
    if not write.pages_per_block:
        return {}
    return {"PAGES_PER_BLOCK": write.pages_per_block, "last_sector": write.last_sector}


def check_secdata(work: Work, *, allowed: bool) -> None:
    """Raises UsageWrong for places that hold what cannot be made again."""
    for write in work.writes:
        if write.label.removesuffix("_a").removesuffix("_b") in SECDATA and not allowed:
            raise UsageWrong(
                f"{write.label} holds fuses, keys or calibration: a wrong write cannot be undone",
                hint="--allow-secdata if you must",
            )


def load_programmers(work: Work, given: str) -> dict[int, bytes]:
    """Images for the boot ROM by id: the user's programmer, or those of the files. Empty where there is none."""
    found: Mapping[int, Path | bytes] = {PROGRAMMER_ID: Path(given)} if given else work.programmers
    return {k: v if isinstance(v, bytes) else _text(v, _PROGRAMMER_MAX) for k, v in found.items()}


def with_place(write: Write, lun: int, first: int, sectors: int, sector_bytes: int) -> Write:
    """The same write, at the place that the device's own table gives."""
    return replace(write, lun=lun, start=Sector(first), sectors=sectors, sector_bytes=sector_bytes)
