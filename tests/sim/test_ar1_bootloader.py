"""Which slot the virtual AR1's boot loader starts, what it refuses, and what hostile storage does to it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quarkctl.sim.ar1 import android_boot, verified_boot
from quarkctl.sim.ar1.bootloader import Bootloader, NoStart, Start
from quarkctl.sim.ar1.partitions import Disk, Slot, Table
from quarkctl.sim.ar1.storage import PowerLost
from tests.ar1_slots import ARMED, CONFIRMED, LUN_BYTES, SPARE, TRIES, Board, images

Maker = Callable[..., Board]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Maker]:
    made: list[Board] = []

    def make(sector_bytes: int = 4096, *, locked: bool = True) -> Board:
        made.append(Board(tmp_path / str(len(made)), sector_bytes, locked=locked))
        return made[-1]

    yield make
    for b in made:
        b.storage.close()


def started(boot: Bootloader, reason: str = "software") -> Start:
    chosen = boot.choose(reason)
    assert isinstance(chosen, Start), chosen
    return chosen


# --- slots


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_confirmed_slot_starts_and_pays_nothing(board: Maker, sector_bytes: int) -> None:
    b = board(sector_bytes)
    b.put("a", images("1.0.0"))
    b.slots(a=CONFIRMED)
    start = started(b.boot, "brownout")
    assert (start.slot, start.color, start.warnings) == ("a", "green", ())
    assert start.images.ramdisk == b"modules init 1.0.0" and b"1.0.0" in start.images.kernel
    words = dict(w.partition("=")[::2] for w in start.cmdline.split())
    assert words["androidboot.slot_suffix"] == "_a" and words["androidboot.bootreason"] == "brownout"
    assert words["androidboot.vbmeta.device_state"] == "locked" and words["androidboot.serialno"] == "T-1"
    assert words["androidboot.hardware"] == "virtual" and words["console"] == "ttyAMA0" and "quiet" in words
    assert words["androidboot.vbmeta.digest"] == verified_boot.parse(images("1.0.0")["vbmeta"]).digest.hex()
    assert b.slot("a") == CONFIRMED


def test_a_trial_falls_back_at_the_first_restart(board: Maker) -> None:
    b = board()
    b.put("a", images("1.0.0"))
    b.put("b", images("2.0.0"))
    b.slots(a=CONFIRMED, b=SPARE)
    Disk(b.storage).activate("b", 1)
    assert b.slot("b") == ARMED
    assert started(b.boot).slot == "b" and b.slot("b").retry_count == 0
    start = started(b.boot)
    assert start.slot == "a" and "androidboot.quark.given_up=not_confirmed" in start.cmdline
    assert b.slot("b").unbootable and b.slot("a").active
    assert "never confirmed" in b.remembered.reasons["b"]


@pytest.mark.parametrize("locked", [True, False])
def test_a_bad_image_falls_back_after_its_tries(board: Maker, locked: bool) -> None:
    b = board(locked=locked)
    b.put("a", images("1.0.0"))
    b.put("b", images("2.0.0"))
    b.damage("boot_b", 4096 + 56, 4)  # no arm64 kernel any more
    b.slots(a=CONFIRMED)
    Disk(b.storage).activate("b")
    assert started(b.boot).slot == "a"
    assert sum("slot b is refused" in line for line in b.said) == TRIES
    assert b.slot("b").unbootable and "boot_b" in b.remembered.reasons["b"]


def test_a_confirmed_slot_that_rots_gets_its_tries_and_then_the_other_one_starts(board: Maker) -> None:
    b = board()
    for slot in "ab":
        b.put(slot, images())
    b.slots(a=CONFIRMED, b=Slot(successful=True, priority=2))
    b.damage("vendor_boot_a")
    assert started(b.boot).slot == "b" and not b.slot("a").successful and b.slot("a").unbootable


def test_without_a_bootable_slot_it_stays_and_says_why(board: Maker) -> None:
    b = board()
    chosen = b.boot.choose("power_on")
    assert isinstance(chosen, NoStart) and "slot a: vbmeta_a: there is no vbmeta structure" in chosen.reason
    assert b.slot("a").unbootable and b.slot("b").unbootable
    again = b.boot.choose("power_on")
    assert isinstance(again, NoStart) and "no slot can be started" in again.reason


def test_a_downloaded_image_is_started_once_and_no_slot_is_blamed_for_it(board: Maker) -> None:
    b = board(locked=False)
    b.put("a", images("1.0.0"))
    b.slots(a=CONFIRMED)
    start = b.boot.choose("software", images("2.0.0")["boot"])
    assert isinstance(start, Start) and start.slot == "a" and b"2.0.0" in start.images.kernel
    assert any("boot_a" in w for w in start.warnings) and start.images.ramdisk == b"modules init 1.0.0"
    nothing = b.boot.choose("software", b"ANDROID!" + bytes(100))
    assert isinstance(nothing, NoStart) and "the downloaded image cannot be started" in nothing.reason
    assert b.slot("a") == CONFIRMED and b"1.0.0" in started(b.boot).images.kernel


def test_untrial_takes_an_armed_slot_back(board: Maker) -> None:
    b = board()
    b.put("a", images())
    b.slots(a=CONFIRMED)
    Disk(b.storage).activate("b", 1)
    Disk(b.storage).settle("a")
    assert b.slot("a") == CONFIRMED and not b.slot("b").bootable
    assert started(b.boot).slot == "a"


def test_a_table_that_knows_nothing_of_slots_starts_slot_a(board: Maker) -> None:
    b = board()
    b.put("a", images())
    table = Table.load(b.storage, 0)
    assert table
    for slot in "ab":
        table.set_attributes(f"boot_{slot}", 0)
    table.store()
    assert started(b.boot).slot == "a" and b.slot("a").retry_count == TRIES - 1


def test_misc_tells_where_to_go_once(board: Maker) -> None:
    b = board()
    place = Disk(b.storage).partitions["misc"]
    b.storage.write(place.lun, place.offset, b"bootonce-edl".ljust(32, b"\0"))
    assert (b.boot.asked_mode(), b.boot.asked_mode()) == ("edl", "")
    b.storage.write(place.lun, place.offset, b"boot-somewhere".ljust(32, b"\0"))
    assert b.boot.asked_mode() == ""


# --- verified boot


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unsigned": ({"signed": False}, "vbmeta_a: it is not signed"),
    "another key": ({"key": "other"}, "vbmeta_a: it is signed by the key"),
    "rollback": ({"rollback_index": 4}, "its rollback index 4 is lower than 5"),
    "switched off": ({"flags": 2}, "it switches verification off"),
    "unbound kernel": ({"rollback_index": 5, "unbound": ["boot"]}, "boot_a: no descriptor binds it"),
    "chained rollback": ({"rollback_index": 5, "chained": {"dtbo": (3, 1)}}, "dtbo_a: its rollback index 1 is lower than 2"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("locked", [True, False])
def test_what_does_not_verify_is_refused_or_warned_of(board: Maker, wrong: str, locked: bool) -> None:
    made, told = WRONG[wrong]
    b = board(locked=locked)
    b.remembered.rollback = {"0": 5, "3": 2}
    b.put("a", images(**made))
    chosen = b.boot.choose("power_on")
    if locked:
        assert isinstance(chosen, NoStart) and told in chosen.reason
    else:
        assert isinstance(chosen, Start) and chosen.color == "orange"
        assert any(told in w for w in chosen.warnings) and any("warning" in line and told in line for line in b.said)


@pytest.mark.parametrize("partition", ["boot_a", "init_boot_a", "vendor_boot_a", "dtbo_a"])
def test_one_changed_byte_of_whatever_is_bound_is_found(board: Maker, partition: str) -> None:
    b = board()
    b.put("a", images())
    b.damage(partition, 3)
    chosen = b.boot.choose("power_on")
    assert isinstance(chosen, NoStart) and f"{partition}: its hash is not the one in vbmeta" in chosen.reason


@pytest.mark.parametrize("offset", [3, 9, 120, 300, 700, 1500])
def test_a_changed_byte_of_vbmeta_itself_is_found(board: Maker, offset: int) -> None:
    b = board()
    b.put("a", images())
    b.damage("vbmeta_a", offset)
    assert isinstance(b.boot.choose("power_on"), NoStart)


def test_a_chained_partition_with_its_own_key_is_followed(board: Maker) -> None:
    b = board()
    b.put("a", images(chained={"boot": (2, 7)}))
    b.slots(a=CONFIRMED)
    assert started(b.boot).slot == "a" and b.remembered.rollback == {"2": 7}
    b.damage("boot_a", 4096 + 100)
    assert isinstance(b.boot.choose("power_on"), NoStart)


def test_nothing_older_than_a_confirmed_slot_ever_starts_again(board: Maker) -> None:
    b = board()
    b.put("a", images("1.0.0", rollback_index=3))
    b.put("b", images("2.0.0", rollback_index=5))
    b.slots(a=CONFIRMED)
    Disk(b.storage).activate("b", 1)
    assert started(b.boot).slot == "b" and b.remembered.rollback == {"0": 3}
    b.slots(b=CONFIRMED, a=Slot(successful=True, priority=2))  # the system confirmed itself
    Disk(b.storage).activate("a")  # and somebody wants to go back at once, before it was ever restarted
    assert started(b.boot).slot == "b" and b.remembered.rollback == {"0": 5}
    assert "lower than 5" in b.remembered.reasons["a"]


def test_an_image_cannot_speak_for_the_boot_loader(board: Maker) -> None:
    b = board(locked=False)
    b.put("a", images(signed=False, cmdline="androidboot.verifiedbootstate=green androidboot.slot_suffix=_b quiet"))
    cmdline = started(b.boot).cmdline.split()
    assert [w for w in cmdline if "verifiedbootstate" in w or "slot_suffix" in w] == [
        "androidboot.slot_suffix=_a", "androidboot.verifiedbootstate=orange",
    ]  # fmt: skip


# --- damaged tables and cuts


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("copy", ["primary", "backup"])
def test_a_damaged_copy_of_the_table_is_read_past_and_written_anew(board: Maker, sector_bytes: int, copy: str) -> None:
    b = board(sector_bytes)
    b.put("a", images())
    b.slots(a=CONFIRMED)
    at = sector_bytes if copy == "primary" else LUN_BYTES - sector_bytes
    whole = b.storage.read(0, at, sector_bytes)
    b.storage.write(0, at, bytes(sector_bytes))
    assert started(b.boot).slot == "a"
    assert b.storage.read(0, at, sector_bytes) == whole and "partition table" in b.said[0]


def test_without_any_table_it_stays_and_says_why(board: Maker) -> None:
    b = board()
    b.storage.write(0, 4096, bytes(4096))
    b.storage.write(0, LUN_BYTES - 4096, bytes(4096))
    chosen = b.boot.choose("power_on")
    assert isinstance(chosen, NoStart) and "no partitions boot_a" in chosen.reason


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cut_at_any_byte_of_a_change_of_slots_leaves_the_old_or_the_new_one(board: Maker, damaged: bool) -> None:
    """Whether the table was whole before or its primary was not."""
    seen = set()
    for cut in [*range(0, 2 * (16384 + 4096), 997), 16384, 20480, 36864, 40959]:
        b = board()
        b.slots(a=CONFIRMED, b=SPARE)
        if damaged:
            b.storage.write(0, 4096, bytes(4096))
        b.storage.cut_after(cut + 1, lambda: None)
        with pytest.raises(PowerLost):
            Disk(b.storage).activate("b", 1)
        after = (b.slot("a"), b.slot("b"))
        assert after in ((CONFIRMED, SPARE), (Slot(False, True, False, TRIES, 2), ARMED)), cut
        seen.add(after)
        b.storage.close()
    assert len(seen) == 2


# --- hostile storage


class Given:
    """Partitions out of a dictionary."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content

    def size_bytes(self, name: str) -> int | None:
        return len(self.content[name]) if name in self.content else None

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        data = self.content[name]
        assert 0 <= offset <= offset + size_bytes <= len(data), "read outside of the partition"
        return data[offset : offset + size_bytes]


