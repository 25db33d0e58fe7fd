"""Virtual glasses as processes: started, tormented, stopped, and cleared up after."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from quarkctl import schemas
from quarkctl.build import rtos
from quarkctl.errors import DeviceMissing, InputWrong, LinkLost, UsageWrong
from quarkctl.formats.stream import Decoder, Sample
from quarkctl.link.serial_port import open_serial
from quarkctl.sim import control, folder, qemu
from quarkctl.sim.ar1 import control as ar1_control
from quarkctl.sim.motion import Motion
from quarkctl.telemetry import live
from tests.conftest import Glasses, Quarkctl

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


class Listener:
    """Reads a device's telemetry until something is seen; the bound is for a device that is broken."""

    def __init__(self, g: Glasses) -> None:
        self.link = open_serial(control.port(g.name), 1_000_000)
        self.decoder = Decoder(schemas.telemetry())
        self.seen: list[Sample] = []
        self._ahead: list[Sample] = []

    def until(self, wanted: Callable[[Sample], bool], seconds: float = 30.0) -> Sample:
        """The next sample that is wanted, in the order of their coming."""
        stream = live.chunks(self.link, live.Until(seconds), silence_s=15.0)
        while True:
            while self._ahead:
                sample = self._ahead.pop(0)
                self.seen.append(sample)
                if wanted(sample):
                    return sample
            chunk = next(stream, None)
            if chunk is None:
                raise AssertionError([s.message.name for s in self.seen][-20:])
            self._ahead += self.decoder.feed(chunk.data)

    def event(self, code: str) -> Sample:
        return self.until(lambda s: s.message.name == code)


def named(g: Listener, s: Sample, field: str) -> object:
    return g.decoder.schema.named(s.message, s.values)[field]


def test_several_run_side_by_side_each_in_a_private_folder(glasses: Start) -> None:
    a, b = glasses(), glasses()
    assert a.instance.port != b.instance.port and a.instance.serial != b.instance.serial
    for g in (a, b):
        mode = stat.S_IMODE(folder.folder_of(g.name).stat().st_mode)
        assert mode == 0o700
    assert {a.name, b.name} <= {i.name for i in folder.running()}


def test_many_may_start_at_once(quarkctl: Quarkctl, firmware: Callable[..., rtos.Built]) -> None:
    """Nobody takes the half-made folder of another for a dead one."""
    image = firmware("1.0.0").image
    starts = [quarkctl.start("sim", "start", f"par-{k}", "--image", image) for k in range(8)]
    told = [p.communicate(timeout=60) for p in starts]
    names = {i.name for i in folder.running()}
    for k, process in enumerate(starts):
        assert process.returncode == 0, told[k]
        assert f"par-{k}" in names
        control.stop(f"par-{k}")


def test_the_sandbox_is_always_on_and_semihosting_never() -> None:
    for icount in (True, False):
        line = " ".join(qemu.command(icount))
        assert "-sandbox on,spawn=deny" in line and "semihosting" not in line


def test_a_swap_is_seen_by_the_firmware_without_a_reset(glasses: Start) -> None:
    g = glasses()
    heard = Listener(g)
    heard.until(lambda s: s.message.name == "battery")
    g.tell("battery", action="eject", side="left")
    assert heard.event("pack_removed").number("pack") == 0
    assert heard.event("takeover").number("pack") == 1
    out = heard.until(lambda s: s.message.name == "battery")
    assert out.numbers("pack_ma")[0] == 0 and out.numbers("pack_ma")[1] > 400
    g.tell("battery", action="insert", side="left", soc_pct=95)
    assert heard.event("pack_inserted").number("pack") == 0
    back = heard.until(lambda s: s.message.name == "battery" and s.numbers("swap_count")[0] == 1)
    assert back.numbers("pack_soc_pct")[0] > 85
    assert heard.decoder.counts.boots == 1 and heard.decoder.counts.lost == 0


def test_a_brown_out_resets_the_firmware_and_is_named(glasses: Start) -> None:
    g = glasses()
    heard = Listener(g)
    g.tell("fault", fault="late_switchover", on=True, size=900)
    heard.until(lambda s: s.message.name == "hello")
    g.tell("battery", action="eject", side="left")
    again = heard.until(lambda s: s.message.name == "hello" and s.boot == 1)
    assert named(heard, again, "reset_reason") == "brownout"
    assert again.number("boot_count") == 2


