"""The virtual AR1 boots what lies on its storage: a real Linux kernel, whose dm-verity judges tree and codes."""

from __future__ import annotations

import errno
import hashlib
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from quarkctl.build.ar1.compress import compress
from quarkctl.flash import fastboot
from quarkctl.formats import avb, bootimg, cpio
from quarkctl.formats.segments import joined
from quarkctl.formats.signature import Algorithm, PublicKey
from quarkctl.link.tcp import TcpLink
from quarkctl.sim.ar1 import factory
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.logical import Logical
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.partitions import Disk
from quarkctl.sim.ar1.system import WATCHDOG_S, QemuSystem, merge
from tests.ar1_system import PATIENCE_S, SCHEMA, Talk
from tests.conftest import ROOT

pytestmark = pytest.mark.qemu
BLOCK = 4096


@dataclass
class Device:
    """A virtual AR1 as it left the factory, flashed."""

    ar1: VirtualAr1
    port: HostPort
    images: Path
    folder: Path

    def boot(self) -> Talk:
        self.ar1.enter("system")
        assert self.ar1.wait_for("system", "fastboot", timeout_s=PATIENCE_S)
        assert self.ar1.mode == "system", self.ar1.boot_failure
        return Talk(self.port.port)

    def put(self, partition: str, data: bytes) -> None:
        place = Disk(self.ar1.storage).partitions[partition]
        self.ar1.storage.write(place.lun, place.offset, data)

    def copy_slot(self) -> None:
        """Slot b holds what slot a does; the system's data too."""
        storage, disk = self.ar1.storage, Disk(self.ar1.storage)
        for name in ("boot", "init_boot", "vendor_boot", "dtbo", "vbmeta"):
            a, b = disk.partitions[f"{name}_a"], disk.partitions[f"{name}_b"]
            for at in range(0, a.size_bytes, 1 << 20):
                storage.write(b.lun, b.offset + at, storage.read(a.lun, a.offset + at, min(1 << 20, a.size_bytes - at)))
        logical = Logical.read(storage, disk.partitions["super"])
        size = logical.sizes()["system_a"]
        logical.resize("system_b", size)
        (start, _), *_ = logical.extents("system_a")
        logical.writer("system_b")(0, memoryview(storage.read(0, start, size)))

    def flip(self, blocks: dict[int, int]) -> None:
        """Damage so many bytes of each of these blocks of system_a."""
        storage = self.ar1.storage
        place = Disk(storage).partitions["super"]
        start, _ = Logical.read(storage, place).extents("system_a")[0]
        for block, count in blocks.items():
            old = storage.read(place.lun, start + block * BLOCK, count)
            storage.write(place.lun, start + block * BLOCK, bytes(b ^ 0xFF for b in old))

    @property
    def log(self) -> str:
        """Of the boot loader."""
        return (self.folder / "bootloader.log").read_text("utf-8")

    @property
    def console(self) -> str:
        return (self.folder / "console.log").read_text("utf-8", "replace")


