"""Unmodified AOSP fastboot and qdl flash the virtual AR1, and our client does it through real pyusb and libusb.

USB without USB hardware: the programs run under Debian's libumockdev-preload, and see the virtual device through their own
usbfs code (`quarkctl.sim.usb_preload`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarkctl.flash import edl_sources, vip
from quarkctl.sim import usb_preload
from quarkctl.sim.ar1.programmer import Programmer
from tests.ar1 import Bench, Maker, file, noise, rawprogram

IMAGE = noise(900_000)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Both outputs of a program that must succeed."""
    done = subprocess.run(
        [str(c) for c in command], env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def plugged(ar1: Maker, tmp_path: Path) -> Iterator[object]:
    """``plugged(mode)`` gives a virtual AR1 and the environment in which programs see it on USB."""
    beds: list[usb_preload.Testbed] = []

    def plug(mode: str, **settings: object) -> tuple[Bench, dict[str, str]]:
        bench = ar1(mode, **settings)
        beds.append(usb_preload.Testbed(tmp_path / f"usb{len(beds)}", [bench.ar1.port]))
        return bench, beds[-1].environment()

    yield plug
    for bed in beds:
        bed.close()


def stored(bench: Bench, partition: str) -> bytes:
    return bench.stored(partition, len(IMAGE))


def test_fastboot_flashes_over_tcp(ar1: Maker) -> None:
    b = ar1("fastboot")
    address = f"tcp:127.0.0.1:{b.ar1.tcp_port}"
    said = run("fastboot", "-s", address, "flash", "boot_b", file(b.folder, "boot.img", IMAGE))
    assert "OKAY" in said and stored(b, "boot_b") == IMAGE
    assert "partition-size:boot_b:0x100000" in run("fastboot", "-s", address, "getvar", "all")
    run("fastboot", "-s", address, "set_active", "b")
    assert "current-slot: b" in run("fastboot", "-s", address, "getvar", "current-slot")


def test_fastboot_flashes_over_udp(ar1: Maker) -> None:
    b = ar1("fastboot")
    run("fastboot", "-s", f"udp:127.0.0.1:{b.ar1.udp_port}", "flash", "boot_b", file(b.folder, "boot.img", IMAGE))
    assert stored(b, "boot_b") == IMAGE


def test_fastboot_flashes_over_emulated_usb_and_finds_the_device_again(plugged: object) -> None:
    b, env = plugged("fastboot")  # type: ignore[operator]
    assert b.ar1.settings.serial in run("fastboot", "devices", env=env)
    run("fastboot", "flash", "boot_a", file(b.folder, "boot.img", IMAGE), env=env)
    assert stored(b, "boot_a") == IMAGE
    run("fastboot", "reboot-bootloader", env=env)
    assert "is-userspace: no" in run("fastboot", "getvar", "is-userspace", env=env)


def test_fastboot_sends_a_sparse_image_in_pieces_that_simg2img_agrees_with(ar1: Maker, tmp_path: Path) -> None:
    b = ar1("fastboot", max_download_bytes=256 << 10)
    raw = file(tmp_path, "raw.img", b"".join(noise(4096, n) + bytes(4096) for n in range(120)))
    run("img2simg", raw, tmp_path / "s.simg")
    address = f"tcp:127.0.0.1:{b.ar1.tcp_port}"
    run("fastboot", "-s", address, "flash", "super", tmp_path / "s.simg")
    theirs = b.stored("super", raw.stat().st_size)
    b.ar1.enter("fastboot")
    result = b.fastboot(f"{tmp_path / 's.simg'}@userdata", wire="tcp", restart=False)
    assert result.facts["verified"] == {"userdata": "digest"}
    run("simg2img", tmp_path / "s.simg", tmp_path / "back.img")
    back = (tmp_path / "back.img").read_bytes()
    assert theirs == back == b.stored("userdata", raw.stat().st_size)


@pytest.mark.parametrize("method", ["fastboot", "edl"])
def test_veritysetup_verifies_what_was_flashed(ar1: Maker, tmp_path: Path, method: str) -> None:
    b = ar1(method)
    data = file(tmp_path, "system.img", noise(256 * 4096))
    said = run("veritysetup", "format", "--hash-offset", 256 * 4096, "--data-blocks", 256, data, data)
    root = next(line.split()[-1] for line in said.splitlines() if line.startswith("Root hash"))
    if method == "fastboot":
        b.fastboot(f"{data}@system_b", wire="tcp", restart=False, slot="b")
    else:
        b.edl(f"{data}@system_b", restart=False)
    size = data.stat().st_size
    back = file(tmp_path, "back.img", b.stored("system_b", size))
    verify = ("veritysetup", "verify", "--hash-offset", 256 * 4096, back, back, root)
    run(*verify)
    file(tmp_path, "back.img", b.stored("system_b", size)[:5000] + b"!" + b.stored("system_b", size)[5001:])
    with pytest.raises(AssertionError):
        run(*verify)


def test_qdl_flashes_over_emulated_usb_with_the_packets_of_our_digest_tables(
    plugged: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's qdl is older than its digest tables; what stands in them, documents and data in their order, it sends."""
    said: list[bytes] = []
    one = Programmer._one
    monkeypatch.setattr(Programmer, "_one", lambda self, document: (said.append(document), one(self, document))[1])
    b, env = plugged("edl")  # type: ignore[operator]
    file(b.folder, "boot.img", IMAGE)
    xml = rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_a"}])
    patch = file(
        b.folder, "patch0.xml",
        b'<?xml version="1.0" ?><patches><patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="4" filename="DISK" '
        b'physical_partition_number="1" size_in_bytes="4" start_sector="NUM_DISK_SECTORS-1." value="7" what="x"/></patches>',
    )  # fmt: skip
    run("qdl", "--storage", "ufs", b.programmer, xml, patch, env=env, cwd=b.folder)
    assert stored(b, "boot_a") == IMAGE
    assert b.ar1.storage.read(1, b.ar1.storage.lun_bytes[1] - 4096, 8) == b"EFI " + b"\x07\0\0\0"
    assert b.ar1.wait_for("system")
    work = edl_sources.read([str(xml), str(patch)])
    ours = [c.document.rstrip(b"\n") for c in vip.commands(work, "ufs") if c.tag in ("program", "patch")]
    work.close()
    assert [d for d in said if b"<program" in d or b"<patch" in d] == ours


@pytest.mark.parametrize("packet_bytes", [512, 1024])
def test_our_client_flashes_through_real_pyusb_and_libusb(plugged: object, packet_bytes: int) -> None:
    b, env = plugged("fastboot", packet_bytes=packet_bytes, quirks=("zlp_stalls",))  # type: ignore[operator]
    state = {"QUARKCTL_STATE_DIR": os.environ["QUARKCTL_STATE_DIR"] + f"/usb{packet_bytes}", **env}
    quarkctl = [sys.executable, "-m", "quarkctl.cli.main"]
    image = file(b.folder, "boot.img", IMAGE)
    assert b.ar1.settings.serial in run(*quarkctl, "devices", env=state)
    run(*quarkctl, "flash", f"{image}@boot_b", "--via", "fastboot", "--no-restart", env=state)
    assert stored(b, "boot_b") == IMAGE
    run(*quarkctl, "ar1", "reboot", "edl", env=state)
    xml = rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_a"}])
    run(*quarkctl, "flash", xml, "--programmer", b.programmer, env=state)
    assert hashlib.sha256(stored(b, "boot_a")).digest() == hashlib.sha256(IMAGE).digest()
    assert b.ar1.wait_for("system")
