"""``quarkctl flash`` against virtual glasses that run the real firmware."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quarkctl.build import rtos
from quarkctl.errors import DeviceRefused
from quarkctl.flash import device
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import upload
from quarkctl.formats import mcuboot_image, smp
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link.identity import Device
from quarkctl.sim import folder
from tests.conftest import Glasses, Quarkctl

pytestmark = pytest.mark.qemu

Firmware = Callable[..., rtos.Built]
Start = Callable[..., Glasses]


def test_an_update_is_uploaded_tried_and_confirmed(quarkctl: Quarkctl, firmware: Firmware, glasses: Start) -> None:
    g = glasses()
    new = firmware("1.1.0").image
    done = quarkctl("flash", new, "-d", g.device, "--json")
    assert done.code == 0, done.err
    assert done.json["schema"] == "quarkctl.flash/1"
    assert (done.json["old_version"], done.json["new_version"], done.json["new_slot"]) == ("1.0.0", "1.1.0", "B")
    assert done.json["selftest"] == "self-test 9/9"
    again = quarkctl("flash", new, "-d", g.device, "--json")
    assert (again.code, again.json["result"]) == (0, "unchanged")
    compared = quarkctl("flash", new, "-d", g.device, "--verify-only", "--json")
    assert (compared.code, compared.json["result"], compared.json["steps"]) == (0, "verified", ["compare"])
    other = quarkctl("flash", firmware("0.9.0").image, "-d", g.device, "--verify-only")
    assert other.code == 5 and "does not hold 0.9.0: it has 1.0.0 in slot A, 1.1.0 in slot B" in other.err
    forced = quarkctl("flash", new, "-d", g.device, "--force", "--json")
    assert (forced.code, forced.json["new_slot"]) == (0, "A"), forced.err
    # A confirmed image survives a power cut.
    g.tell("power", action="cycle")
    assert quarkctl("flash", new, "-d", g.device, "--json").json["result"] == "unchanged"


def test_a_plan_is_printed_and_nothing_is_written(quarkctl: Quarkctl, firmware: Firmware, glasses: Start) -> None:
    g = glasses()
    new = firmware("1.1.0").image
    plan = quarkctl("flash", new, "-d", g.device, "--dry-run", "--json")
    assert plan.json["steps"] == ["upload", "verify", "restart", "health", "confirm"]
    again = quarkctl("flash", new, "-d", g.device, "--dry-run", "--json")
    assert again.json | {"preflight": ""} == plan.json | {"preflight": ""}  # batteries go down meanwhile


@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        ("fault", "bus fault in thread sabotage in run at sabotage.c:"),
        ("hang", "hang, stopped by the watchdog in thread sabotage in run at sabotage.c:"),
        ("stack", "stack overflow in thread sabotage in deeper at sabotage.c:"),
        ("selftest", "self-test 9/10, failed: sabotage"),
    ],
)
def test_an_image_that_fails_its_test_boot_is_rolled_back_with_the_reason(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start, sabotage: str, told: str
) -> None:
    g = glasses()
    bad = firmware("1.2.0", sabotage=sabotage).image
    done = quarkctl("flash", bad, "-d", g.device)
    assert done.code == 5
    assert f"error: 1.2.0 failed its test boot: {told}" in done.err
    assert "rolled back to 1.0.0, which runs" in done.err
    crashes = list(quarkctl.folder.glob("crash-*.json"))
    if sabotage == "selftest":
        assert not crashes
        return
    shown = quarkctl("inspect", crashes[0], "--json").json["files"][0]
    assert shown["kind"] == "crash report" and told in shown["cause"]
    # Without the program, and with one of another build, the address is all there is.
    report = json.loads(crashes[0].read_text())
    del report["cause"]
    bare = quarkctl.folder / "bare.json"
    bare.write_text(json.dumps(report))
    assert f"at {shown['pc']}" in quarkctl("inspect", bare, "--json").json["files"][0]["cause"]
    other = quarkctl("inspect", bare, "--elf", firmware("1.0.0").app_elf, "--json").json["files"][0]
    assert f"at {shown['pc']}" in other["cause"]
    named = quarkctl("inspect", bare, "--elf", firmware("1.2.0", sabotage=sabotage).app_elf, "--json").json["files"][0]
    assert told in named["cause"]


def test_a_folder_means_its_newest_image_and_the_log_tells_every_exchange(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start
) -> None:
    g = glasses()
    image = firmware("1.1.0").image
    folder = quarkctl.folder / "build"
    folder.mkdir()
    for name in ("rtos-1.1.0.bin", "rtos-1.10.0-hang.bin"):
        (folder / name).write_bytes(image.read_bytes())
    done = quarkctl("flash", folder, "-d", g.device, "--log", "flash.log", "-v")
    assert done.code == 0, done.err
    log = (quarkctl.folder / "flash.log").read_text()
    assert "image upload write" in log and "answer Response" in log
    assert "data 2" in log and "image state write" in done.err
    assert quarkctl("flash", quarkctl.folder, "-d", g.device).code == 6


def test_events_are_json_lines_with_bytes_and_device(quarkctl: Quarkctl, firmware: Firmware, glasses: Start) -> None:
    g = glasses()
    done = quarkctl("flash", firmware("1.1.0").image, "-d", g.device, "--events")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {line["device"] for line in lines} == {g.device}
    assert [line["step"] for line in lines if line["level"] == "done"] == [
        "preflight", "upload", "verify", "restart", "health", "confirm",
    ]  # fmt: skip
    uploads = [line for line in lines if line["step"] == "upload" and line["level"] == "progress"]
    moved = [line["done_bytes"] for line in uploads]
    assert moved == sorted(moved) and moved[-1] == uploads[-1]["total_bytes"] > 30_000


def test_another_key_another_board_and_damage_are_refused_before_a_byte_is_sent(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start, tmp_path: Path
) -> None:
    g = glasses()
    key = tmp_path / "other.pem"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    good = firmware("1.1.0").image.read_bytes()
    cases = {
        "key": (firmware("1.1.0", key=key).image.read_bytes(), "the device trusts"),
        "board": (firmware("1.1.0", "g1-virtual").image.read_bytes(), "made for g1-virtual, the device is s1-virtual"),
        "bit": (good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "damaged"),
        "cut": (good[:-100], "cut off"),
        "huge": (good + b"\xff" * 0x100000, "a slot of s1-virtual holds"),
        "text": (b"not an image", "not an MCUboot image"),
        "empty": (b"", "not an MCUboot image"),
    }
    for name, (data, told) in cases.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(data)
        done = quarkctl("flash", path, "-d", g.device)
        assert (done.code, told in done.err) == (6, True), (name, done.err)
    older = quarkctl("flash", firmware("0.9.0").image, "-d", g.device)
    assert older.code == 6 and "--allow-downgrade" in older.err
    # Nothing of all that reached the device.
    assert (
        quarkctl("flash", firmware("1.1.0").image, "-d", g.device, "--dry-run", "--json").json["steps"][0] == "upload"
    )


def test_an_image_that_needs_a_newer_ar1_is_refused_by_quarkctl_and_by_the_device(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start
) -> None:
    g = glasses()
    image = firmware("1.3.0", ar1_min=Version(1, 0, 1)).image
    refused = quarkctl("flash", image, "-d", g.device)
    assert refused.code == 6 and "needs AR1 1.0.1 or newer, it runs 1.0.0" in refused.err
    # Another client does not ask; the device does.
    opener = Device(g.device, g.instance.port, "", lambda: g.instance.port).opener()
    link = opener.open()
    try:
        client = Client(link)
        client.negotiate()
        upload(client, image.read_bytes(), lambda done, eta: None)
        with pytest.raises(DeviceRefused, match="needs a newer AR1 image"):
            client.write(
                smp.Group.IMAGE, smp.ImageCommand.STATE, {"hash": mcuboot_image.parse(image.read_bytes()).digest}
            )
    finally:
        link.close()


@dataclass
class Steps:
    """An update by hand, one message at a time, with the power cut (kill -9 of the emulator) in between."""

    g: Glasses
    image: bytes

    @property
    def digest(self) -> bytes:
        return mcuboot_image.parse(self.image).digest

    def with_client(self, act: Callable[[Client], None]) -> None:
        instance = folder.load(self.g.name)
        link = Device(self.g.device, instance.port, "", lambda: instance.port).opener().open()
        try:
            client = Client(link)
            client.negotiate()
            act(client)
        finally:
            link.close()

    def upload(self) -> None:
        self.with_client(lambda c: upload(c, self.image, lambda done, eta: None) and None)

    def choose(self, *, confirm: bool) -> None:
        body = {"hash": self.digest, "confirm": confirm}
        self.with_client(lambda c: c.write(smp.Group.IMAGE, smp.ImageCommand.STATE, body) and None)

    def cut(self) -> tuple[str, bool]:
        """Returns what runs afterwards, and whether it is confirmed."""
        os.kill(folder.load(self.g.name).qemu_pid, signal.SIGKILL)
        self.g.tell("power", action="cut")
        self.g.tell("power", action="on")
        active: list[device.SlotImage] = []
        self.with_client(lambda c: active.extend(i for i in device.read_images(c) if i.active))
        return str(active[0].version), active[0].confirmed


def test_the_power_may_be_cut_between_any_two_steps_of_an_update(firmware: Firmware, glasses: Start) -> None:
    """A sample in the emulator of what the host port does thousands of times."""
    steps = Steps(glasses(), firmware("1.1.0").image.read_bytes())
    steps.upload()
    assert steps.cut() == ("1.0.0", True)
    steps.choose(confirm=False)
    assert steps.cut() == ("1.1.0", False), "the test boot that was asked for"
    assert steps.cut() == ("1.0.0", True), "a trial that was not confirmed is over"
    steps.choose(confirm=False)
    assert steps.cut() == ("1.1.0", False)
    steps.choose(confirm=True)
    assert steps.cut() == ("1.1.0", True)
    assert steps.cut() == ("1.1.0", True)


def flash_until(quarkctl: Quarkctl, image: Path, device: str, bytes_done: int) -> subprocess.Popen[str]:
    """A flash that is under way: returns when so many bytes are on the device."""
    process = quarkctl.start("flash", image, "-d", device, "--events")
    assert process.stdout
    for line in process.stdout:
        if json.loads(line)["done_bytes"] >= bytes_done:
            return process
    raise AssertionError(process.communicate()[1])


@pytest.fixture
def under_way(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start
) -> Callable[[], tuple[Glasses, Path, subprocess.Popen[str]]]:
    def start() -> tuple[Glasses, Path, subprocess.Popen[str]]:
        g = glasses()
        image = firmware("1.1.0").image
        return g, image, flash_until(quarkctl, image, g.device, 12_000)

    return start


UnderWay = Callable[[], tuple[Glasses, Path, subprocess.Popen[str]]]


def test_a_pulled_cable_ends_the_flash_and_the_next_one_goes_on(quarkctl: Quarkctl, under_way: UnderWay) -> None:
    g, image, process = under_way()
    g.tell("cable", action="unplug")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4 and "went away" in err
    gone = quarkctl("flash", image, "-d", g.device)
    assert gone.code == 4 and "unplugged" in gone.err
    g.tell("cable", action="plug")
    again = quarkctl("flash", image, "-d", g.device, "--events")
    assert again.code == 0, again.err
    first = next(json.loads(x)["done_bytes"] for x in again.out.splitlines() if json.loads(x)["level"] == "progress")
    assert first >= 10_000, "it started over instead of going on"


def test_a_power_cut_in_the_upload_leaves_the_old_image_and_a_second_flash_completes(
    quarkctl: Quarkctl, under_way: UnderWay
) -> None:
    g, image, process = under_way()
    os.kill(g.instance.qemu_pid, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "no answer" in err
    g.tell("power", action="on")
    plan = quarkctl("flash", image, "-d", g.device, "--dry-run", "--json")
    assert (plan.json["old_version"], plan.json["steps"][0]) == ("1.0.0", "upload")
    assert quarkctl("flash", image, "-d", g.device).code == 0


def test_ctrl_c_in_the_upload_leaves_the_device_as_it_was(quarkctl: Quarkctl, under_way: UnderWay) -> None:
    g, image, process = under_way()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert quarkctl("flash", image, "-d", g.device).code == 0


@pytest.mark.parametrize("step", ["restart", "health"])
def test_a_stop_during_the_trial_leaves_the_old_image(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start, step: str
) -> None:
    g = glasses()
    process = quarkctl.start("flash", firmware("1.1.0").image, "-d", g.device, "--events")
    assert process.stdout
    next(line for line in process.stdout if json.loads(line)["step"] == step)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the device was reset: 1.0.0 runs and is confirmed" in out
    plan = quarkctl("flash", firmware("1.1.0").image, "-d", g.device, "--dry-run", "--json").json
    assert (plan["old_version"], plan["steps"][0]) == ("1.0.0", "verify")


def test_a_noisy_line_is_survived(quarkctl: Quarkctl, firmware: Firmware, glasses: Start) -> None:
    g = glasses()
    g.tell("cable", action="noise", rate=2e-4)
    done = quarkctl("flash", firmware("1.1.0").image, "-d", g.device, "--json")
    assert done.code == 0, done.err
    assert done.json["repeated_requests"] > 0


@pytest.mark.parametrize("framing", ["console", "raw"])
def test_with_no_sound_image_the_bootloader_takes_a_new_one(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start, framing: str
) -> None:
    g = glasses()
    g.tell("power", action="cut")
    from quarkctl.sim import folder

    with (folder.folder_of(g.name) / "memory.bin").open("r+b") as memory:
        memory.seek(5000)
        before = memory.read(1)
        memory.seek(5000)
        memory.write(bytes([before[0] ^ 1]))
    g.tell("power", action="on")
    done = quarkctl("flash", firmware("1.1.0").image, "-d", g.device, "--framing", framing)
    assert done.code == 0, done.err
    assert "1.1.0 is permanent" in done.err


def test_a_port_that_somebody_holds_is_refused_with_the_holders_name(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start
) -> None:
    g = glasses()
    listener = quarkctl.start("telemetry", "show", "-d", g.device)
    assert listener.stdout
    listener.stdout.readline()
    done = quarkctl("flash", firmware("1.1.0").image, "-d", g.device)
    listener.terminate()
    listener.communicate()
    assert done.code == 4
    assert "is held by" in done.err and f"(pid {listener.pid})" in done.err


def test_two_devices_and_none_chosen_is_an_error_that_lists_them(
    quarkctl: Quarkctl, firmware: Firmware, glasses: Start
) -> None:
    a, b = glasses(), glasses()
    image = firmware("1.1.0").image
    done = quarkctl("flash", image)
    assert done.code == 4
    assert a.device in done.err and b.device in done.err and "--device" in done.err
    unknown = quarkctl("flash", image, "-d", "QS1-0042")
    assert unknown.code == 4 and "QS1-0042" in unknown.err
    by_serial = quarkctl("flash", image, "-d", b.instance.serial, "--dry-run", "--json")
    assert by_serial.json["device"] == b.device


def test_without_any_device_the_way_to_one_is_told(quarkctl: Quarkctl, firmware: Firmware) -> None:
    done = quarkctl("flash", firmware("1.1.0").image)
    assert done.code == 4
    assert "no device found" in done.err and "quarkctl sim start" in done.err


def test_a_port_that_is_silent_is_named(quarkctl: Quarkctl, firmware: Firmware) -> None:
    master, slave = os.openpty()
    try:
        done = quarkctl("flash", firmware("1.1.0").image, "-d", os.ttyname(slave), "--timeout", "3")
    finally:
        os.close(slave)
        os.close(master)
    assert done.code == 4
    assert "held by" in done.err or "not finished within" in done.err


def test_garbage_on_the_line_is_no_answer(quarkctl: Quarkctl, firmware: Firmware) -> None:
    """Noise without end: an error within the bound, not a hang and not a traceback."""
    master, slave = os.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    stop = threading.Event()

    def babble() -> None:
        noise = bytes(range(256)) * 4
        os.set_blocking(master, False)
        while not stop.wait(0.002):
            try:
                os.write(master, noise)
                os.read(master, 65536)
            except (BlockingIOError, OSError):
                continue

    thread = threading.Thread(target=babble)
    thread.start()
    try:
        done = quarkctl("flash", firmware("1.1.0").image, "-d", path, "--timeout", "20")
    finally:
        stop.set()
        thread.join()
        os.close(master)
    assert done.code == 4 and "no answer to os params" in done.err
