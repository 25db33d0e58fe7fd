"""``quarkctl flash release.qfw`` against a pair of virtual glasses: real firmware, and a real Linux kernel, in QEMU."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarkctl.build import bundle, rtos, sign
from quarkctl.build.ar1 import request
from quarkctl.sim import control, folder
from quarkctl.sim.ar1 import boot_rom
from quarkctl.sim.ar1 import control as ar1_control
from quarkctl.sim.ar1.partitions import Disk, Partition
from quarkctl.sim.ar1.storage import Storage
from tests import bundles
from tests.conftest import BUILD, ROOT, Quarkctl

pytestmark = [pytest.mark.qemu, pytest.mark.long]
IMAGES = {n: n for n in ("vbmeta", "boot", "init_boot", "vendor_boot", "dtbo")} | {"system": "logical/system"}


def ar1_images(version: str) -> Path:
    """The images of firmware/ar1, built once."""
    out = BUILD / f"ar1-{version}"
    out.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock.ar1").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        request.build(request.Request(ROOT / "firmware/ar1/s1-virtual.toml", out, version=version))
    return out


@pytest.fixture
def release(firmware: Callable[..., rtos.Built], tmp_path: Path) -> Path:
    """rtos 1.1.0 and AR1 1.0.1: as `build rtos` and `build ar1` make them, for updates and for emergency download."""
    images = tmp_path / "ar1"
    shutil.copytree(ar1_images("1.0.1"), images, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(firmware("1.1.0").image, tmp_path / "rtos.bin")
    (tmp_path / "prog.elf").write_bytes(boot_rom.programmer(20_000))
    xml = sorted(f"ar1/{p.name}" for p in images.glob("rawprogram*.xml"))
    recipe = tmp_path / "release.toml"
    recipe.write_text(
        'product = "s1-virtual"\nversion = "2026.11"\n[rtos]\nimage = "rtos.bin"\nneeds = { ar1 = "1.0.0" }\n'
        '[ar1]\nversion = "1.0.1"\nneeds = { rtos = "1.1.0" }\n'
        f'rawprogram = {json.dumps(xml)}\nprogrammer = "prog.elf"\nmemory = "ufs"\n'
        + "".join(f'[[ar1.image]]\ntarget = "{t}"\nfile = "ar1/{f}.img"\n' for t, f in IMAGES.items())
    )
    made = bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw", [sign.load(bundles.DEVELOPMENT)]))
    return made.path


@pytest.fixture
def pair(firmware: Callable[..., rtos.Built]) -> Iterator[str]:
    """Name of running glasses with 1.0.0 on both chips."""
    built, name = firmware("1.0.0"), "pair"
    control.start(
        name, "s1-virtual", control.Firmware(built.boot_elf, built.image), load="idle", ar1_images=ar1_images("1.0.0")
    )
    yield name
    if any(i.name == name for i in folder.running()):
        control.stop(name)


PHOTOS = b"photos of the wearer" * 5000
STEPS = (
    "write", "arm rtos", "arm ar1", "restart ar1", "restart rtos", "check", "confirm rtos", "check ar1", "confirm ar1",
)  # fmt: skip


def user_data(name: str) -> tuple[Storage, Partition]:
    """The AR1's storage, and where on it the wearer's data is. The microcontroller has nothing of the wearer's."""
    luns = sorted((folder.folder_of(name) / "ar1").glob("lun*.img"), key=lambda p: int(p.stem[3:]))
    storage = Storage(luns[0].parent, 4096, [p.stat().st_size for p in luns])
    return storage, Disk(storage).partitions["userdata"]


def batteries(name: str, *changes: tuple[str, int]) -> None:
    """Pull each pack and put another one in, one after the other: the glasses keep running."""
    for side, soc_pct in changes:
        control.request(name, command="battery", action="eject", side=side)
        control.request(name, command="battery", action="insert", side=side, soc_pct=soc_pct)


def lose_power(name: str) -> None:
    """Both packs are out for a moment."""
    for action in ("eject", "insert"):
        for side in ("left", "right"):
            control.request(name, command="battery", action=action, side=side)
    ar1_control.wait(name, 120.0)


def test_both_chips_are_updated_although_the_host_is_killed_in_each_step_and_batteries_are_swapped(
    quarkctl: Quarkctl, release: Path, pair: str
) -> None:
    device = f"sim:{pair}"
    ar1_control.wait(pair, 120.0)
    storage, place = user_data(pair)
    storage.write(place.lun, place.offset, PHOTOS)

    batteries(pair, ("left", 6), ("right", 5))
    low = quarkctl("flash", release, "-d", device)
    assert low.code == 5 and "the fuller battery has 6 %, an update needs 15 %" in low.err
    assert "charge the glasses or change a battery" in low.err
    batteries(pair, ("left", 80), ("right", 60))

    for step in STEPS:
        process = quarkctl.start("flash", release, "-d", device, "--events")
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["step"] != step:
                continue
            if step == "write" and not event["done_bytes"] > 0.3 * event["total_bytes"] > 0:
                continue  # in the middle of the AR1's images
            if step in ("write", "check"):
                batteries(pair, ("left", 90), ("right", 95))  # one carries the glasses while the other is out
            process.send_signal(signal.SIGKILL)
            break
        else:
            pytest.fail(f"{step} was not reached: {process.communicate()[1]}")
        process.communicate(timeout=60)
        if step in ("write", "restart rtos"):
            lose_power(pair)
    done = quarkctl("flash", release, "-d", device, "--json", timeout=240)
    assert done.code == 0, done.err
    assert done.json["runs"] == {"rtos": "1.1.0", "ar1": "1.0.1"}
    again = quarkctl("flash", release, "-d", device, "--json")
    assert (again.code, again.json["result"]) == (0, "unchanged")
    assert storage.read(place.lun, place.offset, len(PHOTOS)) == PHOTOS
    storage.close()
