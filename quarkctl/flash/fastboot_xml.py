"""rawprogram and patch XML as fastboot can write them: by the names of partitions, each image at its place inside.

What has no name in fastboot (partition tables, patches, sectors of a whole LUN) cannot be written. Tables and their patches
are left out where the device's own partitions hold what the files put into them, which the plan checks and says; everything
else is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.flash import edl_sources, split
from quarkctl.flash.edl_sources import Work, Write
from quarkctl.flash.fastboot_plan import Item
from quarkctl.formats import gpt

#: Labels under which tools write partition tables.
_TABLES = frozenset({"primarygpt", "backupgpt", "gpt", "gpt_both", "mbr", "ebr"})
_HINT = "write it in emergency download: --via edl"


def accepts(sources: Sequence[str]) -> bool:
    """XML files or a flashmap, alone or with images."""
    return any(Path(s).suffix in (".xml", ".json") for s in sources)


def read(sources: Sequence[str]) -> tuple[list[Item], list[str]]:
    """What to write, and what is left out in words. Raises InputWrong for what fastboot cannot do, by name."""
    work = edl_sources.read(sources)
    try:
        return _items(work)
    except InputWrong:
        work.close()
        raise


def _items(work: Work) -> tuple[list[Item], list[str]]:
    for e in work.erases:
        what = f"{e.sectors} sectors of LUN {e.lun} from {e.start} on" if e.sectors else f"LUN {e.lun} as a whole"
        raise InputWrong(f"fastboot erases partitions by name, not {what}", hint=_HINT)
    tables = [w for w in work.writes if w.label.lower() in _TABLES]
    left_out = [f"{w.label} of LUN {w.lun} is left out: fastboot writes no partition tables" for w in tables]
    for patch in work.patches:
        if not (patch.start.from_end or _in_table(patch.start.number, patch.sector_bytes)):
            raise InputWrong(
                f"the patch of sector {patch.start} of LUN {patch.lun} has no name in fastboot", hint=_HINT
            )
    if work.patches:
        left_out.append(f"{len(work.patches)} patches of partition tables are left out")
    named: dict[str, list[Write]] = {}
    for write in work.writes:
        if write.label.lower() not in _TABLES:
            named.setdefault(write.label, []).append(write)
    for write in tables:
        write.image.close()
    if not named:
        raise InputWrong("the files hold nothing that fastboot could write", hint=_HINT)
    return [item for label, writes in named.items() for item in _placed(label, writes)], [*work.dropped, *left_out]


def _in_table(sector: int, sector_bytes: int) -> bool:
    """Protective MBR, header, and 128 entries."""
    return sector < 2 + -(-gpt.ENTRY_COUNT * gpt.ENTRY.size // sector_bytes)


def _placed(label: str, writes: Sequence[Write]) -> list[Item]:
    """Writes under one label are parts of one partition: the first one begins where it begins."""
    first = min(writes, key=lambda w: w.start)
    items: list[Item] = []
    for write in sorted(writes, key=lambda w: w.start):
        if len(writes) > 1 and (write.lun != first.lun or write.start.from_end or not write.sector_bytes):
            raise InputWrong(f"{label} stands on several LUNs or at no fixed place: fastboot knows it once", hint=_HINT)
        offset = (write.start.number - first.start.number) * write.sector_bytes if len(writes) > 1 else 0
        if offset % write.image.block_bytes:
            raise InputWrong(
                f"{write.image.path.name} begins at byte {offset} of {label}: fastboot writes whole blocks of "
                f"{write.image.block_bytes} bytes", hint=_HINT,
            )  # fmt: skip
        if write.sectors and write.image.size_bytes > write.sectors * write.sector_bytes:
            raise InputWrong(
                f"{write.image.path.name} has {write.image.size_bytes} bytes, {label} holds "
                f"{write.sectors * write.sector_bytes}"
            )
        items.append(Item(label, write.image, offset, offset + write.sectors * write.sector_bytes))
    split.check_apart(label, [(i.offset_bytes, i.image) for i in items])
    return items
