"""Files for emergency download as strangers may have made them: read or refused by name, without a device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quarkctl.errors import InputWrong
from quarkctl.flash import edl_sources
from quarkctl.flash.ar1_commands import provision_elements
from tests.ar1 import file, rawprogram


def contents(folder: Path, root: str, name: str) -> Path:
    text = f"""<contents><builds_flat><build><linux_root_path>{root}</linux_root_path><partition_file>
    <file_name>{name}</file_name><file_path>.</file_path></partition_file></build></builds_flat></contents>"""
    return file(folder, "contents.xml", text.encode())


def flashmap(folder: Path, programmer: object, *files: str) -> Path:
    layout = {"programmer": programmer, "programmable": [{"memory": "ufs", "slot": 0, "files": files}]}
    data = {"version": "1.1.0", "products": [{"name": "p", "layouts": [layout]}]}
    return file(folder, "flashmap.json", json.dumps(data).encode())


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Something of this computer, beside the folder of the files that came from elsewhere."""
    (tmp_path / "from" / "below").mkdir(parents=True)
    rawprogram(tmp_path, [{"filename": "secret"}], "secret.xml")
    return file(tmp_path, "secret", b"mine")


OUT = "leads out of .*from"


@pytest.mark.parametrize(
    "make",
    [
        lambda f: rawprogram(f, [{"filename": "../secret"}]),
        lambda f: rawprogram(f, [{"filename": f.parent / "secret"}]),
        lambda f: rawprogram(f, [{"filename": "below/../../secret", "sparse": "true"}]),
        lambda f: rawprogram(f, [{"filename": "link"}]),
        lambda f: contents(f, "./", "../secret.xml"),
        lambda f: contents(f, "../", "secret.xml"),
        lambda f: contents(f, "..\\", "secret.xml"),
        lambda f: flashmap(f, ["../secret"], "secret.xml"),
        lambda f: flashmap(f, {"13": "/etc/passwd"}, "secret.xml"),
        lambda f: flashmap(f, ["prog.elf"], "below/../../secret.xml"),
    ],
)
def test_names_that_lead_out_of_the_folder_of_their_file_are_refused(
    secret: Path, make: Callable[[Path], Path]
) -> None:
    folder = secret.parent / "from"
    (folder / "link").symlink_to(secret)
    with pytest.raises(InputWrong, match=OUT) as caught:
        edl_sources.read([str(make(folder))])
    assert "name the folder too" in caught.value.hint


def test_a_folder_that_is_named_too_may_hold_the_files(secret: Path) -> None:
    folder = secret.parent / "from"
    xml = rawprogram(folder, [{"filename": "../secret", "label": "x"}, {"filename": "secret", "label": "y"}])
    for sources in ([xml, secret.parent], [folder, secret.parent]):
        work = edl_sources.read([str(s) for s in sources])
        assert [w.image.path.name for w in work.writes] == ["secret", "secret"]
        work.close()
    work = edl_sources.read([str(contents(folder, "../", "secret.xml")), str(secret.parent)])
    assert [w.image.path.resolve() for w in work.writes] == [secret]
    work.close()


def test_files_in_folders_below_are_found(secret: Path) -> None:
    folder = secret.parent / "from"
    file(folder / "below", "boot.img", b"x")
    (folder / "alias.img").symlink_to("below/boot.img")
    work = edl_sources.read([str(rawprogram(folder, [{"filename": "below/boot.img"}, {"filename": "alias.img"}]))])
    assert len(work.writes) == 2
    work.close()


PROGRAM = (
    'physical_partition_number="0" start_sector="6" num_partition_sectors="1" SECTOR_SIZE_IN_BYTES="4096" filename="x"'
)


def program(**changed: str) -> bytes:
    attributes = dict(word.split("=", 1) for word in PROGRAMS) | {k: f'"{v}"' for k, v in changed.items()}
    return ("<data><program " + " ".join(f"{k}={v}" for k, v in attributes.items()) + "/></data>").encode()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


