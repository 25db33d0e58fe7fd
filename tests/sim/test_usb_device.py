"""The packet rules of USB, kept by the device core that every emulated bus shares."""

from __future__ import annotations

import errno
import threading

import pytest

from quarkctl.sim.usb_device import Descriptor, Transfer, Unplugged, UsbDevice

DESCRIPTOR = Descriptor(0x18D1, 0x4EE0, (0xFF, 0x42, 3), "Quark", "test", "S1")


@pytest.fixture
def device() -> UsbDevice:
    return UsbDevice(DESCRIPTOR, lambda _: None)


def take(device: UsbDevice, size_bytes: int) -> Transfer:
    """A read of the host."""
    transfer = Transfer(1, True, size_bytes, lambda _: None)
    device.submit(transfer)
    return transfer


def give(device: UsbDevice, data: bytes, *, zero_packet: bool = False) -> Transfer:
    transfer = Transfer(1, False, len(data), lambda _: None, data, zero_packet=zero_packet)
    device.submit(transfer)
    return transfer


def test_a_short_packet_ends_a_read(device: UsbDevice) -> None:
    transfer = take(device, 4096)
    device.outgoing.write(b"x" * 600, wait=False)
    assert transfer.completed and transfer.actual == 600


def test_whole_packets_do_not_end_a_read_until_a_zero_length_packet_follows(device: UsbDevice) -> None:
    transfer = take(device, 4096)
    device.outgoing.write(b"x" * 1024, wait=False)
    assert not transfer.completed
    device.outgoing.write(b"", wait=False)
    assert transfer.completed and transfer.actual == 1024


def test_a_full_buffer_ends_a_read_and_the_rest_goes_to_the_next(device: UsbDevice) -> None:
    device.outgoing.write(b"a" * 512 + b"b" * 600, wait=False)
    first, second = take(device, 512), take(device, 4096)
    assert bytes(first.pieces[0]) == b"a" * 512 and bytes(second.pieces[0]) == b"b" * 600


def test_a_packet_larger_than_the_buffer_is_an_overflow(device: UsbDevice) -> None:
    device.outgoing.write(b"x" * 512, wait=False)
    assert take(device, 48).status == -errno.EOVERFLOW


def test_a_write_completes_when_the_firmware_reads_it(device: UsbDevice) -> None:
    transfer = give(device, b"x" * 5000)
    assert not transfer.completed
    assert bytes(device.incoming.read(8192)) == b"x" * 5000
    assert transfer.completed and transfer.actual == 5000


def test_small_writes_are_taken_by_the_fifo(device: UsbDevice) -> None:
    assert give(device, b"x" * 512).completed and give(device, b"").completed
    assert bytes(device.incoming.read(4096)) == b"x" * 512, "the zero-length packet ends the read"


def test_a_write_that_is_given_up_tells_what_moved(device: UsbDevice) -> None:
    transfer = give(device, b"x" * 4096)
    device.incoming.read(1024)
    assert device.unlink(transfer) and transfer.actual == 1024
    assert not device.unlink(transfer)


def test_a_halted_endpoint_stalls_until_the_halt_is_cleared(device: UsbDevice) -> None:
    device.incoming.halt()
    assert give(device, b"x").status == -errno.EPIPE
    device.clear_halt(device.endpoint_out)
    assert give(device, b"x").status == 0


def test_pulling_the_cable_ends_everything(device: UsbDevice) -> None:
    reading, writing = take(device, 64), give(device, b"x" * 4096)
    ended = threading.Event()

    def firmware() -> None:
        with pytest.raises(Unplugged):
            while True:
                device.incoming.read(64)
        ended.set()

    device.incoming.read(64)
    thread = threading.Thread(target=firmware)
    thread.start()
    device.unplug()
    thread.join(10)
    assert ended.is_set()
    assert reading.status == -errno.ESHUTDOWN and writing.status in (0, -errno.ESHUTDOWN)
    assert take(device, 64).status == -errno.ESHUTDOWN
