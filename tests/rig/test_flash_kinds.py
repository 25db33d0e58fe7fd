"""What a rig flashes besides single images of the microcontroller: bundles, and the application processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import ar1, bundles
from tests.conftest import Quarkctl
from tests.rig.terminals import Terminals, image


def test_a_bundle_is_flashed_on_all_stations(three: Terminals, quarkctl: Quarkctl) -> None:
    made = bundles.make(quarkctl.folder / "recipe", "1.1.0", image=image("1.1.0"))
    done = quarkctl("rig", "flash", made.path, "--all", "--json")
    assert done.code == 0, done.out
    assert [d.version for d in three.devices] == ["1.1.0"] * 3 and all(d.whole for d in three.devices)
    assert all(s["steps"][0]["facts"]["new_version"] for s in done.json["stations"])
    assert len(quarkctl("rig", "history", "--firmware", "1.1.0", "--json").json["runs"]) == 1


def test_a_damaged_bundle_is_refused_before_any_station_is_touched(three: Terminals, quarkctl: Quarkctl) -> None:
    made = bundles.make(quarkctl.folder / "recipe", "1.1.0", image=image("1.1.0"))
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    (quarkctl.folder / "bad.qfw").write_bytes(data)
    done = quarkctl("rig", "flash", "bad.qfw", "--all")
    assert done.code in (5, 6) and done.err.count("error:") == 1
    assert all(d.requests == 0 for d in three.devices)


@pytest.fixture
def two_ar1(tmp_path: Path, state_of_its_own: Path) -> list[ar1.Bench]:
    """Stations a and b: virtual AR1s in fastboot, by network address."""
    made = [ar1.make(tmp_path / name, "fastboot") for name in "ab"]
    lines = [f'[station.{n}]\nport = "tcp:127.0.0.1:{b.ar1.tcp_port}"\n' for n, b in zip("ab", made, strict=True)]
    (tmp_path / "rig.toml").write_text("[rig]\nretries = 0\n" + "".join(lines))
    (tmp_path / "boot.img").write_bytes(ar1.noise(300_000))
    return made


def test_application_processors_are_flashed_over_fastboot(two_ar1: list[ar1.Bench], quarkctl: Quarkctl) -> None:
    done = quarkctl("rig", "flash", "boot.img@boot_b", "--via", "fastboot", "--all", "--json")
    assert done.code == 0, done.out
    assert all(b.stored("boot_b", 300_000) == ar1.noise(300_000) for b in two_ar1)


def test_where_flash_would_ask_a_rig_says_how_to_answer(two_ar1: list[ar1.Bench], quarkctl: Quarkctl) -> None:
    asked = quarkctl("rig", "flash", "boot.img@boot_a", "--via", "fastboot", "--where", "a", "--json")
    station = asked.json["stations"][0]
    assert asked.code == 10 and "nobody is here to be asked: this writes slot a" in station["error"]
    assert "--yes" in station["hint"]
    assert quarkctl("rig", "flash", "boot.img@boot_a", "--via", "fastboot", "--where", "a", "--yes").code == 0
    assert two_ar1[0].stored("boot_a", 300_000) == ar1.noise(300_000)
    plan = '[[step]]\ndo = "flash"\nwhat = "boot.img@boot_a"\nvia = "fastboot"\nyes = true\n'
    (quarkctl.folder / "plan.toml").write_text(plan)
    assert quarkctl("rig", "run", "plan.toml", "--where", "b").code == 0


def test_a_programmer_brings_stations_out_of_emergency_download(
    tmp_path: Path, state_of_its_own: Path, quarkctl: Quarkctl
) -> None:
    bench = ar1.make(tmp_path / "ar1", "edl")
    host, port = bench.usbip.address
    (tmp_path / "rig.toml").write_text(f'[rig]\nretries = 0\n[station.a]\nport = "usbip:{host}:{port}"\n')
    (tmp_path / "boot.img").write_bytes(ar1.noise(300_000))
    missing = quarkctl("rig", "flash", "boot.img@boot_b", "--via", "edl", "--all", "--programmer", "none.elf")
    assert missing.code == 6 and "none.elf" in missing.err
    done = quarkctl(
        "rig", "flash", "boot.img@boot_b", "--via", "edl", "--all", "--programmer", bench.programmer, "--json"
    )
    assert done.code == 0, json.dumps(done.json["stations"])
    assert bench.stored("boot_b", 300_000) == ar1.noise(300_000)
