"""USB/IP: what takes long loses no byte and sends none twice; and a server has devices for several clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import usb.core

from quarkctl.link import usb as usb_link
from quarkctl.link.ar1 import network_device
from quarkctl.link.usb import UsbLink, scan
from quarkctl.link.usbip import Backend
from quarkctl.sim.usb_device import Descriptor, UsbDevice
from quarkctl.sim.usb_host import Port
from quarkctl.sim.usb_ip import UsbIpServer
from tests.ar1 import noise

DESCRIPTOR = Descriptor(0x18D1, 0x4EE0, (0xFF, 0x42, 3), "Quark", "test", "S1")
DATA = noise(256 << 10)
Serve = Callable[[Callable[[UsbDevice], None]], UsbLink]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(firmware)`` is a link to a device that does that."""
    port = Port()
    server, links = UsbIpServer([port]), list[UsbLink]()

    def start(firmware: Callable[[UsbDevice], None]) -> UsbLink:
        port.plug(UsbDevice(DESCRIPTOR, firmware))
        links.append(UsbLink(scan(Backend(*server.address))[0]))
        return links[-1]

    yield start
    for link in links:
        link.close()
    server.close()


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts what timed out in libusb's terms."""
    counted = threading.Semaphore(0)
    raised = usb.core.USBTimeoutError.__init__

    def told(self: usb.core.USBTimeoutError, *values: object) -> None:
        raised(self, *values)
        counted.release()

    monkeypatch.setattr(usb.core.USBTimeoutError, "__init__", told)
    monkeypatch.setattr(usb_link, "SLICE_S", 0.02)
    monkeypatch.setattr(usb_link, "WRITE_SLICE_S", 0.02)
    return counted


def test_a_read_that_times_out_in_its_middle_loses_nothing(serve: Serve, timeouts: threading.Semaphore) -> None:
    def firmware(device: UsbDevice) -> None:
        half = len(DATA) // 2
        device.outgoing.write(DATA[:half], wait=False)
        for _ in range(3):
            timeouts.acquire()
        device.outgoing.write(DATA[half:] + b"!", wait=False)

    link, got = serve(firmware), b""
    link.write(b"start")
    while not got.endswith(b"!"):
        got += link.read(5.0)
    assert got == DATA + b"!"


def test_a_write_that_times_out_in_its_middle_sends_nothing_twice(serve: Serve, timeouts: threading.Semaphore) -> None:
    taken, ended = bytearray(), threading.Event()

    def firmware(device: UsbDevice) -> None:
        while len(taken) < 2 * len(DATA) + 3:
            taken.extend(device.incoming.read(32 << 10))
            if len(taken) == 32 << 10:
                for _ in range(3):
                    timeouts.acquire()
        ended.set()

    link = serve(firmware)
    link.write(DATA)
    link.write(DATA + b"end")
    assert ended.wait(10) and taken == DATA + DATA + b"end"


def test_who_uses_one_device_of_a_server_leaves_the_others_to_others() -> None:
    ports = [Port(1), Port(2)]
    for port in ports:
        port.plug(UsbDevice(DESCRIPTOR, lambda _: None))
    server = UsbIpServer(ports)
    ways = [network_device(f"usbip:127.0.0.1:{server.address[1]}/1-{n}") for n in (1, 2)]
    links = [device.way.open() for device in ways if device]
    assert [link.found.port for link in links] == ["1-1", "1-2"]
    for link in links:
        link.close()
    server.close()


def test_an_import_gets_the_device_that_is_plugged_then_not_the_one_before() -> None:
    port = Port()
    before = UsbDevice(DESCRIPTOR, lambda _: None)
    port.plug(before)
    port.renew = lambda: UsbDevice(DESCRIPTOR, lambda _: None)
    assert port.take("first") is before and port.take("second") is None
    port.give_back("first")
    after = port.take("second")
    assert after is not None and after is not before and before.gone and not after.gone
