"""A pyusb backend over USB/IP: devices of another host, without root, vhci or libusb on this one.

The protocol has neither authentication nor encryption, and an import is full control over the device. So only loopback
addresses are taken (bring the port of the other host here with ``ssh -L``), unless the caller insists. What the server
says is bounded and checked; anything unexpected closes the connection.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import usb.backend
from usb.core import USBError, USBTimeoutError

from quarkctl.errors import DeviceMissing, LinkError, ProtocolError, UsageWrong
from quarkctl.formats import usbip
from quarkctl.formats.usbip import Answer, ExportedDevice, Transfer, Unlink

CONNECT_TIMEOUT_S = 5.0
#: A device that is held is asked for again until then.
BUSY_S = 2.0
_POLL_S = 0.02
#: A server must answer an unlink by then, or it is lost.
UNLINK_TIMEOUT_S = 15.0
#: A server that took the connection answers by then, however busy its computer is.
_ANSWER_TIMEOUT_S = 15.0
_CONTROL_TIMEOUT_MS = 2000
DEVICE_COUNT_MAX = 256
_INTERFACE_COUNT_MAX = 32
_DESCRIPTOR_MAX = 4096

_DEVICE_FIELDS = (
    "bLength", "bDescriptorType", "bcdUSB", "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol", "bMaxPacketSize0",
    "idVendor", "idProduct", "bcdDevice", "iManufacturer", "iProduct", "iSerialNumber", "bNumConfigurations",
)  # fmt: skip
_CONFIGURATION_FIELDS = (
    "bLength", "bDescriptorType", "wTotalLength", "bNumInterfaces", "bConfigurationValue", "iConfiguration",
    "bmAttributes", "bMaxPower",
)  # fmt: skip
_INTERFACE_FIELDS = (
    "bLength", "bDescriptorType", "bInterfaceNumber", "bAlternateSetting", "bNumEndpoints", "bInterfaceClass",
    "bInterfaceSubClass", "bInterfaceProtocol", "iInterface",
)  # fmt: skip
_ENDPOINT_FIELDS = ("bLength", "bDescriptorType", "bEndpointAddress", "bmAttributes", "wMaxPacketSize", "bInterval")


def _receive(connection: socket.socket, into: memoryview) -> None:
    done = 0
    while done < len(into):
        count = connection.recv_into(into[done:])
        if not count:
            raise EOFError
        done += count


def _receive_bytes(connection: socket.socket, size_bytes: int) -> bytes:
    data = bytearray(size_bytes)
    _receive(connection, memoryview(data))
    return bytes(data)


def check_address(host: str, *, allow_remote: bool) -> None:
    """Raises UsageWrong for a host that is not this computer, unless that is wanted."""
    try:
        loopback = all(ipaddress.ip_address(address[4][0]).is_loopback for address in socket.getaddrinfo(host, None))
    except (OSError, ValueError) as error:
        raise DeviceMissing(f"there is no host {host}: {error}") from error
    if not loopback and not allow_remote:
        raise UsageWrong(
            f"USB/IP to {host} would be neither encrypted nor authenticated",
            hint=f"ssh -L {usbip.PORT}:127.0.0.1:{usbip.PORT} {host}, then usbip:127.0.0.1; or --allow-remote-usbip",
        )


def list_devices(host: str, port: int) -> list[ExportedDevice]:
    """What a server exports. Raises DeviceMissing, ProtocolError."""
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection:
            connection.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.LIST_REQUEST, 0))
            version, reply, status = usbip.REQUEST.unpack(_receive_bytes(connection, usbip.REQUEST.size))
            if reply != usbip.LIST_REPLY or status or version >> 8 != usbip.VERSION >> 8:
                raise ProtocolError(f"usbip:{host}:{port} answered {reply:#x} with status {status}")
            (count,) = usbip.COUNT.unpack(_receive_bytes(connection, usbip.COUNT.size))
            if count > DEVICE_COUNT_MAX:
                raise ProtocolError(f"usbip:{host}:{port} claims to export {count} devices")
            found = []
            for _ in range(count):
                device = usbip.parse_device(_receive_bytes(connection, usbip.DEVICE_BYTES))
                if device.interface_count > _INTERFACE_COUNT_MAX:
                    raise ProtocolError(
                        f"usbip:{host}:{port}: {device.bus_id} claims {device.interface_count} interfaces"
                    )
                _receive_bytes(connection, usbip.INTERFACE.size * device.interface_count)
                found.append(device)
            return found
    except (OSError, EOFError) as error:
        raise DeviceMissing(
            f"no USB/IP server answers at {host}:{port}: {error or 'it closed the connection'}",
            hint=f"on the rig: usbipd and `usbip bind`; here: ssh -L {usbip.PORT}:127.0.0.1:{usbip.PORT} RIG",
        ) from error


@dataclass
class _Pending:
    """A request under way. ``data`` is what it sends, ``into`` where its answer goes."""

    into: memoryview | None = None
    data: memoryview | None = None
    target: int = 0
    status: int = 0
    actual: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class _Import:
    """An imported device. One connection for its whole life: kernel exporters reset a device when it is closed."""

    def __init__(self, host: str, port: int, bus_id: str) -> None:
        try:
            self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(_ANSWER_TIMEOUT_S)
            name = bus_id.encode().ljust(usbip.BUS_ID_BYTES, b"\0")
            self._socket.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REQUEST, 0) + name)
            _, reply, status = usbip.REQUEST.unpack(_receive_bytes(self._socket, usbip.REQUEST.size))
            if status or reply != usbip.IMPORT_REPLY:
                self._socket.close()
                raise USBError("held by somebody else", -6, errno.EBUSY)
            self._device_id = usbip.parse_device(_receive_bytes(self._socket, usbip.DEVICE_BYTES)).device_id
            self._socket.settimeout(None)
        except (OSError, EOFError) as error:
            if isinstance(error, USBError):
                raise
            raise USBError("no such device", -4, errno.ENODEV) from error
        self._lock = threading.Lock()
        self._sequence = 0
        self._pending: dict[int, _Pending] = {}
        #: {endpoint and direction: a bulk transfer that took longer than its caller wanted to wait}
        self._unfinished: dict[tuple[int, bool], _Pending] = {}
        self.dead = False
        threading.Thread(target=self._read_on, name=f"usbip {bus_id}", daemon=True).start()

    def _read_on(self) -> None:
        header = bytearray(usbip.HEADER_BYTES)
        view = memoryview(header)
        try:
            while True:
                _receive(self._socket, view)
                answer = usbip.parse_answer(header)
                if answer is None:
                    raise EOFError
                self._take(answer)
        except (EOFError, OSError):
            self.close()

    def _take(self, answer: Answer) -> None:
        """Raises EOFError for an answer that nobody asked for, or that is larger than its buffer."""
        with self._lock:
            pending = self._pending.pop(answer.sequence, None)
        if pending is None:
            raise EOFError
        if answer.command == usbip.SUBMIT_REPLY:
            room = len(pending.into) if pending.into is not None else None
            if answer.size_bytes < 0 or (room is not None and answer.size_bytes > room):
                pending.status = -errno.ENODEV
                pending.done.set()
                raise EOFError
            if pending.into is not None and answer.size_bytes:
                _receive(self._socket, pending.into[: answer.size_bytes])
            pending.status, pending.actual = answer.status, answer.size_bytes
            pending.done.set()
            return
        with self._lock:
            target = self._pending.pop(pending.target, None) if answer.status else None
        if target:
            target.status = -errno.ETIMEDOUT
            target.done.set()

    def close(self) -> None:
        with self._lock:
            self.dead = True
            left, self._pending = list(self._pending.values()), {}
        for pending in left:
            pending.status = -errno.ENODEV
            pending.done.set()
        # Closing alone would not wake the thread that reads, nor tell the other end.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def transfer(
        self, endpoint: int, *, data: memoryview | None = None, into: memoryview | None = None,
        setup: bytes = bytes(8), timeout_ms: int = 0,
    ) -> int:  # fmt: skip
        """One transfer; returns the bytes that moved. Raises USBError with the errno that libusb would give."""
        sequence, pending = self._submit(endpoint, data, into, setup)
        if not pending.done.wait(timeout_ms / 1000 if timeout_ms else None):
            self._unlink(sequence)
            if not pending.done.wait(UNLINK_TIMEOUT_S):
                self.close()
        return self._moved(pending)

    def bulk(
        self, endpoint: int, *, data: memoryview | None = None, into: memoryview | None = None, timeout_ms: int
    ) -> int:
        """A bulk transfer. One that takes longer stays under way, and the next call in its direction waits for it.

        It must not be given up: the protocol does not tell how much of it had moved, so bytes would be lost or sent twice.
        A caller whose write timed out offers the same bytes again, and may be told of more than the second offer had.
        """
        if data is not None and not len(data):  # nothing could be lost
            return self.transfer(endpoint, data=data, timeout_ms=timeout_ms)
        way = endpoint, into is not None
        pending = self._unfinished.get(way)
        if pending is None:
            _, pending = self._submit(endpoint, data, into, bytes(8))
        elif pending.data is not None and data is not None and pending.data[: len(data)] != data:
            raise USBError("another write is under way", -1, errno.EIO)
        if not pending.done.wait(timeout_ms / 1000 if timeout_ms else None):
            self._unfinished[way] = pending
            raise USBTimeoutError("operation timed out", -7, errno.ETIMEDOUT)
        self._unfinished.pop(way, None)
        count = self._moved(pending)
        if pending.into is not None and into is not None and pending.into.obj is not into.obj:
            if count > len(into):
                raise USBError(os.strerror(errno.EOVERFLOW), -8, errno.EOVERFLOW)
            into[:count] = pending.into[:count]
        return count

    def _submit(
        self, endpoint: int, data: memoryview | None, into: memoryview | None, setup: bytes
    ) -> tuple[int, _Pending]:
        size = len(into) if into is not None else len(data or b"")
        pending = _Pending(into, data)
        with self._lock:
            if self.dead:
                raise USBError("no such device", -4, errno.ENODEV)
            self._sequence += 1
            sequence = self._sequence
            self._pending[sequence] = pending
            request = usbip.build_submit(Transfer(sequence, endpoint, into is not None, size, setup), self._device_id)
            self._send(request, data)
        return sequence, pending

    @staticmethod
    def _moved(pending: _Pending) -> int:
        if pending.status == -errno.ETIMEDOUT:
            raise USBTimeoutError("operation timed out", -7, errno.ETIMEDOUT)
        if pending.status:
            code = errno.ENODEV if pending.status == -errno.ESHUTDOWN else -pending.status
            raise USBError(os.strerror(code), -1, code)
        return pending.actual

    def _send(self, header: bytes, data: memoryview | None) -> None:
        try:
            if data is None or not len(data):
                self._socket.sendall(header)
                return
            sent = self._socket.sendmsg([header, data])
            if sent < len(header):
                self._socket.sendall(header[sent:])
                sent = len(header)
            self._socket.sendall(data[sent - len(header) :])
        except OSError as error:
            raise USBError("no such device", -4, errno.ENODEV) from error

    def _unlink(self, target: int) -> None:
        with self._lock:
            if self.dead:
                return
            self._sequence += 1
            self._pending[self._sequence] = _Pending(target=target)
            self._send(usbip.build_unlink(Unlink(self._sequence, target), self._device_id), None)


@dataclass
class _Device:
    """A device of the list, its connection once it was opened, and its descriptors."""

    exported: ExportedDevice
    connection: _Import | None = None
    descriptor: bytes = b""
    configuration: SimpleNamespace | None = None
    interfaces: list[SimpleNamespace] = field(default_factory=list)


class Backend(usb.backend.IBackend):  # type: ignore[misc]
    """For ``usb.core.find(backend=...)``. One configuration, alternate setting 0; control and bulk transfers."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = usbip.PORT, *, allow_remote: bool = False, bus_id: str = ""
    ) -> None:
        """``bus_id``: only that device is seen. To see one is to import it, and to import it keeps others from it.

        Raises UsageWrong for a host that is not this computer.
        """
        check_address(host, allow_remote=allow_remote)
        self._host, self._port, self._bus_id = host, port, bus_id
        self._imports: list[_Import] = []

    def enumerate_devices(self) -> Iterator[_Device]:
        try:
            found = list_devices(self._host, self._port)
            return iter([_Device(e) for e in found if self._bus_id in ("", e.bus_id)])
        except LinkError as error:
            raise USBError(error.message, -4, errno.ENODEV) from error

    def get_parent(self, dev: _Device) -> None:
        return None

    # --- descriptors --------------------------------------------------------------------------------------------------

    def _read_descriptors(self, dev: _Device) -> None:
        if dev.descriptor:
            return
        connection = self.open_device(dev)
        descriptor = self._get_descriptor(connection, 1, 18)
        head = self._get_descriptor(connection, 2, 9)
        if len(descriptor) != 18 or len(head) != 9:
            raise USBError("descriptors are cut short", -1, errno.EIO)
        total = int.from_bytes(head[2:4], "little")
        if not 9 <= total <= _DESCRIPTOR_MAX:
            raise USBError(f"a configuration descriptor of {total} bytes", -1, errno.EIO)
        self._parse_configuration(dev, self._get_descriptor(connection, 2, total))
        dev.descriptor = descriptor

    @staticmethod
    def _get_descriptor(connection: _Import, kind: int, size_bytes: int) -> bytes:
        data = bytearray(size_bytes)
        setup = struct.pack("<BBHHH", 0x80, 6, kind << 8, 0, size_bytes)
        count = connection.transfer(0, into=memoryview(data), setup=setup, timeout_ms=_CONTROL_TIMEOUT_MS)
        return bytes(data[:count])

    @staticmethod
    def _parse_configuration(dev: _Device, raw: bytes) -> None:
        at = 0
        while at + 2 <= len(raw):
            length, kind = raw[at], raw[at + 1]
            if length < 2 or at + length > len(raw):
                raise USBError("a descriptor with a wrong length", -1, errno.EIO)
            if kind == 2 and length >= 9:
                values = struct.unpack_from("<BBHBBBBB", raw, at)
                dev.configuration = SimpleNamespace(
                    **dict(zip(_CONFIGURATION_FIELDS, values, strict=True)), extra_descriptors=[]
                )
            elif kind == 4 and length >= 9:
                values = struct.unpack_from("<9B", raw, at)
                dev.interfaces.append(
                    SimpleNamespace(
                        **dict(zip(_INTERFACE_FIELDS, values, strict=True)), extra_descriptors=[], endpoints=[]
                    )
                )
            elif kind == 5 and length >= 7 and dev.interfaces:
                values = struct.unpack_from("<BBBBHB", raw, at)
                dev.interfaces[-1].endpoints.append(
                    SimpleNamespace(
                        **dict(zip(_ENDPOINT_FIELDS, values, strict=True)), bRefresh=0, bSynchAddress=0,
                        extra_descriptors=[],
                    )
                )  # fmt: skip
            at += length
        if dev.configuration is None:
            raise USBError("no configuration descriptor", -1, errno.EIO)

    def get_device_descriptor(self, dev: _Device) -> SimpleNamespace:
        self._read_descriptors(dev)
        values = struct.unpack("<BBHBBBBHHHBBBB", dev.descriptor)
        ports = tuple(int(p) for p in dev.exported.bus_id.partition("-")[2].split(".") if p.isdigit())
        return SimpleNamespace(
            **dict(zip(_DEVICE_FIELDS, values, strict=True)), bus=dev.exported.bus, address=dev.exported.address,
            port_number=ports[-1] if ports else None, port_numbers=ports or None, speed=dev.exported.speed,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: _Device, config: int) -> SimpleNamespace:
        self._read_descriptors(dev)
        if config or dev.configuration is None:
            raise IndexError(config)
        return dev.configuration

    def get_interface_descriptor(self, dev: _Device, intf: int, alt: int, config: int) -> SimpleNamespace:
        self._read_descriptors(dev)
        if alt:
            raise IndexError(alt)
        return dev.interfaces[intf]

    def get_endpoint_descriptor(self, dev: _Device, ep: int, intf: int, alt: int, config: int) -> Any:
        return dev.interfaces[intf].endpoints[ep]

    # --- devices ------------------------------------------------------------------------------------------------------

    def open_device(self, dev: _Device) -> _Import:
        if dev.connection is None or dev.connection.dead:
            dev.connection = self._import(dev.exported.bus_id)
            self._imports.append(dev.connection)
        return dev.connection

    def _import(self, bus_id: str) -> _Import:
        """After somebody gave it back, an exporter needs a moment to export a device again."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                return _Import(self._host, self._port, bus_id)
            except USBError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def close_device(self, dev_handle: _Import) -> None:
        """Kept open: after a close, kernel exporters reset and export again, and the next import fails for a while."""

    def release_all(self) -> None:
        """Give all devices back to their host: nothing more is wanted of them."""
        for connection in self._imports:
            connection.close()
        self._imports.clear()

    def set_configuration(self, dev_handle: _Import, config_value: int) -> None:
        self._control(dev_handle, struct.pack("<BBHHH", 0, 9, config_value, 0, 0))

    def get_configuration(self, dev_handle: _Import) -> int:
        value = bytearray(1)
        setup = struct.pack("<BBHHH", 0x80, 8, 0, 0, 1)
        dev_handle.transfer(0, into=memoryview(value), setup=setup, timeout_ms=_CONTROL_TIMEOUT_MS)
        return value[0]

    def claim_interface(self, dev_handle: _Import, intf: int) -> None:
        """An import is exclusive by itself; an unconfigured device is configured, as the kernel does."""
        if not self.get_configuration(dev_handle):
            self.set_configuration(dev_handle, 1)

    def release_interface(self, dev_handle: _Import, intf: int) -> None:
        """Nothing to do: see claim_interface."""

    def is_kernel_driver_active(self, dev_handle: _Import, intf: int) -> bool:
        return False

    def clear_halt(self, dev_handle: _Import, ep: int) -> None:
        self._control(dev_handle, struct.pack("<BBHHH", 2, 1, 0, ep, 0))

    @staticmethod
    def _control(handle: _Import, setup: bytes) -> None:
        handle.transfer(0, data=memoryview(b""), setup=setup, timeout_ms=_CONTROL_TIMEOUT_MS)

    # --- transfers ----------------------------------------------------------------------------------------------------

    def bulk_write(self, dev_handle: _Import, ep: int, intf: int, data: Any, timeout: int) -> int:
        return dev_handle.bulk(ep & 15, data=memoryview(data).cast("B"), timeout_ms=timeout)

    def bulk_read(self, dev_handle: _Import, ep: int, intf: int, buff: Any, timeout: int) -> int:
        return dev_handle.bulk(ep & 15, into=memoryview(buff).cast("B"), timeout_ms=timeout)

    def ctrl_transfer(
        self, dev_handle: _Import, bmRequestType: int, bRequest: int, wValue: int, wIndex: int, data: Any, timeout: int
    ) -> int:
        view = memoryview(data).cast("B")
        setup = struct.pack("<BBHHH", bmRequestType, bRequest, wValue, wIndex, len(view))
        if bmRequestType & 0x80:
            return dev_handle.transfer(0, into=view, setup=setup, timeout_ms=timeout)
        return dev_handle.transfer(0, data=view, setup=setup, timeout_ms=timeout)
