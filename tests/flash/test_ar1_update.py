"""Both chips or neither, with the virtual AR1's real boot loader: cut at every message that goes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quarkctl.errors import LinkLost, QuarkError
from quarkctl.events import Event
from quarkctl.flash import run
from quarkctl.flash.ar1_chip import Ar1Chip
from quarkctl.flash.bundle import Incoming, Session
from quarkctl.flash.chip import Chip
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Job, Plan, Result, Wish
from quarkctl.formats import bootimg, segments
from quarkctl.formats.bootimg import Boot, Fragment, VendorBoot
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link.ar1 import NetworkWay
from quarkctl.link.serial_port import SerialOpener
from quarkctl.link.tcp import TcpLink
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.partitions import Disk, Slot
from quarkctl.sim.ar1.settings import MIB, Settings
from tests import ar1_system, bundles
from tests.ar1_system import Script
from tests.flash.test_transaction import Device, HostKilled, Opener, Scripted, World

KIB = 1 << 10
PHOTOS = b"photos of the wearer" * 100
_SIZES = {"boot": 64 * KIB, "vendor_boot": 64 * KIB, "vbmeta": 64 * KIB}
LAYOUT = {
    0: [(f"{name}_{slot}", size) for name, size in _SIZES.items() for slot in "ab"]
    + [("misc", 4 * KIB), ("userdata", 64 * KIB)]
}


def images(version: str) -> dict[str, bytes]:
    """What starts in the eyes of the boot loader; `tests.ar1_system` runs in its place."""
    kernel = bytes(56) + b"ARMd" + version.encode().ljust(5000, b"k")
    boot = Boot(4, kernel, b"ramdisk of " + version.encode())
    vendor = VendorBoot(4, (Fragment("", "platform", b"modules"),), b"")
    return {
        "boot": segments.joined(bootimg.build_boot(boot)), "vendor_boot": segments.joined(bootimg.build_vendor(vendor)),
        "vbmeta": bundles.vbmeta(version, 1, version.encode()),
    }  # fmt: skip


@dataclass
class Pair:
    """A scripted microcontroller and a virtual AR1 with its real boot loader."""

    world: World
    ar1: VirtualAr1
    port: HostPort
    script: Script
    cable: bool = True
    events: list[Event] = field(default_factory=list)

    def chips(self, job: Job, incoming: Incoming, report: Callable[[int], None]) -> dict[str, Chip]:
        def connect() -> TcpLink:
            if not self.cable or self.ar1.mode not in ("fastboot", "fastbootd"):
                raise LinkLost(f"the AR1 is in mode {self.ar1.mode}")
            return TcpLink("127.0.0.1", self.ar1.tcp_port)

        def path() -> str:
            if not self.cable or self.ar1.mode != "system":
                raise LinkLost("no system runs")
            return self.port.port

        name = f"test:{self.ar1.settings.serial}"
        loader, system = NetworkWay(name, connect), SerialOpener(name, path, 1_000_000)
        chip = Ar1Chip(job, incoming.manifest, incoming.front["ar1"], loader, system)
        return {"rtos": Scripted(self.world, "rtos", {"left": 80, "right": 75}), "ar1": chip}

    def session(self, release: Path, **wish: Any) -> tuple[Session, Journal]:
        journal = Journal(f"script {self.ar1.settings.serial}")
        job = Job(Opener(), journal, self.events.append, wish=Wish(**wish))
        return Session(job, Incoming(str(release)), self.chips), journal

    def flash(self, release: Path, **wish: Any) -> tuple[Plan, Result]:
        one, journal = self.session(release, **wish)
        try:
            plan = run.preflight(one, journal, self.events.append)
            return plan, run.carry_out(one, plan, journal, self.events.append)
        finally:
            one.close()

    def slots(self) -> dict[str, Slot]:
        return {s: Disk(self.ar1.storage).slot(s) for s in "ab"}

    def stored(self, name: str, size: int) -> bytes:
        place = Disk(self.ar1.storage).partitions[name]
        return self.ar1.storage.read(place.lun, place.offset, size)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Pair]]:
    made: list[Pair] = []

    def one() -> Pair:
        settings = Settings(serial=f"UPD-{len(made)}", layout=LAYOUT, lun_bytes=(2 * MIB,))
        ar1, port, script = ar1_system.scripted(tmp_path / f"ar1-{len(made)}", settings)
        disk = Disk(ar1.storage)
        for name, data in {f"{k}_a": v for k, v in images("1.0.0").items()}.items():
            ar1.storage.write(0, disk.partitions[name].offset, data)
        ar1.storage.write(0, disk.partitions["userdata"].offset, PHOTOS)
        disk.set_slots(a=Slot(True, True, False, 7, 3), b=Slot(False, False, True, 0, 0))
        ar1.enter("system")
        assert ar1.wait_for("system")
        pair = Pair(World({"rtos": Device("1.0.0", "1.1.0")}), ar1, port, script)
        made.append(pair)
        return pair

    yield one
    for pair in made:
        pair.ar1.close()
        pair.port.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rtos 1.0.0 -> 1.1.0, which may run beside the old AR1, and AR1 1.0.0 -> 1.0.1."""
    folder = tmp_path_factory.mktemp("release")
    return bundles.make(folder, ar1=images("1.0.1"), needs=("1.0.0", "1.1.0")).path


def test_both_chips_are_written_tried_and_confirmed(release: Path, make: Callable[[], Pair]) -> None:
    pair = make()
    plan, result = pair.flash(release)
    print(pair.ar1.points.passed, pair.ar1.points.counts)
    assert plan.step_names == (
        "write", "arm rtos", "arm ar1", "restart ar1", "restart rtos", "check", "confirm rtos", "check ar1", "confirm ar1",
    )  # fmt: skip
    assert result.facts["runs"] == {"rtos": "1.1.0", "ar1": "1.0.1"}
    assert pair.ar1.slot == "b" and pair.slots()["b"].successful
    for name, data in images("1.0.1").items():
        assert pair.stored(f"{name}_b", len(data)) == data
    assert pair.stored("userdata", len(PHOTOS)) == PHOTOS
    assert pair.flash(release)[1].outcome == "unchanged"


_ = (partial, contextlib, QuarkError, Version, HostKilled)
