"""Damaged and hostile image files end in an error that names field and offset, never in anything else."""

from __future__ import annotations

import hashlib
import re
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats.explain import explain
from quarkctl.formats.record import Damaged
from tests.formats.samples import SAMPLES

#: What hostile lengths look like.
EDGES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4096, 2**32, 2**32 + 1,
         2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 512, 2**64 - 1]  # fmt: skip


@cache
def sample(name: str) -> bytes:
    return SAMPLES[name][0]()


def read(name: str, data: bytes) -> bool:
    """Whether the data was accepted; whatever is wrong with it is told with field and offset."""
    try:
        SAMPLES[name][1](data)
        tree = explain(data)
    except InputWrong as error:
        assert re.search(r": \w[\w ]* at offset 0x[0-9a-f]+ ", error.message), error.message
        return False
    for problem in problems(tree):
        assert re.search(r": \w[\w ]* at offset 0x[0-9a-f]+ ", problem), problem
    return True


def problems(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from tree.get("problems") or ()
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from problems(inner)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_whole(name: str) -> None:
    assert SAMPLES[name][1](sample(name))


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=150)
@given(data=st.data())
def test_any_overwritten_number_is_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = bytearray(sample(name))
    for _ in range(data.draw(st.integers(1, 3))):
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        head = min(len(raw), 8192) if data.draw(st.booleans()) else len(raw)
        at = data.draw(st.integers(0, max(head - width, 0)))
        value = data.draw(st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)) % (1 << 8 * width)
        raw[at : at + width] = value.to_bytes(width, data.draw(st.sampled_from(["little", "big"])))
    read(name, bytes(raw))


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = sample(name)
    read(name, whole[: data.draw(st.integers(0, len(whole) - 1))])
    read(name, whole[data.draw(st.integers(1, len(whole))) :])


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60)
@given(noise=st.binary(max_size=300))
def test_noise_behind_the_right_beginning_is_read_or_refused(name: str, noise: bytes) -> None:
    read(name, sample(name)[:8] + noise)
    read(name, noise)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("ramdisk", "patch", "rawprogram")])
def test_no_header_makes_a_reader_take_more_memory_than_the_file_has(name: str) -> None:
    whole = sample(name)
    limit = 64 * len(whole) + (2 << 20)
    for at in range(0, min(len(whole), 256), 4):
        raw = bytearray(whole)
        raw[at : at + 4] = b"\xff\xff\xff\x7f"
        tracemalloc.start()
        read(name, bytes(raw))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit, f"{peak} bytes after 0x7fffffff at {at}"


def _sealed_gpt(raw: bytearray, at: int, entries_at: int) -> None:
    count, size = struct.unpack_from("<II", raw, at + 80)
    if 0 <= entries_at <= entries_at + count * size <= len(raw):
        struct.pack_into("<I", raw, at + 88, zlib.crc32(raw[entries_at : entries_at + count * size]))
    header_bytes = min(struct.unpack_from("<I", raw, at + 12)[0], 4096)
    struct.pack_into("<I", raw, at + 16, 0)
    struct.pack_into("<I", raw, at + 16, zlib.crc32(raw[at : at + header_bytes]))


def _sealed_main(raw: bytearray) -> None:
    _sealed_gpt(raw, 4096, struct.unpack_from("<Q", raw, 4096 + 72)[0] * 4096)


def _sealed_backup(raw: bytearray) -> None:
    at = len(raw) - 4096
    my_lba, entries_lba = (struct.unpack_from("<Q", raw, at + offset)[0] for offset in (24, 72))
    _sealed_gpt(raw, at, at - (my_lba - entries_lba) * 4096)


def _sealed_super(raw: bytearray) -> None:
    for at in (4096, 8192):
        raw[at + 8 : at + 40] = bytes(32)
        raw[at + 8 : at + 40] = hashlib.sha256(raw[at : at + 52]).digest()
    for at in range(12288, 12288 + 4 * 4096, 4096):  # both slots, and their backups
        header, tables = struct.unpack_from("<I", raw, at + 8)[0], struct.unpack_from("<I", raw, at + 44)[0]
        raw[at + 48 : at + 80] = hashlib.sha256(raw[at + header : at + header + tables]).digest()
        raw[at + 12 : at + 44] = bytes(32)
        raw[at + 12 : at + 44] = hashlib.sha256(raw[at : at + header]).digest()