def test_pulling_both_packs_cuts_the_power_and_one_brings_it_back(glasses: Start) -> None:
    g = glasses()
    heard = Listener(g)
    heard.until(lambda s: s.message.name == "hello")
    g.tell("battery", action="eject", side="left")
    assert g.tell("battery", action="eject", side="right")["power"] == "off"
    assert g.tell("battery", action="insert", side="right")["power"] == "on"
    again = heard.until(lambda s: s.message.name == "hello" and s.boot == 1)
    assert named(heard, again, "reset_reason") == "power_on"


def test_a_counterfeit_pack_is_rejected_by_the_firmware(glasses: Start) -> None:
    g = glasses()
    heard = Listener(g)
    heard.until(lambda s: s.message.name == "battery")
    g.tell("fault", fault="counterfeit_pack", on=True)
    assert heard.event("pack_rejected").number("pack") == 0


def test_a_frozen_converter_fails_no_frame_but_its_count_stops(glasses: Start) -> None:
    g = glasses()
    heard = Listener(g)
    heard.until(lambda s: s.message.name == "power")
    g.tell("fault", fault="frozen_converter", on=True)
    heard.until(lambda s: s.message.name == "hello")
    first = heard.until(lambda s: s.message.name == "power").number("sample_count")
    assert heard.until(lambda s: s.message.name == "power").number("sample_count") == first


def test_a_pulled_cable_is_lost_and_comes_back_under_another_name(glasses: Start) -> None:
    g = glasses()
    link = open_serial(control.port(g.name), 1_000_000)
    g.tell("cable", action="unplug")
    with pytest.raises(LinkLost):
        for _ in range(1000):
            link.read(0.1)
    link.close()
    with pytest.raises(DeviceMissing, match="unplugged"):
        control.port(g.name)
    g.tell("cable", action="plug")
    assert Path(control.port(g.name)).exists()


def test_a_killed_supervisor_takes_qemu_along_and_is_cleared_up(glasses: Start) -> None:
    g = glasses()
    os.kill(g.instance.pid, signal.SIGKILL)
    while Path(f"/proc/{g.instance.pid}").exists() and "Z" not in _state(g.instance.pid):
        os.sched_yield()
    while Path(f"/proc/{g.instance.qemu_pid}").exists() and "Z" not in _state(g.instance.qemu_pid):
        os.sched_yield()
    with pytest.raises(DeviceMissing):
        folder.load(g.name)
    assert not folder.folder_of(g.name).exists()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_what_glasses_say_of_themselves_is_what_their_contract_says(glasses: Start) -> None:
    """Whoever changes this raises CONTRACT: older glasses that still run must be told apart, not misread."""
    g = glasses()
    g.tell("ar1", request={"command": "status"})
    status = g.tell("status")
    assert folder.CONTRACT == 2
    assert sorted(status) == [
        "ambient_c", "ar1", "bus_mv", "charger", "faults", "imu_hz", "load", "load_ma", "packs", "port", "power",
        "throttle_level", "time_us", "zone_c",
    ]  # fmt: skip
    assert sorted(status["packs"][0]) == ["ma", "present", "side", "soc_pct"]
    assert sorted(status["ar1"]) == ["boot_failure", "mode", "port", "slot"]
    assert sorted(ar1_control.state(g.name)) == [
        "battery_soc_pct", "board", "boot_failure", "faults", "heard", "mode", "port", "programmer", "reset_reason",
        "serial", "slot", "slots", "tcp_port", "udp_port", "unlocked", "usbip_port",
    ]  # fmt: skip
    assert sorted(json.loads((folder.folder_of(g.name) / "state.json").read_text())) == [
        "board", "contract", "image", "name", "pid", "port", "qemu_pid", "serial",
    ]  # fmt: skip


