"""Faults of the virtual AR1's bus and media, each in fastboot and in emergency download: told, and the next try succeeds."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import usb.core

from quarkctl.errors import DeviceRefused, LinkLost, QuarkError
from quarkctl.formats import sahara
from quarkctl.link.usb import scan
from quarkctl.link.usbip import Backend
from tests.ar1 import Bench, Maker, file, noise, rawprogram

IMAGE = noise(256 << 10)  # a multiple of every packet size: ends of transfers are not seen from short packets


def flash_fastboot(b: Bench) -> object:
    return b.fastboot(f"{file(b.folder, 'boot.img', IMAGE)}@boot_b", restart=False, force=True)


def flash_edl(b: Bench) -> object:
    file(b.folder, "boot.img", IMAGE)
    row = {"filename": "boot.img", "label": "boot_b", "start_sector": 262, "num_partition_sectors": len(IMAGE) // 4096}
    return b.edl(rawprogram(b.folder, [row]), restart=False, force=True)


BOTH: dict[str, Callable[[Bench], object]] = {"fastboot": flash_fastboot, "edl": flash_edl}
both = pytest.mark.parametrize("mode", BOTH)


def flashed(b: Bench, mode: str) -> bool:
    BOTH[mode](b)
    return b.stored("boot_b", len(IMAGE)) == IMAGE


@both
@pytest.mark.parametrize("packet_bytes", [512, 1024])
@pytest.mark.parametrize("quirk", ["", "late_logs", "slow_media"])
def test_what_is_no_mistake_is_flashed(ar1: Maker, mode: str, packet_bytes: int, quirk: str) -> None:
    assert flashed(ar1(mode, quirks=[quirk], packet_bytes=packet_bytes), mode)


TOLD: dict[str, tuple[type[QuarkError], str]] = {
    "early_nak": (DeviceRefused, "write protected|middle of it"),
    "bad_blocks": (DeviceRefused, "write error at sector"),
    "stalls": (LinkLost, "stalled"),
}


@both
@pytest.mark.parametrize("quirk", TOLD)
def test_what_keeps_a_flash_from_succeeding_is_told_in_the_devices_words(ar1: Maker, mode: str, quirk: str) -> None:
    b = ar1(mode, quirks=[quirk], stall_after_bytes=30_000)
    kind, words = TOLD[quirk]
    with pytest.raises(kind, match=words):
        BOTH[mode](b)
    b.ar1.settings.quirks.clear()
    b.ar1.enter(mode)
    assert flashed(b, mode)


@both
def test_answers_of_any_length_are_taken(ar1: Maker, mode: str) -> None:
    assert flashed(ar1(mode, quirks=["long_answers"]), mode)


@both
@pytest.mark.parametrize("after", [1, 511, 4096, 65537, len(IMAGE) - 1, len(IMAGE)])
def test_power_may_fail_at_any_byte_of_a_write(ar1: Maker, mode: str, after: int) -> None:
    b = ar1(mode)
    b.ar1.storage.cut_after(after, b.ar1.power_cut)
    with pytest.raises(QuarkError) as stopped:
        BOTH[mode](b)
    assert stopped.value.exit_code == 4 and b.ar1.wait_for("off")
    assert b.stored("boot_b", after) == IMAGE[:after] and b.stored("boot_b", len(IMAGE))[after:] == bytes(
        len(IMAGE) - after
    )
    b.ar1.enter(mode)
    assert flashed(b, mode)


# --- packets, as a host that asks for too little or nothing sees them


def opened(b: Bench) -> Any:
    device = usb.core.find(backend=Backend(*b.usbip.address))
    device.set_configuration()
    return device


@both
def test_a_packet_that_does_not_fit_the_hosts_buffer_is_an_overflow_and_the_next_one_is_whole(
    ar1: Maker, mode: str
) -> None:
    b = ar1(mode)
    device = opened(b)
    with pytest.raises(usb.core.USBError) as over:
        if mode == "fastboot":
            device.write(0x01, b"getvar:product")
        device.read(0x81, 5, 2000)
    assert over.value.errno == errno.EOVERFLOW
    if mode == "fastboot":
        device.write(0x01, b"getvar:version")
        assert bytes(device.read(0x81, 512, 2000)) == b"OKAY0.4"
    else:
        device.write(0x01, sahara.build(sahara.Command.RESET))
        assert bytes(device.read(0x81, 512, 2000)) == sahara.build(sahara.Command.RESET_RESPONSE)


@both
def test_a_device_that_has_nothing_to_say_is_waited_for_no_longer_than_asked(ar1: Maker, mode: str) -> None:
    """NAK after NAK: the host's own time ends it, and nothing is lost."""
    b = ar1(mode)
    device = opened(b)
    if mode == "edl":
        device.read(0x81, 512, 2000)  # its hello
    with pytest.raises(usb.core.USBTimeoutError):
        device.read(0x81, 512, 20)
    device.write(0x01, b"getvar:version" if mode == "fastboot" else sahara.build(sahara.Command.RESET))
    assert bytes(device.read(0x81, 512, 2000))[:4] in (b"OKAY", sahara.build(sahara.Command.RESET_RESPONSE)[:4])


@both
def test_a_pulled_device_is_gone_for_every_request_and_comes_back_at_another_address(ar1: Maker, mode: str) -> None:
    b = ar1(mode)
    first = opened(b)
    before = first.address
    b.ar1.unplug()
    for request in (
        partial(first.read, 0x81, 512),
        partial(first.write, 0x01, b"x"),
        partial(first.ctrl_transfer, 0x80, 0, 0, 0, 2),
    ):
        with pytest.raises(usb.core.USBError) as gone:
            request()
        assert gone.value.errno == errno.ENODEV
    assert scan(Backend(*b.usbip.address)) == []
    b.ar1.replug()
    assert b.ar1.port.address != before
    assert flashed(b, mode)