@pytest.fixture
def device(ar1_images: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(board: str = "s1-virtual", *, locked: bool = False, watchdog_s: float = WATCHDOG_S) -> Device:
        folder, images = tmp_path / f"ar1-{len(made)}", ar1_images(board)
        factory.install(folder, board, images)
        port = HostPort()
        ar1 = VirtualAr1(
            folder, factory.settings(board, "V-7"),
            lambda a, start: QemuSystem(folder, start, a.storage.paths, a.settings.sector_bytes, port, "", watchdog_s),
            partial(merge, folder),
        )  # fmt: skip
        ar1.remembered.unlocked = not locked
        made.append(Device(ar1, port, images, folder))
        return made[-1]

    yield make
    for d in made:
        d.ar1.close()
        d.port.close()


def tree_of(images: Path) -> avb.Hashtree:
    tree = avb.parse((images / "vbmeta.img").read_bytes()).descriptor("system")
    assert isinstance(tree, avb.Hashtree)
    return tree


@pytest.mark.parametrize("board", ["s1-virtual", "g1-virtual"])
def test_what_was_built_boots_locked_and_tells_what_it_is(device: Callable[..., Device], board: str) -> None:
    d = device(board, locked=True)
    talk = d.boot()
    verity = talk.message("ar1_verity")
    system = talk.message("ar1_system")
    hello = talk.message("hello")
    tree = tree_of(d.images)
    assert (hello["board"], hello["serial"], hello["slot"], hello["image_state"]) == (board, "V-7", 0, 0)
    assert hello["selftest_passed"] == hello["selftest_count"] > 0 and any(hello["build_id"])
    assert bytes(verity["root_digest"]) == tree.root_digest[:8]
    assert (verity["blocks"], verity["failed_blocks"], verity["error"]) == (tree.image_size // BLOCK, 0, 0)
    assert (system["boot_state"], system["locked"], system["verity_state"]) == (1, 1, 1)
    raw = (d.images / "vbmeta.img").read_bytes()
    assert bytes(system["vbmeta_a_digest"]) == hashlib.sha256(raw[: avb.parse(raw).size_bytes]).digest()[:8]
    assert talk.message("ar1_load")["memory_total_kib"] > 100_000
    assert len(talk.message("ar1_thermal")["zone_decic"]) == 4
    assert "system Quark virtual AR1 system" in d.console and "0 modules missing" in d.console
    assert f"board Quark {board[:2].upper()}, virtual AR1" in d.console  # the words of dtbo, in /proc/device-tree
    talk.close()


def test_flipped_blocks_are_corrected_until_there_are_too_many(device: Callable[..., Device]) -> None:
    """One, then two far apart: our codes give the bytes back. More than they can mend is EIO, and said."""
    d = device("g1-virtual")
    tree = tree_of(d.images)
    blocks = tree.image_size // BLOCK
    d.flip({3: BLOCK, tree.tree_offset // BLOCK: 5})  # one of data, and the tree's own root
    talk = d.boot()
    assert "blocks of its hash tree are damaged; the kernel has codes to mend them" in d.log
    one = talk.message("ar1_verity")
    assert one["failed_blocks"] == 0 and one["corrected_errors"] > 0
    assert talk.message("ar1_system")["verity_state"] == 2
    # Blocks that lie a multiple of this apart share all their code words. Two parity bytes mend two bytes of a word
    # where the tree tells which are wrong.
    rows = -(-(tree.tree_offset + tree.tree_size) // BLOCK // 253)
    d.flip({3 + rows * (blocks // rows // 2): BLOCK})
    assert talk.request("verify") == 0
    two = [s.values for s in talk.samples if s.message.name == "ar1_verity"][-1]
    assert two["failed_blocks"] == 0 and two["corrected_errors"] > 0
    d.flip({3 + rows * k: BLOCK for k in (1, 2, 3)})
    assert talk.request("verify") == 0
    many = [s.values for s in talk.samples if s.message.name == "ar1_verity"][-1]
    assert many["failed_blocks"] >= 3 and many["error"] == errno.EIO
    system = talk.message("ar1_system")
    assert system["verity_state"] == 3 and system["verity_failed_blocks"] == many["failed_blocks"]
    assert talk.request("confirm") == 1  # EPERM: it is not well
    talk.close()


def test_a_trial_is_confirmed_by_the_system_and_an_unconfirmed_one_falls_back(device: Callable[..., Device]) -> None:
    d = device("s1-virtual", locked=True)
    storage = d.ar1.storage
    d.copy_slot()
    talk = d.boot()
    assert talk.request("trial") == 0 and Disk(storage).slot("b").retry_count == 1
    assert talk.request("reboot") == 0
    hello = dict(talk.until(lambda s: s.message.name == "hello" and s.values["slot"] == 1).values)
    assert (hello["image_state"], hello["reset_reason"]) == (1, 1) and d.ar1.slot == "b"
    d.ar1.power_cut()  # nobody confirmed it
    d.ar1.enter("system")
    hello = dict(talk.until(lambda s: s.message.name == "hello" and s.values["slot"] == 0).values)
    assert (hello["rollback_reason"], hello["reset_reason"]) == (1, 0)
    assert talk.request("trial") == 0 and talk.request("reboot") == 0
    talk.until(lambda s: s.message.name == "ar1_system" and s.values["slot"] == 1)
    assert talk.request("confirm") == 0
    assert Disk(storage).slot("b").successful and not Disk(storage).slot("a").active
    assert talk.request("reboot_bootloader") == 0
    assert d.ar1.wait_for("fastboot", timeout_s=PATIENCE_S) and Disk(storage).current_slot == "b"
    talk.close()


def hostile_init(folder: Path) -> bytes:
    """An init_boot image whose init hangs, and dies at the start after that."""
    program = folder / "init"
    source = Path(__file__).with_name("hostile_init.c")
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", program, source], check=True
    )
    entries = [cpio.Entry("init", stat.S_IFREG | 0o755, program.read_bytes()), cpio.Entry("proc", stat.S_IFDIR | 0o755)]
    return joined(bootimg.build_boot(bootimg.Boot(4, b"", compress(cpio.build(entries), "lz4"), "", "13", "2026-11")))


def bound(images: Path, rollback_index: int, **others: bytes) -> bytes:
    """The build's vbmeta structure with another rollback index, and ``others`` bound in place of the build's images."""
    made = avb.parse((images / "vbmeta.img").read_bytes())
    key = load_pem_private_key((ROOT / "firmware/ar1/keys/development.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signing = avb.Signing(
        Algorithm.RSA4096_SHA256, PublicKey.of(key.public_key()),
        lambda message: key.sign(message, padding.PKCS1v15(), hashes.SHA256()),
    )  # fmt: skip
    descriptors = [
        replace(d, image_size=len(data), digest=hashlib.sha256(d.salt + data).digest())
        if isinstance(d, avb.Hash) and (data := others.get(d.partition)) else d
        for d in made.descriptors
    ]  # fmt: skip
    return avb.build(descriptors, signing, release="test", rollback_index=rollback_index)


def test_what_is_too_old_or_hangs_or_panics_falls_back_to_the_slot_that_works(
    device: Callable[..., Device], tmp_path: Path
) -> None:
    d = device(locked=True, watchdog_s=4)
    storage = d.ar1.storage
    d.copy_slot()
    d.put("vbmeta_a", bound(d.images, 3))
    d.put("vbmeta_b", bound(d.images, 2))
    Disk(storage).activate("b", 1)
    storage.write(4, 4096, bytes(4096))  # and the first copy of the partition table is gone
    talk = d.boot()
    hello = talk.message("hello")
    assert (hello["slot"], hello["rollback_reason"]) == (0, SCHEMA.enums["rollback_reason"]["bad_image"])
    assert d.ar1.remembered.rollback == {"0": 3}
    assert "slot b is refused: vbmeta_b: its rollback index 2 is lower than 3" in d.log
    assert "LUN 4: one copy of the partition table was damaged" in d.log

    hostile = hostile_init(tmp_path)
    d.put("init_boot_b", hostile)
    d.put("vbmeta_b", bound(d.images, 3, init_boot=hostile))
    Disk(storage).activate("b", 2)
    before = len(d.log)
    assert talk.request("reboot") == 0
    hello = dict(talk.until(lambda s: s.message.name == "hello" and s.values["rollback_reason"] == 1).values)
    assert (hello["slot"], hello["reset_reason"]) == (0, SCHEMA.enums["reset_reason"]["fault"])
    said = [line for line in d.log[before:].splitlines() if "tries" in line or "watchdog" in line or "fault" in line]
    assert said == [
        "slot b was never confirmed: 1 tries are left after this one",
        "restart: watchdog",
        "slot b was never confirmed: 0 tries are left after this one",
        "restart: fault",
    ]
    assert talk.request("reboot_bootloader") == 0
    talk.close()
    assert d.ar1.wait_for("fastboot", timeout_s=PATIENCE_S)
    link = TcpLink("127.0.0.1", d.ar1.tcp_port)
    client = fastboot.Client(link)
    told = {k: client.variable(f"{k}:b") for k in ("slot-retry-count", "slot-unbootable", "slot-successful")}
    assert told == {"slot-retry-count": "0", "slot-unbootable": "yes", "slot-successful": "no"}
    assert client.variable("slot-reason:b") == "it was started and never confirmed"
    assert (client.variable("current-slot"), client.variable("stored-rollback-index:0")) == ("a", "3")
    link.close()


def test_the_overlays_are_what_their_sources_say() -> None:
    for source in sorted((ROOT / "firmware/ar1/dts").glob("*.dts")):
        done = subprocess.run(["dtc", "-@", "-O", "dtb", source], capture_output=True, check=True)
        assert done.stdout == source.with_suffix(".dtbo").read_bytes(), source.name


def test_factory_and_specification_have_the_same_partitions() -> None:
    from quarkctl.build.ar1 import spec, storage

    for board in ("s1-virtual", "g1-virtual"):
        s = spec.load(ROOT / "firmware/ar1" / f"{board}.toml")
        made = factory.settings(board, "")
        assert (s.product, s.sector_bytes) == (board, made.sector_bytes)
        for number, table in storage.tables(s).items():
            assert table.sectors * s.sector_bytes == made.lun_bytes[number]
            sizes = {p.name: p.sectors * s.sector_bytes for p in table.partitions if p.name != "userdata"}
            assert sizes == {n: size for n, size in made.layout[number] if n != "userdata"}
