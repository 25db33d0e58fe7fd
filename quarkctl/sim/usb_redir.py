"""Virtual devices for a virtual machine: the peer of QEMU's ``usb-redir``, on a unix socket for each port.

The guest's own USB stack (xHCI driver, usbcore, usbfs) then drives the device. Source: the usbredir protocol 0.7,
``usbredirproto.h`` (freedesktop.org spice/usbredir). Bulk and control transfers; one interface.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from quarkctl.sim.usb_device import SPEED_HIGH, Transfer, UsbDevice
from quarkctl.sim.usb_host import Clients, Port, receive

_HELLO, _CONNECT, _DISCONNECT, _INTERFACE_INFO, _ENDPOINT_INFO = 0, 1, 2, 4, 5
_SET_CONFIGURATION, _GET_CONFIGURATION, _CONFIGURATION = 6, 7, 8
_SET_ALTERNATE, _GET_ALTERNATE, _ALTERNATE = 9, 10, 11
_CANCEL, _CONTROL, _BULK = 21, 100, 101
#: Version in device_connect, acknowledged disconnects, packet sizes in endpoint information, 64-bit ids, 32-bit lengths.
_CAPABILITIES = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6
_WIDE_IDS = 1 << 5
_CONTROL_BODY, _BULK_BODY = struct.Struct("<BBBBHHH"), struct.Struct("<BBHIH")
_SUCCESS, _CANCELLED, _INVALID, _IO_ERROR, _STALL, _BABBLE = 0, 1, 2, 3, 4, 6
_STATUS = {
    0: _SUCCESS,
    -errno.ECANCELED: _CANCELLED,
    -errno.EPIPE: _STALL,
    -errno.EOVERFLOW: _BABBLE,
    -errno.ENOENT: _INVALID,
}
_BULK_KIND, _CONTROL_KIND, _NO_ENDPOINT = 2, 0, 0xFF
#: A packet with more than any host sends at once ends the connection.
_PACKET_MAX = 16 << 20


class UsbRedirServer:
    """Waits at ``path`` for QEMU; what is plugged into the port, and pulled, is so for the guest."""

    def __init__(self, path: Path, port: Port) -> None:
        self._port = port
        self._connection: _Connection | None = None
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        port.watch(self._changed)
        self._clients = Clients(listener, self._serve, "usbredir")

    def _serve(self, channel: socket.socket) -> None:
        """The last QEMU that came has the device."""
        connection = self._connection = _Connection(channel, self._port)
        try:
            with suppress(struct.error):
                connection.serve()
        finally:
            if self._connection is connection:
                self._connection = None

    def _changed(self, _before: UsbDevice | None, after: UsbDevice | None) -> None:
        connection = self._connection
        if connection:
            with suppress(OSError):
                connection.replug(after)

    def close(self) -> None:
        self._clients.close()


class _Connection:
    """One QEMU, from its hello to its end."""

    def __init__(self, channel: socket.socket, port: Port) -> None:
        self._channel = channel
        self._port = port
        self._device: UsbDevice | None = None
        self._wide = False
        self._greeted = False
        self._sending = threading.Lock()
        self._under_way: dict[int, Transfer] = {}

    def serve(self) -> None:
        """Raises EOFError, OSError at its end."""
        self._send(_HELLO, b"quarkctl".ljust(64, b"\0") + struct.pack("<I", _CAPABILITIES))
        while True:
            kind, size, number = struct.unpack("<IIQ", self._receive(16)) if self._wide else self._short_header()
            if size > _PACKET_MAX:
                raise EOFError
            self._take(kind, number, self._receive(size))

    def _short_header(self) -> tuple[int, int, int]:
        kind, size, number = struct.unpack("<III", self._receive(12))
        return kind, size, number

    def _receive(self, size_bytes: int) -> bytearray:
        return receive(self._channel, size_bytes)

    def _send(self, kind: int, body: bytes, number: int = 0, data: bytes = b"") -> None:
        size = len(body) + len(data)
        with self._sending:
            header = struct.pack("<IIQ" if self._wide else "<III", kind, size, number)
            self._channel.sendall(header + body + data)

    # --- plugging -----------------------------------------------------------------------------------------------------

    def replug(self, device: UsbDevice | None) -> None:
        """Tell the guest what is plugged now."""
        if not self._greeted:
            return
        if self._device:
            self._send(_DISCONNECT, b"")
        self._device = device
        if device:
            self._describe(device)
            about = device.descriptor
            speed = 2 if about.speed == SPEED_HIGH else 3
            self._send(
                _CONNECT,
                struct.pack("<BBBBHHH", speed, 0, 0, 0, about.vendor_id, about.product_id, device.release),
            )

    def _describe(self, device: UsbDevice) -> None:
        """Interface and endpoints: tables of 32, the IN endpoints in their second halves."""
        numbers = bytes([0]) + bytes(31)
        classes = b"".join(bytes([value]) + bytes(31) for value in device.descriptor.interface)
        self._send(_INTERFACE_INFO, struct.pack("<I", 1) + numbers + classes)
        kinds, packets = bytearray([_NO_ENDPOINT] * 32), [0] * 32
        for place in (0, 16):
            kinds[place], packets[place] = _CONTROL_KIND, 64
        for address in (device.endpoint_in, device.endpoint_out):
            place = (address & 0x80) >> 3 | address & 15
            kinds[place], packets[place] = _BULK_KIND, device.descriptor.packet_bytes
        self._send(_ENDPOINT_INFO, bytes(kinds) + bytes(32) + bytes(32) + struct.pack("<32H", *packets))

    # --- what the guest asks for --------------------------------------------------------------------------------------

    def _take(self, kind: int, number: int, body: bytearray) -> None:
        device = self._device
        if kind == _HELLO:
            capabilities = struct.unpack_from("<I", body, 64)[0] if len(body) >= 68 else 0
            self._wide = bool(capabilities & _WIDE_IDS)
            self._greeted = True
            self.replug(self._port.device)
        elif kind == _CONTROL:
            self._control(device, number, body)
        elif kind == _BULK:
            self._bulk(device, number, body)
        elif kind == _CANCEL:
            self._cancel(device, number)
        elif kind in (_SET_CONFIGURATION, _GET_CONFIGURATION) and device:
            if kind == _SET_CONFIGURATION:
                device.configuration = body[0]
                device.start()
                self._describe(device)
            self._send(_CONFIGURATION, bytes([_SUCCESS, device.configuration]), number)
        elif kind in (_SET_ALTERNATE, _GET_ALTERNATE):
            self._send(_ALTERNATE, bytes([_SUCCESS, body[0], 0]), number)

    def _control(self, device: UsbDevice | None, number: int, body: bytearray) -> None:
        endpoint, request, kind, _, value, index, length = _CONTROL_BODY.unpack_from(body)
        setup = struct.pack("<BBHHH", kind, request, value, index, length)

        def answer(status: int, data: bytes, actual: int) -> None:
            head = _CONTROL_BODY.pack(endpoint, request, kind, status, value, index, actual)
            self._send(_CONTROL, head, number, data)

        transfer = Transfer(
            0, bool(kind & 0x80), length, partial(self._done, number, answer), bytes(body[_CONTROL_BODY.size :]), setup
        )
        self._submit(device, number, transfer)

    def _bulk(self, device: UsbDevice | None, number: int, body: bytearray) -> None:
        endpoint, _, low, stream, high = _BULK_BODY.unpack_from(body)
        length = low | high << 16

        def answer(status: int, data: bytes, actual: int) -> None:
            head = _BULK_BODY.pack(endpoint, status, actual & 0xFFFF, stream, actual >> 16)
            self._send(_BULK, head, number, data)

        data = memoryview(body)[_BULK_BODY.size :]
        transfer = Transfer(
            endpoint & 15, bool(endpoint & 0x80), length, partial(self._done, number, answer), data
        )  # fmt: skip
        self._submit(device, number, transfer)

    def _submit(self, device: UsbDevice | None, number: int, transfer: Transfer) -> None:
        self._under_way[number] = transfer
        if device:
            device.submit(transfer)
        else:
            transfer.complete(-errno.ENODEV)

    def _done(self, number: int, answer: Callable[[int, bytes, int], None], transfer: Transfer) -> None:
        self._under_way.pop(number, None)
        data = b"".join(transfer.pieces) if transfer.incoming else b""
        with suppress(OSError):
            answer(_STATUS.get(transfer.status, _IO_ERROR), data, transfer.actual)

    def _cancel(self, device: UsbDevice | None, number: int) -> None:
        """Pending: answered as cancelled, with what moved. Else its answer is on its way already."""
        transfer = self._under_way.get(number)
        if device and transfer and device.unlink(transfer):
            transfer.status = -errno.ECANCELED
            transfer.done(transfer)
