"""Partition tables and the XML that programs images into them, for every LUN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quarkctl.build.ar1.spec import Lun, Spec
from quarkctl.errors import InputWrong
from quarkctl.formats import gpt, rawprogram
from quarkctl.formats.rawprogram import Patch, Program, Sector

#: Partitions start at multiples of this, as the erase units of flash like it.
_ALIGNMENT_BYTES = 1 << 20


@dataclass(frozen=True)
class Written:
    """An image as it is written: its files (more than one for a sparse image in pieces), size of the content on the device,
    and whether the files are sparse."""

    files: tuple[str, ...]
    size_bytes: int
    sparse: bool


def tables(spec: Spec) -> dict[int, gpt.Table]:
    """The table of every LUN. Raises InputWrong naming what does not fit."""
    out = {}
    for n, lun in enumerate(spec.luns):
        with spec.placed("storage", "lun", n):
            out[lun.number] = _table(lun, spec)
    return out


def _table(lun: Lun, spec: Spec) -> gpt.Table:
    sector = spec.sector_bytes
    step = max(_ALIGNMENT_BYTES // sector, 1)
    first = 2 + gpt.ENTRY_COUNT * gpt.ENTRY.size // sector
    at = -(-first // step) * step
    # Of a LUN whose size is not known the table is made as small as it can be; patches let it grow.
    fixed = sum(-(-p.size_bytes // sector // step) * step for p in lun.partitions)
    sectors = lun.size_bytes // sector if lun.size_bytes else at + fixed + step + first
    shape = gpt.Table(sector, sectors, lun.guid, ())
    parts = []
    for p in lun.partitions:
        if p.size_bytes:
            last = at + p.size_bytes // sector - 1
        else:
            last = shape.last_usable
            if last < at:
                raise InputWrong(
                    f"gpt-overlap: LUN {lun.number}: nothing is left for {p.name}: it would start at {at}, usable are "
                    f"{shape.first_usable} to {last}",
                    hint="make the LUN larger or a partition smaller",
                )
        parts.append(gpt.Partition(p.name, p.type_guid, p.guid, at, last, p.attributes))
        at = -(-(last + 1) // step) * step
    table = gpt.Table(sector, sectors, lun.guid, tuple(parts))
    try:
        gpt.check(table)
    except InputWrong as error:
        raise InputWrong(f"gpt-overlap: LUN {lun.number}: {error.message}", error.hint) from error
    return table


def check_slots(lun: Lun) -> None:
    """The linter's gpt-ab-type: a boot loader swaps types when it changes slots. Raises InputWrong."""
    kinds = {p.name: p.type_guid for p in lun.partitions}
    for name, kind in kinds.items():
        if name.endswith("_a") and kinds.get(name[:-2] + "_b") == kind:
            raise InputWrong(
                f"gpt-ab-type: LUN {lun.number}: {name} and {name[:-2]}_b both have the type {kind}",
                hint="leave out type_a and type_b, or make them differ",
            )


def outputs(spec: Spec, luns: Mapping[int, gpt.Table], images: Mapping[str, Written]) -> dict[str, bytes]:
    """{file name: content} of tables, rawprogram and patch files. Raises InputWrong for an image too large."""
    out: dict[str, bytes] = {}
    for order, lun in enumerate(spec.luns):
        table, n = luns[lun.number], lun.number
        main, backup = gpt.build(table)
        array = table.array_sectors
        out[f"gpt_main{n}.bin"], out[f"gpt_backup{n}.bin"] = main, backup
        end = Sector(array + 1, from_end=True) if not lun.size_bytes else Sector(table.sectors - array - 1)
        programs = [Program(f"gpt_main{n}.bin", "PrimaryGPT", n, Sector(0), array + 2, table.sector_bytes)]
        for p in lun.partitions:
            place = table.partition(p.name)
            written = images.get(p.image) if p.image else None
            if written:
                with spec.placed("storage", "lun", order):
                    _check_fit(p.name, written, place.sectors * table.sector_bytes)
            sectors = 0 if not p.size_bytes and not lun.size_bytes else place.sectors
            programs += [
                Program(
                    name,
                    p.name,
                    n,
                    Sector(place.first_lba),
                    sectors,
                    table.sector_bytes,
                    bool(written and written.sparse),
                )
                for name in (written.files if written else ("",))
            ]
        programs.append(Program(f"gpt_backup{n}.bin", "BackupGPT", n, end, array + 1, table.sector_bytes))
        out[f"rawprogram{n}.xml"] = rawprogram.build_programs(programs)
        out[f"patch{n}.xml"] = rawprogram.build_patches(_patches(lun, table))
    return out


def _patches(lun: Lun, table: gpt.Table) -> list[Patch]:
    """None for a LUN whose size is known: its table is final."""
    if lun.size_bytes:
        return []
    grows = bool(lun.partitions) and not lun.partitions[-1].size_bytes
    return rawprogram.grow_patches(table, lun.number, len(lun.partitions) - 1 if grows else None)


def _check_fit(name: str, image: Written, room: int) -> None:
    if image.size_bytes > room:
        raise InputWrong(
            f"xml-fit: {image.files[0]} has {image.size_bytes} bytes, {name} has {room}; tools would cut it off silently",
            hint=f'size = "{-(-image.size_bytes // (1 << 20))} MiB" for {name}, or a smaller image',
        )
