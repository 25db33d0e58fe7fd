"""rawprogram and patch XML: which file goes to which sectors, and what is patched there afterwards.

Source: linux-msm/qdl (``program.c``, ``patch.c``) and qualcomm-linux/qcom-ptool (``ptool.py``). One frozen serializer: the
digest tables of secure boot depend on every byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quarkctl.errors import InputWrong
from quarkctl.formats.gpt import ENTRY, ENTRY_COUNT, HEADER, MBR_SECTORS_AT, Table

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

#: Longer than any such file; bounds what is given to the XML parser.
XML_BYTES_MAX = 16 << 20
#: Longer than any name or expression in them. What goes to a programmer must fit one document.
_VALUE_MAX = 1024
_ELEMENTS_MAX = 20_000
_SHOWN_MAX = 80
_LUN_MAX = 255
_SECTOR_MIN, _SECTOR_MAX = 256, 1 << 16
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
            number = int(text, 0) if text[:2].lower() == "0x" else int(text)
            if number >> 63:
                raise InputWrong(f"sector {text} is more than any storage has")
            return Sector(number)
        raise InputWrong(f"{shown(text)!r} is no sector", hint="a number, or NUM_DISK_SECTORS-n.")


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
    """One ``<erase>``. 0 sectors: the whole LUN; ``sector_bytes`` 0: as the device has."""

    lun: int
    start: Sector
    sectors: int
    sector_bytes: int = 0
    pages_per_block: int = 0


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


def parse_programs(data: bytes) -> list[Program]:
    """Every ``<program>`` of a rawprogram file. Raises InputWrong."""
    return [e for e in parse_entries(data) if isinstance(e, Program)]


def parse_entries(data: bytes) -> list[Program | Erase]:
    """Every ``<program>`` and ``<erase>`` of a rawprogram file, in its order. Raises InputWrong."""
    out: list[Program | Erase] = []
    counts = {"program": 0, "erase": 0}
    for name, attributes in _named(data, "data", tuple(counts)):
        read = _program if name == "program" else _erase
        out.append(read(attributes, f"rawprogram: {name} {counts[name]}"))
        counts[name] += 1
    return out


def _program(a: dict[str, str], where: str) -> Program:
    return Program(
        _word(a, "filename", where, ""), _word(a, "label", where, ""), _lun(a, where), _sector(a, "start_sector", where),
        _number(a, "num_partition_sectors", where), _sector_bytes(a, where),
        _word(a, "sparse", where, "false").lower() == "true", _number(a, "file_sector_offset", where, 0),
        _word(a, "readbackverify", where, "false").lower() == "true", _number(a, "PAGES_PER_BLOCK", where, 0),
        _number(a, "last_sector", where, 0),
    )  # fmt: skip


def _erase(attributes: dict[str, str], where: str) -> Erase:
    a = {k: v for k, v in attributes.items() if v}  # some tools write empty ones for the whole LUN
    found = Erase(
        _lun({"physical_partition_number": "0", **a}, where), _sector({"start_sector": "0", **a}, "start_sector", where),
        _number(a, "num_partition_sectors", where, 0), _sector_bytes(a, where) if "SECTOR_SIZE_IN_BYTES" in a else 0,
        _number(a, "PAGES_PER_BLOCK", where, 0),
    )  # fmt: skip
    pages = found.pages_per_block
    if pages and (found.sectors % pages or (not found.start.from_end and found.start.number % pages)):
        raise InputWrong(f"{where}: {found.sectors} sectors from {found.start} on are no whole blocks of {pages} pages")
    if not found.sectors and found.start != Sector(0):
        raise InputWrong(
            f"{where} starts at {found.start} and does not say how many sectors",
            hint="programmers erase the whole LUN then",
        )
    return found


def parse_patches(data: bytes) -> list[Patch]:
    """Every ``<patch>`` of a patch file. Raises InputWrong."""
    out = []
    for n, (_, a) in enumerate(_named(data, "patches", ("patch",))):
        where = f"patch file: patch {n}"
        out.append(
            Patch(
                _sector(a, "start_sector", where), _number(a, "byte_offset", where), _lun(a, where),
                _number(a, "size_in_bytes", where), _word(a, "value", where), _word(a, "what", where, ""),
                _sector_bytes(a, where), _word(a, "filename", where),
            )
        )  # fmt: skip
    return out


def parse_xml(data: bytes, what: str) -> Element:
    """The root of a document that a tool exchanges, ``what`` in words. Raises InputWrong.

    Such files have no document type, so there are no entities. One in UTF-16 would hide it, and has no place here either.
    """
    from xml.etree import ElementTree

    if len(data) > XML_BYTES_MAX:
        raise InputWrong(f"{what} XML has {len(data)} bytes, more than {XML_BYTES_MAX}")
    if b"\0" in data:
        raise InputWrong(f"{what} XML has a zero byte at offset {data.index(0)}: such files are UTF-8")
    plain = data.replace(b"<!--", b"----")
    if b"<!" in plain:
        raise InputWrong(f"{what} XML has a document type at offset {plain.index(b'<!')}: such files have none")
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - without a document type there are no entities to expand
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: of an encoding that is none
        raise InputWrong(f"{what} XML: {error}") from error


def _named(data: bytes, root: str, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Elements of these names with their attributes, in the order of the file. Raises InputWrong."""
    tree = parse_xml(data, root)
    if tree.tag != root:
        raise InputWrong(f"XML with the root {shown(tree.tag)!r}, not {root!r}")
    found = [(e.tag, dict(e.attrib)) for e in tree.iter() if e.tag in names]
    if len(found) > _ELEMENTS_MAX:
        raise InputWrong(f"{root} XML has {len(found)} elements, more than {_ELEMENTS_MAX}")
    for number, (name, attributes) in enumerate(found):
        for key, value in attributes.items():
            if len(value) > _VALUE_MAX:
                raise InputWrong(f"{name} {number}: {shown(key)} has {len(value)} characters, more than {_VALUE_MAX}")
    return found


