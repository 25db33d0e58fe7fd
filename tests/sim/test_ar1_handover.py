"""What the virtual AR1's boot loader hands over: hash trees that are the bound ones, and a device tree with overlays."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quarkctl.formats import avb, dtbo, verity
from quarkctl.formats.segments import joined
from quarkctl.sim.ar1 import device_tree, hash_tree
from quarkctl.sim.ar1.bootloader import NoStart, Start
from quarkctl.sim.ar1.device_tree import Unfit
from quarkctl.sim.ar1.hash_tree import TreeWrong
from quarkctl.sim.ar1.system import MACHINE
from quarkctl.sim.ar1.watchdog import Watchdog
from tests.ar1_slots import CONFIRMED, SPARE, Board, images

BLOCK = 4096
#: Enough for two levels.
DATA_BLOCKS = 300


class Given:
    """Partitions out of a dictionary."""

    def __init__(self, **content: bytes) -> None:
        self.content = content

    def size_bytes(self, name: str) -> int | None:
        return len(self.content[name]) if name in self.content else None

    def read(self, name: str, offset: int, size_bytes: int) -> bytes:
        data = self.content[name]
        assert 0 <= offset <= offset + size_bytes <= len(data), "read outside of the partition"
        return data[offset : offset + size_bytes]


@cache
def protected(blocks: int = DATA_BLOCKS, seed: int = 1, roots: int = 2) -> tuple[bytes, bytes]:
    """A partition with data, tree and codes, and the body of the descriptor that binds it."""
    data = random.Random(seed).randbytes(blocks * BLOCK)
    made = verity.protect(data, b"salt", roots or 2)
    tree = made.tree
    end = len(data) + len(tree.levels)
    descriptor = avb.Hashtree(
        "system", len(data), len(data), len(tree.levels), tree.root, b"salt", fec_roots=roots,
        fec_offset=end if roots else 0, fec_size=len(made.fec) if roots else 0,
    )  # fmt: skip
    return data + tree.levels + (made.fec if roots else b""), descriptor.build()[16:]


def flipped(data: bytes, *blocks: int, count: int = 1) -> bytes:
    out = bytearray(data)
    for block in blocks:
        out[block * BLOCK : block * BLOCK + count] = bytes(b ^ 0xFF for b in out[block * BLOCK : block * BLOCK + count])
    return bytes(out)


# --- hash trees


@pytest.mark.parametrize("blocks", [1, 2, 128, 129, DATA_BLOCKS])
def test_the_tree_that_vbmeta_binds_holds(blocks: int) -> None:
    data, body = protected(blocks)
    assert hash_tree.check(Given(system_a=data), "a", body) == ""


@pytest.mark.parametrize("block", [0, 1, 3], ids=["its root", "below it", "the last"])
@pytest.mark.parametrize("count", [1, BLOCK])
def test_a_damaged_tree_is_left_to_its_codes_and_refused_without_them(block: int, count: int) -> None:
    data, body = protected()
    told = hash_tree.check(Given(system_a=flipped(data, DATA_BLOCKS + block, count=count)), "a", body)
    assert "of 4 blocks of its hash tree are damaged; the kernel has codes to mend them" in told
    data, body = protected(roots=0)
    with pytest.raises(TreeWrong, match="no codes to mend them"):
        hash_tree.check(Given(system_a=flipped(data, DATA_BLOCKS + block, count=count)), "a", body)


def test_the_tree_of_other_data_is_refused() -> None:
    """A system that was half written: its own parts agree with each other, and not with vbmeta."""
    (_, body), (other, _) = protected(), protected(seed=2)
    with pytest.raises(TreeWrong, match="not the one that vbmeta binds"):
        hash_tree.check(Given(system_a=other), "a", body)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "there is no such partition"),
        ({"system_a": bytes(64 * BLOCK)}, "does not fit what is there"),
        ({"system_a": bytes(400 * BLOCK)}, "there is no hash tree"),
    ],
)
def test_a_tree_that_is_not_there_is_refused(content: dict[str, bytes], told: str) -> None:
    with pytest.raises(TreeWrong, match=told):
        hash_tree.check(Given(**content), "a", protected()[1])


@given(st.lists(st.tuples(st.integers(0, 240), st.binary(min_size=1, max_size=8)), max_size=4), st.integers(0, 260))
@example([(4, b"\xff" * 8)], 260)
@example([(12, b"\x80")], 260)
@example([(56, b"\xff" * 16)], 260)
def test_hostile_descriptors_are_refused(changes: list[tuple[int, bytes]], size: int) -> None:
    data, body = protected()
    changed = bytearray(body)
    for at, piece in changes:
        changed[at : at + len(piece)] = piece
    try:
        hash_tree.check(Given(system_a=data), "a", bytes(changed[:size]))
    except TreeWrong as error:
        assert str(error)


# --- device trees


def overlay(source: str) -> bytes:
    made = subprocess.run(
        ["dtc", "-q", "-@", "-O", "dtb"],
        input=f"/dts-v1/; /plugin/; {source}".encode(),
        capture_output=True,
        check=True,
    )
    return made.stdout


def table(*entries: dtbo.Entry) -> bytes:
    return joined(dtbo.build(entries))


def test_the_overlays_of_this_board_are_chosen_in_order() -> None:
    made = table(dtbo.Entry(b"other board", 2), dtbo.Entry(b"any board", 0), dtbo.Entry(b"this board", 1))
    chosen = device_tree.overlays(Given(dtbo_b=made), "b", 1)
    assert chosen == ((1, b"any board"), (2, b"this board"))
    assert device_tree.overlays(Given(), "b", 1) == ()
    with pytest.raises(Unfit, match="none of its 1 device trees is made for board 7"):
        device_tree.overlays(Given(dtbo_b=table(dtbo.Entry(b"other", 2))), "b", 7)
    with pytest.raises(Unfit, match="holds no table"):
        device_tree.overlays(Given(dtbo_b=bytes(4096)), "b", 1)


@pytest.mark.parametrize("compression", [1, 2])
def test_a_compressed_overlay_is_unpacked_and_a_bomb_is_not(compression: int) -> None:
    import gzip
    import zlib

    def packed(data: bytes) -> dict[str, bytes]:
        blob = zlib.compress(data) if compression == 1 else gzip.compress(data)
        return {"dtbo_a": joined(dtbo.build([dtbo.Entry(blob, 1, custom=(compression << 24, 0, 0, 0))], version=1))}

    assert device_tree.overlays(Given(**packed(b"tree")), "a", 1) == ((0, b"tree"),)
    with pytest.raises(Unfit, match="does not unpack"):
        device_tree.overlays(Given(**packed(bytes(2 << 20))), "a", 1)


@given(st.lists(st.tuples(st.integers(0, 100), st.binary(min_size=1, max_size=8)), max_size=4), st.integers(0, 200))
def test_hostile_tables_of_overlays_are_refused(changes: list[tuple[int, bytes]], size: int) -> None:
    data = bytearray(table(dtbo.Entry(b"one" * 10, 1), dtbo.Entry(b"two" * 10, 0)))
    for at, piece in changes:
        data[at : at + len(piece)] = piece
    try:
        device_tree.overlays(Given(dtbo_a=bytes(data[:size])), "a", 1)
    except Unfit as error:
        assert str(error)


def test_an_overlay_changes_the_machines_tree_and_one_that_does_not_apply_is_told(tmp_path: Path) -> None:
    first = overlay('&{/} { model = "first"; };')
    second = overlay('&{/} { model = "second"; quark { revision = <7>; }; };')
    (tmp_path / "made.dtb").write_bytes(device_tree.merged(tmp_path, MACHINE, [first, second]))

    def get(*words: str) -> str:
        return subprocess.run(
            ["fdtget", *words], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert get("made.dtb", "/", "model") == "second" and get("made.dtb", "/quark", "revision") == "7"
    assert (
        get("made.dtb", "/memory@40000000", "device_type") == "memory"
    )  # what the machine says of itself is still there
    for wrong in (overlay('&uart7 { status = "okay"; };'), b"no tree", bytes(100)):
        with pytest.raises(Unfit, match=r"does not apply: .*overlay-0\.dtbo"):
            device_tree.merged(tmp_path, MACHINE, [wrong])


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path / "board")
    yield made
    made.storage.close()


def test_a_slot_whose_overlay_does_not_apply_falls_back(board: Board) -> None:
    for slot in "ab":
        board.put(slot, images(f"{'ab'.index(slot) + 1}.0.0"))
    board.slots(b=CONFIRMED, a=SPARE)
    boot = board.boot
    given: list[list[bytes]] = []

    def merge(blobs: object) -> bytes:
        given.append(list(blobs))  # type: ignore[call-overload]
        if blobs == [b"tree 2.0.0"]:
            raise Unfit("its device tree overlay does not apply: FDT_ERR_NOTFOUND")
        return b"merged"

    boot.merge = merge
    chosen = boot.choose("power_on")
    assert isinstance(chosen, NoStart) and "FDT_ERR_NOTFOUND" in chosen.reason and given[0] == [b"tree 2.0.0"]
    board.slots(a=CONFIRMED, b=SPARE)
    chosen = boot.choose("power_on")
    assert isinstance(chosen, Start) and chosen.tree == b"merged" and "androidboot.dtbo_idx=0" in chosen.cmdline.split()


# --- the watchdog


class Clock:
    """Time that a test moves on, and the run queue's account of one thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.now_s = 100.0
        self._stat = tmp_path / "7" / "schedstat"
        self._stat.parent.mkdir()
        self.waited(0)
        monkeypatch.setattr("quarkctl.sim.ar1.watchdog.time.monotonic", lambda: self.now_s)
        self.dog = Watchdog(os.getpid(), 10.0)
        monkeypatch.setattr(self.dog, "_tasks", tmp_path)
        self.dog.look(1.0)

    def waited(self, seconds: float) -> None:
        self._stat.write_text(f"5000 {int(seconds * 1e9)} 3\n")

    def after(self, seconds: float, heard_s: float = 1.0) -> bool:
        self.now_s += seconds
        return self.dog.look(heard_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return Clock(monkeypatch, tmp_path)


def ticks(clock: Clock, each: Callable[[int], None] = lambda _: None, limit: int = 100) -> int:
    """Looks, a second apart, until it bites."""
    for n in range(1, limit):
        each(n)
        if clock.after(1.0):
            return n
    return limit


def test_a_silent_system_is_bitten_and_a_word_starts_the_count_anew(clock: Clock) -> None:
    assert ticks(clock) == 11
    assert not clock.after(1.0, heard_s=2.0)
    assert not any(clock.after(1.0, heard_s=2.0) for _ in range(10)) and clock.after(1.0, heard_s=2.0)


def test_time_in_which_it_could_not_run_does_not_count(clock: Clock) -> None:
    """It got a tenth of a processor: ten times as long."""
    assert ticks(clock, lambda n: clock.waited(0.9 * n), limit=200) == 101


def test_a_look_that_comes_late_counts_for_little(clock: Clock) -> None:
    """The computer was suspended."""
    assert not clock.after(3600.0) and not clock.after(1.0) and ticks(clock) == 8
