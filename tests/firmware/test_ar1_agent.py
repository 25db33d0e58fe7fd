"""The pure code of the AR1's agent on this computer, with sanitizers: slots, vbmeta structures, logical partitions."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quarkctl.formats import avb, gpt, lp
from quarkctl.formats.segments import joined
from tests.firmware.host import HostTool, compile_agent_tool
from tests.formats import samples

ABOUT, TREES, LP, SLOTS = 1, 2, 3, 4
CONFIRM, TRIAL, UNTRIAL, LOOK = 0, 1, 2, 0xFF
EINVAL, ENOENT, EPERM, EIO = -22, -2, -1, -5
#: Bits 48 to 55: what the boot loader makes of a confirmed slot, one without anything, one with its only try ahead.
CONFIRMED, SPARE, ARMED = 0x7F, 0x02, 0x0F
_TREE = struct.Struct("<36s4xQQQQQI64s64sII32s4x")


@pytest.fixture(scope="module")
def agent() -> Iterator[HostTool]:
    tool = HostTool(compile_agent_tool())
    yield tool
    tool.close()


def _call(agent: HostTool, operation: int, body: bytes) -> tuple[int, bytes]:
    answer = agent(operation, body)
    return int.from_bytes(answer[:4], "little", signed=True), answer[4:]


def disk(sector_bytes: int, a: int, b: int) -> bytes:
    """A small disk with both boot partitions in these states."""
    table = samples.table(sector_bytes, 64 if sector_bytes == 4096 else 160)
    first = table.first_usable
    parts = tuple(
        gpt.Partition(p.name, p.type_guid, p.guid, first + n, first + n, (a, b, 0)[n] << 48)
        for n, p in enumerate(table.partitions)
    )
    made = gpt.Table(sector_bytes, table.sectors, table.disk_guid, parts)
    main, backup = gpt.build(made)
    return main + bytes(table.sectors * sector_bytes - len(main) - len(backup)) + backup


def change(
    agent: HostTool, image: bytes, what: int, running: int = 0, sector_bytes: int = 4096, left: int = 1 << 30
) -> tuple[int, tuple[int, int], bytes]:
    """Result, both states as they are read afterwards, and the disk."""
    result, rest = _call(agent, SLOTS, struct.pack("<BBHI", what, running, sector_bytes, left) + image)
    return result, (rest[0], rest[1]), rest[2:]


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize(
    ("before", "what", "running", "result", "after"),
    [
        ((CONFIRMED, SPARE), TRIAL, 0, 0, (0x7A, ARMED)),
        ((CONFIRMED, SPARE), TRIAL, 1, EPERM, (CONFIRMED, SPARE)),
        ((0x7A, 0x07), CONFIRM, 1, 0, (0x7A, CONFIRMED)),
        ((0x7A, ARMED), UNTRIAL, 0, 0, (CONFIRMED, 0x01)),
        ((0x7A, 0x07), UNTRIAL, 1, EPERM, (0x7A, 0x07)),
        ((CONFIRMED, SPARE), CONFIRM, 0, 0, (CONFIRMED, SPARE)),
        ((CONFIRMED, 0x80), CONFIRM, 0, 0, (CONFIRMED, 0x82)),
    ],
)
def test_a_change_of_slots_does_what_the_contract_says(
    agent: HostTool, sector_bytes: int, before: tuple[int, int], what: int, running: int, result: int, after: tuple[int, int]
) -> None:  # fmt: skip
    told, state, made = change(agent, disk(sector_bytes, *before), what, running, sector_bytes)
    assert (told, state) == (result, after)
    # What it wrote is whole for another reader, both copies, and nothing but the attributes has changed.
    for table in (gpt.parse(made, sector_bytes), gpt.parse_backup(made, sector_bytes)):
        assert [p.attributes >> 48 for p in table.partitions] == [*after, 0]
    assert made == disk(sector_bytes, *after)


@pytest.mark.parametrize("damaged", ["", "primary", "backup"])
def test_a_cut_at_every_write_leaves_the_old_or_the_new_state(agent: HostTool, damaged: str) -> None:
    """Also where one copy of the table was damaged before."""
    sector, image = 512, bytearray(disk(512, 0x7A, 0x07))
    if damaged:
        at = sector if damaged == "primary" else len(image) - sector
        image[at + 30] ^= 1
    total, seen = 2 * (32 + 1) * sector, set()
    for cut in sorted({*range(0, total, 1021), 16384, 16896, 33280, total - 1, total}):
        result, state, _ = change(agent, bytes(image), CONFIRM, 1, sector, cut)
        assert state in ((0x7A, 0x07), (0x7A, CONFIRMED)), cut
        assert (result == 0) == (cut >= total)
        seen.add(state)
    result, state, made = change(agent, bytes(image), CONFIRM, 1, sector)
    assert (result, state, made) == (0, (0x7A, CONFIRMED), disk(512, 0x7A, CONFIRMED))
    assert len(seen) == 2


def test_without_a_whole_table_nothing_is_written(agent: HostTool) -> None:
    image = bytearray(disk(4096, CONFIRMED, SPARE))
    image[4100] ^= 1
    image[-4090] ^= 1
    assert change(agent, bytes(image), TRIAL) == (EINVAL, (0xFF, 0xFF), bytes(image))


@given(
    st.lists(st.tuples(st.integers(0, 6 * 512), st.binary(min_size=1, max_size=12)), max_size=5),
    st.sampled_from([512, 4096, 0, 520]), st.integers(0, 255),
)  # fmt: skip
@example([(512 + 80, b"\xff\xff\xff\xff")], 512, TRIAL)
def test_hostile_tables_are_refused(
    agent: HostTool, changes: list[tuple[int, bytes]], sector_bytes: int, what: int
) -> None:
    image = bytearray(disk(512, CONFIRMED, SPARE))
    for at, data in changes:
        image[at : at + len(data)] = data
        image[len(image) - 512 - at % 512 :][: len(data)] = data
    result, _, _ = change(agent, bytes(image[: 160 * 512]), what, 0, sector_bytes)
    assert result <= 0


# --- vbmeta


@cache
def vbmeta(*extra: avb.Descriptor, rollback_index: int = 7) -> bytes:
    return avb.build([*samples.descriptors(), *extra], samples.signing(), release="t", rollback_index=rollback_index)


def test_a_structure_is_named_by_digest_version_and_rollback_index(agent: HostTool) -> None:
    data = vbmeta(avb.Property("quark.version", b"1.20.300"), rollback_index=1 << 40)
    result, out = _call(agent, ABOUT, data + bytes(4096))
    digest, version, rollback_index = struct.unpack("<8sI4xQ", out)
    assert (result, digest) == (0, hashlib.sha256(data).digest()[:8])
    assert (version, rollback_index) == (1 << 24 | 20 << 16 | 300, 1 << 40)
    assert _call(agent, ABOUT, vbmeta())[1][8:12] == bytes(4)


def test_hash_trees_come_out_as_they_went_in(agent: HostTool) -> None:
    result, out = _call(agent, TREES, vbmeta())
    tree = next(d for d in samples.descriptors() if isinstance(d, avb.Hashtree))
    name, size, at, tree_size, fec_at, fec_size, roots, salt, root, salt_size, root_size, algorithm = _TREE.unpack(out)
    assert (result, name.rstrip(b"\0"), size, at, tree_size) == (
        1,
        b"system",
        tree.image_size,
        tree.tree_offset,
        tree.tree_size,
    )
    assert (fec_at, fec_size, roots) == (tree.fec_offset, tree.fec_size, 2)
    assert (salt[:salt_size], root[:root_size]) == (tree.salt, tree.root_digest)
    assert algorithm.rstrip(b"\0") == b"sha256"


@given(st.lists(st.tuples(st.integers(0, 2500), st.binary(min_size=1, max_size=9)), max_size=4), st.integers(0, 3000))
@example([(20, b"\xff" * 8)], 3000)
@example([(104, b"\xff" * 8)], 3000)
def test_hostile_structures_are_refused(agent: HostTool, changes: list[tuple[int, bytes]], size: int) -> None:
    data = bytearray(vbmeta())
    for at, piece in changes:
        data[at : at + len(piece)] = piece
    for operation in (ABOUT, TREES):
        assert _call(agent, operation, bytes(data[:size]))[0] in (0, 1, 2, 3, 4, EINVAL)


# --- logical partitions


@cache
def super_metadata() -> bytes:
    contents = [lp.Content("system_a", "main_a", (bytes(8192),)), lp.Content("system_b", "main_b", ())]
    groups = [lp.Group("main_a", 1 << 20), lp.Group("main_b", 1 << 20)]
    placed = lp.place(contents, groups, 4 << 20, minor=2, flags=0, slot_count=2)
    return joined(lp.build([placed] * 2, contents))[12288:][:65536]


def _find(agent: HostTool, name: str, data: bytes) -> tuple[int, bytes]:
    return _call(agent, LP, name.encode().ljust(36, b"\0") + data)


def test_a_logical_partition_is_found_by_its_extents(agent: HostTool) -> None:
    data = super_metadata()
    result, out = _find(agent, "system_a", data)
    start, sectors = struct.unpack("<QQ", out)
    assert (result, sectors) == (1, 8192 // 512) and start % 8 == 0 and start > 24
    assert _find(agent, "vendor_a", data)[0] == ENOENT
    assert _find(agent, "system_b", data)[0] == EINVAL  # there is nothing of it
    assert _find(agent, "system_a", bytes(20) + data[20:])[0] == EINVAL


@given(st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=6)), max_size=4), st.integers(0, 65536))
def test_hostile_metadata_is_refused(agent: HostTool, changes: list[tuple[int, bytes]], size: int) -> None:
    """With its checksums right again, so that the numbers behind them are looked at."""
    data = bytearray(super_metadata()[:4096])
    for at, piece in changes:
        data[at : at + len(piece)] = piece
    header, tables = (int.from_bytes(data[at : at + 4], "little") for at in (8, 44))
    if 128 <= header <= 4096 and header + tables <= 4096:
        data[48:80] = hashlib.sha256(data[header : header + tables]).digest()
        data[12:44] = hashlib.sha256(bytes(data[:12]) + bytes(32) + bytes(data[44:header])).digest()
    assert _find(agent, "system_a", bytes(data[:size]))[0] in (1, 2, 3, 4, EINVAL, ENOENT)
