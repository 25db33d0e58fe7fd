"""Virtual devices as a USB/IP server on loopback: for our client, and for Linux's vhci."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from quarkctl.formats import usbip
from quarkctl.formats.usbip import Answer, ExportedDevice, Unlink
from quarkctl.formats.usbip import Transfer as Request
from quarkctl.sim.usb_device import Transfer, UsbDevice
from quarkctl.sim.usb_host import Port

#: A request with more data than any client sends in one piece ends the connection.
_DATA_MAX = 16 << 20
#: So do more requests, or more data in them, than wait for the device at once.
_WAITING_MAX, _WAITING_BYTES_MAX = 4096, 64 << 20
#: More clients than that are not heard, and one that says nothing is not waited for.
_CLIENTS_MAX, _GREETING_S = 32, 10.0


def _receive(connection: socket.socket, size_bytes: int) -> memoryview:
    data = bytearray(size_bytes)
    view, done = memoryview(data), 0
    while done < size_bytes:
        count = connection.recv_into(view[done:])
        if not count:
            raise EOFError
        done += count
    return view


class UsbIpServer:
    """Exports what is plugged into its ports as ``1-1``, ``1-2`` and so on."""

    def __init__(self, ports: list[Port]) -> None:
        self._ports = ports
        self._clients = threading.BoundedSemaphore(_CLIENTS_MAX)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, name="usbip server", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if not self._clients.acquire(blocking=False):
                    connection.close()
                    continue
                threading.Thread(target=self._serve, args=(connection,), name="usbip client", daemon=True).start()

    def _exported(self) -> list[tuple[Port, UsbDevice, ExportedDevice]]:
        listed = []
        for port in self._ports:
            device = port.device
            if device:
                d = device.descriptor
                bus_id = f"1-{port.number}"
                record = ExportedDevice(
                    bus_id, 1, port.address, d.speed, d.vendor_id, d.product_id, device.release, 1,
                    f"/sys/devices/virtual/{bus_id}",
                )  # fmt: skip
                listed.append((port, device, record))
        return listed

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._leaving(), connection, suppress(EOFError, OSError):
            connection.settimeout(_GREETING_S)
            _, command, _ = usbip.REQUEST.unpack(_receive(connection, usbip.REQUEST.size))
            if command == usbip.LIST_REQUEST:
                self._list(connection)
            elif command == usbip.IMPORT_REQUEST:
                name = bytes(_receive(connection, usbip.BUS_ID_BYTES)).rstrip(b"\0").decode("utf-8", "replace")
                self._import(connection, name)

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._clients.release()

    def _list(self, connection: socket.socket) -> None:
        exported = self._exported()
        answer = usbip.REQUEST.pack(usbip.VERSION, usbip.LIST_REPLY, 0) + usbip.COUNT.pack(len(exported))
        for _, device, record in exported:
            answer += usbip.build_device(record) + usbip.INTERFACE.pack(*device.descriptor.interface)
        connection.sendall(answer)

    def _import(self, connection: socket.socket, name: str) -> None:
        for port, device, record in self._exported():
            if record.bus_id == name and port.take(connection):
                connection.sendall(
                    usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REPLY, 0) + usbip.build_device(record)
                )
                connection.settimeout(None)
                try:
                    serve_transfers(connection, device)
                finally:
                    port.give_back(connection)
                return
        connection.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REPLY, 1))

    def close(self) -> None:
        # Closing alone does not wake a thread in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


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
            request = usbip.parse_request(_receive(connection, usbip.HEADER_BYTES))
            if isinstance(request, Request):
                with lock:
                    waiting = sum(len(t.data) if not t.incoming else t.actual for t in under_way.values())
                    crowded = len(under_way) >= _WAITING_MAX or waiting >= _WAITING_BYTES_MAX
                if not 0 <= request.size_bytes <= _DATA_MAX or crowded or request.sequence in under_way:
                    raise EOFError
                data = b"" if request.incoming or not request.size_bytes else _receive(connection, request.size_bytes)
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
