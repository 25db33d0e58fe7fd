"""Both chips as one pair of virtual glasses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarkctl.build import rtos
from quarkctl.sim import control
from quarkctl.telemetry.info import summary
from quarkctl.telemetry.timeline import open_timeline
from tests.conftest import Quarkctl

pytestmark = pytest.mark.qemu
NAME = f"pair{os.getpid()}"


@pytest.fixture
def pair(quarkctl: Quarkctl, firmware: Callable[..., rtos.Built], ar1_images: Callable[[str], Path]) -> Iterator[str]:
    """Started by the command line, with what was built for both."""
    built = firmware("1.0.0")
    done = quarkctl("sim", "start", NAME, "--image", built.image, "--ar1", ar1_images("s1-virtual"))
    assert done.code == 0 and f"sim:{NAME}/ar1" in done.out, done.err
    yield NAME
    control.stop(NAME)


def test_two_chips_start_as_one_pair_talk_to_each_other_and_lose_their_power_together(
    pair: str, quarkctl: Quarkctl
) -> None:
    def waited() -> dict[str, object]:
        done = quarkctl("sim", "ar1", "--wait", "--name", pair, "--json")
        assert done.code == 0, done.err
        return dict(done.json)

    state = waited()
    assert (state["mode"], state["slot"]) == ("system", "a") and state["boot_failure"] == ""
    (row,) = quarkctl("sim", "list", "--json").json["glasses"]
    assert row["ar1"] == {"mode": "system", "slot": "a", "port": state["port"], "boot_failure": ""}
    told = quarkctl("ar1", "status", "-d", f"sim:{pair}", "--verify", "--json").json
    assert (told["slot"], told["verity_state"], told["healthy"]) == ("a", "whole", True) and told["slots"]["a"][
        "successful"
    ]
    assert "dm-verity: everything is as it was signed" in quarkctl("ar1", "status").out
    # One recording of both lines; without a name of its own, the microcontroller is the pair.
    wanted = {("rtos", "s1-virtual"), ("ar1", "s1-virtual")}
    for number in range(5):  # a busy computer may leave them no time to speak in
        file = quarkctl.folder / f"both{number}.qrec"
        done = quarkctl("telemetry", "record", file, "-d", f"sim:{pair}", "--also", f"sim:{pair}/ar1", "--seconds", "4")
        assert done.code == 0, done.err
        timeline = open_timeline([file])
        heard = {(s["chip"], s["board"]) for s in summary(timeline)["streams"]}
        if heard == wanted:
            break
    assert heard == wanted
    rows = {r.name: r for r in timeline.rows()}
    # The microcontroller tells the AR1 how warm it is, and hears its version: over the UART between them.
    zones = rows["ar1_thermal"].columns["zone_decic"][-1]
    assert 200 < zones[0] < 900 and 200 < zones[3] < 900 and zones[2] == -32768
    link = rows["ar1_link"].columns
    assert link["ar1_version"][-1] == 1 << 24 and link["latency_us_max"][-1] > 0
    # Of both at once; and the AR1 comes back by itself.
    quarkctl("sim", "power", "cut", "--name", pair)
    assert quarkctl("sim", "list", "--json").json["glasses"][0]["ar1"]["mode"] == "off"
    quarkctl("sim", "power", "on", "--name", pair)
    assert waited()["reset_reason"] == "power_on"
    # A device that only starts what verifies says why it does not.
    assert quarkctl("sim", "ar1", "--lock", "--flip", "boot_a+8192:16", "--name", pair).code == 0
    quarkctl("sim", "ar1", "system", "--name", pair)
    state = waited()
    assert state["mode"] == "fastboot" and "boot_a: its hash is not the one in vbmeta" in str(state["boot_failure"])
    shown = quarkctl("sim", "ar1", "--name", pair).out
    assert "it did not start" in shown and "unbootable" in shown
    assert "slot a is given up" in quarkctl("sim", "console", "--ar1", "--name", pair).out


def test_without_the_emulator_there_is_one_error_that_says_what_to_install(
    quarkctl: Quarkctl, firmware: Callable[..., rtos.Built], tmp_path: Path
) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    (only / "qemu-system-arm").symlink_to("/bin/true")
    quarkctl.env["PATH"] = str(only)
    done = quarkctl("sim", "start", "none", "--image", firmware("1.0.0").image, "--ar1", tmp_path)
    assert (done.code, done.err.count("error:")) == (3, 1)
    assert "qemu-system-aarch64 is not installed" in done.err and "apt-get install qemu-system-arm" in done.err


def test_a_folder_without_a_build_is_refused_and_nothing_is_left(
    quarkctl: Quarkctl, firmware: Callable[..., rtos.Built], tmp_path: Path
) -> None:
    done = quarkctl("sim", "start", "none", "--image", firmware("1.0.0").image, "--ar1", tmp_path)
    assert done.code == 6 and "holds no rawprogram" in done.err and "quarkctl build ar1" in done.err
    assert json.loads(quarkctl("sim", "list", "--json").out)["glasses"] == []
