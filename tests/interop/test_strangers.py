"""Tools that nobody here wrote, and that must accept what we make."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quarkctl.build import rtos
from quarkctl.build.source import development_key
from quarkctl.formats import mcuboot_image
from quarkctl.formats.mcuboot_image import Version
from tests.conftest import Glasses, Quarkctl

pytestmark = pytest.mark.qemu
Firmware = Callable[..., rtos.Built]
Start = Callable[..., Glasses]


def tool(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """A program of this environment."""
    return subprocess.run(
        [str(Path(sys.executable).parent / name), *map(str, args)], capture_output=True, text=True, timeout=120
    )


def test_imgtool_verifies_our_image(firmware: Firmware) -> None:
    done = tool("imgtool", "verify", "-k", development_key(), firmware("1.1.0").image)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Image was correctly validated" in done.stdout and "1.1.0" in done.stdout


def test_imgtool_verifies_an_image_with_ecdsa_and_reads_what_it_needs_of_the_ar1(
    firmware: Firmware, tmp_path: Path
) -> None:
    key, dump = tmp_path / "p256.pem", tmp_path / "dump.yaml"
    assert tool("imgtool", "keygen", "-t", "ecdsa-p256", "-k", key).returncode == 0
    built = firmware("1.1.0", key=key, ar1_min=Version(1, 2, 3, 4))
    assert built.boot_elf is None
    done = tool("imgtool", "verify", "-k", key, built.image)
    assert done.returncode == 0 and "Image was correctly validated" in done.stdout, done.stdout + done.stderr
    assert tool("imgtool", "verify", "-k", development_key(), built.image).returncode != 0
    assert tool("imgtool", "dumpinfo", "--outfile", dump, built.image).returncode == 0
    assert "DEPENDENCY" in dump.read_text()
    ours = mcuboot_image.parse(built.image.read_bytes())
    theirs = tmp_path / "theirs.bin"
    payload = tmp_path / "payload.bin"
    payload.write_bytes(bytes(5000))
    done = tool("imgtool", "sign", "-k", key, "--version", "1.1.0", "--header-size", "0x400", "--pad-header", "--slot-size",
                "0x100000", "--align", "4", "-d", "(1, 1.2.3+4)", payload, theirs)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert mcuboot_image.parse(theirs.read_bytes()).ar1_min == ours.ar1_min == Version(1, 2, 3, 4)


def test_imgtool_does_not_verify_a_damaged_image(firmware: Firmware, tmp_path: Path) -> None:
    data = bytearray(firmware("1.1.0").image.read_bytes())
    data[3000] ^= 1
    bad = tmp_path / "bad.bin"
    bad.write_bytes(data)
    assert tool("imgtool", "verify", "-k", development_key(), bad).returncode != 0


def test_an_image_signed_by_imgtool_is_flashed_and_runs(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start, tmp_path: Path
) -> None:
    ours = mcuboot_image.parse(firmware("1.1.0").image.read_bytes())
    raw = tmp_path / "payload.bin"
    raw.write_bytes(firmware("1.1.0").image.read_bytes()[ours.header_bytes :][: ours.payload_bytes])
    theirs = tmp_path / "signed.bin"
    done = tool(
        "imgtool", "sign", "-k", development_key(), "--version", "1.1.0", "--header-size", "0x400", "--pad-header",
        "--load-addr", "0x01000000", "--slot-size", "0x100000", "--align", "4", "--security-counter", "1",
        "--custom-tlv", "0x00a0", "s1-virtual", raw, theirs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    g = glasses()
    flashed = quarkctl("flash", theirs, "-d", g.device)
    assert flashed.code == 0, flashed.err
    assert "1.1.0 is permanent" in flashed.err


def test_smpmgr_lists_uploads_tests_and_resets(firmware: Firmware, glasses: Start) -> None:
    g = glasses()
    port = g.instance.port

    def smpmgr(*args: str | Path) -> str:
        done = tool("smpmgr", "--port", port, *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)

    assert "hello" in smpmgr("os", "echo", "hello")
    listed = smpmgr("image", "state-read")
    assert "1.0.0" in listed and "confirmed=True" in listed.replace(" ", "")
    image = firmware("1.1.0").image
    smpmgr("image", "upload", image)
    digest = mcuboot_image.parse(image.read_bytes()).digest.hex()
    assert "1.1.0" in smpmgr("image", "state-read")
    smpmgr("image", "state-write", digest)
    smpmgr("os", "reset")
    after = smpmgr("image", "state-read").replace(" ", "").replace("\n", "")
    assert re.search(r"version='1\.1\.0'.*?active=True", after), after


def test_smpclient_uploads_with_the_buffer_it_negotiates(firmware: Firmware, glasses: Start) -> None:
    from smpclient import SMPClient
    from smpclient.requests.image_management import ImageStatesRead
    from smpclient.transport.serial import SMPSerialTransport

    g = glasses()
    data = firmware("1.1.0").image.read_bytes()

    async def upload() -> list[int]:
        async with SMPClient(SMPSerialTransport(), g.instance.port) as client:
            offsets = [offset async for offset in client.upload(data, slot=0)]
            states = await client.request(ImageStatesRead())
            assert [i.version for i in states.images] == ["1.0.0", "1.1.0"]  # type: ignore[union-attr]
            return offsets

    assert asyncio.run(upload())[-1] == len(data)
