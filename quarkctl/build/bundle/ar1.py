"""The AR1's part of a bundle: images cut into what is really written, and the flashmap by which qdl flashes them too.

Source of the flashmap: linux-msm/qdl ``flashmap.c`` (version 1.1.0: one product, one layout, one programmer; memory, slot
and files of each entry; XML by its root, ``patches``, or ``data`` with at least one ``<program>``) and ``file.c``. qdl
cannot seek in a ZIP file, so an Android sparse image becomes one raw member for each run of data, with a ``<program>`` of
its own; holes are simply not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from quarkctl.build.bundle import write
from quarkctl.build.bundle.write import BLOCK_BYTES, Content
from quarkctl.errors import InputWrong
from quarkctl.files import File
from quarkctl.formats import canonical, rawprogram, segments, sparse, vip
from quarkctl.formats.bundle import FLASHMAP_NAME, VIP_FOLDER
from quarkctl.formats.rawprogram import Program, Sector
from quarkctl.formats.sparse import Kind, Sparse

_SMALL_BYTES_MAX = 64 << 20
#: More runs than this are no bundle but a fragmented image: as many members would follow.
_RUNS_MAX = 2000


@dataclass(frozen=True)
class Part:
    """One image for one place of one chip: its members and where they belong in it."""

    chip: str
    target: str
    format: str
    size_bytes: int
    pieces: tuple[tuple[int, Content], ...]


@dataclass(frozen=True)
class Storage:
    """The parts, and small files that come with them: tables, XML, programmer, flashmap.

    ``spare``: members that are part of no image for an update; only the XML names them.
    """

    parts: tuple[Part, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    spare: tuple[Content, ...] = ()


def beside(parts: tuple[Part, ...], storage: Storage) -> Storage:
    """Images for updates beside what XML files name. A file that both name is in the bundle once."""
    mine = {c.name for p in parts for _, c in p.pieces}
    spare = [c for p in storage.parts for _, c in p.pieces if c.name not in mine]
    return Storage(parts, storage.files, tuple(spare))


def part(target: str, path: Path, name: str) -> Part:
    """An image file, raw or sparse, as members called ``name`` (or ``name.e0000``...). Raises InputWrong."""
    whole = write.of_file(name, path)
    if not whole.size_bytes:
        raise InputWrong(f"{path} is empty")
    with File(path) as file:
        if not sparse.looks_like(file):
            return Part("ar1", target, "raw", whole.size_bytes, ((0, whole),))
        try:
            image = sparse.parse(file)
        except InputWrong as error:
            raise InputWrong(f"{path}: {error.message}", error.hint) from error
    runs = list(_runs(image))
    if not 0 < len(runs) <= _RUNS_MAX:
        raise InputWrong(
            f"{path} has {len(runs)} runs of data: a bundle takes 1 to {_RUNS_MAX}",
            hint="give the raw image, or one that is less fragmented",
        )
    pieces = tuple(
        (first * image.block_bytes, _run(f"{name}.e{k:04}", path, image, chosen, count * image.block_bytes))
        for k, (first, count, chosen) in enumerate(runs)
    )
    return Part("ar1", target, "sparse", image.size_bytes, pieces)


def tables(builds: Path, folder: str) -> list[tuple[str, bytes]]:
    """Signed digest tables, as small members. Raises InputWrong."""
    signed = [f"{folder}/{vip.SIGNED_NAME}"]
    chained = [f"{folder}/{vip.CHAINED_NAME.format(n)}" for n in range(vip.CHAINED_MAX)]
    names = signed + [name for name in chained if (builds / name).is_file()]
    return [(VIP_FOLDER + name.rpartition("/")[2], _small(builds, name)) for name in names]


def from_rawprogram(
    builds: Path, programs: Sequence[str], patches: Sequence[str], programmer: str, memory: str, product: str
) -> Storage:
    """Everything that rawprogram files name, as a flashmap. Raises InputWrong.

    Files whose partitions have a slot (``boot_a``) become the image of the partition without it (``boot``); tables and
    the like, which are not a partition's content, are small files. XML is written anew where sparse files are cut.
    What XML names lies beside it, and is called in the bundle as the XML calls it.
    """
    files: dict[str, bytes] = {}

    def keep(name: str, data: bytes) -> None:
        if files.setdefault(name, data) != data:
            raise InputWrong(f"two different files are called {name}", hint="qdl knows them by that name alone")

    for name in [programmer, *patches]:
        keep(PurePosixPath(name).name, _small(builds, name))
    parts: dict[str, Part] = {}
    made: list[str] = []
    for name in programs:
        folder = PurePosixPath(name).parent
        out: list[Program] = []
        for p in rawprogram.parse_programs(_small(builds, name)):
            if not p.filename:
                continue
            if "GPT" in p.label:
                keep(p.filename, _small(builds, str(folder / p.filename)))
                out.append(p)
                continue
            target = p.label[:-2] if p.label.endswith(("_a", "_b")) else p.label
            known = parts.get(target)
            if known is None:
                known = parts[target] = part(target, _file(builds, str(folder / p.filename)), p.filename)
            elif not known.pieces[0][1].name.startswith(p.filename):
                raise InputWrong(
                    f"{name}: the slots of {target} get different files", hint="a release has one for both"
                )
            out += _rewritten(p, known)
        if out:  # qdl takes XML without any <program> for an unknown file
            made.append(PurePosixPath(name).name)
            keep(made[-1], rawprogram.build_programs(out))
    if not made:
        raise InputWrong(f"{', '.join(programs)}: no program names a file", hint="quarkctl build ar1 makes such files")
    flashmap = {
        "version": "1.1.0",
        "products": [{"name": product, "layouts": [{
            "name": memory, "programmer": [PurePosixPath(programmer).name],
            "programmable": [{
                "memory": memory, "slot": 0, "files": [*made, *(PurePosixPath(n).name for n in patches)],
            }],
        }]}],
    }  # fmt: skip
    return Storage(tuple(parts.values()), ((FLASHMAP_NAME, canonical.build(flashmap)), *files.items()))


def _rewritten(program: Program, image: Part) -> Iterator[Program]:
    if image.format == "raw":
        yield replace(program, sparse=False)
        return
    if program.start.from_end:
        raise InputWrong(f"{program.filename} is sparse and starts at {program.start}", hint="give a raw image")
    for offset, content in image.pieces:
        first, rest = divmod(offset, program.sector_bytes)
        sectors, more = divmod(content.size_bytes, program.sector_bytes)
        if rest or more:
            raise InputWrong(
                f"{program.filename}: its blocks are no multiple of sectors of {program.sector_bytes} bytes"
            )
        yield replace(
            program, filename=content.name, sparse=False, start=Sector(program.start.number + first), sectors=sectors
        )


def _runs(image: Sparse) -> Iterator[tuple[int, int, list[sparse.Chunk]]]:
    """First block, number of blocks and chunks of each stretch of data without a hole in it."""
    held: list[sparse.Chunk] = []
    for chunk in image.chunks:
        if chunk.kind is Kind.DONT_CARE:
            continue
        if held and chunk.first_block != held[-1].first_block + held[-1].blocks:
            yield held[0].first_block, sum(c.blocks for c in held), held
            held = []
        held.append(chunk)
    if held:
        yield held[0].first_block, sum(c.blocks for c in held), held


def _run(name: str, path: Path, image: Sparse, chunks: Sequence[sparse.Chunk], size_bytes: int) -> Content:
    def blocks() -> Iterator[bytes]:
        with File(path) as file:
            again = replace(image, source=file)
            yield from _joined(segments.pieces(s for c in chunks for s in again.read(c)))

    return Content(name, size_bytes, blocks)


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes in blocks of BLOCK_BYTES."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= BLOCK_BYTES:
            yield bytes(held[:BLOCK_BYTES])
            del held[:BLOCK_BYTES]
    if held:
        yield bytes(held)


def _small(builds: Path, name: str) -> bytes:
    path = _file(builds, name)
    if path.stat().st_size > _SMALL_BYTES_MAX:
        raise InputWrong(f"{path} is larger than 64 MiB")
    return path.read_bytes()


def _file(builds: Path, name: str) -> Path:
    path = builds / name
    if not path.is_file() or not path.resolve().is_relative_to(builds.resolve()):
        raise InputWrong(f"there is no file {path}", hint="--builds DIR names the folder of the builds")
    return path
