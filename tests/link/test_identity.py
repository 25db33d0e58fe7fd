"""Which device is which, whatever its tty is called today."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import DeviceAmbiguous, DeviceMissing
from quarkctl.link import identity
from quarkctl.link.identity import Device
from quarkctl.link.serial_port import SerialPort

Ports = list[SimpleNamespace]


def port(device: str, serial: str | None, location: str, product: str = "CP2102N") -> SimpleNamespace:
    return SimpleNamespace(
        device=device, vid=0x10C4, pid=0xEA60, serial_number=serial, location=location, product=product,
        description=product,
    )  # fmt: skip


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ports:
    """What pyserial finds; a test changes the list."""
    found: Ports = []
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [Ordered(p) for p in found])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("QUARKCTL_RIG", raising=False)
    return found


class Ordered:
    """Like pyserial's entries: they sort by device."""

    def __init__(self, of: SimpleNamespace) -> None:
        self.__dict__ = of.__dict__

    def __lt__(self, other: Ordered) -> bool:
        return str(self.__dict__["device"]) < str(other.__dict__["device"])


def test_a_device_is_found_by_serial_physical_port_or_name_after_the_ttys_changed_places(
    plugged: Ports, tmp_path: Path
) -> None:
    (tmp_path / "rig.toml").write_text('[station.left-bench]\nserial = "QS1-0042"\n[station.hub]\nport = "1-1.4"\n')
    plugged += [port("/dev/ttyACM0", "QS1-0042", "1-1.2"), port("/dev/ttyACM1", "QS1-0077", "1-1.4")]
    for word in ("QS1-0042", "1-1.2", "left-bench", "usb:QS1-0042", "/dev/ttyACM0"):
        chosen = identity.choose(identity.serial_devices(), word)
        assert (chosen.identity, chosen.resolve()) == ("usb:QS1-0042", "/dev/ttyACM0"), word
    assert identity.choose(identity.serial_devices(), "hub").identity == "usb:QS1-0077"
    plugged[0].device, plugged[1].device = "/dev/ttyACM1", "/dev/ttyACM0"
    assert chosen.resolve() == "/dev/ttyACM1"
    del plugged[0]
    with pytest.raises(DeviceMissing, match="usb:QS1-0042 is not connected"):
        chosen.resolve()
    with pytest.raises(DeviceMissing, match=r"left-bench \(serial QS1-0042\) is not connected"):
        identity.choose(identity.serial_devices(), "left-bench")


def test_devices_that_share_a_serial_number_or_have_none_are_their_physical_port(plugged: Ports) -> None:
    plugged += [
        port("/dev/ttyUSB0", "0001", "1-1"),
        port("/dev/ttyUSB1", "0001", "1-2"),
        port("/dev/ttyUSB2", None, "1-3"),
    ]
    assert [d.identity for d in identity.serial_devices()] == ["usb:1-1", "usb:1-2", "usb:1-3"]
    with pytest.raises(DeviceAmbiguous, match="2 devices fit"):
        identity.choose(identity.serial_devices(), "0001")
    assert identity.choose(identity.serial_devices(), "1-2").port == "/dev/ttyUSB1"


def test_the_two_halves_of_one_chip_are_two_devices(plugged: Ports) -> None:
    plugged += [port("/dev/ttyUSB0", "FT1", "1-1:1.0"), port("/dev/ttyUSB1", "FT1", "1-1:1.1")]
    assert [d.identity for d in identity.serial_devices()] == ["usb:FT1:1.0", "usb:FT1:1.1"]
    with pytest.raises(DeviceAmbiguous):
        identity.choose(identity.serial_devices(), "FT1")
    assert identity.choose(identity.serial_devices(), "1-1:1.1").port == "/dev/ttyUSB1"


def test_a_device_in_a_mode_that_does_not_take_the_method_is_not_chosen(plugged: Ports) -> None:
    plugged.append(port("/dev/ttyACM0", "QS1-0042", "1-1.2"))
    with pytest.raises(DeviceMissing, match="usb:QS1-0042 does not take fastboot"):
        identity.choose(identity.serial_devices(), "QS1-0042", "fastboot")


def test_of_two_chips_with_one_serial_number_the_method_tells_which_is_meant(plugged: Ports) -> None:
    plugged.append(port("/dev/ttyACM0", "QS1-0042", "1-1.2"))
    processor = Device(
        "usb:QS1-0042", "1-1.3", "fastboot", str, serial="QS1-0042", mode="fastboot", methods=("fastboot",)
    )
    found = [*identity.serial_devices(), processor]
    assert identity.choose(found, "QS1-0042").port == "/dev/ttyACM0"
    assert identity.choose(found, "QS1-0042", "smp").port == "/dev/ttyACM0"
    assert identity.choose(found, "QS1-0042", "fastboot") is processor
    assert [d.port for d in identity.called(found, "QS1-0042")] == ["/dev/ttyACM0"]
    alone = [processor]
    assert identity.choose(alone, "QS1-0042") is processor


@given(
    st.lists(
        st.builds(
            SerialPort, st.text(min_size=1), st.just("1:2"), st.sampled_from(["", "1", "A"]), st.just(""), st.just("")
        ),
        max_size=6, unique_by=lambda p: p.path,
    ),
    st.lists(st.sampled_from(["1-1", "1-2", "1-3:1.0", "1-3:1.1", "2-1", "2-2"]), min_size=6, max_size=6, unique=True),
)  # fmt: skip
def test_identities_are_never_shared(ports: list[SerialPort], places: list[str]) -> None:
    placed = [SerialPort(p.path, p.usb_id, p.serial, place, "") for p, place in zip(ports, places, strict=False)]
    found = identity.identify(placed)
    assert len(set(found)) == len(placed)
