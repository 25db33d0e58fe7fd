"""The message sets of ``protocols/`` that this installation carries, and those of other releases."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from quarkctl.errors import InputWrong, LayoutMismatch
from quarkctl.formats.schema import TEXT_MAX, Schema, parse

#: Sets that travel in telemetry frames.
TELEMETRY_SETS = ("stream", "power", "thermal", "motion", "link", "ar1")
#: The set of the virtual glasses' mailbox.
PLANT_SETS = ("plant",)
#: Folders with the schemas of other releases, besides those on the command line.
FOLDERS_VARIABLE = "QUARKCTL_SCHEMAS"
#: Folders below a given one that are looked into.
_FOLDERS_MAX = 10_000
_BUNDLE_SUFFIX = ".qfw"
#: Where the message sets are in a release bundle, and how many at most.
_MEMBER_FOLDER = "schemas/"
_MEMBERS_MAX = 64


def folder() -> Path:
    """Where the TOML files are: inside the package when installed, beside it in a source tree."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "protocols"
    return packaged if packaged.is_dir() else here.parent / "protocols"


def load(sets: tuple[str, ...]) -> Schema:
    """Read these sets and check them as one schema."""
    root = folder()
    return parse({name: (root / f"{name}.toml").read_text("utf-8") for name in sets})


@cache
def telemetry() -> Schema:
    return load(TELEMETRY_SETS)


@cache
def plant() -> Schema:
    return load(PLANT_SETS)


def load_folder(root: Path) -> Schema:
    """The schema of one release: all ``*.toml`` of a folder that holds ``stream.toml``; the plant's set is left out.

    Raises InputWrong with file and line.
    """
    texts = {}
    for path in sorted(root.glob("*.toml")):
        if path.stem in PLANT_SETS:
            continue
        try:
            if path.stat().st_size > TEXT_MAX:
                raise InputWrong(f"{path} has more than {TEXT_MAX >> 20} MiB")
            texts[path.stem] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputWrong(f"cannot read {path}: {error}") from error
    if "stream" not in texts:
        raise InputWrong(f"{root} holds no stream.toml", hint="give a folder with the message sets of a release")
    try:
        return parse(texts)
    except InputWrong as error:
        raise InputWrong(f"{root}/{error.message}", error.hint) from error


def members() -> list[tuple[str, bytes]]:
    """The telemetry sets as (name, text) of members of a release bundle."""
    return [(f"{_MEMBER_FOLDER}{name}.toml", text.encode()) for name, text in sorted(telemetry().sources.items())]


def load_bundle(path: Path) -> Schema:
    """The schema that a release bundle carries. Signatures are not asked: a schema only says what numbers mean, and is taken
    for no device but one that names its layout hash.

    Raises InputWrong.
    """
    texts: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as bundle:
            for entry in bundle.infolist():
                if entry.filename.startswith(_MEMBER_FOLDER) and entry.filename.endswith(".toml"):
                    if entry.file_size > TEXT_MAX or len(texts) == _MEMBERS_MAX:
                        raise InputWrong(f"{path}: its schemas are larger than any release's")
                    name = entry.filename.removeprefix(_MEMBER_FOLDER).removesuffix(".toml")
                    with bundle.open(entry) as member:
                        texts[name] = member.read(TEXT_MAX).decode("utf-8")
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputWrong(f"cannot read {path}: {error}") from error
    if "stream" not in texts:
        raise InputWrong(f"{path} carries no schemas", hint="bundles of older releases do not: give a folder of them")
    try:
        return parse(texts)
    except InputWrong as error:
        raise InputWrong(f"{path}: {error.message}", error.hint) from error


def _releases(roots: Sequence[Path]) -> Iterator[tuple[Path, Callable[[Path], Schema]]]:
    """(place, how it is read): folders with a ``stream.toml`` and release bundles, the given ones or below."""
    for root in roots:
        if root.is_file() and root.suffix == _BUNDLE_SUFFIX:
            yield root, load_bundle
            continue
        if not root.is_dir():
            raise InputWrong(
                f"there is no folder {root}",
                hint="--schemas takes a folder of schemas, of releases or of bundles (.qfw)",
            )
        for count, (path, _, files) in enumerate(os.walk(root)):
            if count >= _FOLDERS_MAX:
                break
            if "stream.toml" in files:
                yield Path(path), load_folder
            yield from ((Path(path, name), load_bundle) for name in sorted(files) if name.endswith(_BUNDLE_SUFFIX))


def finder(*first: Schema, folders: Sequence[Path] = ()) -> Callable[[int], Schema]:
    """``find(layout_hash)``: among the given schemas (a recording's own), the installed one, then the folders.

    It raises LayoutMismatch naming the hash and what was looked through.
    """
    roots = [*folders, *(Path(p) for p in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if p)]
    known: dict[int, Schema] = {s.layout_hash: s for s in (*first, telemetry())}

    def find(layout_hash: int) -> Schema:
        if layout_hash in known:
            return known[layout_hash]
        seen, broken = [f"{h:#06x}" for h in known], []
        for release, read in _releases(roots):
            try:
                schema = read(release)
            except InputWrong as error:  # another release's mistake does not hide the right one
                broken.append(error.message)
                continue
            seen.append(f"{schema.layout_hash:#06x} ({release})")
            if schema.layout_hash == layout_hash:
                known[layout_hash] = schema
                return schema
        raise LayoutMismatch(
            f"no schema for message layout {layout_hash:#06x} that the device speaks; known are {', '.join(seen)}"
            + "".join(f"; not usable: {text}" for text in broken),
            hint="give the folder with the schemas of that firmware's release: --schemas DIR, or " + FOLDERS_VARIABLE,
        )

    return find
