"""boot, vendor_boot, dtbo, super and ramdisk: built, read back, read by strangers, refused."""

from __future__ import annotations

import hashlib
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import bootimg, cpio, dtbo, lp
from quarkctl.formats.record import Damaged
from quarkctl.formats.segments import joined
from tests.formats import second_reader
from tests.formats.samples import boot, dtbo_image, ramdisk, super_contents, super_image, super_metadata, vendor_boot


def unpack(data: bytes, folder: Path) -> tuple[str, Path]:
    (folder / "image").write_bytes(data)
    out = folder / "out"
    done = subprocess.run(
        ["unpack_bootimg", "--boot_img", folder / "image", "--out", out], capture_output=True, text=True, check=True
    )
    return done.stdout, out


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("kernel", [b"k" * 4096, b"k" * 5000, b""], ids=["one page", "two pages", "init_boot"])
def test_unpack_bootimg_reads_a_boot_image(version: int, kernel: bytes, tmp_path: Path) -> None:
    data = joined(bootimg.build_boot(bootimg.Boot(version, kernel, b"r" * 777, "console=x y", "13.0.1", "2026-11")))
    told, out = unpack(data, tmp_path)
    assert (out / "ramdisk").read_bytes() == b"r" * 777
    assert (out / "kernel").read_bytes() == kernel
    assert re.search(r"os version: 13\.0\.1", told) and "2026-11" in told and "console=x y" in told
    parsed = bootimg.parse_boot(data)
    assert (joined([parsed.kernel]), joined([parsed.ramdisk])) == (kernel, b"r" * 777)
    assert (parsed.os_version, parsed.os_patch_level, parsed.cmdline) == ("13.0.1", "2026-11", "console=x y")


@pytest.mark.parametrize("page", [4096, 16384])  # with 2048 the tool takes the header, of two pages, for one
def test_unpack_bootimg_reads_a_vendor_boot_image(page: int, tmp_path: Path) -> None:
    v = bootimg.VendorBoot(
        3, (bootimg.Fragment("", "none", b"r" * 5000),), b"d" * 3000, "a=b c", product="s1", page_bytes=page
    )
    told, out = unpack(joined(bootimg.build_vendor(v)), tmp_path)
    assert (out / "vendor_ramdisk").read_bytes() == b"r" * 5000 and (out / "dtb").read_bytes() == b"d" * 3000
    assert "a=b c" in told and re.search(r"product name: s1", told)


def test_unpack_bootimg_finds_the_parts_of_a_vendor_boot_4_that_it_knows(tmp_path: Path) -> None:
    """Its version 29 reads ramdisks as one, and the device tree; table and bootconfig it passes over."""
    v = bootimg.parse_vendor(vendor_boot())
    told, out = unpack(vendor_boot(), tmp_path)
    assert "vendor boot image header version: 4" in told and f"product name: {v.product}" in told
    assert (out / "vendor_ramdisk").read_bytes() == b"".join(joined([f.data]) for f in v.fragments)
    assert (out / "dtb").read_bytes() == joined([v.dtb])


def test_fragments_and_bootconfig_are_read_back() -> None:
    v = bootimg.parse_vendor(vendor_boot())
    assert [(f.name, f.type, joined([f.data])) for f in v.fragments] == [
        ("", "platform", b"one" * 500), ("modules", "dlkm", b"two" * 700)
    ]  # fmt: skip
    assert v.bootconfig == b"androidboot.x=1\n" and v.fragments[1].board_id[0] == 7 and v.product == "s1"


def test_vendor_boot_4_has_its_golden_digest() -> None:
    """No packaged tool reads the table and the boot configuration: offsets checked by hand against bootimg.h."""
    data = vendor_boot()
    assert data[2096:2100] == (2128).to_bytes(4, "little")
    assert hashlib.sha256(data).hexdigest() == GOLDEN_VENDOR_BOOT


GOLDEN_VENDOR_BOOT = "ad0d540807d2ee4eb5a2f8ee184345723aa46a9906aa5742706cd474c08f28d4"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fragments": (bootimg.Fragment("a", "dlkm", b"1"), bootimg.Fragment("a", "dlkm", b"2"))}, "is taken"),
        ({"fragments": (bootimg.Fragment("default", "dlkm", b"1"),)}, "is reserved"),
        ({"header_version": 3, "bootconfig": b"x"}, "no bootconfig"),
        ({"page_bytes": 5000}, "pages of 5000"),
        ({"cmdline": "x" * 2048}, "2048 bytes, there is room for 2047"),
        ({"header_version": 5}, "version 5"),
    ],
)
def test_a_vendor_boot_that_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    v = bootimg.VendorBoot(4, (bootimg.Fragment("", "platform", b"x"),), b"dtb")
    with pytest.raises(InputWrong, match=told):
        bootimg.build_vendor(replace(v, **change))  # type: ignore[arg-type]


def test_a_part_behind_the_end_is_named() -> None:
    raw = bytearray(boot())
    raw[8:12] = b"\xff\xff\xff\xff"
    with pytest.raises(Damaged, match="it ends behind the file") as error:
        bootimg.parse_boot(bytes(raw))
    assert (error.value.field, error.value.offset) == ("kernel_size", 8)


def test_dtc_reads_every_blob_of_a_dtbo(tmp_path: Path) -> None:
    blobs = []
    for n in range(2):
        source = f'/dts-v1/; / {{ model = "board {n}"; }};'
        done = subprocess.run(
            ["dtc", "-q", "-I", "dts", "-O", "dtb"], input=source.encode(), capture_output=True, check=True
        )
        blobs.append(done.stdout)
    data = joined(dtbo.build([dtbo.Entry(b, n, n) for n, b in enumerate(blobs)]))
    for n, entry in enumerate(dtbo.parse(data)):
        done = subprocess.run(["dtc", "-q", "-I", "dtb"], input=joined([entry.data]), capture_output=True, check=True)
        assert f"board {n}".encode() in done.stdout


