"""`quarkctl inspect` on every image of the application processor."""

from __future__ import annotations

import gzip
import os
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.build import sign
from quarkctl.errors import InputWrong
from quarkctl.formats import avb, gpt, verity
from quarkctl.formats.explain import differences, explain
from tests import bundles
from tests.conftest import ROOT, Quarkctl
from tests.formats.samples import SAMPLES, footed, signing, table

KINDS = {
    "sparse": "Android sparse image", "gpt": "partition table", "gpt backup": "backup partition table",
    "rawprogram": "rawprogram XML", "patch": "patch XML", "vbmeta": "vbmeta structure", "footer": "partition image",
    "boot": "boot image", "vendor_boot": "vendor_boot image", "dtbo": "dtbo image", "super": "super image",
    "ramdisk": "ramdisk (cpio)",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_image_is_recognised(name: str) -> None:
    tree = explain(SAMPLES[name][0]())
    assert tree is not None and tree["kind"] == KINDS[name]


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_images_are_explained_or_refused(data: st.DataObject) -> None:
    raw = bytearray(SAMPLES[data.draw(st.sampled_from(sorted(KINDS)))][0]())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + 8] = data.draw(st.binary(max_size=8))
    with suppress(InputWrong):
        explain(bytes(raw[: data.draw(st.integers(1, len(raw)))]))


def hashtree_image() -> bytes:
    data = bytes(range(256)) * 16 * 300
    made = verity.protect(data, b"salt", 2)
    at = len(data) + len(made.tree.levels) + len(made.fec)
    d = avb.Hashtree("system", len(data), len(data), len(made.tree.levels), made.tree.root, b"salt", fec_roots=2,
                     fec_offset=len(data) + len(made.tree.levels), fec_size=len(made.fec))  # fmt: skip
    meta = avb.build([d], signing(), release="test")
    whole = data + made.tree.levels + made.fec + meta
    return whole.ljust(at + 69632 - 64, b"\0") + avb.build_footer(avb.Footer(len(data), at, len(meta)))


@pytest.mark.parametrize(
    ("at", "told"),
    [(None, "data, tree and codes match"), (5000, "data do not match the root digest"),
     (4096 * 300 + 9000, "the stored hash tree is not that of the data"),
     (4096 * 300 + 4096 * 4 + 5, "the stored codes are not those of the data")],
)  # fmt: skip
def test_what_a_footer_binds_is_checked_byte_by_byte(at: int | None, told: str) -> None:
    raw = bytearray(hashtree_image())
    if at is not None:
        raw[at] ^= 1
    tree = explain(bytes(raw))
    assert tree and tree["verified_boot"]["content_check"] == told
    assert tree["verified_boot"]["signature"] == "verified by the key inside"


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"image_size": 2**64 - 4096}, "AVB hash tree descriptor: image_size at offset 0x134254 is 18446744073709547520"),
     ({"tree_offset": 2**32}, "tree_offset at offset"), ({"tree_size": 2**64 - 1}, "tree_size at offset"),
     ({"fec_offset": 2**64 - 1, "fec_size": 2}, "fec_offset at offset")],
)  # fmt: skip
def test_a_descriptor_that_binds_more_than_there_is_ends_in_six(
    changed: dict[str, int], told: str, quarkctl: Quarkctl
) -> None:
    raw = hashtree_image()
    found = avb.of_partition(raw)
    assert found and isinstance(found[1].descriptors[0], avb.Hashtree)
    meta = avb.build([replace(found[1].descriptors[0], **changed)], signing(), release="test")
    at = found[0].vbmeta_offset
    (quarkctl.folder / "x.img").write_bytes(raw[:at] + meta + raw[at + len(meta) :])
    done = quarkctl("inspect", "x.img")
    assert done.code == 6 and told in done.err and "verified by the key inside" in done.out


def test_a_signature_that_does_not_hold_is_told(tmp_path: Path, quarkctl: Quarkctl) -> None:
    raw = bytearray(SAMPLES["vbmeta"][0]())
    raw[256 + 40] ^= 1
    (tmp_path / "vbmeta.img").write_bytes(raw)
    told = quarkctl("inspect", "vbmeta.img")
    assert told.code == 0 and "its signature does not verify" in told.out
    (tmp_path / "boot.img").write_bytes(footed())
    document = quarkctl("inspect", "boot.img", "--json").json
    assert document["files"][0]["verified_boot"]["content_check"] == "matches the descriptor"