PROGRAMS = PROGRAM.split(" ")
BOMB = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><data>&b;</data>'


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (BOMB.encode(), "document type at offset 0x0"),
        (BOMB.encode("utf-16"), "is a zero byte"),
        (BOMB.replace("<!DOC", "<!--x--><!DOC").encode(), "document type at offset 0x8"),
        (b'<?xml version="1.0" encoding="no-such"?><data/>', "unknown encoding"),
        (b"<data>" + b"<p>" * 300_000, "no element found"),
        (program(label="x" * 100_000), "label at offset 0x6 has 100000 characters"),
        (program(filename="x" * 1000), "File name too long"),
        (program(filename="x\x07"), "not well-formed"),
        (program(start_sector="18446744073709551615"), "more than any storage has"),
        (program(start_sector="1" * 900), "is no sector"),
        (program(num_partition_sectors="0xffffffffffffffff"), "more than any storage has"),
        (program(num_partition_sectors="-1"), "is '-1', not a number"),
        (program(file_sector_offset="9223372036854775807"), "it has only 1 bytes"),
        (program(physical_partition_number="256"), "there are at most 255"),
        (program(SECTOR_SIZE_IN_BYTES="0"), "SECTOR_SIZE_IN_BYTES at offset 0x6 is 0"),
        (program(SECTOR_SIZE_IN_BYTES="4097"), "SECTOR_SIZE_IN_BYTES at offset 0x6 is 4097"),
        (program(SECTOR_SIZE_IN_BYTES="4294967296"), "SECTOR_SIZE_IN_BYTES at offset 0x6 is 4294967296"),
        (b'<data><erase start_sector="9"/></data>', "num_partition_sectors at offset 0x6 is missing or 0"),
        (b"<data>" + b"<erase/>" * 20_001 + b"</data>", "one more than the 20000"),
    ],
)
def test_xml_that_is_made_to_harm_is_refused(tmp_path: Path, data: bytes, match: str) -> None:
    file(tmp_path, "x", b"x")
    before = open_files()
    with pytest.raises(InputWrong, match=match) as caught:
        edl_sources.read([str(file(tmp_path, "rawprogram0.xml", data))])
    assert len(caught.value.message) < 1500 and open_files() == before


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"[" * 100_000, "is no flashmap"),
        (
            b'{"version": "1.1.0", "products": [{"layouts": [{"programmer": ["\\u0000"], "programmable": []}]}]}',
            "is no file",
        ),
        (
            b'{"version": "1.1.0", "products": [{"layouts": [{"programmer": ["a", "b"], "programmable": []}]}]}',
            "is no flashmap",
        ),
        (b'{"products": [], "version": "' + b"9" * 100_000 + b'"}', "has version"),
    ],
)
def test_flashmaps_that_are_made_to_harm_are_refused(tmp_path: Path, data: bytes, match: str) -> None:
    with pytest.raises(InputWrong, match=match) as caught:
        edl_sources.read([str(file(tmp_path, "flashmap.json", data))])
    assert len(caught.value.message) < 1500


def test_several_programmers_have_their_ids(tmp_path: Path) -> None:
    rawprogram(tmp_path, [{"filename": "x"}])
    for name in ("x", "a.elf", "b.elf"):
        file(tmp_path, name, name.encode())
    work = edl_sources.read([str(flashmap(tmp_path, ["13:a.elf", "0x22:b.elf"], "rawprogram0.xml"))])
    assert edl_sources.load_programmers(work, "") == {13: b"a.elf", 34: b"b.elf"}
    work.close()


def test_pipes_in_the_place_of_files_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "patch0.xml").symlink_to("pipe")
    rawprogram(tmp_path, [{"filename": "pipe"}])
    for source in ("rawprogram0.xml", "patch0.xml"):
        with pytest.raises(InputWrong, match="no file but a pipe"):
            edl_sources.read([str(tmp_path / source)])


def test_a_provisioning_file_has_no_document_type(tmp_path: Path) -> None:
    for text in (BOMB, "<data/>"):
        with pytest.raises(InputWrong):
            provision_elements(file(tmp_path, "ufs.xml", text.encode()))
