"""``quarkctl flash --via esptool``: the real esptool against a virtual ESP32 over a socket."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import (
    DeviceMissing,
    DeviceRefused,
    HostUnfit,
    InputWrong,
    LinkLost,
    LinkTimeout,
    ProtocolError,
    QuarkError,
    UsageWrong,
    VerificationFailed,
)
from quarkctl.flash import esp as method
from quarkctl.flash import esptool
from quarkctl.flash.esp import Region, Window
from quarkctl.sim.esp import VirtualEsp
from tests.conftest import Quarkctl

BASE = random.Random(1).randbytes(300_000)


@pytest.fixture
def esp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[VirtualEsp]:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))
    with VirtualEsp() as virtual:
        yield virtual


def image(folder: Path, *changed: int, name: str = "app.bin") -> str:
    """A file whose bytes at these places differ from the base, at 64 KiB; returns how to name it."""
    data = bytearray(BASE)
    for at in changed:
        data[at] ^= 0x55
    (folder / name).write_bytes(data)
    return f"{folder / name}@0x10000"


def content(esp: VirtualEsp) -> bytes:
    return bytes(esp.flash[0x10000 : 0x10000 + len(BASE)])


def test_only_what_differs_is_written_and_what_is_there_is_left_alone(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    first = quarkctl("flash", image(tmp_path), "-d", esp.url, "--json")
    assert first.code == 0, first.err
    assert content(esp) == BASE
    assert (first.json["mac"], first.json["windows_differing"], first.json["result"]) == (
        "24:6f:28:a1:b2:c3",
        5,
        "done",
    )
    written = esp.written_bytes
    again = quarkctl("flash", image(tmp_path), "-d", esp.url, "--json")
    assert (again.code, again.json["result"], esp.written_bytes) == (0, "unchanged", written)
    changed = image(tmp_path, 100_000)
    compared = quarkctl("flash", changed, "-d", esp.url, "--verify-only")
    assert compared.code == 5 and "1 windows differ from the files: 0x20000" in compared.err
    assert quarkctl("flash", changed, "-d", esp.url, "--dry-run", "--json").json["windows_differing"] == 1
    assert esp.written_bytes == written
    done = quarkctl("flash", changed, "-d", esp.url, "--events")
    assert done.code == 0, done.err
    assert esp.written_bytes == written + 0x10000
    assert content(esp)[100_000] == BASE[100_000] ^ 0x55
    moved = [
        e["done_bytes"] for e in map(json.loads, done.out.splitlines()) if e["step"] == "write" and e["done_bytes"]
    ]
    assert moved == sorted(moved) and moved[-1] == 0x10000


def test_a_power_cut_leaves_what_was_finished_and_the_next_flash_says_what_it_goes_on_with(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    esp.cut_at = 90
    source = image(tmp_path)
    cut = quarkctl("flash", source, "-d", esp.url)
    assert cut.code == 4, cut.err
    assert content(esp) != BASE
    esp.powered = True
    plan = quarkctl("flash", source, "-d", esp.url, "--dry-run", "--json").json
    assert 0 < plan["windows_differing"] < plan["windows"]
    again = quarkctl("flash", source, "-d", esp.url, "--json")
    assert again.code == 0, again.err
    assert content(esp) == BASE and "stopped in write" in again.json["resumed"]


def test_a_rate_that_fails_is_left_for_a_lower_one_which_is_remembered(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    esp.baud_max = 500_000
    done = quarkctl("flash", image(tmp_path), "-d", esp.url, "--json")
    assert done.code == 0, done.err
    assert (done.json["baud"], done.json["retries"], esp.bauds) == (460_800, 1, [921_600, 460_800])
    assert quarkctl("flash", image(tmp_path, 5), "-d", esp.url, "--json").json["retries"] == 0
    assert set(esp.bauds[2:]) == {460_800}


def test_another_chip_another_device_and_too_much_are_refused_before_anything_is_erased(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    assert quarkctl("flash", image(tmp_path), "-d", esp.url).code == 0
    operations = esp.operations
    source = image(tmp_path, 7)
    esp.mac = bytes.fromhex("246f28000001")
    stranger = quarkctl("flash", source, "-d", esp.url)
    assert stranger.code == 2 and "was 24:6f:28:a1:b2:c3 and is 24:6f:28:00:00:01 now" in stranger.err
    assert "--yes" in stranger.err
    esp.magic = 0x000007C6
    chip = quarkctl("flash", source, "-d", esp.url)
    assert chip.code == 6 and "the device is an ESP32-S2, not an ESP32" in chip.err
    large = quarkctl("flash", source.replace("0x10000", "0x3f0000"), "-d", esp.url)
    assert large.code == 6 and "the flash of esp32-devkit at 0x400000" in large.err
    (tmp_path / "c3.bin").write_bytes(bytes([0xE9]) + bytes(11) + b"\5\0" + bytes(100))
    other = quarkctl("flash", f"{tmp_path / 'c3.bin'}@0x10000", "-d", esp.url, "--board", "esp32-devkit")
    assert other.code == 6 and "made for esp32c3, esp32-devkit has an esp32" in other.err
    assert esp.operations == operations
    esp.magic = 0x00F01D83
    assert quarkctl("flash", source, "-d", esp.url, "--yes").code == 0


def test_a_device_that_is_not_there_or_does_not_answer_is_an_error_with_a_hint(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    esp.powered = False
    silent = quarkctl("flash", image(tmp_path), "-d", esp.url)
    assert silent.code == 4 and "hint:" in silent.err
    gone = quarkctl("flash", image(tmp_path), "-d", "socket://127.0.0.1:1")
    assert gone.code == 4 and "hint:" in gone.err


def test_ctrl_c_ends_esptool_and_says_what_is_on_the_device(
    quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path
) -> None:
    esp.speed.paced = True
    process = quarkctl.start("flash", image(tmp_path), "-d", esp.url, "--events")
    assert process.stdout
    lines = iter(process.stdout)
    next(line for line in lines if json.loads(line)["done_bytes"])
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "it goes on with the windows that still differ" in out
    esp.speed.paced = False
    assert quarkctl("flash", image(tmp_path), "-d", esp.url).code == 0
    assert content(esp) == BASE


def test_a_build_folder_of_esp_idf_says_what_goes_where(quarkctl: Quarkctl, esp: VirtualEsp, tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "bootloader").mkdir(parents=True)
    description = bytes.fromhex("3254cdab") + bytes(12) + b"v2.1".ljust(32, b"\0") + b"blink".ljust(32, b"\0")
    app = bytes([0xE9]) + bytes(31) + description + random.Random(2).randbytes(5000)
    files = {"0x1000": ("bootloader/bootloader.bin", b"\xe9" + bytes(200)), "0x8000": ("table.bin", b"\xaa\x50" + bytes(99)),
             "0x10000": ("app.bin", app)}  # fmt: skip
    for name, data in files.values():
        (build / name).write_bytes(data)
    listed = {"flash_files": {a: n for a, (n, _) in files.items()}, "extra_esptool_args": {"chip": "esp32"}}
    (build / "flasher_args.json").write_text(json.dumps(listed))
    done = quarkctl("flash", build, "-d", esp.url, "--json")
    assert done.code == 0, done.err
    assert (done.json["new_version"], done.json["method"]) == ("v2.1", "esptool")
    for address, (_, data) in files.items():
        at = int(address, 0)
        assert esp.flash[at : at + len(data)] == data
    listed["flash_files"]["0x9000"] = "../../../etc/passwd"
    (build / "flasher_args.json").write_text(json.dumps(listed))
    outside = quarkctl("flash", build, "-d", esp.url)
    assert outside.code == 6 and "lies outside of its folder" in outside.err


@pytest.mark.skipif("QUARKCTL_TEST_ESP_URL" not in os.environ, reason="QUARKCTL_TEST_ESP_URL names no ESP32 emulator")
def test_an_external_emulator_is_flashed(quarkctl: Quarkctl, tmp_path: Path) -> None:
    url = os.environ["QUARKCTL_TEST_ESP_URL"]
    assert quarkctl("flash", image(tmp_path), "-d", url, "--yes", timeout=600).code == 0
    assert quarkctl("flash", image(tmp_path), "-d", url, "--json").json["result"] == "unchanged"


# --- without a device -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["app.bin"], "does not say where it goes"), (["app.bin@x"], "does not say where it goes"),
        (["app.bin@-4"], "does not say where it goes"), (["app.bin@0x100"], "not on a sector"),
        (["none.bin@0"], "cannot read"), (["empty.bin@0"], "is empty"), (["app.bin@0", "app.bin@0x1000"], "in app.bin"),
        (["c3.bin@0", "s3.bin@0x10000"], "made for esp32s3, the rest for esp32c3"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_are_refused(
    sources: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(bytes(0x1001))
    Path("empty.bin").write_bytes(b"")
    for name, number in (("c3.bin", 5), ("s3.bin", 9)):
        Path(name).write_bytes(bytes([0xE9]) + bytes(11) + bytes([number, 0]) + bytes(100))
    with pytest.raises((InputWrong, UsageWrong)) as error:
        method.prepare(sources)
    assert told in error.value.message


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 300_000)), min_size=1, max_size=4))
def test_windows_are_the_regions_and_what_boots_is_written_last(layout: list[tuple[int, int]]) -> None:
    regions, end = [], 0
    for gap, size in layout:
        offset = end + gap * 0x1000
        regions.append(Region(offset, random.Random(size).randbytes(size), "r"))
        end = -(-(offset + size) // 0x1000) * 0x1000
    cut = method.windows(regions)
    for r in regions:
        inside = [w for w in cut if r.offset <= w.offset < r.offset + len(r.data)]
        assert b"".join(w.data for w in inside) == r.data
    assert all(w.offset // 0x10000 == (w.offset + len(w.data) - 1) // 0x10000 for w in cut)
    pieces = method.runs(cut)
    assert sum(len(p.data) for p in pieces) == sum(len(r.data) for r in regions)
    early = [p.offset < 0x10000 for p in pieces]
    assert early == sorted(early)
    assert method.runs([Window(0x20000, b"a" * 0x10000), Window(0x10000, b"b" * 0x10000)]) == [
        Window(0x10000, b"b" * 0x10000 + b"a" * 0x10000)
    ]


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("Failed to connect to ESP32: No serial data received.", LinkTimeout, "ESP32 does not answer"),
        ("Failed to connect to ESP32: Wrong boot mode detected (0x13)! The chip", LinkTimeout, "0x13"),
        ("This chip is ESP32-S3, not ESP32. Wrong chip argument?", InputWrong, "an ESP32-S3, not an"),
        ("ERROR: Could not open /dev/ttyUSB9, the port is busy or doesn't exist.\n([Errno 13] Permission denied: 'x')",
         HostUnfit, "no permission"),
        ("A fatal error occurred: MD5 of file does not match data in flash!", VerificationFailed, "not what was sent"),
        ("A fatal error occurred: Invalid head of packet (0x1B): Possible serial noise or corruption.", esptool.LineFailed,
         "Invalid head"),
        ("device reports readiness to read but returned no data (device disconnected?)", LinkLost, "went away"),
        ("A fatal error occurred: Secure Boot V1 detected, writing to flash regions < 0x8000 is disabled", DeviceRefused,
         "Secure Boot"),
        ("[Errno 2] could not open port: No such file or directory: '/dev/ttyUSB9'", DeviceMissing, "No such file"),
        ("python: No module named esptool", HostUnfit, "not installed"),
        ("A fatal error occurred: something new", ProtocolError, "something new"),
        ("", ProtocolError, "nothing"),
    ],
)  # fmt: skip
def test_what_esptool_complains_about_becomes_our_error(said: str, kind: type[QuarkError], told: str) -> None:
    error = esptool.failure(said, 2)
    assert type(error) is kind and told in error.message and error.hint


@given(st.text(max_size=300))
def test_any_output_of_esptool_is_survived(text: str) -> None:
    reading = esptool._Reading(lambda done: None, verifies=True)
    reading.feed(text.encode() + b"\nWriting at 0x1 [==] 5.0% 1kB/2kB\r")
    assert esptool.failure(text, 1).exit_code in (3, 4, 5, 6)
