"""Partition tables and the XML that programs them."""

from __future__ import annotations

import re
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import gpt, rawprogram
from quarkctl.formats.rawprogram import Sector
from quarkctl.formats.record import Damaged
from tests.formats.samples import SPACE, programs, table


def disk(t: gpt.Table) -> bytes:
    main, backup = gpt.build(t)
    return main + bytes(t.sectors * t.sector_bytes - len(main) - len(backup)) + backup


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_table_is_read_back_from_both_ends(sector_bytes: int) -> None:
    t = table(sector_bytes, 9000)
    data = disk(t)
    assert gpt.parse(data) == t == gpt.parse_backup(data)
    main, backup = gpt.build(t)
    assert gpt.parse(main) == t == gpt.parse_backup(backup)
    assert (len(main) // sector_bytes, len(backup) // sector_bytes) == ((34, 33) if sector_bytes == 512 else (6, 5))


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_fdisk_reads_what_we_write(sector_bytes: int, tmp_path: Path) -> None:
    t = table(sector_bytes, 9000)
    (tmp_path / "disk").write_bytes(disk(t))
    done = subprocess.run(
        ["fdisk", "-b", str(sector_bytes), "-l", "-o", "start,end,name,type-uuid", tmp_path / "disk"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "corrupt" not in done.stderr + done.stdout and str(t.disk_guid).upper() in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [[str(p.first_lba), str(p.last_lba), p.name, str(p.type_guid).upper()] for p in t.partitions]


@given(values=st.fixed_dictionaries({k: st.integers(0, (1 << w) - 1) for k, (_, w) in gpt.ATTRIBUTES.items()}))
def test_attributes_are_packed_and_named(values: dict[str, int]) -> None:
    assert gpt.attribute_values(gpt.attributes(**values)) == {k: v for k, v in values.items() if v}


def test_bits_of_an_active_slot_are_those_of_the_partition_tool() -> None:
    assert gpt.attributes(priority=3, active=1, retry_count=7, successful=1) == 0x7F << 48


def changed(**how: object) -> gpt.Table:
    t = table()
    first = replace(t.partitions[0], **how)  # type: ignore[arg-type]
    return replace(t, partitions=(first, *t.partitions[1:]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (changed(last_lba=110), "boot_b starts at sector 106, boot_a ends at 110"),
        (changed(first_lba=5), "usable are 6 to 4090"),
        (changed(last_lba=4091), "usable are 6 to 4090"),
        (changed(name="boot_b"), "boot_b and boot_b both have boot_b"),
        (changed(guid=uuid5(SPACE, "part boot_b")), "boot_b and boot_a both have"),
        (changed(name="x" * 37), "1 to 36"),
        (replace(table(), sector_bytes=2048), "sectors of 2048 bytes"),
    ],
)
def test_a_table_that_does_not_hold_is_not_written(wrong: gpt.Table, told: str) -> None:
    with pytest.raises(InputWrong, match=told):
        gpt.build(wrong)


@pytest.mark.parametrize(
    ("at", "field"), [(4096 + 20, "header_crc32"), (8192 + 3, "entries_crc32"), (4096, "signature")]
)
def test_a_flipped_bit_is_told_by_field(at: int, field: str) -> None:
    raw = bytearray(gpt.build(table())[0])
    raw[at] ^= 1
    with pytest.raises(Damaged) as error:
        gpt.parse(bytes(raw), 4096)
    assert error.value.field == field


def test_overlaps_in_a_foreign_table_are_told_and_read_past() -> None:
    main = bytearray(gpt.build(table())[0])
    main[8192 + 40] = 250  # last sector of the first entry
    main[4096 + 88 : 4096 + 92] = zlib.crc32(main[8192:]).to_bytes(4, "little")
    main[4096 + 16 : 4096 + 20] = bytes(4)
    main[4096 + 16 : 4096 + 20] = zlib.crc32(main[4096 : 4096 + 92]).to_bytes(4, "little")
    told = "GPT entry: first_lba at offset 0x20a0 does not hold: boot_b starts at sector 106, boot_a ends at 250"
    assert told in gpt.parse(bytes(main)).problems


def test_programs_are_read_back() -> None:
    assert rawprogram.parse_programs(rawprogram.build_programs(programs())) == programs()


def test_the_start_of_the_backup_ends_in_a_dot_and_is_read_with_or_without() -> None:
    xml = rawprogram.build_programs(programs()).decode()
    assert 'start_sector="NUM_DISK_SECTORS-5."' in xml
    assert 'start_byte_hex="(4096*NUM_DISK_SECTORS)-20480."' in xml
    assert Sector.parse("NUM_DISK_SECTORS-5") == Sector.parse("NUM_DISK_SECTORS-5.") == Sector(5, from_end=True)


def test_a_sparse_file_never_starts_at_a_symbol() -> None:
    with pytest.raises(InputWrong, match="is sparse and starts at NUM_DISK_SECTORS-5"):
        rawprogram.build_programs([replace(programs()[2], sparse=True)])


@pytest.mark.parametrize(
    "xml",
    [b"<data><program/></data>", b'<!DOCTYPE x [<!ENTITY a "b">]><data/>', b"<nodata/>", b"<data",
     b'<data><program start_sector="1+1" num_partition_sectors="1" physical_partition_number="0" '
     b'SECTOR_SIZE_IN_BYTES="512"/></data>'],
)  # fmt: skip
def test_xml_that_makes_no_sense_is_refused(xml: bytes) -> None:
    with pytest.raises(InputWrong):
        rawprogram.parse_programs(xml)


@pytest.mark.parametrize("grows", [True, False], ids=["the last grows", "none grows"])
@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_patches_give_the_table_that_would_have_been_built_for_the_size(sector_bytes: int, grows: bool) -> None:
    """Played by a device of our own: written from the rules of the patch file, not from the code that makes it."""
    small, real = table(sector_bytes, 2000), 5000
    main, backup = gpt.build(small)
    device = bytearray(real * sector_bytes)
    device[: len(main)] = main
    device[len(device) - len(backup) :] = backup

    def number(text: str) -> int:
        symbolic = re.fullmatch(r"NUM_DISK_SECTORS-(\d+)\.", text)
        return real - int(symbolic.group(1)) if symbolic else int(text)

    for p in rawprogram.parse_patches(
        rawprogram.build_patches(rawprogram.grow_patches(small, 0, 2 if grows else None))
    ):
        crc = re.fullmatch(r"CRC32\((.+),(\d+)\)", p.value)
        if crc:
            at = number(crc.group(1)) * sector_bytes
            value = zlib.crc32(device[at : at + int(crc.group(2))])
        else:
            value = number(p.value)
        at = number(str(p.start)) * sector_bytes + p.byte_offset
        device[at : at + p.size_bytes] = value.to_bytes(p.size_bytes, "little")
    last = small.partitions[2]
    if grows:
        last = replace(last, last_lba=replace(small, sectors=real).last_usable)
    grown = replace(small, sectors=real, partitions=(*small.partitions[:2], last))
    assert gpt.parse(bytes(device)) == grown == gpt.parse_backup(bytes(device))
    assert device == disk(grown)