def shown(text: str) -> str:
    """Of a file's words as much as a line for people takes."""
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def kind_of(data: bytes) -> str:
    """``data``, ``patches`` or nothing: which of the two files this is."""
    found = re.search(rb"<(data|patches)[\s>/]", data[:4096])
    return found.group(1).decode() if found else ""


def _word(attributes: dict[str, str], name: str, where: str, default: str | None = None) -> str:
    value = attributes.get(name, default)
    if value is None:
        raise InputWrong(f"{where} has no {name}")
    return value


def _number(attributes: dict[str, str], name: str, where: str, default: int | None = None) -> int:
    if name not in attributes and default is not None:
        return default
    text = _word(attributes, name, where)
    if not _NUMBER.fullmatch(text):
        raise InputWrong(f"{where}: {name} is {shown(text)!r}, not a number")
    value = int(text, 0) if text[:2].lower() == "0x" else int(text)
    if value >> 63:
        raise InputWrong(f"{where}: {name} is {text}: more than any storage has")
    return value


def _lun(attributes: dict[str, str], where: str) -> int:
    name = "physical_partition_number"
    lun = _number(attributes, name, where)
    if lun > _LUN_MAX:
        raise InputWrong(f"{where}: {name} is {lun}, there are at most {_LUN_MAX}")
    return lun


def _sector_bytes(attributes: dict[str, str], where: str) -> int:
    name = "SECTOR_SIZE_IN_BYTES"
    size = _number(attributes, name, where)
    if size.bit_count() != 1 or not _SECTOR_MIN <= size <= _SECTOR_MAX:
        raise InputWrong(f"{where}: {name} is {size}", hint="512 on eMMC, 4096 on UFS, a page on NAND")
    return size


def _sector(attributes: dict[str, str], name: str, where: str) -> Sector:
    try:
        return Sector.parse(_word(attributes, name, where))
    except InputWrong as error:
        raise InputWrong(f"{where}: {name}: {error.message}", error.hint) from error