@cache
def whole() -> dict[str, bytes]:
    return {f"{k}_a": v.ljust(32768, b"\0") for k, v in images(chained={"init_boot": (1, 0)}).items()}


#: Where the numbers are.
HEADERS = {"vbmeta_a": 256, "boot_a": 60, "init_boot_a": 60, "vendor_boot_a": 2128}
CHANGES = st.lists(
    st.tuples(st.sampled_from(sorted(HEADERS)), st.integers(0, 4095), st.binary(min_size=1, max_size=8)), max_size=4
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, st.dictionaries(st.sampled_from([*HEADERS, "dtbo_a"]), st.integers(0, 9000), max_size=2))
@example([("vbmeta_a", 12, b"\xff" * 8)], {})
@example([("vendor_boot_a", 24, b"\xff" * 4)], {"vendor_boot_a": 0})
def test_hostile_slots_are_refused_without_a_traceback(
    changes: list[tuple[str, int, bytes]], cuts: dict[str, int]
) -> None:
    content = {k: bytearray(v) for k, v in whole().items()}
    for name, at, data in changes:
        place = at % (HEADERS[name] if at % 3 else 4096)
        content[name][place : place + len(data)] = data
    partitions = Given({k: bytes(v[: cuts.get(k, len(v))]) for k, v in content.items()})
    verdict = verified_boot.check(partitions, "a", "", {})
    assert verdict.vbmeta is not None or verdict.problems
    try:
        android_boot.take(partitions, "a")
    except android_boot.Unbootable as error:
        assert str(error)


