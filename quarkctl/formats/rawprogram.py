"""rawprogram and patch XML: which file goes to which sectors, and what is patched there afterwards.

Source: linux-msm/qdl (``program.c``, ``patch.c``) and qualcomm-linux/qcom-ptool (``ptool.py``). One frozen serializer: the
digest tables of secure boot depend on every byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quarkctl.errors import InputWrong
from quarkctl.formats.gpt import ENTRY, ENTRY_COUNT, HEADER, MBR_SECTORS_AT, Table
from quarkctl.formats.record import Damaged

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


@dataclass(frozen=True)
class _Element:
    """An element with its attributes. What is wrong with one of them is told with the element's offset."""

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

    def flag(self, attribute: str) -> bool:
        return self.word(attribute, "false").lower() == "true"

    def number(self, attribute: str, default: int | None = None) -> int:
        if attribute not in self.attributes and default is not None:
            return default
        text = self.word(attribute)
        if not _NUMBER.fullmatch(text):
            raise self.wrong(attribute, f"is {shown(text)!r}, not a number")
        value = int(text, 0) if text[:2].lower() == "0x" else int(text)
        if value >> 63:
            raise self.wrong(attribute, f"is {text}: more than any storage has")
        return value

    def lun(self, default: int | None = None) -> int:
        lun = self.number("physical_partition_number", default)
        if lun > _LUN_MAX:
            raise self.wrong("physical_partition_number", f"is {lun}, there are at most {_LUN_MAX}")
        return lun

    def sector_bytes(self) -> int:
        size = self.number("SECTOR_SIZE_IN_BYTES")
        if size.bit_count() != 1 or not _SECTOR_MIN <= size <= _SECTOR_MAX:
            raise self.wrong("SECTOR_SIZE_IN_BYTES", f"is {size}", hint="512 on eMMC, 4096 on UFS, a page on NAND")
        return size

    def sector(self, default: str | None = None) -> Sector:
        try:
            return Sector.parse(self.word("start_sector", default))
        except Damaged:
            raise
        except InputWrong as error:
            raise self.wrong("start_sector", f"is wrong: {error.message}", error.hint) from error


def parse_programs(data: bytes) -> list[Program]:
    """Every ``<program>`` of a rawprogram file. Raises Damaged with attribute and offset of the element."""
    return [e for e in parse_entries(data) if isinstance(e, Program)]


def parse_entries(data: bytes) -> list[Program | Erase]:
    """Every ``<program>`` and ``<erase>`` of a rawprogram file, in its order. Raises Damaged as `parse_programs`."""
    return [_program(e) if e.name == "program" else _erase(e) for e in _elements(data, "data", ("program", "erase"))]


def _program(e: _Element) -> Program:
    return Program(
        e.word("filename", ""), e.word("label", ""), e.lun(), e.sector(), e.number("num_partition_sectors"),
        e.sector_bytes(), e.flag("sparse"), e.number("file_sector_offset", 0), e.flag("readbackverify"),
        e.number("PAGES_PER_BLOCK", 0), e.number("last_sector", 0),
    )  # fmt: skip


def _erase(element: _Element) -> Erase:
    # some tools write empty attributes for the whole LUN
    e = replace(element, attributes={k: v for k, v in element.attributes.items() if v})
    found = Erase(
        e.lun(0), e.sector("0"), e.number("num_partition_sectors", 0),
        e.sector_bytes() if "SECTOR_SIZE_IN_BYTES" in e.attributes else 0, e.number("PAGES_PER_BLOCK", 0),
    )  # fmt: skip
    pages = found.pages_per_block
    if pages and (found.sectors % pages or (not found.start.from_end and found.start.number % pages)):
        told = f"is {found.sectors}, and from {found.start} on these are no whole blocks of {pages} pages"
        raise e.wrong("num_partition_sectors", told)
    if not found.sectors and found.start != Sector(0):
        told = f"is missing or 0, and the erase starts at {found.start}"
        raise e.wrong("num_partition_sectors", told, hint="programmers erase the whole LUN then")
    return found


