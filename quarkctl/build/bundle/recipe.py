"""What goes into a bundle, from one TOML file and a folder of builds:

    product = "s1-virtual"
    version = "2026.11"
    hardware = ["rev-b"]                # optional: only these board revisions

    [rtos]
    image = "rtos-1.1.0.bin"            # version and security counter are those of the image
    needs = { ar1 = "1.0.0" }           # runs beside an AR1 of at least this version

    [ar1]
    version = "1.0.3"
    rollback_index = 2
    needs = { rtos = "1.0.0" }
    [[ar1.image]]
    target = "boot"                     # partition, without its slot
    file = "boot.img"                   # raw or Android sparse

    # besides or instead of [[ar1.image]]: everything that rawprogram files name; the bundle is then a flashmap ZIP for qdl,
    # too. Besides: updates take the images, emergency download what the XML names. Instead: both take the latter
    rawprogram = ["rawprogram0.xml"]
    patch = ["patch0.xml"]
    programmer = "prog_firehose.elf"
    memory = "ufs"
    vip = "vip"                         # optional: folder of signed digest tables (quarkctl ar1 vip-tables)

    [[contains]]                        # optional: what the images are made of, for the SBOM
    name = "monocypher"
    version = "4.0.3"
    license = "BSD-2-Clause OR CC0-1.0"

Without ``needs`` a chip runs only beside the other's version of the same bundle.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from quarkctl.build.bundle import ar1, write
from quarkctl.build.bundle.ar1 import Part, Storage
from quarkctl.build.bundle.write import Content
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import avb, mcuboot_image
from quarkctl.formats.bundle import VBMETA, ChipRelease
from quarkctl.formats.fields import Fields
from quarkctl.formats.mcuboot_image import Image, Version

_RTOS_BYTES_MAX = 64 << 20
_RECIPE_BYTES_MAX = 1 << 20
_VBMETA_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Ingredient:
    """A line of the SBOM."""

    name: str
    version: str
    license: str = ""
    purl: str = ""


@dataclass(frozen=True)
class Recipe:
    """A bundle to be built. ``rtos_image`` is the parsed image of the microcontroller, None when there is none.

    ``spare`` are members that only emergency download writes.
    """

    product: str
    version: str
    hardware: tuple[str, ...]
    chips: Mapping[str, ChipRelease]
    parts: tuple[Part, ...]
    spare: tuple[Content, ...]
    files: tuple[tuple[str, bytes], ...]
    contains: tuple[Ingredient, ...]
    notes: Mapping[str, str]
    rtos_image: Image | None
    source: bytes


def load(path: Path, builds: Path) -> Recipe:
    """Read a recipe; its files are looked up in ``builds``. Raises InputWrong."""
    try:
        with path.open("rb") as file:
            source = file.read(_RECIPE_BYTES_MAX)
        raw = Fields(tomllib.loads(source.decode("utf-8")), path.name)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputWrong(f"{path}: {error}") from error
    product = raw.text("product")
    chips: dict[str, ChipRelease] = {}
    parts: list[Part] = []
    storage = Storage(())
    image = None
    if "rtos" in raw.names():
        part, image = _rtos(raw.object("rtos"), builds, chips)
        parts.append(part)
    if "ar1" in raw.names():
        storage = _ar1(raw.object("ar1"), builds, chips, product)
        parts += storage.parts
        _check_vbmeta(chips["ar1"], storage.parts, path.name)
    if not parts:
        raise InputWrong(f"{path.name} names no image", hint="give it a table [rtos] or [ar1]")
    recipe = Recipe(
        product, raw.text("version"), raw.texts("hardware"), chips, tuple(parts), storage.spare, storage.files,
        tuple(_ingredient(c) for c in raw.objects("contains")), raw.table("notes"), image, source,
    )  # fmt: skip
    raw.end()
    if image and image.board != recipe.product:
        raise InputWrong(
            f"{parts[0].pieces[0][1].name} is made for {image.board or 'no board'}, the bundle for {recipe.product}",
            hint=f"quarkctl build rtos --board {recipe.product}",
        )
    return recipe


def _rtos(raw: Fields, builds: Path, chips: dict[str, ChipRelease]) -> tuple[Part, Image]:
    path = _file(builds, raw.text("image"))
    if path.stat().st_size > _RTOS_BYTES_MAX:
        raise InputWrong(f"{path} is larger than 64 MiB: no image of a microcontroller")
    try:
        image = mcuboot_image.parse(path.read_bytes())
    except InputWrong as error:
        raise InputWrong(f"{path}: {error.message}", error.hint) from error
    if not image.hash_ok:
        raise InputWrong(f"{path} is damaged: its hash does not match its content", hint="build it again")
    chips["rtos"] = ChipRelease(image.version, image.security_counter, _needs(raw))
    raw.end()
    content = write.of_file(f"rtos/{path.name}", path)
    return Part("rtos", "slot", "mcuboot", content.size_bytes, ((0, content),)), image


def _ar1(raw: Fields, builds: Path, chips: dict[str, ChipRelease], product: str) -> Storage:
    chips["ar1"] = ChipRelease(
        _version(raw.text("version"), raw.where),
        raw.number("rollback_index", most=(1 << 32) - 1, default=0),
        _needs(raw),
    )
    programs, patches = raw.texts("rawprogram"), raw.texts("patch")
    images = list(raw.objects("image"))
    if not programs and not images:
        raise InputWrong(f"{raw.where} names no image", hint="give it tables [[ar1.image]], or rawprogram, or both")
    storage = Storage(())
    if programs:
        storage = ar1.from_rawprogram(builds, programs, patches, raw.text("programmer"), raw.text("memory"), product)
        tables = raw.text("vip", "")
        storage = replace(storage, files=(*storage.files, *(ar1.tables(builds, tables) if tables else ())))
    if images:
        parts = []
        for image in images:
            name = image.text("file")
            path = _file(builds, name)
            parts.append(
                ar1.part(image.text("target"), path, _beside(programs[0], name) if programs else f"ar1/{path.name}")
            )
            image.end()
        storage = ar1.beside(tuple(parts), storage)
    raw.end()
    return replace(storage, parts=tuple(sorted(storage.parts, key=lambda p: p.target != VBMETA)))


def _beside(xml: str, name: str) -> str:
    """As the XML calls a file that lies beside it, or below."""
    path, folder = PurePosixPath(name), PurePosixPath(xml).parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else name


def _check_vbmeta(release: ChipRelease, parts: Sequence[Part], where: str) -> None:
    """What the recipe says of the AR1 and what its images say must be one thing. Raises InputWrong."""
    found = next((p for p in parts if p.target == VBMETA), None)
    if found is None:
        return
    if found.format != "raw" or found.size_bytes > _VBMETA_BYTES_MAX:
        raise InputWrong(f"{where}: the image of {VBMETA} is no vbmeta structure", hint="quarkctl build ar1 makes one")
    try:
        vbmeta = avb.parse(b"".join(found.pieces[0][1].blocks()))
    except InputWrong as error:
        raise InputWrong(f"{where}: {VBMETA}: {error.message}", error.hint) from error
    if vbmeta.rollback_index != release.rollback_index:
        raise InputWrong(
            f"{where}: ar1.rollback_index is {release.rollback_index}, that of {VBMETA} is {vbmeta.rollback_index}"
        )
    told = {d.key: d.value.decode("utf-8", "replace") for d in vbmeta.descriptors if isinstance(d, avb.Property)}
    version = told.get(avb.VERSION_PROPERTY, "")
    if version and version != str(release.version):
        raise InputWrong(f"{where}: ar1.version is {release.version}, that of {VBMETA} is {version}")


def _ingredient(raw: Fields) -> Ingredient:
    found = Ingredient(raw.text("name"), raw.text("version"), raw.text("license", ""), raw.text("purl", ""))
    raw.end()
    return found


def _needs(raw: Fields) -> dict[str, Version]:
    return {chip: _version(text, raw.where) for chip, text in raw.table("needs").items()}


def _version(text: str, where: str) -> Version:
    try:
        return Version.parse(text)
    except UsageWrong as error:
        raise InputWrong(f"{where}: {error.message}", error.hint) from error


def _file(builds: Path, name: str) -> Path:
    path = builds / name
    if not path.is_file():
        raise InputWrong(f"there is no file {path}", hint="--builds DIR names the folder of the builds")
    return path
