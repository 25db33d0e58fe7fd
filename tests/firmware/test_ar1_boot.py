"""The virtual AR1's images meet a real Linux kernel: it boots them, and its dm-verity judges tree and codes."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from quarkctl import files, schemas
from quarkctl.build.ar1 import request
from quarkctl.formats import avb, bootimg, gpt, lp, rawprogram, sparse
from quarkctl.formats.segments import joined, whole
from quarkctl.formats.stream import Decoder
from tests.conftest import BUILD, ROOT

pytestmark = pytest.mark.qemu
BOARD = "g1-virtual"


@pytest.fixture(scope="module")
def built() -> Path:
    """The images of the virtual G1, from the sources in firmware/ar1."""
    out = BUILD / BOARD / "ar1"
    out.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock.ar1").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        request.build(request.Request(ROOT / "firmware/ar1" / f"{BOARD}.toml", out))
    return out


def flashed(out: Path, lun: int, target: Path) -> Path:
    """A disk after the programs of an XML set were written to it."""
    sectors = gpt.parse((out / f"gpt_main{lun}.bin").read_bytes()).sectors
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(fd, sectors * 4096)
    for p in rawprogram.parse_programs((out / f"rawprogram{lun}.xml").read_bytes()):
        if not p.filename:
            continue
        with files.File(out / p.filename) as source:
            if p.sparse:
                image = sparse.parse(source)
                for c in image.chunks:
                    files.append(fd, p.start.number * 4096 + c.first_block * image.block_bytes, image.read(c))
            else:
                files.append(fd, p.start.number * 4096, [whole(source)])
    os.close(fd)
    return target


def test_the_kernel_boots_our_images_and_corrects_a_destroyed_block_by_our_codes(built: Path, tmp_path: Path) -> None:
    disks = [flashed(built, lun, tmp_path / f"lun{lun}") for lun in (0, 4)]
    disk = bytearray(disks[0].read_bytes())
    at = disk.index(b"Quark virtual AR1 system") // 4096 * 4096
    disk[at : at + 4096] = bytes(x ^ 0xFF for x in disk[at : at + 4096])
    disks[0].write_bytes(disk)
    boot = bootimg.parse_boot((built / "boot.img").read_bytes())
    init = bootimg.parse_boot((built / "init_boot.img").read_bytes())
    vendor = bootimg.parse_vendor((built / "vendor_boot.img").read_bytes())
    (tmp_path / "kernel").write_bytes(joined([boot.kernel]))
    (tmp_path / "initrd").write_bytes(joined([*(f.data for f in vendor.fragments), init.ramdisk]))
    drives: list[str] = []
    for n, path in enumerate(disks):
        drives += ["-drive", f"if=none,id=d{n},file={path},format=raw"]
        drives += ["-device", f"virtio-blk-pci,drive=d{n},logical_block_size=4096,physical_block_size=4096"]
    done = subprocess.run(
        [
            "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-nodefaults", "-display", "none",
            "-no-reboot", "-kernel", tmp_path / "kernel", "-initrd", tmp_path / "initrd",
            "-append", f"{vendor.cmdline} quark.once androidboot.slot_suffix=_a androidboot.serialno=VG1-7",
            "-serial", "stdio", "-chardev", f"file,id=link,path={tmp_path / 'link'}", "-device", "pci-serial,chardev=link",
            *drives, "-sandbox", "on,spawn=deny,elevateprivileges=deny,obsolete=deny,resourcecontrol=deny",
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    told = done.stdout
    top = avb.parse((built / "vbmeta.img").read_bytes())
    tree = top.descriptor("system")
    assert isinstance(tree, avb.Hashtree)
    assert f"verity system blocks {tree.image_size // 4096} failed 0 corrected" in told, told + done.stderr
    assert "system Quark virtual AR1 system" in told and "modules-missing 0" in told
    samples = {s.message.name: s for s in Decoder(schemas.telemetry()).feed((tmp_path / "link").read_bytes())}
    assert (samples["hello"].text("board"), samples["hello"].text("serial")) == (BOARD, "VG1-7")
    found = samples["ar1_verity"].values
    assert bytes(found["root_digest"]) == tree.root_digest[:8]
    assert found["corrected_errors"] > 0 and found["failed_blocks"] == 0 and found["error"] == 0
    assert samples["ar1_load"].values["memory_total_kib"] > 100_000
    assert len(samples["ar1_thermal"].values["zone_decic"]) == 4


def test_both_specifications_of_the_repository_hold() -> None:
    from quarkctl.build.ar1 import spec, storage

    for board in ("s1-virtual", "g1-virtual"):
        s = spec.load(ROOT / "firmware/ar1" / f"{board}.toml")
        assert s.product == board and storage.tables(s)[4].partition("vbmeta_b")
    assert lp.SECTOR_BYTES == 512
