"""``quarkctl flash release.qfw`` against virtual glasses that run the real firmware."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarkctl.build import rtos
from quarkctl.cli.choose import choose
from quarkctl.errors import QuarkError, VerificationFailed
from quarkctl.flash import run
from quarkctl.flash.bundle import Incoming, Session, prepare
from quarkctl.flash.chip import Chip
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Job
from quarkctl.flash.rtos_chip import RtosChip
from quarkctl.flash.transaction import State
from quarkctl.formats.mcuboot_image import Version
from tests import bundles
from tests.conftest import Glasses, Quarkctl
from tests.flash.test_transaction import Device, Scripted, World

pytestmark = pytest.mark.qemu

Firmware = Callable[..., rtos.Built]
Start = Callable[..., Glasses]
STEPS = ("write rtos", "arm rtos", "restart rtos", "check rtos", "confirm rtos")


@pytest.fixture
def release(firmware: Firmware, tmp_path: Path) -> Callable[..., Path]:
    """``release("1.1.0")``: a bundle with the real firmware of that version."""

    def make(version: str, product: str = "s1-virtual", **options: object) -> Path:
        sabotage = str(options.pop("sabotage", ""))
        image = firmware(version, product, sabotage=sabotage).image.read_bytes()
        return bundles.make(tmp_path / f"{product}-{version}", version, product=product, image=image, **options).path  # type: ignore[arg-type]

    return make


Release = Callable[..., Path]


def test_a_bundle_is_flashed_from_a_pipe_and_a_file(quarkctl: Quarkctl, release: Release, glasses: Start) -> None:
    g = glasses()
    path = release("1.1.0")
    plan = quarkctl("flash", path, "-d", g.device, "--dry-run", "--json").json
    assert tuple(plan["steps"]) == STEPS
    with path.open("rb") as pipe:
        cat = subprocess.Popen(["cat"], stdin=pipe, stdout=subprocess.PIPE)
    done = subprocess.run(
        quarkctl.command("flash", "-", "-d", g.device, "--json"), stdin=cat.stdout, capture_output=True, text=True,
        cwd=quarkctl.folder, timeout=120,
    )  # fmt: skip
    assert cat.stdout
    cat.stdout.close()
    assert (cat.wait(), done.returncode) == (0, 0), done.stderr
    assert json.loads(done.stdout)["runs"] == {"rtos": "1.1.0"}
    again = quarkctl("flash", path, "-d", g.device, "--json")
    assert (again.code, again.json["result"]) == (0, "unchanged")
    assert quarkctl("flash", path, "-d", g.device, "--verify-only").code == 0


def refusal(path: Path, device: str) -> QuarkError | None:
    """Why a bundle is not for a device; None when it is."""
    opener = choose(device, "smp")
    session = None
    with opener.hold():
        try:
            session = prepare([str(path)])(Job(opener, Journal(device), lambda e: None))
            assert session.plan().facts["states"] == {"rtos": "old"}
        except QuarkError as error:
            return error
        finally:
            if session:
                session.close()
    return None


def test_what_must_not_be_flashed_is_refused_before_a_byte_is_sent(
    quarkctl: Quarkctl, release: Release, glasses: Start, tmp_path: Path
) -> None:
    g = glasses("1.1.0")
    good = release("1.2.0")
    data = good.read_bytes()
    other_key = bundles.key_file(tmp_path / "other.pem")
    flipped = data[:-3000] + bytes([data[-3000] ^ 1]) + data[-2999:]
    cases = {
        "flipped": (flipped, 6, "not what was signed"),
        "cut": (data[:-1], 6, "get it again"),
        "cut in the image": (data[: len(data) // 2], 6, "get it again"),
        "longer": (data + b"\0", 6, "get it again"),
        "unsigned": (release("1.2.0", keys=(), name="u.qfw").read_bytes(), 6, "not signed"),
        "another key": (release("1.2.0", keys=(other_key,), name="k.qfw").read_bytes(), 6, "is not trusted for"),
        "another product": (release("1.2.0", "g1-virtual").read_bytes(), 6, "made for g1-virtual, the device is s1"),
        "older": (release("1.0.0").read_bytes(), 6, "older"),
        "another revision": (release("1.2.0", extra='hardware = ["rev-z"]', name="h.qfw").read_bytes(), 5, "rev-z"),
        "the other chip": (release("1.2.0", ar1={"boot": b"b"}, name="b.qfw").read_bytes(), 6, "no vbmeta"),
    }  # fmt: skip
    assert refusal(good, g.device) is None
    path = tmp_path / "case.qfw"
    for name, (content, code, told) in cases.items():
        path.write_bytes(content)
        why = refusal(path, g.device)
        assert why and why.exit_code == code and told in f"{why.message} {why.hint}", (name, why, why and why.hint)
    assert refusal(good, g.device) is None
    path.write_bytes(flipped)
    shown = quarkctl("flash", path, "-d", g.device)
    assert shown.code == 6 and f"error: {path}: rtos/rtos.bin: bytes 0 to" in shown.err and "hint:" in shown.err


def test_a_bad_image_in_a_bundle_is_rolled_back_with_its_crash(
    quarkctl: Quarkctl, release: Release, glasses: Start
) -> None:
    g = glasses()
    done = quarkctl("flash", release("1.2.0", sabotage="fault"), "-d", g.device)
    assert done.code == 5
    assert "1.2.0 failed its test boot: bus fault in thread sabotage" in done.err
    assert "it runs 1.0.0, as before" in done.err
    assert list(quarkctl.folder.glob("crash-*.json"))


def until(process: subprocess.Popen[str], step: str) -> Iterator[dict[str, object]]:
    """Events up to the start of a step."""
    assert process.stdout
    for line in process.stdout:
        event = json.loads(line)
        yield event
        if event["step"] == step and event["level"] == "start":
            return


@pytest.mark.parametrize(
    ("fault", "steps"),
    [("host", ("write rtos", "check rtos")), ("power", ("restart rtos", "confirm rtos")), ("cable", ("arm rtos",))],
)
def test_cut_in_a_step_the_next_flash_makes_it_whole(
    quarkctl: Quarkctl, release: Release, glasses: Start, fault: str, steps: tuple[str, ...]
) -> None:
    """The other combinations are tried with scripted chips; versions go up and down, one pair of glasses for all."""
    g = glasses()
    old, new = release("1.0.0"), release("1.1.0")
    for step in steps:
        process = quarkctl.start("flash", new, "-d", g.device, "--allow-downgrade", "--events")
        assert list(until(process, step))
        if fault == "host":
            process.send_signal(signal.SIGKILL)
        elif fault == "power":
            g.tell("power", action="cycle")
        else:
            g.tell("cable", action="unplug")
        process.communicate(timeout=120)
        if fault == "cable":
            g.tell("cable", action="plug")
        done = quarkctl("flash", new, "-d", g.device, "--allow-downgrade", "--json")
        assert done.code == 0, (step, done.err)
        assert done.json["runs"] or done.json["result"] == "unchanged"
        old, new = new, old


def test_a_battery_may_be_swapped_meanwhile_but_not_be_too_low_at_the_start(
    quarkctl: Quarkctl, release: Release, glasses: Start
) -> None:
    g = glasses()
    path = release("1.1.0")
    for side in ("left", "right"):  # one after the other: the glasses keep running
        g.tell("battery", action="eject", side=side)
        g.tell("battery", action="insert", side=side, soc_pct=5)
    low = quarkctl("flash", path, "-d", g.device)
    assert low.code == 5 and "the fuller battery has" in low.err and "an update needs 15 %" in low.err
    g.tell("battery", action="eject", side="right")
    g.tell("battery", action="insert", side="right", soc_pct=90)
    process = quarkctl.start("flash", path, "-d", g.device, "--events")
    assert list(until(process, "write rtos"))
    g.tell("battery", action="eject", side="left")
    g.tell("battery", action="insert", side="left", soc_pct=95)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["step"] == "confirm rtos"


def test_a_bad_ar1_takes_the_real_microcontroller_back(firmware: Firmware, glasses: Start, tmp_path: Path) -> None:
    """The microcontroller is real firmware, the AR1 is scripted: its new image crashes, then it does not."""
    g = glasses()
    image = firmware("1.1.0").image.read_bytes()
    path = bundles.make(tmp_path, image=image, ar1={"boot": b"b" * 5000}, needs=("1.0.0", "1.1.0")).path
    world = World({"ar1": Device("1.0.0", "1.0.1", bad=True)})

    def make(job: Job, incoming: Incoming, report: Callable[[int], None]) -> dict[str, Chip]:
        return {"rtos": RtosChip(job, incoming.front["rtos"], report), "ar1": Scripted(world, "ar1")}

    opener = choose(g.device, "smp")
    with opener.hold():
        for expected in ("1.0.0", "1.1.0"):
            journal = Journal(g.device)
            session = Session(Job(opener, journal, lambda e: None), Incoming(str(path)), make)
            try:
                plan = run.preflight(session, journal, lambda e: None)
                if world.devices["ar1"].bad:
                    with pytest.raises(VerificationFailed, match="ar1 crashed"):
                        run.carry_out(session, plan, journal, lambda e: None)
                    world.devices["ar1"].bad = False
                else:
                    run.carry_out(session, plan, journal, lambda e: None)
            finally:
                session.close()
            probe = RtosChip(Job(opener, journal, lambda e: None), image, lambda done: None)
            look = probe.look()
            probe.close()
            assert look.running == look.settled == Version.parse(expected)
    assert world.devices["ar1"].state is State.CONFIRMED and look.state is State.CONFIRMED
