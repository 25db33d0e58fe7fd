"""rawprogram and patch XML: which file goes to which sectors, and what is patched there afterwards.

Source: linux-msm/qdl (``program.c``, ``patch.c``) and qualcomm-linux/qcom-ptool (``ptool.py``). One frozen serializer: the
digest tables of secure boot depend on every byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quarkctl.errors import InputWrong
from quarkctl.formats.gpt import ENTRY, ENTRY_COUNT, HEADER, MBR_SECTORS_AT, Table
from quarkctl.formats.record import Damaged

#: Longer than any such file; bounds what is given to the XML parser.
XML_BYTES_MAX = 16 << 20
_FROM_END = re.compile(r"NUM_DISK_SECTORS-(\d{1,18})\.?")
_NUMBER = re.compile(r"\d{1,20}|0[xX][0-9a-fA-F]{1,16}")


@dataclass(frozen=True, order=True)
class Sector:
    """A sector, counted from the start, or back from the end (``NUM_DISK_SECTORS-n.``)."""

    number: int
    from_end: bool = False

    def __str__(self) -> str:
        return f"NUM_DISK_SECTORS-{self.number}." if self.from_end else str(self.number)

    def start_byte(self, sector_bytes: int) -> str:
        """As the attribute start_byte_hex has it."""
        if self.from_end:
            return f"({sector_bytes}*NUM_DISK_SECTORS)-{self.number * sector_bytes}."
        return f"{self.number * sector_bytes:#x}"

    @staticmethod
    def parse(text: str) -> Sector:
        """With or without the trailing dot. Raises InputWrong."""
        symbolic = _FROM_END.fullmatch(text)
        if symbolic:
            return Sector(int(symbolic.group(1)), from_end=True)
        if _NUMBER.fullmatch(text):
            return Sector(int(text, 0) if text[:2].lower() == "0x" else int(text))
        raise InputWrong(f"{text!r} is no sector", hint="a number, or NUM_DISK_SECTORS-n.")


@dataclass(frozen=True)
class Program:
    """One ``<program>``. An empty file name only tells of the partition; 0 sectors mean up to the end of the disk.

    ``pages_per_block`` and ``last_sector``: of NAND, whose sectors are pages; 0 where the file does not say.
    """

    filename: str
    label: str
    lun: int
    start: Sector
    sectors: int
    sector_bytes: int
    sparse: bool = False
    file_sector_offset: int = 0
    read_back: bool = False
    pages_per_block: int = 0
    last_sector: int = 0


@dataclass(frozen=True)
class Erase:
    """One ``<erase>``. 0 sectors: the whole LUN; ``sector_bytes`` 0: as the device has. ``behind``: so many programs with a
    file stand before it."""

    lun: int
    start: Sector
    sectors: int
    sector_bytes: int = 0
    pages_per_block: int = 0
    behind: int = 0


@dataclass(frozen=True)
class Patch:
    """One ``<patch>``: ``size_bytes`` bytes at ``byte_offset`` of a sector become ``value``, an expression."""

    start: Sector
    byte_offset: int
    lun: int
    size_bytes: int
    value: str
    what: str
    sector_bytes: int
    filename: str = "DISK"


def check(programs: Sequence[Program]) -> None:
    """Raises InputWrong for what tools misread: a sparse file with a symbolic start would land on sector 0."""
    for p in programs:
        if p.sparse and p.start.from_end:
            raise InputWrong(
                f"rawprogram: {p.filename} is sparse and starts at {p.start}",
                hint="give the disk's size, so that the start is a number, or a raw image",
            )


def build_programs(programs: Sequence[Program]) -> bytes:
    """The XML of a list of programs. Raises InputWrong (`check`)."""
    check(programs)
    rows = []
    for p in programs:
        rows.append(
            _element(
                "program",
                SECTOR_SIZE_IN_BYTES=p.sector_bytes, file_sector_offset=p.file_sector_offset, filename=p.filename,
                label=p.label, num_partition_sectors=p.sectors, partofsingleimage="false",
                physical_partition_number=p.lun, readbackverify="true" if p.read_back else "false",
                size_in_KB=f"{p.sectors * p.sector_bytes / 1024:.1f}", sparse="true" if p.sparse else "false",
                start_byte_hex=p.start.start_byte(p.sector_bytes), start_sector=p.start,
            )
        )  # fmt: skip
    return _document("data", rows)


def build_patches(patches: Sequence[Patch]) -> bytes:
    """The XML of a list of patches, which are applied in order."""
    rows = [
        _element(
            "patch",
            SECTOR_SIZE_IN_BYTES=p.sector_bytes, byte_offset=p.byte_offset, filename=p.filename,
            physical_partition_number=p.lun, size_in_bytes=p.size_bytes, start_sector=p.start, value=p.value, what=p.what,
        )
        for p in patches
    ]  # fmt: skip
    return _document("patches", rows)


def grow_patches(table: Table, lun: int, entry: int | None) -> list[Patch]:
    """What makes a table fit a disk of unknown size: entry number ``entry``, if any, grows to its end; the CRCs follow.

    The order matters: every CRC is taken after what it covers.
    """
    size, array = table.sector_bytes, table.array_sectors
    header, backup, array_bytes = Sector(1), Sector(1, from_end=True), ENTRY_COUNT * ENTRY.size
    backup_entries = Sector(array + 1, from_end=True)

    def of(field: str) -> int:
        return HEADER.offset(field)

    usable = f"NUM_DISK_SECTORS-{array + 2}."
    rows: list[tuple[Sector, int, int, str, str]] = [
        (Sector(0), MBR_SECTORS_AT, 4, "NUM_DISK_SECTORS-1.", "sectors that the protective MBR covers"),
    ]
    if entry is not None:
        at, byte = divmod(entry, size // ENTRY.size)
        last_lba = byte * ENTRY.size + ENTRY.offset("last_lba")
        rows += [
            (Sector(2 + at), last_lba, 8, usable, "last sector of the partition that grows"),
            (Sector(array + 1 - at, from_end=True), last_lba, 8, usable, "the same in the backup"),
        ]
    rows += [
        (header, of("last_usable_lba"), 8, usable, "last usable sector"),
        (backup, of("last_usable_lba"), 8, usable, "the same in the backup"),
        (header, of("alternate_lba"), 8, "NUM_DISK_SECTORS-1.", "where the backup header is"),
        (backup, of("my_lba"), 8, "NUM_DISK_SECTORS-1.", "where the backup header is, in itself"),
        (backup, of("entries_lba"), 8, str(backup_entries), "where the backup entries are"),
        (header, of("entries_crc32"), 4, f"CRC32(2,{array_bytes})", "CRC of the entries"),
        (backup, of("entries_crc32"), 4, f"CRC32({backup_entries},{array_bytes})", "CRC of the backup entries"),
        (header, of("header_crc32"), 4, "0", "clear the header's CRC"),
        (header, of("header_crc32"), 4, f"CRC32(1,{HEADER.size})", "CRC of the header"),
        (backup, of("header_crc32"), 4, "0", "clear the backup header's CRC"),
        (backup, of("header_crc32"), 4, f"CRC32({backup},{HEADER.size})", "CRC of the backup header"),
    ]
    return [Patch(where, offset, lun, count, value, what, size) for where, offset, count, value, what in rows]


def _element(name: str, **attributes: object) -> str:
    from html import escape  # xml.sax.saxutils has one too, and imports HTTP and TLS

    return f"  <{name} " + " ".join(f'{k}="{escape(str(v))}"' for k, v in attributes.items()) + " />"


def _document(root: str, rows: list[str]) -> bytes:
    return "\n".join(['<?xml version="1.0" ?>', f"<{root}>", *rows, f"</{root}>", ""]).encode()


@dataclass(frozen=True)
class _Element:
    """An element with its attributes. What is wrong with one of them is told by it and the element's offset."""

    what: str
    name: str
    offset: int
    attributes: Mapping[str, str]

    def wrong(self, attribute: str, told: str, hint: str = "") -> Damaged:
        return Damaged(self.what, attribute, self.offset, told, hint)

    def word(self, attribute: str, default: str | None = None) -> str:
        value = self.attributes.get(attribute, default)
        if value is None:
            raise self.wrong(attribute, "is missing")
        return value

    def number(self, attribute: str, default: int | None = None) -> int:
        if attribute not in self.attributes and default is not None:
            return default
        text = self.word(attribute)
        if not _NUMBER.fullmatch(text):
            raise self.wrong(attribute, f"is {text[:40]!r}, not a number")
        number = int(text, 0) if text[:2].lower() == "0x" else int(text)
        if number >> 64:
            raise self.wrong(attribute, f"is {text}, more than 64 bits hold")
        return number

    def sector(self, attribute: str) -> Sector:
        try:
            return Sector.parse(self.word(attribute))
        except Damaged:
            raise
        except InputWrong as error:
            raise self.wrong(attribute, f"is {error.message}", error.hint) from error