#: {sample: (where its numbers are, what makes its checksums right again)}
SEALED = {
    "gpt": ([*range(4096, 4188, 4), *range(8192, 8192 + 384, 4)], _sealed_main),
    "gpt backup": ([*range(-4096, -4004, 4), *range(0, 384, 4)], _sealed_backup),
    "super": ([*range(4096, 4148, 4), *range(12288, 12288 + 256 + 640, 4)], _sealed_super),
}


@pytest.mark.parametrize("name", SEALED)
@settings(max_examples=300)
@given(data=st.data())
def test_a_hostile_number_with_right_checksums_is_read_or_refused_with_its_place(
    name: str, data: st.DataObject
) -> None:
    raw = bytearray(sample(name))
    places, seal = SEALED[name]
    for _ in range(data.draw(st.integers(1, 2))):
        width = data.draw(st.sampled_from([4, 8]))
        at = data.draw(st.sampled_from(places)) % len(raw)
        raw[at : at + width] = (data.draw(st.sampled_from(EDGES)) % (1 << 8 * width)).to_bytes(width, "little")
    raw = raw[: len(sample(name))]
    seal(raw)
    try:
        SAMPLES[name][1](bytes(raw))
        explain(bytes(raw))
    except Damaged as error:
        assert error.field and 0 <= error.offset <= len(raw)


def _sparse_head(block_bytes: int, blocks: int) -> bytes:
    return struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, block_bytes, blocks, 1, 0) + struct.pack(
        "<2H2I", 0xCAC3, 0, blocks, 12
    )


@pytest.mark.parametrize(
    ("data", "field", "offset"),
    [
        (_sparse_head(2**32 - 4, 2**32 - 1), "blk_sz", 12),
        (_sparse_head(4096, 2**32 - 1), "", 0),
        (bytes(1080) + b"\x53\xef" + bytes(100), "", 0),
        (bytes(1024) + struct.pack("<II4II", 16, 9, 0, 0, 0, 0, 2) + bytes(28) + b"\x53\xef" + bytes(100),
         "s_blocks_count_lo", 1028),
        (bytes(1024) + struct.pack("<II4II", 16, 1, 0, 0, 0, 0, 99) + bytes(28) + b"\x53\xef" + bytes(100),
         "s_log_block_size", 1048),
        (bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(8) + b"\xff" + bytes(200), "blkszbits", 1036),
        (bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(8) + b"\x0c" + bytes(23) + b"\xff\xff\xff\xff" + bytes(90),
         "blocks", 1060),
    ],
)  # fmt: skip
def test_a_file_that_claims_more_than_it_has_is_told_with_the_field(data: bytes, field: str, offset: int) -> None:
    if not field:
        assert explain(data)
        return
    with pytest.raises(Damaged) as error:
        explain(data)
    assert (error.value.field, error.value.offset) == (field, offset)


def test_overlapping_extents_are_told_with_the_place_of_the_extent() -> None:
    raw = bytearray(sample("super"))
    for slot in range(4):
        extents = 12288 + 4096 * slot + 256 + 3 * 52
        raw[extents + 24 + 12 : extents + 24 + 20] = raw[extents + 12 : extents + 20]  # the second where the first is
    _sealed_super(raw)
    with pytest.raises(Damaged, match=r"_a starts at sector 2048, .*_a ends at") as error:
        SAMPLES["super"][1](bytes(raw))
    assert error.value.field == "target_data"
    assert error.value.offset in {12288 + 2 * 4096 + 256 + 3 * 52 + n * 24 + 12 for n in (0, 1)}


def test_a_super_image_that_is_cut_off_is_told_with_the_extent() -> None:
    with pytest.raises(Damaged, match=r"LP extent: target_data .*vendor_a ends at byte .*, the file has"):
        SAMPLES["super"][1](sample("super")[: (2 << 20) + 100])
