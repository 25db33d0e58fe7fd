"""Both chips or neither, with the virtual AR1's real boot loader: cut at every message that goes to it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quarkctl.errors import DeviceRefused, InputWrong, LinkLost, QuarkError
from quarkctl.events import Event
from quarkctl.flash import ar1_chip, fastboot, run
from quarkctl.flash.ar1_chip import Ar1Chip
from quarkctl.flash.bundle import Incoming, Session
from quarkctl.flash.chip import Chip
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Job, Plan, Result, Wish
from quarkctl.flash.transaction import State
from quarkctl.formats import bootimg, segments
from quarkctl.formats.bootimg import Boot, Fragment, VendorBoot
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link import Link, lock, serial_port
from quarkctl.link.ar1 import NetworkWay
from quarkctl.link.lock import Lock
from quarkctl.link.serial_port import SerialOpener
from quarkctl.link.tcp import TcpLink
from quarkctl.sim.ar1.bootloader import content
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.partitions import Disk, Slot
from quarkctl.sim.ar1.settings import MIB, Settings
from tests import ar1_system, bundles
from tests.ar1_system import Script
from tests.flash.test_transaction import Device, HostKilled, Opener, Scripted, World


class NewIsBad(Script):
    """What starts from slot b is not as good as what starts from slot a."""

    ar1: VirtualAr1
    ends_new = ""
    healthy_new = True

    def __init__(self) -> None:
        pass

    @property  # type: ignore[override]
    def ends_once(self) -> str:
        return self.ends_new if Disk(self.ar1.storage).slot("b").active else ""

    @ends_once.setter
    def ends_once(self, value: str) -> None:
        """Whatever starts from slot b ends so, each time."""

    @property  # type: ignore[override]
    def healthy(self) -> bool:
        return self.healthy_new or not Disk(self.ar1.storage).slot("b").active


@dataclass
class System:
    """The way to the running system."""

    pair: Pair
    identity: str

    def resolve(self) -> str:
        if not self.pair.cable or self.pair.ar1.mode != "system":
            raise LinkLost("no system runs")
        return self.pair.port.port

    def hold(self) -> Lock:
        return lock.hold(self.identity)

    def open(self) -> Link:
        return self.pair.watched(SerialOpener(self.identity, self.resolve, 1_000_000).open())


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


class Both(World):
    """The microcontroller's side, whose operations are moments of the pair."""

    pair: Pair

    def operation(self, name: str, what: str, effect: Callable[[], None]) -> None:
        self.pair.moment(f"{what} {name}")
        super().operation(name, what, effect)
        self.pair.moment(f"{what} {name} done")


@dataclass
class Watched:
    """A link of the host; every transfer from it is two moments: before it, and while the device has it."""

    link: Link
    pair: Pair
    name: str = "watched"

    def read(self, timeout_s: float) -> bytes:
        if self.pair.killed:
            raise HostKilled
        return self.link.read(timeout_s)

    def write(self, data: bytes | memoryview) -> None:
        self.pair.moment("write ar1")
        self.link.write(data)
        self.pair.moment("write ar1 done")

    def close(self) -> None:
        self.link.close()