def parse_programs(data: bytes) -> list[Program]:
    """Every ``<program>`` of a rawprogram file. Raises Damaged with attribute and offset of the element."""
    return [
        Program(
            e.word("filename", ""), e.word("label", ""), e.number("physical_partition_number"), e.sector("start_sector"),
            e.number("num_partition_sectors"), e.number("SECTOR_SIZE_IN_BYTES"), e.word("sparse", "false").lower() == "true",
            e.number("file_sector_offset", 0), e.word("readbackverify", "false").lower() == "true",
            e.number("PAGES_PER_BLOCK", 0), e.number("last_sector", 0),
        )
        for e in _elements(data, "data", ("program",))
    ]  # fmt: skip


def parse_erases(data: bytes) -> list[Erase]:
    """Every ``<erase>`` of a rawprogram file. Raises Damaged with attribute and offset of the element."""
    out: list[Erase] = []
    behind = 0
    for found in _elements(data, "data", ("program", "erase")):
        if found.name == "program":
            behind += bool(found.attributes.get("filename"))
            continue
        # some tools write empty attributes for the whole LUN
        e = replace(found, attributes={"start_sector": "0", **{k: v for k, v in found.attributes.items() if v}})
        made = Erase(
            e.number("physical_partition_number", 0), e.sector("start_sector"), e.number("num_partition_sectors", 0),
            e.number("SECTOR_SIZE_IN_BYTES", 0), e.number("PAGES_PER_BLOCK", 0), behind,
        )  # fmt: skip
        pages = made.pages_per_block
        if pages and (made.sectors % pages or (not made.start.from_end and made.start.number % pages)):
            raise e.wrong(
                "num_partition_sectors", f"is {made.sectors} from {made.start} on: no whole blocks of {pages} pages"
            )
        out.append(made)
    return out


