"""The firmware on its own processor: kernel stress, size, reproducibility."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from quarkctl import schemas
from quarkctl.build import headers, rtos
from quarkctl.build.source import rtos as rtos_folder
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import qemu
from tests.conftest import RTOS, target_program

pytestmark = pytest.mark.qemu


def test_committed_headers_are_what_the_schemas_say() -> None:
    for name, text in headers.render().items():
        assert (RTOS / "wire" / name).read_text("utf-8") == text, "stale: run `make gen`"


def test_the_kernel_survives_stress_in_the_emulator(firmware: Callable[..., rtos.Built], tmp_path: Path) -> None:
    """Context switches with floating point, fairness, a queue, wake-up times, and both traps of the kernel's design."""
    firmware("1.0.0")
    (tmp_path / "boot.elf").write_bytes(target_program("stress.elf"))
    with (tmp_path / "memory.bin").open("wb") as memory:
        memory.truncate(qemu.MEMORY_BYTES)
    running = subprocess.Popen(
        qemu.command(icount=True),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    log = tmp_path / "firmware.log"
    try:
        text = _wait_for(log, running)
    finally:
        running.kill()
        running.communicate()
    figures = {k: int(v) for k, v in re.findall(r"^(\w+) (\d+)$", text, re.M)}
    assert "DONE" in text, text
    assert figures["switches"] > 50_000 and figures["messages"] > 10_000
    assert figures["late_us_max"] < 1000


def _wait_for(log: Path, running: subprocess.Popen[bytes]) -> str:
    """The log ends in DONE or FAIL; the emulator's own end would be a failure. The test runner bounds the wait."""
    with (log.parent / "done").open("w"):
        while running.poll() is None:
            text = log.read_text() if log.exists() else ""
            if re.search(r"^(DONE|FAIL)", text, re.M):
                return text
            try:
                running.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError("the emulator ended by itself")


def test_the_same_sources_give_the_same_bytes_in_another_folder(
    firmware: Callable[..., rtos.Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = firmware("1.0.0")
    copy = tmp_path / "another place" / "rtos"
    copy.parent.mkdir()
    shutil.copytree(rtos_folder(), copy)
    monkeypatch.setattr("quarkctl.build.source.rtos", lambda: copy)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    second = rtos.build(rtos.Request("s1-virtual", Version.parse("1.0.0"), out=tmp_path / "out"))
    assert second.image.read_bytes() == first.image.read_bytes()
    assert second.build_id == first.build_id and len(first.build_id) == 16
    assert second.boot_elf.read_bytes() == first.boot_elf.read_bytes()


def test_stacks_are_deep_enough_for_the_deepest_known_chain_of_calls(firmware: Callable[..., rtos.Built]) -> None:
    stacks = firmware("1.0.0").stacks
    assert {"bootloader", "sense", "report", "command", "link", "guard"} <= stacks.keys()
    for thread, (worst, size) in stacks.items():
        assert 0 < worst < size, thread


def test_both_boards_build(firmware: Callable[..., rtos.Built]) -> None:
    from quarkctl.formats import mcuboot_image

    for board in rtos.buildable():
        assert mcuboot_image.parse(firmware("1.0.0", board).image.read_bytes()).board == board


def test_a_frame_of_every_message_fits_the_fast_lane() -> None:
    from quarkctl.formats.frame import PAYLOAD_MAX

    assert all(m.size_bytes <= PAYLOAD_MAX for m in schemas.telemetry().by_type.values())
