"""USB bulk pipes through pyusb: somebody always reads, writes are bounded, and packets end where they must.

Rules of the bus that matter above: a transfer ends on a short packet, on a zero-length packet, or when its buffer is
full; data that is a multiple of the packet size has no visible end without a zero-length packet. And some devices take
nothing before what they said was read: so whoever waits for an answer reads by himself, and while somebody writes a
thread reads beside him. Handing each answer from a thread to its reader would double the time of a short question.
"""

from __future__ import annotations

import array
import errno
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quarkctl.errors import DeviceAmbiguous, DeviceBusy, DeviceMissing, HostUnfit, LinkError, LinkLost, LinkTimeout

if TYPE_CHECKING:
    import usb.core

#: A call into libusb lasts no longer: Ctrl-C reaches Python between calls.
SLICE_S = 0.1
WRITE_SLICE_S = 1.0
#: Most devices take a command at once, into their FIFO. One that does not may wait for what it said to be read.
COMMAND_SLICE_S = 0.05
COMMAND_BYTES = 4096
#: A write that makes no progress for so long means that nobody takes the bytes.
WRITE_STALL_S = 10.0
#: One read of the reader, and what it may hold for a slow consumer.
READ_BYTES = 1 << 20
_HELD_MAX = 8 << 20
#: One write: beyond that nothing is gained, below 64 KiB the gaps between transfers cost.
TRANSFER_BYTES = 1 << 20
TRANSFER_BYTES_MIN = 16 << 10

#: The last contexts of libusb: one must not end before the devices that it has found.
_contexts: deque[Any] = deque(maxlen=4)

_GONE = frozenset({errno.ENODEV, errno.ESHUTDOWN, errno.EPROTO, errno.EIO, errno.ENOENT, errno.ECONNRESET, errno.EBADF})
_GONE_HINT = (
    "plug it in again and repeat the command: it goes on where it can; if it happens again, change cable or port"
)


@dataclass(frozen=True)
class UsbDevice:
    """A device with a bulk interface, as the bus describes it.

    ``port`` is bus and port path, such as ``1-1.2``; it stays the same when the device changes its mode.
    """

    vendor_id: int
    product_id: int
    serial: str
    product: str
    port: str
    address: int
    interface: int
    interface_class: tuple[int, int, int]
    packet_bytes: int
    endpoint_out: int
    endpoint_in: int
    device: Any

    @property
    def usb_id(self) -> tuple[int, int]:
        return self.vendor_id, self.product_id


def scan(backend: Any = None) -> list[UsbDevice]:
    """All devices with an interface that has one bulk endpoint in each direction. Opens devices only to read their names.

    Raises HostUnfit when this computer has no libusb.
    """
    import usb.core

    try:
        devices = list(usb.core.find(find_all=True, backend=backend or _libusb()))
    except usb.core.NoBackendError:
        raise HostUnfit(
            "no libusb on this computer", hint="on Debian or Ubuntu: apt-get install libusb-1.0-0"
        ) from None
    except usb.core.USBError as error:
        raise _mapped(error, "the USB bus") from error
    found: list[UsbDevice] = []
    for device in devices:
        try:
            found += _described(device)
        except (usb.core.USBError, NotImplementedError, ValueError):
            continue  # gone meanwhile, or no descriptors: nothing that could be flashed
        finally:
            usb.util.dispose_resources(device)
    return sorted(found, key=lambda d: (d.port, d.interface))


def _libusb() -> Any:
    """A context of libusb that has looked at the bus just now. One that is older learns of changes from a udev daemon only,
    and containers and rescue systems have none: a device that restarted would never come back."""
    import usb.backend.libusb1

    known = usb.backend.libusb1.get_backend()
    if known is None:
        return None
    fresh = type(known)(known.lib)
    _contexts.append(fresh)
    return fresh


def _described(device: usb.core.Device) -> Iterator[UsbDevice]:
    import usb.util

    for configuration in device:
        for interface in configuration:
            ends = {
                usb.util.endpoint_direction(e.bEndpointAddress): e
                for e in interface
                if usb.util.endpoint_type(e.bmAttributes) == usb.util.ENDPOINT_TYPE_BULK
            }
            if len(ends) != 2 or interface.bInterfaceClass != 0xFF or interface.bAlternateSetting:
                continue
            incoming, outgoing = ends[usb.util.ENDPOINT_IN], ends[usb.util.ENDPOINT_OUT]
            yield UsbDevice(
                device.idVendor, device.idProduct, _string(device, device.iSerialNumber),
                _string(device, device.iProduct), _port(device), device.address or 0, interface.bInterfaceNumber,
                (interface.bInterfaceClass, interface.bInterfaceSubClass, interface.bInterfaceProtocol),
                incoming.wMaxPacketSize & 0x7FF, outgoing.bEndpointAddress, incoming.bEndpointAddress, device,
            )  # fmt: skip


