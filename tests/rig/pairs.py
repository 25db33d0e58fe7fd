"""Pairs of virtual glasses for the soak: both chips with firmware of their own, and what must hold of them at any time.

Most pairs have the scripted system (`ar1_stand_in`) on the AR1, since a test computer has no processors for so many
kernels; the boot loader, its verification, the storage and the microcontroller are the real ones in all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl.build import bundle, rtos, sign
from quarkctl.build.ar1 import request
from quarkctl.errors import QuarkError
from quarkctl.flash import device
from quarkctl.flash.smp import Client
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link.serial_port import open_serial
from quarkctl.sim import control, folder, qemu
from quarkctl.sim.ar1 import control as ar1_control
from quarkctl.sim.ar1 import factory
from quarkctl.sim.ar1.bootloader import content
from quarkctl.sim.ar1.partitions import Disk
from quarkctl.sim.ar1.storage import Storage
from tests import bundles
from tests.conftest import BUILD, ROOT

BOARD = "s1-virtual"
#: Partitions of a slot, with the images that they hold; `system` lies in a partition of its own kind and is left out.
PARTITIONS = ("vbmeta", "boot", "init_boot", "vendor_boot", "dtbo")
#: (microcontroller, AR1) as the factory made them, and of the two releases. A new AR1 needs the microcontroller of its
#: release; that one runs beside any AR1.
FACTORY = ("1.0.0", "1.0.0")
RELEASES = (("1.1.0", "1.0.1"), ("1.2.0", "1.0.2"))
#: A device that nobody disturbs answers within that time, on a busy computer.
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Built:
    """``digests``: {AR1's version: {partition: (bytes, SHA-256)}}"""

    boot_elf: Path
    image: Path
    ar1: Path
    bundles: tuple[Path, ...]
    digests: dict[str, dict[str, tuple[int, bytes]]]


def build(work: Path) -> Built:
    """Firmware of both chips and the two releases, in ``work``; what takes long is kept between runs."""
    made = {v: rtos.build(rtos.Request(BOARD, Version.parse(v), out=BUILD / BOARD)) for v, _ in (FACTORY, *RELEASES)}
    images = {v: _ar1_images(v) for _, v in (FACTORY, *RELEASES)}
    boot_elf = made[FACTORY[0]].boot_elf
    assert boot_elf
    return Built(
        boot_elf, made[FACTORY[0]].image, images[FACTORY[1]],
        tuple(_release(work / f"r{n}", made[v].image, images[a], v, a) for n, (v, a) in enumerate(RELEASES)),
        {v: {n: _digest(images[v] / f"{n}.img") for n in PARTITIONS} for v in images},
    )  # fmt: skip


def _digest(file: Path) -> tuple[int, bytes]:
    data = file.read_bytes()
    return len(data), hashlib.sha256(data).digest()


def _ar1_images(version: str) -> Path:
    out = BUILD / f"ar1-{version}"
    out.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock.ar1").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        request.build(request.Request(ROOT / f"firmware/ar1/{BOARD}.toml", out, version=version))
    return out


def _release(work: Path, image: Path, images: Path, rtos_version: str, ar1_version: str) -> Path:
    work.mkdir()
    sources = {n: images / f"{n}.img" for n in PARTITIONS} | {"system": images / "logical" / "system.img"}
    for target, source in sources.items():
        (work / f"{target}.img").symlink_to(source)
    (work / "rtos.bin").symlink_to(image)
    recipe = work / "release.toml"
    recipe.write_text(
        f'product = "{BOARD}"\nversion = "{rtos_version}"\n[rtos]\nimage = "rtos.bin"\n'
        f'needs = {{ ar1 = "{FACTORY[1]}" }}\n[ar1]\nversion = "{ar1_version}"\nneeds = {{ rtos = "{rtos_version}" }}\n'
        + "".join(f'[[ar1.image]]\ntarget = "{t}"\nfile = "{t}.img"\n' for t in sources)
    )
    return bundle.build(bundle.Request(recipe, work, work / "r.qfw", [sign.load(bundles.DEVELOPMENT)])).path


def start(name: str, built: Built, work: Path, seed: int, *, kernel: bool) -> None:
    """``kernel``: the AR1's system is the real one, in QEMU."""
    firmware = control.Firmware(built.boot_elf, built.image)
    with _path(None if kernel else work):
        control.start(name, BOARD, firmware, load="idle", seed=seed, ar1_images=built.ar1)


@contextmanager
def _path(work: Path | None) -> Iterator[None]:
    """With the stand-in in front of the emulator, for what is started now."""
    before = os.environ["PATH"]
    if work:
        program = work / "bin" / qemu.AR1_PROGRAM
        if not program.exists():
            program.parent.mkdir()
            program.write_text(
                f'#!/bin/sh\ncase "$*" in *-append*) ;; *) exec "{qemu.require(qemu.AR1_PROGRAM)}" "$@" ;; esac\n'
                f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.rig.ar1_stand_in "$@"\n'
            )
            program.chmod(0o755)
        os.environ["PATH"] = f"{program.parent}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def wait(name: str) -> None:
    ar1_control.wait(name, PATIENCE_S)


def sound(name: str, built: Built, release: tuple[str, str]) -> tuple[str, str]:
    """Versions of both chips: each runs one whole image that is permanent, and the AR1's of the release not without the
    microcontroller that the release asks for. What nobody confirmed ends with the next start: so it is for a user who
    switches it off and on. Raises AssertionError."""
    until, told = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < until:
        with suppress(QuarkError):
            told = _state(name)
            if not told:
                break
            control.request(name, command="power", action="cycle")
            ar1_control.wait(name, PATIENCE_S)
    assert not told, f"{name}: {told}"
    versions = _rtos(name), _ar1(name, built)
    together = versions[1] != release[1] or Version.parse(versions[0]) >= Version.parse(release[0])
    assert together, f"{name}: {versions} may not run together"
    return versions


def _state(name: str) -> str:
    """What is not permanent, empty if all is."""
    ar1 = ar1_control.request(folder.folder_of(name) / "ar1", command="status")
    if ar1["mode"] != "system" or not ar1["heard"]:
        return f"the AR1 is in {ar1['mode']}, {ar1['boot_failure']}"
    if not ar1["slots"][ar1["slot"]]["successful"]:
        return f"the AR1's slot {ar1['slot']} is on trial"
    return _ask(name, lambda s: "" if s.active and s.active.confirmed else "the microcontroller is on trial")


def _ask(name: str, of: Callable[[device.DeviceState], str]) -> str:
    link = open_serial(control.port(name), 1_000_000)
    try:
        return of(device.probe(Client(link)))
    finally:
        link.close()


def _rtos(name: str) -> str:
    return _ask(name, lambda s: str(s.active.version) if s.active else "")


def _ar1(name: str, built: Built) -> str:
    """The version in the slot that runs, whose every byte is compared."""
    place = folder.folder_of(name)
    known: dict[str, Any] = json.loads((place / "settings.json").read_text("utf-8"))
    slot = str(ar1_control.state(name)["slot"])
    settings = factory.settings(known["board"], known["serial"])
    storage = Storage(place / "ar1", settings.sector_bytes, settings.lun_bytes)
    try:
        disk = Disk(storage)
        version = content(storage, disk, slot).version
        for partition, (size_bytes, digest) in built.digests[version].items():
            where = disk.partitions[f"{partition}_{slot}"]
            stored = storage.read(where.lun, where.offset, size_bytes)
            assert hashlib.sha256(stored).digest() == digest, f"{name}: {partition}_{slot} is not that of {version}"
        return version
    finally:
        storage.close()
