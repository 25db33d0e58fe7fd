"""Restarts of the virtual AR1 with its real boot loader and a scripted system: where each of them leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarkctl.flash import ar1_commands, fastboot
from quarkctl.link.tcp import TcpLink
from quarkctl.sim.ar1.bootloader import Start
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.partitions import Disk
from tests.ar1_slots import CONFIRMED, SPARE, Board, images
from tests.ar1_system import SCHEMA, Script, ScriptedSystem, Talk, scripted

Device = tuple[VirtualAr1, HostPort, Script]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[[], Device]]:
    """Both slots are good, a is confirmed and runs."""
    made: list[Device] = []

    def make() -> Device:
        board = Board(tmp_path / "ar1")
        board.put("a", images("1.0.0", rollback_index=3))
        board.put("b", images("2.1.7", rollback_index=4))
        board.slots(a=CONFIRMED, b=SPARE)
        board.storage.close()
        made.append(scripted(tmp_path / "ar1", board.settings))
        made[-1][0].enter("system")
        assert made[-1][0].wait_for("system")
        return made[-1]

    yield make
    for ar1, port, _ in made:
        ar1.close()
        port.close()


@pytest.mark.parametrize(("ends", "reason"), [("hung", "watchdog"), ("panic", "fault"), ("reset", "software")])
def test_a_trial_that_ends_by_itself_is_over(device: Callable[[], Device], ends: str, reason: str) -> None:
    ar1, port, script = device()
    talk = Talk(port.port)
    assert talk.request("trial") == 0
    script.ends_once = ends
    assert talk.request("reboot") == 0
    talk.until(
        lambda s: (
            s.message.name == "hello"
            and s.values["reset_reason"] == SCHEMA.enums["reset_reason"][reason]
            and s.values["slot"] == 0
        )
    )
    talk.close()
    disk = Disk(ar1.storage)
    assert (
        ar1.wait_for("system")
        and ar1.slot == "a"
        and disk.slot("b").unbootable
        and ar1.remembered.reasons["b"].endswith("never confirmed")
    )


def test_a_system_that_cannot_be_confirmed_stays_on_trial_and_a_good_one_stays(device: Callable[[], Device]) -> None:
    ar1, port, script = device()
    talk = Talk(port.port)
    script.healthy = False
    assert talk.request("trial") == 0 and talk.request("reboot") == 0
    talk.until(lambda s: s.message.name == "hello" and s.values["slot"] == 1)
    assert talk.request("confirm") != 0 and not Disk(ar1.storage).slot("b").successful
    ar1.power_cut()
    script.healthy = True
    ar1.enter("system")
    talk.until(lambda s: s.message.name == "hello" and s.values["slot"] == 0)
    assert talk.request("trial") == 0 and talk.request("reboot") == 0
    talk.until(lambda s: s.message.name == "hello" and s.values["slot"] == 1)
    assert talk.request("confirm") == 0
    ar1.power_cut()
    ar1.enter("system")
    assert ar1.wait_for("system") and ar1.slot == "b" and ar1.remembered.rollback == {"0": 4}
    talk.close()


def test_fastboot_tells_of_both_slots_and_arms_one_for_a_single_start(device: Callable[[], Device]) -> None:
    ar1, port, _ = device()
    talk = Talk(port.port)
    assert talk.request("reboot_bootloader") == 0
    talk.close()
    assert ar1.wait_for("fastboot")
    ar1.remembered.unlocked = True
    link = TcpLink("127.0.0.1", ar1.tcp_port)
    client = fastboot.Client(link)
    told = {
        name: client.variable(name)
        for name in ("current-slot", "slot-version:a", "slot-version:b", "slot-rollback-index:b", "slot-active:b",
                     "slot-successful:a", "slot-priority:a", "reset-reason", "boot-failure", "stored-rollback-index:0")
    }  # fmt: skip
    assert told == {
        "current-slot": "a", "slot-version:a": "1.0.0", "slot-version:b": "2.1.7", "slot-rollback-index:b": "4",
        "slot-active:b": "no", "slot-successful:a": "yes", "slot-priority:a": "3", "reset-reason": "software",
        "boot-failure": "", "stored-rollback-index:0": "3",
    }  # fmt: skip
    client.command("oem trial b")
    assert (client.variable("current-slot"), client.variable("slot-retry-count:b")) == ("b", "1")
    client.command("oem untrial")
    assert (client.variable("current-slot"), client.variable("slot-retry-count:b")) == ("a", "0")
    client.command("oem trial b")
    ar1.storage.bad.add((0, 1))  # the table cannot be written any more: a try cannot be paid
    client.command("reboot")
    link.close()
    assert ar1.wait_for("starting") and ar1.wait_for("fastboot") and "storage failed" in ar1.boot_failure


def test_a_downloaded_image_runs_until_the_next_restart(device: Callable[[], Device], tmp_path: Path) -> None:
    ar1, *_ = device()
    image = tmp_path / "boot.img"
    image.write_bytes(images("2.1.7")["boot"])
    ar1.remembered.unlocked = True
    for once in (True, False):
        ar1.enter("fastboot")
        link = TcpLink("127.0.0.1", ar1.tcp_port)
        client = fastboot.Client(link)
        if once:
            ar1_commands.boot(client, image, lambda _: None)
        else:
            client.command("reboot")
        link.close()
        assert ar1.wait_for("system") and isinstance(ar1._running, ScriptedSystem)
        assert isinstance(ar1._running.start, Start)
        assert (b"2.1.7" if once else b"1.0.0") in ar1._running.start.images.kernel