@dataclass
class Pair:
    """A scripted microcontroller and a virtual AR1 with its real boot loader, and something that strikes at one moment."""

    world: Both
    ar1: VirtualAr1
    port: HostPort
    script: NewIsBad
    fault: str = ""
    at: int = 0
    moments: list[str] = field(default_factory=list)
    cable: bool = True
    killed: bool = False
    events: list[Event] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    chip: Ar1Chip | None = None
    incoming: Incoming | None = None

    def moment(self, what: str) -> None:
        if self.killed:
            raise HostKilled
        self.moments.append(what)
        if len(self.moments) == self.at:
            self.strike()

    def strike(self) -> None:
        rtos = self.world.devices["rtos"]
        if self.fault == "host":
            self.killed = True
            raise HostKilled
        if self.fault == "cable":
            self.cable = rtos.answers = False
            self.ar1.unplug()
        if self.fault in ("rtos", "power"):
            rtos.restart(power=True)
        if self.fault in ("ar1", "power"):
            self.brown_out()

    def brown_out(self) -> None:
        """Of the AR1 alone: it starts again by itself."""
        self.ar1.power_cut("brownout")
        self.ar1.enter("system")

    def watched(self, link: Link) -> Link:
        self.links.append(link)
        return Watched(link, self)

    def power_on(self) -> None:
        self.world.devices["rtos"].restart(power=True)
        self.ar1.power_cut()
        self.ar1.enter("system")
        assert self.ar1.wait_for("system")

    def calm(self) -> None:
        """Nothing strikes any more; host and cable are back. What a killed process had open is closed."""
        for link in self.links:
            link.close()
        self.links.clear()
        if self.chip:
            self.chip._lock.release()
        if self.incoming:
            self.incoming.close()
        self.at, self.moments, self.killed, self.cable = 0, [], False, True
        self.world.devices["rtos"].answers = True
        self.ar1.replug()
        assert self.ar1.wait_for("system", "fastboot", "fastbootd", "off")

    def runs(self) -> dict[str, Version]:
        """By what lies in the slot that was started, or is the next to be."""
        disk = Disk(self.ar1.storage)
        slot = self.ar1.slot or disk.current_slot
        found = content(self.ar1.storage, disk, slot)
        return {**self.world.runs(), "ar1": Version.parse(found.version)}

    def renew(self) -> None:
        """As it was before any update."""
        self.calm()
        self.world.devices["rtos"] = Device("1.0.0", "1.1.0")
        self.ar1.enter("off")
        disk = Disk(self.ar1.storage)
        for name, data in images("1.0.0").items():
            self.ar1.storage.write(0, disk.partitions[f"{name}_a"].offset, data)
            self.ar1.storage.erase(0, disk.partitions[f"{name}_b"].offset, _SIZES[name])
        self.ar1.storage.write(0, disk.partitions["userdata"].offset, PHOTOS)
        disk.set_slots(a=Slot(True, True, False, 7, 3), b=Slot(False, False, True, 0, 0))
        self.ar1.enter("system")
        assert self.ar1.wait_for("system")

    def chips(self, job: Job, incoming: Incoming, report: Callable[[int], None]) -> dict[str, Chip]:
        def connect() -> Link:
            if not self.cable or self.ar1.mode not in ("fastboot", "fastbootd"):
                raise LinkLost(f"the AR1 is in mode {self.ar1.mode}")
            return self.watched(TcpLink("127.0.0.1", self.ar1.tcp_port))

        self.incoming = incoming
        name = f"test:{self.ar1.settings.serial}"
        chip = self.chip = Ar1Chip(
            job, incoming.manifest, incoming.front["ar1"], NetworkWay(name, connect), System(self, name)
        )
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
        script = NewIsBad()
        ar1, port, _ = ar1_system.scripted(tmp_path / f"ar1-{len(made)}", settings, script)
        script.ar1 = ar1
        world = Both({"rtos": Device("1.0.0", "1.1.0")})
        world.pair = pair = Pair(world, ar1, port, script)
        pair.renew()
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
    assert plan.step_names == (
        "write", "arm rtos", "arm ar1", "restart ar1", "restart rtos", "check", "confirm rtos", "check ar1", "confirm ar1",
    )  # fmt: skip
    assert result.facts["runs"] == {"rtos": "1.1.0", "ar1": "1.0.1"}
    assert pair.ar1.slot == "b" and pair.slots()["b"].successful
    for name, data in images("1.0.1").items():
        assert pair.stored(f"{name}_b", len(data)) == data
    assert pair.stored("userdata", len(PHOTOS)) == PHOTOS
    assert pair.flash(release)[1].outcome == "unchanged"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual devices answer at once: waiting for what never comes needs no minute."""
    monkeypatch.setattr(ar1_chip, "START_S", 20.0)
    monkeypatch.setattr(ar1_chip, "HEALTH_S", 0.5)
    monkeypatch.setattr(ar1_chip, "APPEAR_S", 0.5)
    monkeypatch.setattr(ar1_chip, "_REPORT_S", 0.5)
    monkeypatch.setattr(ar1_chip, "_POLL_S", 0.01)
    monkeypatch.setattr(fastboot, "QUICK_S", 1.0)
    # A look through all processes of the computer at each opening of a port: half of the time, and nothing to see here.
    monkeypatch.setattr(serial_port, "openers_of", lambda path: [])


FAULTS = ("host", "cable", "rtos", "ar1", "power")
#: Pairs that are cut side by side: most of the time they wait for a device that is gone.
PAIRS = 8


def settles(pair: Pair, release: Path, power_first: bool) -> None:
    """After a cut: what power-on makes of it is allowed, and the next flash brings both chips to the release."""
    told = pair.moments
    pair.calm()
    if power_first:
        with contextlib.closing(Incoming(str(release))) as incoming:
            manifest = incoming.manifest
        pair.power_on()
        assert manifest.allows(pair.runs()), told
    pair.flash(release)
    assert pair.runs() == {"rtos": Version(1, 1, 0), "ar1": Version(1, 0, 1)}, told
    assert pair.world.devices["rtos"].state is State.CONFIRMED and pair.slots()["b"].successful
    assert pair.stored("userdata", len(PHOTOS)) == PHOTOS and pair.world.devices["rtos"].data == b"photos"


def at_each(
    moments: Iterable[int], pairs: list[Pair], release: Path, cut: Callable[[Pair, int], None],
    power_first: Callable[[int], bool],
) -> None:  # fmt: skip
    """Cut an update at each of the moments, and see that all settles."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        left = iter(moments)
        while batch := list(itertools.islice(left, len(pairs))):
            with pytest.MonkeyPatch.context() as hurry:  # what the update that is cut gives up does not matter
                hurry.setattr(ar1_chip, "START_S", 2.0)
                list(pool.map(cut, pairs, batch))
            with pytest.MonkeyPatch.context() as patient:
                for name in ("START_S", "HEALTH_S", "APPEAR_S"):
                    patient.setattr(ar1_chip, name, 60.0)
                patient.setattr(fastboot, "QUICK_S", 10.0)
                list(pool.map(lambda pair, at: settles(pair, release, power_first(at)), pairs, batch))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # who is killed closes nothing
