"""The cable is pulled, or the power fails, at every single transfer of a flash: the next try always succeeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quarkctl.errors import QuarkError
from quarkctl.flash import edl_device, fastboot, firehose
from quarkctl.link import udp
from tests.ar1 import Bench, Maker, file, noise, rawprogram

IMAGE = noise(3 * 4096 + 100)
Flash = Callable[[Bench], object]


def _flash_fastboot(wire: str) -> Flash:
    return lambda b: b.fastboot(file(b.folder, "boot.img", IMAGE), wire=wire, restart=False)


def _flash_edl(b: Bench) -> object:
    xml = rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_b", "start_sector": 262}])
    patch = file(
        b.folder, "patch0.xml",
        b'<?xml version="1.0" ?><patches><patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="8" filename="DISK" '
        b'physical_partition_number="0" size_in_bytes="4" start_sector="NUM_DISK_SECTORS-9." value="7" what="x"/></patches>',
    )  # fmt: skip
    return b.edl(xml, patch, restart=False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual device answers at once: waiting for what never comes needs no second."""
    monkeypatch.setattr(edl_device, "HELLO_S", 0.4)
    monkeypatch.setattr(firehose, "GREETING_S", 0.05)
    monkeypatch.setattr(firehose, "_CLOSING_S", 0.1)
    monkeypatch.setattr(fastboot, "START_S", 5.0)
    monkeypatch.setattr(udp, "RESEND_S", 0.02)


WAYS = {
    "fastboot over TCP": ("fastboot", _flash_fastboot("tcp"), ()),
    "fastboot over UDP": ("fastboot", _flash_fastboot("udp"), ()),
    "fastboot over USB": ("fastboot", _flash_fastboot("usb"), ()),
    "EDL": ("edl", _flash_edl, ()),
    "EDL where an open write goes on": ("edl", _flash_edl, ("raw_survives",)),
}


@pytest.mark.parametrize("cut", ["cable", "power"])
@pytest.mark.parametrize("way", WAYS)
def test_the_second_try_succeeds_wherever_the_first_was_cut(ar1: Maker, way: str, cut: str) -> None:
    mode, flash, quirks = WAYS[way]
    b = ar1(mode, quirks=quirks)
    (b.folder / "boot.img").write_bytes(IMAGE)
    flash(b)
    b.ar1.enter(mode)
    b.ar1.points.arm(0, lambda: None)
    b.ar1.storage.erase(0, 256 * 4096, 512 * 4096)
    flash(b)
    count = b.ar1.points.passed
    assert count > 10, "the points where a flash can be cut are not counted"
    stopped = 0
    for n in range(1, count + 1):
        b.ar1.enter(mode)
        b.ar1.storage.erase(0, 256 * 4096, 512 * 4096)
        b.ar1.points.arm(n, b.ar1.unplug if cut == "cable" else b.ar1.power_cut)
        with pytest.MonkeyPatch.context() as patch:
            if "UDP" in way:  # nothing tells that nobody is there but silence
                for module, name in (
                    (udp, "SILENCE_S"),
                    (udp, "QUERY_S"),
                    (fastboot, "QUICK_S"),
                    (fastboot, "START_S"),
                ):
                    patch.setattr(module, name, 0.1)
            try:
                flash(b)
            except QuarkError as error:
                stopped += 1
                assert error.exit_code in (4, 5), f"cut {n}: {error.message}"
                assert error.message != ""
        b.ar1.points.arm(0, lambda: None)
        if cut == "cable":
            b.ar1.replug()
        else:
            b.ar1.enter(mode)
        flash(b)
        assert b.stored("boot_b", len(IMAGE)) == IMAGE, f"cut {n}"
    assert stopped > 3
