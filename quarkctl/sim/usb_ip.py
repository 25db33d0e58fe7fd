"""Virtual devices as a USB/IP server on loopback: for our client, and for Linux's vhci."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from functools import partial

from quarkctl.formats import usbip
from quarkctl.formats.usbip import Answer, ExportedDevice, Unlink
from quarkctl.formats.usbip import Transfer as Request
from quarkctl.sim.usb_device import Transfer, UsbDevice
from quarkctl.sim.usb_host import Clients, Port, receive

#: A request with more data than any client sends in one piece ends the connection.
_DATA_MAX = 16 << 20
#: So do more requests, or more data in them, than wait for the device at once.
_WAITING_MAX, _WAITING_BYTES_MAX = 4096, 64 << 20
#: A client that says nothing is not waited for.
_GREETING_S = 10.0


class UsbIpServer:
    """Exports what is plugged into its ports as ``1-1``, ``1-2`` and so on."""

    def __init__(self, ports: list[Port]) -> None:
        self._ports = ports
        listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._clients = Clients(listener, self._serve, "usbip")

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_GREETING_S)
        _, command, _ = usbip.REQUEST.unpack(receive(connection, usbip.REQUEST.size))
        if command == usbip.LIST_REQUEST:
            self._list(connection)
        elif command == usbip.IMPORT_REQUEST:
            name = bytes(receive(connection, usbip.BUS_ID_BYTES)).rstrip(b"\0").decode("utf-8", "replace")
            self._import(connection, name)

    def _list(self, connection: socket.socket) -> None:
        exported = [(port, device) for port in self._ports if (device := port.device)]
        answer = usbip.REQUEST.pack(usbip.VERSION, usbip.LIST_REPLY, 0) + usbip.COUNT.pack(len(exported))
        for port, device in exported:
            answer += usbip.build_device(_record(port, device)) + usbip.INTERFACE.pack(*device.descriptor.interface)
        connection.sendall(answer)

    def _import(self, connection: socket.socket, name: str) -> None:
        for port in self._ports:
            if _bus_id(port) == name and (device := port.take(connection)):
                try:
                    answer = usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REPLY, 0)
                    connection.sendall(answer + usbip.build_device(_record(port, device)))
                    connection.settimeout(None)
                    serve_transfers(connection, device)
                finally:
                    port.give_back(connection)
                return
        connection.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REPLY, 1))

    def close(self) -> None:
        self._clients.close()


def _bus_id(port: Port) -> str:
    return f"1-{port.number}"


def _record(port: Port, device: UsbDevice) -> ExportedDevice:
    d, bus_id = device.descriptor, _bus_id(port)
    return ExportedDevice(
        bus_id, 1, port.address, d.speed, d.vendor_id, d.product_id, device.release, 1, f"/sys/devices/virtual/{bus_id}"
    )


def serve_transfers(connection: socket.socket, device: UsbDevice) -> None:
    """Carry transfers until the client closes the connection or the device is unplugged."""
    lock = threading.Lock()
    under_way: dict[int, Transfer] = {}

    def done(sequence: int, transfer: Transfer) -> None:
        with lock:
            under_way.pop(sequence, None)
            answer = Answer(usbip.SUBMIT_REPLY, sequence, transfer.status, transfer.actual)
            pieces: list[bytes | memoryview] = [usbip.build_answer(answer), *transfer.pieces]
            with suppress(OSError):
                sent = connection.sendmsg(pieces)
                if sent < sum(map(len, pieces)):
                    connection.sendall(b"".join(pieces)[sent:])
                if transfer.status == -errno.ESHUTDOWN:
                    connection.shutdown(socket.SHUT_RDWR)

    try:
        while True:
            request = usbip.parse_request(receive(connection, usbip.HEADER_BYTES))
            if isinstance(request, Request):
                with lock:
                    waiting = sum(len(t.data) + t.actual for t in under_way.values())
                    crowded = len(under_way) >= _WAITING_MAX or waiting >= _WAITING_BYTES_MAX
                if not 0 <= request.size_bytes <= _DATA_MAX or crowded or request.sequence in under_way:
                    raise EOFError
                data = memoryview(receive(connection, 0 if request.incoming else request.size_bytes))
                number = request.sequence
                transfer = Transfer(
                    request.endpoint, request.incoming, request.size_bytes, partial(done, number), data,
                    request.setup, request.zero_packet,
                )  # fmt: skip
                with lock:
                    under_way[number] = transfer
                device.submit(transfer)
            elif isinstance(request, Unlink):
                with lock:
                    target = under_way.get(request.target)
                given_up = target is not None and device.unlink(target)
                with lock:
                    if given_up:
                        del under_way[request.target]
                    status = -errno.ECONNRESET if given_up else 0
                    connection.sendall(usbip.build_answer(Answer(usbip.UNLINK_REPLY, request.sequence, status)))
            else:
                raise EOFError
    finally:
        with lock:
            left = list(under_way.values())
            under_way.clear()
        for transfer in left:
            device.unlink(transfer)