def test_glasses_of_another_version_are_told_in_a_line_and_can_be_stopped(glasses: Start, quarkctl: Quarkctl) -> None:
    g = glasses()
    file = folder.folder_of(g.name) / "state.json"
    before = json.loads(file.read_text())
    line = f"sim:{g.name} was started by another version of quarkctl; end it: quarkctl sim stop {g.name}"
    for said in ({"contract": 1}, {"contract": folder.CONTRACT, "colour": "red"}, {"contract": None}):
        file.write_text(json.dumps({**before, **said}))
        told = quarkctl("sim", "list")
        assert told.code == 0 and told.out.strip() == line
    assert json.loads(quarkctl("sim", "list", "--json").out)["other_versions"] == [g.name]
    load = ["sim", "load", "camera"]
    for verb in (load, [*load, "--name", g.name], ["telemetry", "show", "-d", g.device]):
        refused = quarkctl(*verb)
        assert refused.code == 4 and "another version of quarkctl" in refused.err, refused.err
    assert quarkctl("sim", "stop", g.name).code == 0 and not file.exists()


def test_a_name_is_taken_only_once(glasses: Start, firmware: Callable[..., rtos.Built]) -> None:
    g = glasses()
    built = firmware("1.0.0")
    made = control.Firmware(built.boot_elf, built.image)
    with pytest.raises(UsageWrong, match="run already"):
        control.start(g.name, "s1-virtual", made)
    with pytest.raises(UsageWrong, match="cannot be a name"):
        control.start("../evil", "s1-virtual", made)
    with pytest.raises(InputWrong, match="made for s1-virtual, not for g1-virtual"):
        control.start("other", "g1-virtual", made)


def test_commands_that_make_no_sense_are_refused(glasses: Start, quarkctl: Quarkctl) -> None:
    g = glasses()
    with pytest.raises(UsageWrong, match="no fault 'meteor'"):
        g.tell("fault", fault="meteor", on=True)
    with pytest.raises(UsageWrong, match="know no command"):
        g.tell("explode")
    assert quarkctl("sim", "load", "party", "--name", g.name).code == 2
    assert quarkctl("sim", "battery", "eject", "middle", "--name", g.name).code == 2
    assert quarkctl("sim", "stop", "nobody").code == 4


def test_the_second_board_runs_too(glasses: Start) -> None:
    g = glasses(board="g1-virtual")
    heard = Listener(g)
    hello = heard.until(lambda s: s.message.name == "hello" and s.number("selftest_passed") == 9)
    assert hello.text("board") == "g1-virtual"


def test_the_inertial_sensor_sends_what_the_wearer_did_at_the_rate_that_was_set(glasses: Start) -> None:
    """Off at first; then samples arrive in blocks, as the motion at their time says, also when the rate changes."""
    g = glasses()
    reader = Listener(g)
    assert g.tell("status")["imu_hz"] == 0
    reader.until(lambda s: s.message.name == "bus")
    assert not [s for s in reader.seen if s.message.name == "imu"]
    truth, due, due_us, short = Motion(seed=1), 0, 0, False
    for rate_hz in (416, 1000):
        assert g.tell("imu", rate_hz=rate_hz)["imu_hz"] == rate_hz
        period_ns = 10**9 // rate_hz
        blocks = 0
        while blocks < 20:
            block = reader.until(lambda s: s.message.name == "imu")
            count = block.number("count")
            first = block.number("first_index")
            assert first >= due  # what a starved emulator dropped is missing, never repeated
            first_us = block.number("first_us")
            # Only before what was dropped, or a leap of its clock, a block ends early.
            assert not short or first > due or abs(first_us - due_us) > 1
            due, due_us = first + count, first_us + count * period_ns // 1000
            if block.number("period_ns") != period_ns:
                short = False
                continue  # what was left of the rate before
            blocks += 1
            short = count < 16 and blocks > 1
            sampled = [truth.at(first_us + (k * period_ns) // 1000) for k in range(count)]
            felt = [list(v) for s in sampled for v in (s.accel_mg, s.gyro_ddps)]
            told = [v for pair in zip(block.values["accel_mg"], block.values["gyro_ddps"], strict=True) for v in pair]
            near = [abs(a - b) for f, t in zip(felt, told, strict=False) for a, b in zip(f, t, strict=True)]
            assert max(near) <= 12  # times are whole microseconds: noise may be that of the next one
    with pytest.raises(UsageWrong, match="no 1001 Hz"):
        g.tell("imu", rate_hz=1001)
    reader.link.close()