def test_a_dtbo_with_overlapping_or_doubled_trees_is_refused() -> None:
    raw = bytearray(dtbo_image())
    raw[32 + 32 + 4 : 32 + 32 + 8] = (32 + 64 + 4).to_bytes(4, "big")
    raw[32 + 32 : 32 + 32 + 4] = (8).to_bytes(4, "big")
    with pytest.raises(Damaged, match="inside another blob"):
        dtbo.parse(bytes(raw))
    with pytest.raises(InputWrong, match="two device trees have id 0x1"):
        dtbo.build([dtbo.Entry(b"a", 1), dtbo.Entry(b"b", 1)])


# --- super


@pytest.mark.parametrize("minor", [0, 1, 2])
def test_a_second_reader_finds_the_same_in_both_copies(minor: int) -> None:
    m = super_metadata(minor)
    data = joined(lp.build([m, m], super_contents()))
    assert len(data) == 4 << 20
    for slot in (0, 1):
        for backup in (False, True):
            found = second_reader.super_image(data, slot, backup=backup)
            assert found["partitions"] == {
                "system_a": ("main_a", 1, (b"s" * 5000).ljust(8192, b"\0")), "vendor_a": ("main_a", 1, b"v" * 4096),
                "system_b": ("main_b", 1, b""),
            }  # fmt: skip
            assert found["groups"] == [("default", 0), ("main_a", 1 << 20), ("main_b", 1 << 20)]
            assert found["devices"] == [("super", 2048, 1 << 20, 4 << 20)]
            assert (found["minor"], found["flags"]) == (minor, 1 if minor == 2 else 0)
        assert lp.parse(data, slot) == m
    assert joined(m.read(data, m.partitions[1])) == b"v" * 4096


def test_a_super_image_has_its_golden_digest() -> None:
    assert hashlib.sha256(super_image()).hexdigest() == GOLDEN_SUPER


GOLDEN_SUPER = "d4a710e8e6e79e8ff25e5613527fdad48902f64b52c12c66aea4ccd7e0dc9f93"


@pytest.mark.parametrize(
    ("at", "told"), [(4096 + 50, "first geometry"), (12288 + 90, "primary metadata"), (12288 + 300, "primary")]
)
def test_a_broken_first_copy_is_told_and_the_second_is_used(at: int, told: str) -> None:
    raw = bytearray(super_image())
    raw[at] ^= 1
    m = lp.parse(bytes(raw))
    assert m == replace(super_metadata(), problems=m.problems) and told in m.problems[0]


def test_metadata_broken_in_all_copies_is_refused() -> None:
    raw = bytearray(super_image())
    raw[12288 + 90] ^= 1
    raw[12288 + 2 * 4096 + 90] ^= 1
    with pytest.raises(Damaged, match="header_checksum"):
        lp.parse(bytes(raw))


def edited(**how: object) -> lp.Metadata:
    return replace(super_metadata(), **how)  # type: ignore[arg-type]


def moved(start: int) -> lp.Metadata:
    m = super_metadata()
    first, second, *rest = m.partitions
    return replace(m, partitions=(first, replace(second, extents=(replace(second.extents[0], start=start),)), *rest))


@pytest.mark.parametrize(
    ("m", "told"),
    [
        (
            edited(groups=(lp.Group("default"), lp.Group("main_a", 8192), lp.Group("main_b"))),
            "holds 12288 bytes .* is 8192",
        ),
        (moved(2049), "vendor_a starts at sector 2049, system_a ends at 2064"),
        (moved(4), "has room from 1048576 to 4194304"),
        (moved(8191), "has room from"),
        (edited(minor=1), "flags 0x1 need version 10.2"),
        (edited(metadata_bytes_max=512), "metadata_max_size is 512"),
        (edited(slot_count=9), "9 slots"),
    ],
)
def test_a_super_that_does_not_fit_says_size_and_limit(m: lp.Metadata, told: str) -> None:
    with pytest.raises(InputWrong, match=told):
        lp.build_metadata(m)


# --- ramdisk

NAMES = st.text("abcdef/", min_size=1, max_size=9).map(lambda s: re.sub("/+", "/", s).strip("/")).filter(bool)


@given(files=st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_a_ramdisk_is_read_back_whatever_the_order(files: dict[str, bytes]) -> None:
    entries = [cpio.Entry(n, 0o100644, d, 1, 2) for n, d in files.items()]
    built = cpio.build(entries)
    assert built == cpio.build(reversed(entries))
    assert list(cpio.parse(built)) == sorted(entries, key=lambda e: e.name)
    assert list(cpio.parse(built + bytes(4096) + built)) == 2 * sorted(entries, key=lambda e: e.name)


def test_cpio_lists_our_ramdisk(tmp_path: Path) -> None:
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=ramdisk(), capture_output=True, check=True, cwd=tmp_path)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(r[0], r[-1]) for r in rows] == [
        ("lrwxrwxrwx", "usr/bin"), ("drwxr-xr-x", "dev"), ("crw-------", "dev/console"), ("-rwxr-xr-x", "init")
    ]  # fmt: skip
    assert stat.S_ISCHR(next(e for e in cpio.parse(ramdisk()) if e.name == "dev/console").mode)


@pytest.mark.parametrize("name", ["", "/abs", "a/../b", "twice"])
def test_names_that_leave_the_ramdisk_are_refused(name: str) -> None:
    with pytest.raises(InputWrong, match="ramdisk: the name"):
        cpio.build([cpio.Entry("twice", 0o100644), cpio.Entry(name, 0o100644)])