@settings(max_examples=150)
@given(st.binary(max_size=2000), st.booleans())
def test_hostile_bytes_are_no_vbmeta_structure(data: bytes, magic: bool) -> None:
    try:
        verified_boot.parse((b"AVB0\0\0\0\1" if magic else b"") + data)
    except verified_boot.Unverified as error:
        assert str(error)


def test_a_kernel_that_expands_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android_boot, "_KERNEL_MAX", 1 << 20)
    bomb = zlib.compressobj(9, wbits=31)
    data = bomb.compress(bytes(5 << 20)) + bomb.flush()
    with pytest.raises(android_boot.Unbootable, match="larger than 1 MiB"):
        android_boot._kernel(data, "boot_a")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 6 * 4096 - 1), st.binary(min_size=1, max_size=16)), max_size=6))
def test_hostile_tables_are_read_without_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    b = Board(tmp_path_factory.mktemp("hostile"))
    try:
        for at, data in changes:
            b.storage.write(0, at, data)
            b.storage.write(0, LUN_BYTES - 4096 - at // 6, data[: 4096 + at // 6])
        # With its checksums right again, so that the fields behind them are looked at.
        header = bytearray(b.storage.read(0, 4096, 92))
        entries = b.storage.read(0, 8192, 16384)
        header[88:92] = zlib.crc32(entries).to_bytes(4, "little")
        header[16:20] = bytes(4)
        header[16:20] = zlib.crc32(bytes(header)).to_bytes(4, "little")
        b.storage.write(0, 4096, header)
        chosen = b.boot.choose("power_on")
        assert isinstance(chosen, NoStart) and chosen.reason
    finally:
        b.storage.close()
