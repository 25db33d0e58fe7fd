"""The verbs of `quarkctl ar1`, as a user types them, against the virtual AR1 over TCP and USB/IP."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quarkctl.cli import main
from quarkctl.flash import ar1_commands
from quarkctl.formats import lp
from quarkctl.formats.sahara import Region
from quarkctl.formats.segments import pieces
from tests.ar1 import Bench, Maker, file, noise

MIB = 1 << 20
Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str]) -> Verb:
    """``verb(bench, "getvar", "all")``: exit code and both outputs. In this process: to start another takes longer."""

    def call(b: Bench, *words: object) -> tuple[int, str, str]:
        edl = b.ar1.mode in ("edl", "dump")
        where = f"usbip:127.0.0.1:{b.usbip.address[1]}" if edl else f"tcp:127.0.0.1:{b.ar1.tcp_port}"
        code = main.run(["ar1", *map(str, words), "-d", where])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def answer(result: tuple[int, str, str]) -> Any:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


# --- fastboot ---------------------------------------------------------------------------------------------------------


def test_variables_are_told_and_an_unknown_one_is_refused(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    assert answer(verb(b, "getvar", "all", "--json"))["variables"]["current-slot"] == "a"
    code, _, err = verb(b, "getvar", "nonsense")
    assert code == 5 and "unknown variable" in err


def test_slots_locks_and_vendor_commands(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    assert verb(b, "set-active", "b")[0] == 0
    assert answer(verb(b, "getvar", "current-slot", "--json"))["variables"] == {"current-slot": "b"}
    assert "Device unlocked: true" in verb(b, "oem", "device-info")[1]
    assert verb(b, "flashing", "lock", "--yes")[0] == 0
    code, _, err = verb(b, "set-active", "a")
    assert code == 5 and "locked" in err and "flashing unlock" in err
    assert verb(b, "flashing", "unlock")[0] == 2  # a question that nobody answers is a no
    assert verb(b, "flashing", "unlock", "--yes")[0] == 0 and b.ar1.remembered.unlocked


def test_erasing_asks_and_erases(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    b.fastboot(f"{file(b.folder, 'x.img', b'x' * 4096)}@userdata", wire="tcp", restart=False)
    assert verb(b, "erase", "userdata")[0] == 2 and b.stored("userdata", 4096) == b"x" * 4096
    assert verb(b, "erase", "userdata", "-y")[0] == 0 and b.stored("userdata", 4096) == bytes(4096)


def test_a_formatted_partition_holds_an_empty_file_system(ar1: Maker, verb: Verb, tmp_path: Path) -> None:
    import subprocess

    b = ar1("fastboot", max_download_bytes=MIB)
    b.fastboot(f"{file(b.folder, 'x.img', noise(4 * MIB))}@userdata", wire="tcp", restart=False)
    told = answer(verb(b, "format", "userdata", "--yes", "--json"))
    assert told["type"] == "ext4" and told["size_bytes"] == 4 * MIB
    path = file(tmp_path, "back.img", b.stored("userdata", 4 * MIB))
    subprocess.run(["e2fsck", "-f", "-n", path], check=True, capture_output=True)
    code, _, err = verb(b, "format", "boot_a", "--yes")
    assert code == 6 and "cannot format boot_a as raw" in err


def test_a_file_is_staged_and_taken_back(ar1: Maker, verb: Verb) -> None:
    """Each verb has a connection of its own: what is staged lasts until the boot loader starts anew."""
    b = ar1("fastboot")
    assert "5000 bytes staged" in verb(b, "stage", file(b.folder, "x.bin", noise(5000)))[1]
    assert verb(b, "get-staged", b.folder / "back.bin")[0] == 0
    assert (b.folder / "back.bin").read_bytes() == noise(5000)
    for there, back in itertools.product(("tcp", "udp", "usb"), repeat=2):
        with ar1_commands.fastboot(b.way(there)) as client:
            ar1_commands.stage(client, b.folder / "x.bin", lambda _: None)
            client.command(f"oem stage {there}" if there == back else "oem stage")
        with ar1_commands.fastboot(b.way(back)) as client:
            ar1_commands.take(client, "upload", b.folder / "back.bin")
        assert (b.folder / "back.bin").read_bytes() == (there.encode() if there == back else noise(5000))
    assert verb(b, "get-staged", b.folder / "none.bin")[0] == 5 and not (b.folder / "none.bin").exists()
    verb(b, "stage", b.folder / "x.bin")
    b.ar1.enter("fastboot")
    assert verb(b, "get-staged", b.folder / "none.bin")[0] == 5


def test_a_boot_image_is_started_without_being_written(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    before = b.ar1.storage.written_bytes
    code, _, err = verb(b, "boot", file(b.folder, "x.img", noise(5000)))
    assert code == 6 and "no boot image" in err and b.ar1.mode == "fastboot"
    assert verb(b, "boot", file(b.folder, "boot.img", b"ANDROID!" + noise(5000)))[0] == 0
    assert b.ar1.wait_for("system") and b.ar1.storage.written_bytes == before


def test_the_device_restarts_into_every_mode(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    for mode in ("bootloader", "fastbootd", "recovery", "edl"):
        b.ar1.enter("fastboot")
        assert verb(b, "reboot", mode)[0] == 0
        assert b.ar1.wait_for({"bootloader": "fastboot"}.get(mode, mode))
    b.ar1.enter("fastboot")
    assert verb(b, "reboot", "nowhere")[0] == 2 and b.ar1.mode == "fastboot"


# --- fastbootd --------------------------------------------------------------------------------------------------------


def empty_super() -> bytes:
    """What lpmake writes for a super partition of 8 MiB with one group and no partitions."""
    made = lp.Metadata(0, (), (lp.Group("default"),), (lp.Device("super", 8 * MIB, first_sector=2048),))
    return b"".join(bytes(p) for p in pieces(lp.build([made, made], [])))


def test_logical_partitions_are_made_grown_flashed_and_removed(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastbootd")
    assert verb(b, "update-super", file(b.folder, "super.img", empty_super()))[0] == 0
    assert verb(b, "logical", "create", "oem_a", MIB)[0] == 0
    assert verb(b, "logical", "resize", "oem_a", 2 * MIB)[0] == 0
    sizes = answer(verb(b, "getvar", "all", "--json"))["variables"]
    assert int(sizes["partition-size:oem_a"], 16) == 2 * MIB and sizes["is-logical:oem_a"] == "yes"
    b.ar1.enter("fastboot")  # the boot loader does not know it: the flash goes through fastbootd by itself
    result = b.fastboot(f"{file(b.folder, 'oem.img', noise(2 * MIB))}@oem_a", wire="tcp", restart=False)
    assert "fastbootd" in result.plan.step_names and b.ar1.mode == "fastbootd"
    assert verb(b, "logical", "resize", "oem_a", 64 * MIB)[0] == 5
    assert verb(b, "update-super", b.folder / "super.img", "--wipe")[0] == 2
    assert verb(b, "logical", "delete", "oem_a")[0] == 0
    assert verb(b, "logical", "delete", "oem_a")[0] == 5


def test_only_fastbootd_changes_logical_partitions(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastboot")
    code, _, err = verb(b, "logical", "create", "oem_a", 4096)
    assert code == 5 and "fastbootd" in err
    code, _, err = verb(b, "gsi", "status")
    assert code == 4 and "reboot fastbootd" in err
    code, _, err = verb(b, "update-super", file(b.folder, "s.img", noise(8192)))
    assert code == 4 and "reboot fastbootd" in err


def test_another_system_image_is_asked_for(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastbootd")
    assert verb(b, "gsi", "status")[1].strip() == "normal"
    code, _, err = verb(b, "gsi", "wipe", "-y")
    assert code == 5 and "no other system image" in err


def test_vendor_boot_is_fetched_and_nothing_else(ar1: Maker, verb: Verb) -> None:
    layout = {0: [("vendor_boot_a", MIB), ("vendor_boot_b", MIB), ("boot_a", MIB), ("boot_b", MIB)]}
    b = ar1("fastbootd", layout=layout)
    b.fastboot(f"{file(b.folder, 'x.img', noise(MIB))}@vendor_boot_a", wire="tcp", restart=False, slot="a")
    b.ar1.enter("fastbootd")
    assert verb(b, "fetch", "vendor_boot_a", b.folder / "v.img")[0] == 0
    assert (b.folder / "v.img").read_bytes() == noise(MIB)
    assert verb(b, "fetch", "boot_a", b.folder / "b.img")[0] == 5


def test_a_snapshot_is_cancelled_and_a_merge_is_not(ar1: Maker, verb: Verb) -> None:
    b = ar1("fastbootd")
    b.ar1.remembered.snapshot = "snapshotted"
    assert verb(b, "snapshot", "cancel")[0] == 0 and b.ar1.remembered.snapshot == "none"
    b.ar1.remembered.snapshot = "merging"
    code, _, err = verb(b, "snapshot", "cancel")
    assert code == 5 and "cannot be cancelled" in err
    assert verb(b, "snapshot", "merge")[0] == 0 and b.ar1.remembered.snapshot == "none"


# --- emergency download -----------------------------------------------------------------------------------------------


def test_a_boot_rom_tells_who_it_is(ar1: Maker, verb: Verb) -> None:
    told = answer(verb(ar1("edl"), "chip-info", "--json"))
    assert told["serial"] == 0x51A00001 and len(told["key_hash"]) == 96


def test_storage_tables_digests_and_memory_are_read(ar1: Maker, verb: Verb) -> None:
    b = ar1("edl")
    programmer = ("--programmer", b.programmer)
    assert answer(verb(b, "storage", "--json", *programmer))["sector_bytes"] == 4096
    names = [p["name"] for p in answer(verb(b, "gpt", "--json"))["partitions"]]
    assert "boot_a" in names and "xbl_a" in names
    assert len(answer(verb(b, "digest", 0, 0, 64, "--json"))["sha256"]) == 64
    memory = bytes(n & 0xFF for n in range(700))
    assert answer(verb(b, "peek", "0x10000000", 700, "--json"))["hex"] == memory.hex()
    code, _, err = verb(b, "peek", "0", 4)
    assert code == 5 and "outside of the memory" in err
    assert verb(b, "power", "reset")[0] == 0 and b.ar1.wait_for("system")


UFS = '<data><ufs LUNum="0" bLUEnable="1" size_in_kb="1024"/><ufs LUNtoGrow="0" commit="1"/></data>'


def test_dividing_the_storage_needs_an_explicit_word(ar1: Maker, verb: Verb) -> None:
    b = ar1("edl")
    path = file(b.folder, "ufs.xml", UFS.encode())
    code, _, err = verb(b, "provision", path, "--programmer", b.programmer)
    assert code == 2 and "--irreversible" in err
    assert b.ar1._programmer is None, "the device was touched"
    assert verb(b, "provision", path, "--programmer", b.programmer, "--irreversible")[0] == 0
    assert b.ar1._programmer is not None and b.ar1._programmer.ufs_committed


def test_a_file_that_commits_before_its_end_divides_nothing(ar1: Maker, verb: Verb) -> None:
    b = ar1("edl")
    path = file(b.folder, "ufs.xml", b'<data><ufs commit="1"/><ufs LUNum="0"/></data>')
    assert verb(b, "provision", path, "--irreversible")[0] == 6 and b.ar1._programmer is None


def test_the_memory_of_a_crashed_system_is_saved(ar1: Maker, verb: Verb) -> None:
    b = ar1("dump")
    b.ar1.memory = ((Region("OCIMEM", "OCIMEM.BIN", 0x8000_0000, 5000, 1), noise(5000)),)
    assert len(answer(verb(b, "ramdump", b.folder / "dumps", "--json"))["regions"]) == 1
    assert (b.folder / "dumps" / "OCIMEM.BIN").read_bytes() == noise(5000)


def test_a_device_in_the_wrong_mode_is_told(ar1: Maker, verb: Verb) -> None:
    b = ar1("edl")
    code = main.run(["ar1", "getvar", "all", "-d", f"tcp:127.0.0.1:{b.ar1.tcp_port}"])
    assert code == 4