@pytest.mark.parametrize("fault", FAULTS)
def test_cut_at_every_message_nothing_is_left_that_does_not_belong_together(
    release: Path, make: Callable[[], Pair], fault: str
) -> None:
    pairs = [make() for _ in range(PAIRS)]
    pairs[0].flash(release)
    moments = dict(enumerate(pairs[0].moments, 1))
    assert len(moments) > 60
    if fault in ("host", "rtos"):
        # The AR1 sees nothing of it and has what was sent: to it this moment and the next one are the same.
        moments = {at: what for at, what in moments.items() if what != "write ar1 done"}

    def cut(pair: Pair, at: int) -> None:
        pair.renew()
        pair.fault, pair.at = fault, at
        with contextlib.suppress(HostKilled, QuarkError):
            pair.flash(release)

    # Every other one goes on after power-on: a moment and the one after it differ in whether one message arrived.
    at_each(moments, pairs, release, cut, lambda at: at // 2 % 2 == 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # what wrote is no more
def test_power_that_fails_inside_a_write_to_the_storage_leaves_the_old_table_or_the_new_one(
    release: Path, make: Callable[[], Pair]
) -> None:
    pairs = [make() for _ in range(PAIRS)]
    before = pairs[0].ar1.storage.written_bytes
    pairs[0].flash(release)
    written = pairs[0].ar1.storage.written_bytes - before

    def cut(pair: Pair, at: int) -> None:
        pair.renew()
        pair.ar1.storage.cut_after(at, pair.brown_out)
        with contextlib.suppress(QuarkError):
            pair.flash(release)
        pair.ar1.storage.cut_after(1 << 40, lambda: None)

    at_each(range(1, written, written // 64), pairs, release, cut, lambda at: True)


def test_an_image_that_does_not_start_or_is_not_healthy_takes_both_chips_back(
    release: Path, make: Callable[[], Pair]
) -> None:
    pair = make()
    for name, ends, healthy in (("hangs", "hung", True), ("panics", "panic", True), ("is ill", "", False)):
        pair.renew()
        pair.script.ends_new, pair.script.healthy_new = ends, healthy
        with pytest.raises(QuarkError, match=r"ar1 1\.0\.1 failed its test boot") as failure:
            pair.flash(release)
        assert pair.ar1.wait_for("system")
        assert pair.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}, (name, failure.value)
        assert pair.slots()["a"].successful and not pair.slots()["b"].active
        assert failure.value.exit_code == 5


def test_a_stream_that_turns_out_to_be_damaged_leaves_what_runs_and_a_slot_without_a_name(
    release: Path, make: Callable[[], Pair], tmp_path: Path
) -> None:
    """What a pipe or a large file brings last is not known when the first image is written."""
    pair = make()
    data = release.read_bytes()
    at = data.index(images("1.0.1")["vendor_boot"][:4096])
    bad = tmp_path / "bad.qfw"
    bad.write_bytes(data[: at + 9] + b"\xee" + data[at + 10 :])
    with pytest.raises(InputWrong, match="not what was signed") as failure:
        pair.flash(bad)
    assert failure.value.exit_code == 6 and "both chips run what they ran before" in failure.value.hint
    assert pair.ar1.wait_for("system"), "it was left in its boot loader"
    assert pair.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}
    assert pair.slots()["a"].successful and not pair.slots()["b"].active
    assert pair.stored("vbmeta_b", 64 * KIB) == bytes(64 * KIB), "the slot has a name"
    assert pair.stored("vendor_boot_b", 64 * KIB) == bytes(64 * KIB), "something of the damaged image was written"
    assert pair.stored("userdata", len(PHOTOS)) == PHOTOS
    pair.flash(release)
    assert pair.runs() == {"rtos": Version(1, 1, 0), "ar1": Version(1, 0, 1)}


def test_a_file_with_a_damaged_end_arms_nothing_though_all_was_written_before(
    release: Path, make: Callable[[], Pair], tmp_path: Path
) -> None:
    pair = make()
    pair.flash(release)
    at = pair.moments.index("arm rtos") + 1
    pair.renew()
    pair.fault, pair.at = "host", at
    with pytest.raises(HostKilled):
        pair.flash(release)
    pair.calm()
    bad = tmp_path / "bad.qfw"
    bad.write_bytes(release.read_bytes()[:-1] + b"\xee")
    with pytest.raises(InputWrong, match="directory at the end"):
        pair.flash(bad)
    assert pair.world.devices["rtos"].state is State.WRITTEN and not pair.slots()["b"].active
    pair.flash(release)
    assert pair.runs() == {"rtos": Version(1, 1, 0), "ar1": Version(1, 0, 1)}


def test_what_does_not_fit_is_refused_before_a_byte_is_written(make: Callable[[], Pair], tmp_path: Path) -> None:
    pair = make()
    cases = {
        "too large": {**images("1.0.1"), "boot": bytes(65 * KIB)},
        "no slots": {**images("1.0.1"), "userdata": b"x" * 5000},
        "unknown": {**images("1.0.1"), "modem": b"x" * 5000},
    }
    for k, content_ in enumerate(cases.values()):
        path = bundles.make(tmp_path / str(k), ar1=content_, needs=("1.0.0", "1.1.0")).path
        with pytest.raises(InputWrong, match=r"holds 65536|has no slots"):
            pair.flash(path)
        assert pair.ar1.wait_for("system"), "it was left in its boot loader"
    assert pair.stored("userdata", len(PHOTOS)) == PHOTOS
    assert pair.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}


def test_a_locked_device_is_told_as_such(release: Path, make: Callable[[], Pair]) -> None:
    pair = make()
    pair.ar1.remembered.unlocked = False
    pair.ar1.enter("fastboot")
    with pytest.raises(DeviceRefused, match="locked"):
        pair.flash(release)
