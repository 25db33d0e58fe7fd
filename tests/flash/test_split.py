"""Sparse images in several files, as `build ar1` writes them: flashed as one image, or refused, never in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarkctl import files
from quarkctl.errors import InputWrong
from quarkctl.flash import edl, fastboot_session, methods
from quarkctl.formats import sparse
from tests.ar1 import Bench, Maker, file, noise, rawprogram

DATA = noise(400_000 - 400_000 % 4096) + bytes(300 * 4096) + noise(100 * 4096, 2)


def parts(folder: Path, name: str = "userdata.img") -> list[Path]:
    pieces = sparse.split(sparse.scan(DATA), 256 << 10)
    made = [folder / f"{name}.{n}" for n in range(len(pieces))]
    for path, piece in zip(made, pieces, strict=True):
        files.write(path, sparse.build(piece))
    assert len(made) == 4
    return made


def written(b: Bench) -> bool:
    return b.stored("userdata", len(DATA)) == DATA


@pytest.mark.parametrize("erase_first", [False, True])
def test_a_folder_with_parts_of_an_image_is_flashed_by_fastboot(ar1: Maker, tmp_path: Path, erase_first: bool) -> None:
    b = ar1("fastboot")
    folder = tmp_path / "images"
    folder.mkdir()
    parts(folder)
    file(folder, "boot.img", noise(5000))
    assert methods.select([str(folder)], present=lambda: []).name == "fastboot"
    plan = b.plan(fastboot_session, folder, wire="tcp")
    flashes = ["flash boot_b", *(f"flash userdata {n}/4" for n in range(1, 5))]
    assert (
        list(plan.step_names) == [*flashes, "restart"] and plan.size_bytes == 5000 + len(DATA) - 300 * 4096 + 300 * 4096
    )
    b.fastboot(folder, wire="tcp", restart=False, erase_first=erase_first)
    assert written(b)
    before = b.ar1.storage.written_bytes
    b.fastboot(folder, wire="tcp", restart=False)
    assert b.ar1.storage.written_bytes == before, "what is there is skipped, part by part"


def test_parts_go_to_their_partition_in_emergency_download(ar1: Maker) -> None:
    b = ar1("edl")
    paths = parts(b.folder)
    result = b.edl(*paths, restart=False)
    assert written(b) and len(result.facts["verified"]) == 4  # type: ignore[arg-type]
    b.ar1.storage.erase(0, 0, 64 << 20)
    row = {"label": "userdata", "sparse": "true", "start_sector": 9000, "num_partition_sectors": 1024}
    xml = rawprogram(b.folder, [{**row, "filename": p.name} for p in paths])
    result = b.edl(xml, restart=False)
    assert b.ar1.storage.read(0, 9000 * 4096, len(DATA)) == DATA
    assert [s.name for s in result.plan.steps] == [f"program userdata@0:9000 {n}/4" for n in range(1, 5)]


def test_xml_that_names_parts_is_flashed_by_fastboot(ar1: Maker) -> None:
    b = ar1("fastboot")
    row = {"label": "userdata", "sparse": "true", "start_sector": 9000, "num_partition_sectors": 1024}
    xml = rawprogram(b.folder, [{**row, "filename": p.name} for p in parts(b.folder)])
    b.fastboot(xml, wire="tcp", restart=False)
    assert written(b)


@pytest.mark.parametrize("method", [edl, fastboot_session])
def test_parts_without_the_others_are_refused(tmp_path: Path, method: object) -> None:
    paths = parts(tmp_path)
    with pytest.raises(InputWrong, match=r"userdata\.img\.0, userdata\.img\.3 are missing"):
        method.prepare([str(paths[1]), str(paths[2])])  # type: ignore[attr-defined]
    paths[2].unlink()
    with pytest.raises(InputWrong, match=r"userdata\.img\.2 is missing"):
        method.prepare([str(p) for p in paths if p.exists()])  # type: ignore[attr-defined]
    if method is fastboot_session:
        with pytest.raises(InputWrong, match=r"userdata\.img\.2 is missing"):
            fastboot_session.prepare([str(tmp_path)])


def test_an_image_beside_its_parts_is_refused(ar1: Maker) -> None:
    b = ar1("fastboot")
    folder = b.folder / "images"
    folder.mkdir()
    parts(folder)
    file(folder, "userdata.img", DATA)
    with pytest.raises(InputWrong, match=r"overlap in userdata: both write byte 0"):
        b.fastboot(folder, wire="tcp")
