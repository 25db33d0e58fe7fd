"""rawprogram and patch XML over fastboot: by the names of partitions, and nothing silently left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarkctl.cli import main
from quarkctl.errors import InputWrong
from quarkctl.flash import fastboot_session, fastboot_xml
from tests.ar1 import Bench, Maker, file, noise, rawprogram

MIB = 1 << 20
GPT_PATCH = (
    b'<?xml version="1.0" ?><patches><patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="48" filename="DISK" '
    b'physical_partition_number="0" size_in_bytes="8" start_sector="%s" value="NUM_DISK_SECTORS-6." what="x"/></patches>'
)


def super_in_parts(b: Bench) -> Path:
    """The beginning of a partition, its third MiB from the middle of a file, and a partition table."""
    file(b.folder, "gpt_main0.bin", bytes(4096))
    file(b.folder, "one.img", noise(MIB, 1))
    file(b.folder, "two.img", noise(2 * MIB, 2))
    file(b.folder, "boot.img", noise(5000, 3))
    return rawprogram(
        b.folder,
        [
            {"filename": "gpt_main0.bin", "label": "PrimaryGPT", "start_sector": 0, "num_partition_sectors": 6},
            {"filename": "two.img", "label": "super", "start_sector": 3512, "file_sector_offset": 256},
            {"filename": "one.img", "label": "super", "start_sector": 3000},
            {"filename": "boot.img", "label": "boot_b", "start_sector": 262},
            {"filename": "", "label": "userdata", "start_sector": 9000, "num_partition_sectors": 0},
        ],
    )


def test_files_go_to_their_partitions_each_to_its_place_inside(ar1: Maker) -> None:
    b = ar1("fastboot")
    xml, patch = super_in_parts(b), file(b.folder, "patch0.xml", GPT_PATCH % b"1")
    before = b.stored("super", 4 * MIB)
    plan = b.plan(fastboot_session, xml, patch, wire="tcp")
    assert "PrimaryGPT of LUN 0 is left out" in plan.reasons[0] and "1 patches" in plan.reasons[1]
    b.fastboot(xml, patch, wire="tcp", restart=False)
    now = b.stored("super", 4 * MIB)
    assert now[:MIB] == noise(MIB, 1) and now[2 * MIB : 3 * MIB] == noise(2 * MIB, 2)[MIB:]
    assert now[MIB : 2 * MIB] == before[MIB : 2 * MIB] and now[3 * MIB :] == before[3 * MIB :]
    assert b.stored("boot_b", 5000) == noise(5000, 3)


def test_a_part_larger_than_one_download_is_cut_at_its_place(ar1: Maker) -> None:
    b = ar1("fastboot", max_download_bytes=300_000)
    b.fastboot(super_in_parts(b), wire="tcp", restart=False)
    now = b.stored("super", 4 * MIB)
    assert now[:MIB] == noise(MIB, 1) and now[2 * MIB : 3 * MIB] == noise(2 * MIB, 2)[MIB:]


@pytest.mark.parametrize("size", [0, 9000], ids=["nothing else", "what does not fit"])
def test_files_with_tables_are_refused_for_what_else_is_wrong(size: int, tmp_path: Path) -> None:
    """The files of the tables are closed by then."""
    file(tmp_path, "gpt.bin", bytes(4096))
    rows: list[dict[str, object]] = [{"filename": "gpt.bin", "label": "PrimaryGPT", "start_sector": 0}]
    if size:
        file(tmp_path, "boot.img", noise(size))
        rows.append({"filename": "boot.img", "label": "boot_a", "num_partition_sectors": 1})
    with pytest.raises(InputWrong, match="boot_a holds 4096" if size else "nothing that fastboot could write"):
        fastboot_xml.read([str(rawprogram(tmp_path, rows))])


def test_a_device_with_another_partition_table_is_refused(ar1: Maker) -> None:
    b = ar1("fastboot")
    file(b.folder, "boot.img", noise(5000))
    row = {"filename": "boot.img", "label": "boot_b", "start_sector": 262, "num_partition_sectors": 512}
    with pytest.raises(InputWrong, match="boot_b is meant to have 2097152 bytes, the device's has 1048576"):
        b.fastboot(rawprogram(b.folder, [row]), wire="tcp")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("rawprogram0.xml", b'<data><erase physical_partition_number="1"/></data>', "not LUN 1 as a whole"),
        (
            "rawprogram0.xml",
            b'<data><erase start_sector="9" num_partition_sectors="4"/></data>',
            "not 4 sectors of LUN 0",
        ),
        ("patch0.xml", GPT_PATCH % b"9000", "patch of sector 9000 of LUN 0 has no name"),
        ("patch0.xml", GPT_PATCH % b"1", "nothing that fastboot could write"),
    ],
)
def test_what_has_no_name_in_fastboot_is_refused(tmp_path: Path, name: str, text: bytes, match: str) -> None:
    with pytest.raises(InputWrong, match=match):
        fastboot_xml.read([str(file(tmp_path, name, text))])


@pytest.mark.parametrize(
    ("second", "match"),
    [
        ({"start_sector": 3000}, "overlap in super"),
        ({"physical_partition_number": 1, "start_sector": 9000}, "several LUNs"),
        ({"start_sector": "NUM_DISK_SECTORS-900."}, "several LUNs or at no fixed place"),
        ({"start_sector": 3256, "num_partition_sectors": 1}, "part.img has 1048576 bytes, super holds 4096"),
    ],
)
def test_parts_that_cannot_be_placed_are_refused(tmp_path: Path, second: dict[str, object], match: str) -> None:
    file(tmp_path, "part.img", noise(MIB))
    row = {"filename": "part.img", "label": "super", "start_sector": 3000}
    with pytest.raises(InputWrong, match=match):
        fastboot_xml.read([str(rawprogram(tmp_path, [row, {**row, **second}]))])


def test_without_a_method_the_way_is_the_one_that_the_device_is_in(
    ar1: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    b = ar1("fastboot")
    code = main.run(["flash", str(super_in_parts(b)), "-d", f"tcp:127.0.0.1:{b.ar1.tcp_port}", "--dry-run"])
    assert code == 0 and "would flash super+2097152" in capsys.readouterr().out


@pytest.mark.parametrize("events", [["--events"], ["--events", "-"], ["--events=-"]])
def test_events_go_to_standard_output_however_that_is_said(
    ar1: Maker, events: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    b = ar1("fastboot")
    where = f"tcp:127.0.0.1:{b.ar1.tcp_port}"
    source = f"{file(b.folder, 'boot.img', noise(5000))}@boot_b"
    code = main.run(["flash", *events, source, "-d", where, "--no-restart", "--via", "fastboot"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert {json.loads(line)["step"] for line in said.out.splitlines()} >= {"preflight", "flash boot_b"}
