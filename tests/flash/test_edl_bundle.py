"""``flash --via edl release.qfw``: the AR1's part of a bundle in emergency download."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarkctl.build import bundle, sign
from quarkctl.errors import InputWrong
from quarkctl.flash import edl, edl_bundle, vip
from quarkctl.formats import rawprogram, segments, sparse
from quarkctl.formats.bundle import CHUNK_BYTES
from quarkctl.formats.rawprogram import Program, Sector
from quarkctl.formats.sparse import Chunk, Kind, Sparse
from quarkctl.formats.vip import SIGNED_NAME, TO_SIGN_NAME
from tests import ar1, bundles
from tests.ar1 import noise

SECTOR = 4096


@pytest.fixture
def release(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """A bundle with boot (raw) and system (sparse, with a hole), and what both are when they are expanded."""
    boot, data = noise(CHUNK_BYTES - 3 * SECTOR), noise(40 * SECTOR, 2)
    chunks = (Chunk(Kind.RAW, 0, 8, 0), Chunk(Kind.DONT_CARE, 8, 4), Chunk(Kind.RAW, 12, 32, 8 * SECTOR))
    (tmp_path / "boot.img").write_bytes(boot)
    (tmp_path / "system.img").write_bytes(segments.joined(sparse.build(Sparse(data, SECTOR, 44, chunks))))
    (tmp_path / "prog.elf").write_bytes(ar1.boot_rom.programmer(20_000))
    programs = [
        Program("boot.img", "boot_b", 0, Sector(262), 256, SECTOR),
        Program("system.img", "system_a", 0, Sector(518), 1024, SECTOR, sparse=True),
    ]
    (tmp_path / "rawprogram0.xml").write_bytes(rawprogram.build_programs(programs))
    (tmp_path / "rtos.bin").write_bytes(bundles.rtos_image())
    recipe = tmp_path / "release.toml"
    recipe.write_text(
        'product = "s1-virtual"\nversion = "1"\n[rtos]\nimage = "rtos.bin"\n[ar1]\nversion = "1.0.1"\n'
        'rawprogram = ["rawprogram0.xml"]\nprogrammer = "prog.elf"\nmemory = "ufs"\n'
    )
    request = bundle.Request(recipe, tmp_path, tmp_path / "r.qfw", [sign.load(bundles.DEVELOPMENT)])
    return bundle.build(request).path, boot, data


Release = tuple[Path, bytes, bytes]


@pytest.fixture
def bench(tmp_path: Path) -> ar1.Bench:
    return ar1.make(tmp_path / "device", "edl")


def test_what_a_flashmap_names_is_written_where_it_says(release: Release, bench: ar1.Bench) -> None:
    path, boot, data = release
    done = bench.flash(edl, path)
    assert done.facts["verified"] == dict.fromkeys(("boot_b", "system_a@0:518", "system_a@0:530"), "verified by digest")
    assert bench.stored("boot_b", len(boot)) == boot
    assert bench.stored("system_a", 8 * SECTOR) == data[: 8 * SECTOR]
    assert any("does not tell what it has now" in reason for reason in done.plan.reasons)
    assert bench.stored("system_a", 44 * SECTOR)[12 * SECTOR :] == data[8 * SECTOR :]


def test_a_bundle_that_changes_while_it_is_sent_is_noticed_before_the_changed_chunk(
    release: Release, bench: ar1.Bench
) -> None:
    path, boot, _ = release
    work = edl_bundle.read(path)
    image = next(w.image for w in work.writes if w.label == "boot_b")
    at = path.read_bytes().index(boot[:64])
    with path.open("r+b") as file:
        file.seek(at + 5000)
        file.write(b"\0\1\2\3")
    with pytest.raises(InputWrong, match=r"boot.img: bytes 0 to .* are not what was signed"):
        next(image.pieces(0, image.size_bytes, [memoryview(bytearray(CHUNK_BYTES))]))
    work.close()


def test_a_bundle_that_is_not_for_the_board_or_not_whole_is_refused(release: Release, tmp_path: Path) -> None:
    path, _, _ = release
    data = path.read_bytes()
    path.write_bytes(data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:])
    with pytest.raises(InputWrong, match="not what was signed"):
        edl_bundle.read(path)
    only_rtos = bundles.make(tmp_path / "rtos", "1.1.0").path
    with pytest.raises(InputWrong, match="nothing for emergency download"):
        edl_bundle.read(only_rtos)
    unsigned = bundles.make(tmp_path / "unsigned", "1.1.0", keys=()).path
    with pytest.raises(InputWrong, match="not signed"):
        edl_bundle.read(unsigned)


def test_a_device_that_takes_only_listed_packets_is_written_with_the_tables_in_the_bundle(
    release: Release, tmp_path: Path
) -> None:
    path, boot, _ = release
    work = edl_bundle.read(path)
    made = vip.tables(work, "ufs")
    work.close()
    (tmp_path / "vip").mkdir()
    for name, data in made.files().items():  # the virtual device does not look at the signature around the first one
        (tmp_path / "vip" / name.replace(TO_SIGN_NAME, SIGNED_NAME)).write_bytes(data)
    recipe = tmp_path / "release.toml"
    recipe.write_text(recipe.read_text() + 'vip = "vip"\n')
    bundle.build(bundle.Request(recipe, tmp_path, path, [sign.load(bundles.DEVELOPMENT)]))
    bench = ar1.make(tmp_path / "locked", "edl", quirks=["vip"])
    bench.flash(edl, path, vip_tables="bundle")
    assert bench.stored("boot_b", len(boot)) == boot


def test_a_bundle_without_tables_says_so(release: Release, bench: ar1.Bench) -> None:
    with pytest.raises(InputWrong, match=r"the bundle: DigestsToSign.bin.mbn is missing"):
        bench.flash(edl, release[0], vip_tables="bundle")
