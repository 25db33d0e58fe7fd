"""A first rig.toml from what is connected, and what is wrong with a rig."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarkctl.cli import doctor, rig_setup
from quarkctl.formats import rig_file
from quarkctl.formats.rig_file import Station
from quarkctl.link import identity, names
from quarkctl.link.identity import Device
from tests.conftest import Quarkctl
from tests.rig.terminals import Terminals


def device(identity: str, serial: str = "", location: str = "", description: str = "") -> Device:
    return Device(identity, "/dev/ttyUSB0", description, lambda: "", serial=serial, location=location)


def test_discover_writes_serial_numbers_where_they_are_the_devices_own_and_ports_where_not() -> None:
    found = [
        device("usb:QS1-0042", "QS1-0042", "1-1.2"),
        device("usb:1-1.3", "0001", "1-1.3"),
        device("usb:1-1.4", "0001", "1-1.4"),
        device("sim:s1"),
    ]
    rig = rig_file.parse("rig.toml", rig_setup._rig_text(found))
    assert [s.word for s in rig.stations.values()] == ["QS1-0042", "1-1.3", "1-1.4", "sim:s1"]


def test_a_device_that_calls_itself_something_evil_writes_no_keys() -> None:
    evil = device("usb:1-1", location="1-1", description='x\n[station.evil]\nsim = "a"\r\u2028')
    assert list(rig_file.parse("rig.toml", rig_setup._rig_text([evil])).stations) == ["station-1"]


def test_discover_without_devices_and_over_an_existing_file_is_refused(
    state_of_its_own: Path, quarkctl: Quarkctl
) -> None:
    done = quarkctl("rig", "discover")
    assert done.code == 4 and "no device found" in done.err
    assert not (quarkctl.folder / "rig.toml").exists()


def test_doctor_names_missing_stations_programs_and_runs_that_wait(three: Terminals, quarkctl: Quarkctl) -> None:
    with (quarkctl.folder / "rig.toml").open("a") as file:
        file.write('[station.gone]\nserial = "X"\nalso = ["Y"]\npower = { command = ["no-such-relay", "{action}"] }\n')
    quarkctl("rig", "quarantine", "p1", "--reason", "bent pin")
    done = quarkctl("rig", "doctor", "--json")
    checks = {c["name"]: c for c in done.json["checks"]}
    assert done.code == 3
    assert checks["p0"]["ok"] and not checks["gone"]["ok"]
    assert checks["gone also"]["text"] == "Y is not connected"
    assert "no-such-relay" in checks["gone power"]["text"]
    assert "bent pin" in checks["p1 quarantine"]["text"] and "--release p1" in checks["p1 quarantine"]["cure"]
    assert "p0, p1, p2" in checks["power"]["text"] and not checks["power"]["needed"]
    assert {"disk", "clock", "history", "ModemManager", "serial permission"} <= checks.keys()


def test_doctor_shows_the_place_of_a_mistake_in_the_rig_file(quarkctl: Quarkctl) -> None:
    (quarkctl.folder / "rig.toml").write_text('[station.a]\nsim = "x"\ncolour = "red"\n')
    done = quarkctl("rig", "doctor")
    assert done.code == 3 and "rig.toml line 3, column 1: station.a.colour is not known here" in done.out


def test_both_chips_of_glasses_are_one_station() -> None:
    microcontroller = device("sim:s1")
    processor = Device("sim:s1/ar1", "sim:s1", "AR1", lambda: "", names=("sim:s1",))
    found = [microcontroller, processor]
    assert identity.choose(found, "sim:s1") is microcontroller  # an identity is never ambiguous
    both = [Station("a", sim="s1"), Station("b", sim="s1/ar1")]
    assert [(one.name, other.name) for one, other, _ in names.twins(both, found)] == [("a", "b")]


def test_doctor_knows_the_udev_rule_and_another_version_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "UDEV_FOLDERS", (tmp_path,))
    assert doctor._udev().text.startswith("not installed")
    rule = tmp_path / "70-quarkctl.rules"
    rule.write_text("\n".join(doctor.UDEV_RULE.splitlines()[:4]))
    assert doctor._udev().text.startswith(f"{rule} is of another version")
    rule.write_text(f"# ours\n{doctor.UDEV_RULE}")
    assert doctor._udev().ok and doctor._udev().text == str(rule)
