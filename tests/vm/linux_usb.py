"""The virtual AR1 behind a real Linux USB stack: AOSP fastboot, qdl and our client in a QEMU guest with usb-redir.

``make test-vm``; the ordinary run does not find it, by its name. The guest runs this computer's own files, read-only, under
Debian's kernel. It is emulated in software, whatever the computer could do: about a minute.
"""

from __future__ import annotations

import json
import lzma
import platform
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quarkctl.build.ar1 import kernel
from quarkctl.formats import cpio
from quarkctl.sim.ar1.watchdog import Watchdog
from quarkctl.sim.usb_redir import UsbRedirServer
from tests import ar1, scratch
from tests.ar1 import Bench, file, noise, rawprogram

IMAGE = noise(900_000)
MACHINES = {"x86_64": ("qemu-system-x86_64", "linux-image-amd64", [])}
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "xhci_pci")
LIMIT_S = 170


@dataclass
class Run:
    """What the guest told, and the device as it is afterwards."""

    bench: Bench
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    console: list[str] = field(default_factory=list)
    ended: bool = False

    def said(self, name: str) -> str:
        assert name in self.steps, "\n".join(self.console[-40:])
        return str(self.steps[name]["said"])

    def code(self, name: str) -> int:
        self.said(name)
        return int(self.steps[name]["code"])


def modules(found: kernel.Kernel) -> list[bytes]:
    """The modules that are wanted and what they depend on, in the order in which they can be loaded."""
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered:
            return
        raw = found.module(name).read_bytes()
        data = lzma.decompress(raw) if raw.startswith(b"\xfd7zXZ") else raw
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends else []:
            if other:
                add(other.replace("-", "_"))
        ordered[name] = data

    for name in MODULES:
        add(name)
    return list(ordered.values())


def ramdisk(folder: Path, found: kernel.Kernel) -> Path:
    init = folder / "init"
    source = Path(__file__).with_name("init.c")
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", init, source], check=True)
    entries = [cpio.Entry("init", stat.S_IFREG | 0o755, init.read_bytes()), cpio.Entry("dev", stat.S_IFDIR | 0o755),
               cpio.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
               cpio.Entry("modules", stat.S_IFDIR | 0o755)]  # fmt: skip
    entries += [
        cpio.Entry(f"modules/{number:02}.ko", stat.S_IFREG | 0o644, data) for number, data in enumerate(modules(found))
    ]
    return file(folder, "initrd.img", cpio.build(entries))


def qemu(folder: Path, socket: Path) -> list[str]:
    program, package, machine = MACHINES[platform.machine()]
    found = kernel.fetch(package=package)
    script = Path(__file__).with_name("guest.py")
    line = f"console=ttyS0 quiet panic=-1 mitigations=off folder={folder} guest={sys.executable},{script}"
    return [
        program, *machine, "-accel", "tcg,thread=multi,tb-size=128", "-m", "384", "-smp", "2", "-nodefaults", "-no-reboot",
        "-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel", str(found.image),
        "-initrd", str(ramdisk(folder, found)), "-append", line,
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        "-device", "qemu-xhci,id=xhci", "-chardev", f"socket,id=ar1,path={socket}",
        "-device", "usb-redir,chardev=ar1,bus=xhci.0,port=1",
    ]  # fmt: skip


def attend(guest: subprocess.Popen[str], run: Run) -> None:
    """Do what the guest asks for until it ends."""
    bench = run.bench
    assert guest.stdout and guest.stdin
    for line in guest.stdout:
        run.console.append(line.rstrip())
        if not line.startswith("@@"):
            continue
        told = json.loads(line[2:])
        if "step" in told:
            run.steps[told["step"]] = told
            run.stored[told["step"]] = bench.stored("boot_b", len(IMAGE)) + bench.stored("boot_a", len(IMAGE))
        run.ended |= "end" in told
        if "do" not in told:
            continue
        if told["do"] == "cut":
            bench.ar1.storage.cut_after(400_000, bench.ar1.unplug)
        elif told["do"] == "replug":
            bench.ar1.replug()
        elif told["do"] == "fresh":
            bench.ar1.storage.erase(0, 6 * 4096, 256 * 4096)
            bench.ar1.enter("edl")
        guest.stdin.write("done\n")
        guest.stdin.flush()


def limit(guest: subprocess.Popen[str], ended: threading.Event) -> None:
    """Of time in which it could run: what a busy computer keeps from it is not its fault."""
    dog = Watchdog(guest.pid, LIMIT_S)
    while not ended.wait(1.0):
        if dog.look(0.0):
            guest.kill()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """On a disk: the guest sees this computer's files there, and not those in its memory."""
    with scratch.folder("qkv-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    if platform.machine() not in MACHINES:
        pytest.skip(f"the guest runs this computer's own programs, and there is no machine for {platform.machine()}")
    bench = ar1.make(folder, "fastboot")
    file(folder, "boot.img", IMAGE)
    rawprogram(folder, [{"filename": "boot.img", "label": "boot_a"}])
    assert bench.programmer.exists()
    server = UsbRedirServer(folder / "usb.sock", bench.ar1.port)
    made = Run(bench)
    with subprocess.Popen(
        qemu(folder, folder / "usb.sock"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as guest:  # fmt: skip
        ended = threading.Event()
        threading.Thread(target=limit, args=(guest, ended), daemon=True).start()
        try:
            attend(guest, made)
        finally:
            ended.set()
            guest.kill()
    server.close()
    yield made
    bench.ar1.close()
    bench.usbip.close()


def test_the_guest_comes_to_its_end(run: Run) -> None:
    assert run.ended, "\n".join(run.console[-40:])


def test_aosp_fastboot_finds_and_flashes_the_device(run: Run) -> None:
    assert run.bench.ar1.settings.serial in run.said("fastboot devices")
    assert run.code("fastboot flash") == 0, run.said("fastboot flash")
    assert run.stored["fastboot flash"][: len(IMAGE)] == IMAGE
    for step in ("stage", "get_staged", "compare"):
        assert run.code(f"fastboot {step}") == 0, run.said(f"fastboot {step}")


def test_our_client_finds_and_flashes_the_device(run: Run) -> None:
    assert run.bench.ar1.settings.serial in run.said("our devices")
    assert run.code("our flash") == 0, run.said("our flash")
    assert run.stored["our flash"][len(IMAGE) :] == IMAGE
    for step in ("stage", "get-staged", "compare"):
        assert run.code(f"our {step}") == 0, run.said(f"our {step}")


def test_our_client_follows_the_device_into_emergency_download(run: Run) -> None:
    assert run.code("our reboot") == 0, run.said("our reboot")
    assert run.code("our EDL") == 0, run.said("our EDL")
    for step in ("read", "compare"):
        assert run.code(f"our EDL, {step}") == 0, run.said(f"our EDL, {step}")
    storage = run.bench.ar1.storage
    assert storage.digest(1, 0, storage.lun_bytes[1]).hex() in run.said("our EDL, digest")


def test_a_cable_that_is_pulled_is_a_lost_link_and_the_next_try_succeeds(run: Run) -> None:
    assert run.code("our EDL, cut") == 4, run.said("our EDL, cut")
    assert run.code("our EDL, again") == 0, run.said("our EDL, again")
    assert run.stored["our EDL, again"][len(IMAGE) :] == IMAGE


def test_qdl_flashes_the_device(run: Run) -> None:
    assert run.code("qdl") == 0, run.said("qdl")
    assert run.stored["qdl"][len(IMAGE) :] == IMAGE