def parse_patches(data: bytes) -> list[Patch]:
    """Every ``<patch>`` of a patch file. Raises Damaged with attribute and offset of the element."""
    return [
        Patch(
            e.sector("start_sector"), e.number("byte_offset"), e.number("physical_partition_number"),
            e.number("size_in_bytes"), e.word("value"), e.word("what", ""), e.number("SECTOR_SIZE_IN_BYTES"),
            e.word("filename"),
        )
        for e in _elements(data, "patches", ("patch",))
    ]  # fmt: skip


def _elements(data: bytes, root: str, names: Sequence[str]) -> list[_Element]:
    """Elements of these names, in the order of the file. Raises Damaged."""
    from xml.parsers import expat

    what = {"data": "rawprogram", "patches": "patch file"}[root]
    if len(data) > XML_BYTES_MAX:
        raise Damaged(what, "end", len(data), f"is too far: such a file has at most {XML_BYTES_MAX} bytes")
    out: list[_Element] = []
    counts = dict.fromkeys(names, 0)
    parser = expat.ParserCreate()
    roots: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if not roots:
            roots.append(name)
            if name != root:
                raise Damaged("XML", "root", parser.CurrentByteIndex, f"is {name!r}, not {root!r}")
        if name in counts:
            out.append(_Element(f"{what}: {name} {counts[name]}", name, parser.CurrentByteIndex, attributes))
            counts[name] += 1

    def document_type(*_: object) -> None:
        raise Damaged(what, "document type", parser.CurrentByteIndex, "declares what such files do not have")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = document_type  # without it there are no entities to expand
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        told = f"is broken: {expat.ErrorString(error.code)} (line {error.lineno}, column {error.offset + 1})"
        raise Damaged(what, "markup", max(parser.ErrorByteIndex, 0), told) from error
    return out


def kind_of(data: bytes) -> str:
    """``data``, ``patches`` or nothing: which of the two files this is."""
    found = re.search(rb"<(data|patches)[\s>/]", data[:4096])
    return found.group(1).decode() if found else ""