def _string(device: usb.core.Device, index: int) -> str:
    """A string descriptor; empty where there is none, or no permission to open the device."""
    import usb.core
    import usb.util

    if not index:
        return ""
    try:
        return str(usb.util.get_string(device, index) or "").strip("\0 ")
    except (usb.core.USBError, ValueError, NotImplementedError):
        return ""


def _port(device: usb.core.Device) -> str:
    try:
        path = ".".join(map(str, device.port_numbers or ()))
    except NotImplementedError:
        path = ""
    return f"{device.bus}-{path or device.address}"


class UsbLink:
    """An open interface. ``read`` gives what one transfer brought; ``write`` is one transfer, or several full ones."""

    def __init__(self, found: UsbDevice, identity: str = "") -> None:
        """Claim the interface. Raises DeviceMissing, DeviceBusy, HostUnfit."""
        import usb.core
        import usb.util

        self.name = identity or f"usb {found.port}"
        self.packet_bytes = found.packet_bytes
        self.transfer_bytes = TRANSFER_BYTES
        self.found = found
        self._device = found.device
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()
        self._buffer = array.array("B", bytes(READ_BYTES))
        #: The thread is to read; it does; it has to for every write, since the device took one only after it was read.
        self._beside = self._reading = self._always_beside = False
        self._closing = False
        self._lost: LinkError | None = None
        try:
            self._detach()
            usb.util.claim_interface(self._device, found.interface)
        except usb.core.USBError as error:
            usb.util.dispose_resources(self._device)
            raise _open_error(error, self.name) from error
        self._reader = threading.Thread(target=self._read_on, name=f"reader of {self.name}", daemon=True)
        self._reader.start()

    def _detach(self) -> None:
        """A kernel driver on the port, such as qcserial, swallows the first packet."""
        try:
            if self._device.is_kernel_driver_active(self.found.interface):
                self._device.detach_kernel_driver(self.found.interface)
        except NotImplementedError:
            return

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        """The thread: reads while somebody writes, until he has time for it himself."""
        while True:
            with self._changed:
                self._reading = False
                self._changed.notify_all()
                while not self._closing and (not self._beside or self._held_bytes > _HELD_MAX):
                    self._changed.wait()
                if self._closing:
                    return
                self._reading = True
            try:
                data = self._transfer(SLICE_S)
            except LinkError as error:
                with self._changed:
                    self._lost, self._reading = error, False
                    self._changed.notify_all()
                return
            if data:
                with self._changed:
                    self._held.append(data)
                    self._held_bytes += len(data)
                    self._changed.notify_all()

    def _transfer(self, timeout_s: float) -> bytes:
        """One transfer from the device; empty when there was none in time. Raises LinkLost."""
        import usb.core

        try:
            count = self._device.read(self.found.endpoint_in, self._buffer, max(int(timeout_s * 1000), 1))
        except usb.core.USBTimeoutError:
            return b""
        except usb.core.USBError as error:
            raise self._failed(error, self.found.endpoint_in) from error
        return bytes(memoryview(self._buffer)[:count])

    def listen(self) -> None:
        """The caller has something else to do: what the device says until he reads is taken by the thread."""
        with self._changed:
            if not self._beside:
                self._beside = True
                self._changed.notify_all()

    def read(self, timeout_s: float) -> bytes:
        """What the next transfer brought, empty when none came in time. Raises LinkLost."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._changed:
                if timeout_s > 0:
                    self._beside = False
                if self._held:
                    data = self._held.popleft()
                    self._held_bytes -= len(data)
                    self._changed.notify_all()
                    return data
                if self._lost:
                    raise self._lost
                left = deadline - time.monotonic()
                if self._reading or self._beside:  # the buffer is the thread's until its transfer ends
                    if left <= 0:
                        return b""
                    self._changed.wait(left)
                    continue
            data = self._transfer(min(max(left, 0.0), SLICE_S))
            if data or left <= 0:
                return data

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Send everything. Raises LinkTimeout when nothing moves for WRITE_STALL_S, LinkLost."""
        import usb.core

        view = memoryview(data)
        slice_s = COMMAND_SLICE_S
        if len(view) > COMMAND_BYTES or self._always_beside:
            slice_s = WRITE_SLICE_S
            self.listen()
        deadline = time.monotonic() + WRITE_STALL_S
        while view:
            if self._lost:
                raise self._lost
            try:
                # Only what has not gone out is offered again: nothing is ever sent twice.
                sent = self._device.write(self.found.endpoint_out, self._array(view), int(slice_s * 1000))
            except usb.core.USBTimeoutError:
                sent = 0
            except usb.core.USBError as error:
                if error.errno == errno.ENOMEM and self.transfer_bytes > TRANSFER_BYTES_MIN:
                    self.transfer_bytes //= 2
                    continue
                raise self._failed(error, self.found.endpoint_out) from error
            if sent < min(len(view), self.transfer_bytes) and slice_s == WRITE_SLICE_S:  # a smaller one may get through
                self.transfer_bytes = max(self.transfer_bytes // 2, TRANSFER_BYTES_MIN)
            view = view[sent:]
            if sent:
                deadline = time.monotonic() + WRITE_STALL_S
            elif time.monotonic() > deadline:
                raise LinkTimeout(
                    f"{self.name} takes no bytes for {WRITE_STALL_S:.0f} s",
                    hint="the device hangs, or the cable or hub is bad: power-cycle it, try another cable or a USB 2 port",
                )
            if view and slice_s < WRITE_SLICE_S:
                slice_s = WRITE_SLICE_S
                self._always_beside = True
                self.listen()

    def _array(self, view: memoryview) -> array.array[int]:
        """What pyusb takes as it is; of anything else it makes one, of a memoryview byte by byte."""
        whole = view.obj
        if isinstance(whole, array.array) and len(view) == len(whole) <= self.transfer_bytes:
            return whole
        piece = array.array("B")
        piece.frombytes(view[: self.transfer_bytes])
        return piece

    def end_transfer(self) -> None:
        """A zero-length packet. Where the host's driver refuses it, or the device never takes it, nothing is lost."""
        import usb.core

        try:
            self._device.write(self.found.endpoint_out, b"", int(WRITE_SLICE_S * 1000))
        except usb.core.USBTimeoutError:
            return
        except usb.core.USBError as error:
            raise self._failed(error, self.found.endpoint_out) from error

    def _failed(self, error: usb.core.USBError, endpoint: int) -> LinkError:
        """A stall stays until the host takes it away: it is, so that the next try is not lost as well."""
        import usb.core

        if error.errno == errno.EPIPE:
            with suppress(usb.core.USBError, NotImplementedError):
                self._device.clear_halt(endpoint)
        return _mapped(error, self.name)

    def close(self) -> None:
        import usb.core
        import usb.util

        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._reader.join()
        with suppress(usb.core.USBError):  # gone already, and so is the reason to complain
            usb.util.release_interface(self._device, self.found.interface)
        usb.util.dispose_resources(self._device)
        release_all = getattr(self._device.backend, "release_all", None)
        if release_all:
            release_all()


def _mapped(error: usb.core.USBError, name: str) -> LinkError:
    code = error.errno
    if code == errno.EPIPE:
        return LinkLost(
            f"{name} stalled its endpoint", hint="repeat the command; if it stalls again, power-cycle the device"
        )
    if code == errno.EOVERFLOW:
        return LinkLost(f"{name} sent more than was asked for", hint=_GONE_HINT)
    if code in _GONE:
        return LinkLost(f"{name} went away", hint=_GONE_HINT)
    if code == errno.EBUSY:
        return DeviceBusy(f"{name} is held by somebody else", hint="wait for them, or ask who uses the rig")
    return LinkError(f"{name}: {error.strerror or error}")


def _open_error(error: usb.core.USBError, name: str) -> Exception:
    code = error.errno
    if code == errno.EACCES:
        return HostUnfit(f"no permission to open {name}", hint="`quarkctl doctor --udev` prints the rule that gives it")
    if code == errno.EBUSY:
        return DeviceBusy(
            f"{name} is held by another program", hint="close it; on Linux ModemManager may hold EDL devices"
        )
    if code in _GONE:
        return DeviceMissing(f"{name} went away", hint="plug it in again")
    return LinkError(f"cannot open {name}: {error.strerror or error}")


def pick(found: list[UsbDevice], wanted: str) -> UsbDevice:
    """The only device that fits ``wanted``: serial number, port path, or empty. Raises DeviceMissing, DeviceAmbiguous."""
    fitting = [d for d in found if not wanted or wanted in (d.serial, d.port, f"usb:{d.serial}", f"usb:{d.port}")]
    listed = ", ".join(f"{d.serial or '(no serial)'} at {d.port}" for d in (fitting or found)) or "nothing"
    if not fitting:
        raise DeviceMissing(f"no device fits {wanted!r}" if wanted else "no device found", hint=f"there is: {listed}")
    if len(fitting) > 1:
        raise DeviceAmbiguous(f"{len(fitting)} devices fit: {listed}", hint=f"choose one: --device {fitting[0].port}")
    return fitting[0]