def test_a_key_that_a_profile_knows_has_a_name(tmp_path: Path, quarkctl: Quarkctl) -> None:
    development = ROOT / "firmware/ar1/keys/development.pem"
    key = sign.load(str(development))
    algorithm = avb.ALGORITHMS[2]
    ours = avb.Signing(algorithm, key.public_key, lambda message: key.sign(message, "test", algorithm))
    chain = avb.Chain("vendor", 1, avb.key_blob(key.public_key))
    (tmp_path / "ours.img").write_bytes(avb.build([chain], ours, release="test"))
    (tmp_path / "theirs.img").write_bytes(SAMPLES["vbmeta"][0]())
    found = quarkctl("inspect", "ours.img", "theirs.img", "--json").json["files"]
    assert (
        found[0]["key"] == found[0]["descriptors"][0]["key"] == "development of g1-virtual, development of s1-virtual"
    )
    assert found[1]["key"] == "in no board profile"


def test_a_bundle_is_told_as_bundle_show_tells_it(tmp_path: Path, quarkctl: Quarkctl) -> None:
    bundles.make(tmp_path)
    shown = quarkctl("bundle", "show", "release.qfw", "--json").json
    inspected = quarkctl("inspect", "release.qfw", "--json").json["files"][0]
    assert inspected["kind"] == "release bundle"
    assert {k: v for k, v in shown.items() if k != "schema"}.items() <= inspected.items()
    assert "r-1.1.0" in quarkctl("inspect", "release.qfw").out


def test_a_compressed_ramdisk_is_looked_into(tmp_path: Path, quarkctl: Quarkctl) -> None:
    (tmp_path / "rd").write_bytes(gzip.compress(SAMPLES["ramdisk"][0]()))
    told = quarkctl("inspect", "rd")
    assert "gzip file" in told.out and "dev/console" in told.out


def test_a_difference_is_shown_by_field(tmp_path: Path, quarkctl: Quarkctl) -> None:
    (tmp_path / "a").write_bytes(gpt.build(table())[0])
    (tmp_path / "b").write_bytes(gpt.build(table(sectors=5000))[0])
    document = quarkctl("inspect", "--diff", "a", "b", "--json").json
    assert document["differences"] == [{"field": "disk_sectors", "a": 4096, "b": 5000}]
    assert "disk_sectors" in quarkctl("inspect", "--diff", "a", "b").out
    assert "nothing" in quarkctl("inspect", "--diff", "a", "a").out
    alone = quarkctl("inspect", "--diff", "a")
    assert alone.code == 2 and "compares two files" in alone.err


def test_a_cut_image_ends_in_six_with_field_and_offset(tmp_path: Path, quarkctl: Quarkctl) -> None:
    (tmp_path / "s.img").write_bytes(SAMPLES["sparse"][0]()[:5000])
    told = quarkctl("inspect", "s.img")
    assert told.code == 6 and "s.img: sparse chunk: total_sz at offset" in told.err


def test_partitions_that_overlap_are_shown_and_end_in_six(quarkctl: Quarkctl) -> None:
    main = bytearray(gpt.build(table())[0])
    main[8192 + 40] = 250  # last sector of the first entry
    main[4096 + 88 : 4096 + 92] = zlib.crc32(main[8192:]).to_bytes(4, "little")
    main[4096 + 16 : 4096 + 20] = bytes(4)
    main[4096 + 16 : 4096 + 20] = zlib.crc32(main[4096 : 4096 + 92]).to_bytes(4, "little")
    (quarkctl.folder / "gpt.bin").write_bytes(main)
    done = quarkctl("inspect", "gpt.bin")
    assert done.code == 6 and "boot_b starts at sector 106, boot_a ends at 250" in done.err
    assert "gpt.bin: GPT entry: first_lba at offset 0x20a0 does not hold" in done.err
    assert "boot_a" in done.out


def test_equal_trees_have_no_differences() -> None:
    tree = explain(SAMPLES["super"][0]()) or {}
    assert differences(tree, tree) == [] and differences({"a": [1]}, {"a": [2]}) == [("a[0]", 1, 2)]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path, quarkctl: Quarkctl) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = quarkctl("inspect", tmp_path / "pipe")
    assert done.code == 6 and "it is no file but a pipe" in done.err
