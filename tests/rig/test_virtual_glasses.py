"""A rig of virtual glasses: the real firmware is flashed, swapped, judged and power-cycled by a plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quarkctl.build import rtos
from quarkctl.cli.choose import choose
from quarkctl.telemetry.store import Recording
from tests.conftest import Glasses, Quarkctl
from tests.telemetry.test_live import agent, uart

pytestmark = pytest.mark.qemu


def test_a_plan_flashes_swaps_judges_and_reacts_to_a_fault(
    glasses: Callable[..., Glasses], firmware: Callable[..., rtos.Built], quarkctl: Quarkctl
) -> None:
    good, bad = glasses("1.0.0", "camera", name="rig-a"), glasses("1.0.0", "camera", name="rig-b")
    bad.tell("fault", fault="late_switchover", on=True, size=3000)
    (quarkctl.folder / "rig.toml").write_text(
        f'[rig]\nretries = 0\n[station.a]\nsim = "{good.name}"\n[station.b]\nsim = "{bad.name}"\n'
    )
    (quarkctl.folder / "plan.toml").write_text(
        f'[[step]]\ndo = "flash"\nwhat = "{firmware("1.1.0").image}"\n'
        '[[step]]\ndo = "swap"\nside = "left"\nsettle_s = 2.5\n'
        '[[step]]\nname = "rescue"\ndo = "power-cycle"\nwhen = "failed"\n'
    )
    done = quarkctl("rig", "run", "plan.toml", "--json")
    found: dict[str, Any] = {s["station"]: s for s in done.json["stations"]}
    assert done.code == 9, done.out
    assert (found["a"]["verdict"], [s["step"] for s in found["a"]["steps"]]) == ("passed", ["flash", "swap"])
    assert (found["b"]["verdict"], [s["step"] for s in found["b"]["steps"]]) == ("failed", ["flash", "swap", "rescue"])
    assert found["b"]["exit_code"] == 7 and "PWR-00" in found["b"]["error"]
    takeover = next(m for m in found["a"]["steps"][1]["measurements"] if m["name"] == "PWR-001")
    assert takeover["usl"] and takeover["value"] < takeover["usl"]
    recording = found["a"]["steps"][1]["artifacts"][0]
    assert recording["kind"] == "recording"
    assert Recording(Path(done.json["folder"]) / recording["path"]).device == good.device
    listed = quarkctl("rig", "list", "--json").json["stations"]
    assert [(s["station"], s["state"], s["swap"]) for s in listed] == [("a", "free", "sim"), ("b", "free", "sim")]


def test_a_station_by_serial_number_means_the_chip_that_the_step_is_about(
    glasses: Callable[..., Glasses], quarkctl: Quarkctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = glasses(name="rig-pair")
    assert quarkctl("sim", "ar1", "fastboot", "--name", pair.name).code == 0
    (quarkctl.folder / "rig.toml").write_text(f'[station.a]\nserial = "{pair.instance.serial}"\n')
    monkeypatch.chdir(quarkctl.folder)
    for word in (pair.instance.serial, "a", pair.device):
        found = {method: choose(word, method).identity for method in ("", "smp", "fastboot")}
        assert found == {"": pair.device, "smp": pair.device, "fastboot": f"{pair.device}/ar1"}, word
    checks = {c["name"]: c for c in quarkctl("rig", "doctor", "--json").json["checks"]}
    assert checks["a"]["ok"], checks["a"]


def test_both_lines_of_glasses_are_judged_and_the_builds_of_both_chips_named(
    glasses: Callable[..., Glasses], quarkctl: Quarkctl
) -> None:
    with uart() as (end, port):
        ar1 = agent(end)
        (quarkctl.folder / "rig.toml").write_text(
            f'[station.a]\nsim = "{glasses(name="rig-two").name}"\nalso = ["{port}"]\n'
        )
        done = quarkctl("rig", "diag", "battery", "--all", "--seconds", "3", "--json")
        ar1.communicate(timeout=30)
    (step,) = done.json["stations"][0]["steps"]
    assert step["facts"]["ar1"] == "1.2.3" and step["facts"]["ar1_build_id"] != "not reported", done.out
    recording = Recording(Path(done.json["folder"]) / step["artifacts"][0]["path"])
    assert recording.lines == ["sim:rig-two", port]
    (kept,) = quarkctl("rig", "history", "last", "--json").json["stations"]
    assert kept["firmware"] == f"{step['facts']['rtos_build_id']}+{step['facts']['ar1_build_id']}"


def test_two_names_for_one_device_are_noticed(glasses: Callable[..., Glasses], quarkctl: Quarkctl) -> None:
    one = glasses(name="rig-twin")
    (quarkctl.folder / "rig.toml").write_text(
        f'[station.a]\nsim = "{one.name}"\n[station.b]\nserial = "{one.instance.serial}"\n'
    )
    done = quarkctl("rig", "diag", "battery", "--all", "--seconds", "2.5", "--json")
    assert done.code == 6 and f"stations a and b are one device: {one.device}" in done.err
    assert "--where a" in done.err
    assert quarkctl("devices", "--json").json["devices"][0]["names"]