def parse_patches(data: bytes) -> list[Patch]:
    """Every ``<patch>`` of a patch file. Raises Damaged with attribute and offset of the element."""
    return [
        Patch(
            e.sector(), e.number("byte_offset"), e.lun(), e.number("size_in_bytes"), e.word("value"), e.word("what", ""),
            e.sector_bytes(), e.word("filename"),
        )
        for e in _elements(data, "patches", ("patch",))
    ]  # fmt: skip


def parse_xml(data: bytes, what: str) -> Element:
    """The root of a document that a tool exchanges, ``what`` in words. Raises Damaged."""
    from xml.etree import ElementTree

    _check_plain(data, what)
    try:
        return ElementTree.fromstring(data)  # noqa: S314 - without a document type there are no entities to expand
    except ElementTree.ParseError as error:
        raise _broken(data, what, *error.position, str(error)) from error
    except (ValueError, LookupError) as error:  # of an encoding that is none
        raise Damaged(f"{what} XML", "encoding", 0, f"is wrong: {error}") from error


def _check_plain(data: bytes, what: str) -> None:
    """Such files have no document type, so there are no entities. One in UTF-16 would hide it, and has no place here
    either."""
    if len(data) > XML_BYTES_MAX:
        raise Damaged(f"{what} XML", "end", len(data), f"is too far: such a file has at most {XML_BYTES_MAX} bytes")
    if b"\0" in data:
        raise Damaged(f"{what} XML", "text", data.index(0), "is a zero byte: such files are UTF-8")
    plain = data.replace(b"<!--", b"----")
    if b"<!" in plain:
        raise Damaged(f"{what} XML", "document type", plain.index(b"<!"), "stands where such files have none")


def _broken(data: bytes, what: str, line: int, column: int, told: str) -> Damaged:
    lines = data.split(b"\n", line)
    offset = min(sum(len(before) + 1 for before in lines[: line - 1]) + column, len(data))
    return Damaged(
        f"{what} XML", "markup", offset, f"is broken: {told.partition(':')[0]} (line {line}, column {column + 1})"
    )


def _elements(data: bytes, root: str, names: Sequence[str]) -> list[_Element]:
    """Elements of these names, in the order of the file, with their places. Raises Damaged."""
    from xml.parsers import expat

    what = {"data": "rawprogram", "patches": "patch file"}[root]
    _check_plain(data, what)
    out: list[_Element] = []
    counts = dict.fromkeys(names, 0)
    parser = expat.ParserCreate()
    roots: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        if not roots:
            roots.append(name)
            if name != root:
                raise Damaged(f"{what} XML", "root", at, f"is {shown(name)!r}, not {root!r}")
        if name not in counts:
            return
        if len(out) >= _ELEMENTS_MAX:
            raise Damaged(f"{what} XML", name, at, f"is one more than the {_ELEMENTS_MAX} that are possible")
        element = _Element(f"{what}: {name} {counts[name]}", name, at, attributes)
        for key, value in attributes.items():
            if len(value) > _VALUE_MAX:
                raise element.wrong(shown(key), f"has {len(value)} characters, more than {_VALUE_MAX}")
        out.append(element)
        counts[name] += 1

    parser.StartElementHandler = start
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _broken(data, what, error.lineno, error.offset, expat.ErrorString(error.code) or "") from error
    except (ValueError, LookupError) as error:  # of an encoding that is none
        raise Damaged(f"{what} XML", "encoding", 0, f"is wrong: {error}") from error
    return out


def shown(text: str) -> str:
    """Of a file's words as much as a line for people takes."""
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def kind_of(data: bytes) -> str:
    """``data``, ``patches`` or nothing: which of the two files this is."""
    found = re.search(rb"<(data|patches)[\s>/]", data[:4096])
    return found.group(1).decode() if found else ""
