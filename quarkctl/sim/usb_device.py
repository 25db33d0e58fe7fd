"""A USB device without a bus: descriptors, control pipe, two bulk endpoints, and the packet rules of real hardware.

Hosts of any kind (`usb_ip`, `usb_preload`, `usb_redir`) submit transfers; firmware reads and writes endpoints as through
FunctionFS files. Rules: a transfer ends on a short packet, a zero-length packet, or a full buffer; a packet that does not
fit the rest of a buffer is an overflow; OUT data is taken when the firmware reads it, but for a small FIFO.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from quarkctl.sim.fault_points import Points

#: What an idle controller takes before the firmware asks: two entries, of at most so many bytes together. Without it the
#: zero-length packets of some hosts would deadlock.
FIFO_BYTES = 1024
FIFO_COUNT = 2
CONTROL_PACKET_BYTES = 64
SPEED_HIGH, SPEED_SUPER = 3, 5


class Unplugged(OSError):
    """The cable is out, seen from the firmware."""

    def __init__(self) -> None:
        super().__init__(errno.ESHUTDOWN, "unplugged")


@dataclass(eq=False)
class Transfer:
    """A request of the host. ``done(transfer)`` is called once, with ``status`` 0 or minus errno, and ``actual``."""

    endpoint: int
    incoming: bool
    size_bytes: int
    done: Callable[[Transfer], None]
    data: bytes | memoryview = b""
    setup: bytes = b""
    zero_packet: bool = False
    status: int = 0
    actual: int = 0
    #: What the firmware has read of OUT data; ``actual`` may be ahead of it, since the FIFO takes small ones whole.
    taken: int = 0
    #: IN data, in pieces.
    pieces: list[memoryview] = field(default_factory=list)
    completed: bool = False

    def complete(self, status: int = 0, actual: int | None = None) -> None:
        if self.completed:
            return
        self.completed = True
        self.status = status
        if actual is not None:
            self.actual = actual
        self.done(self)


class _Endpoint:
    def __init__(self, packet_bytes: int, points: Points) -> None:
        self.packet_bytes = packet_bytes
        self.changed = threading.Condition()
        self.queue: deque[Transfer] = deque()
        self.gone = False
        self.halted = False
        self._points = points

    def unlink(self, transfer: Transfer) -> bool:
        """Give up a transfer that has not completed; what moved already stays counted."""
        with self.changed:
            if transfer.completed or transfer not in self.queue:
                return False
            self.queue.remove(transfer)
            transfer.completed = True
            return True

    def halt(self) -> None:
        with self.changed:
            self.halted = True
            self._end_all(-errno.EPIPE)

    def clear_halt(self) -> None:
        with self.changed:
            self.halted = False

    def unplug(self) -> None:
        with self.changed:
            self.gone = True
            self._end_all(-errno.ESHUTDOWN)
            self.changed.notify_all()

    def _end_all(self, status: int) -> None:
        while self.queue:
            self.queue.popleft().complete(status)

    def _refuses(self, transfer: Transfer) -> bool:
        if self.gone:
            transfer.complete(-errno.ESHUTDOWN)
        elif self.halted:
            transfer.complete(-errno.EPIPE)
        return self.gone or self.halted


class OutEndpoint(_Endpoint):
    """Host to device. It stalls once when ``stall_after`` bytes were read (0: never), and calls ``stalls`` before."""

    def __init__(
        self, packet_bytes: int, points: Points, stall_after: int = 0, stalls: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(packet_bytes, points)
        self._stall_left = stall_after
        self._stalls = stalls

    def submit(self, transfer: Transfer) -> None:
        self._points.hit("usb-out")
        with self.changed:
            if self._refuses(transfer):
                return
            waiting = sum(t.size_bytes for t in self.queue)
            self.queue.append(transfer)
            if waiting + transfer.size_bytes <= FIFO_BYTES and len(self.queue) <= FIFO_COUNT:
                transfer.complete(0, transfer.size_bytes)
            self.changed.notify_all()

    def read(self, size_bytes: int) -> bytes | memoryview:
        """One transfer, or what of it fits. Waits for it. Raises Unplugged."""
        data = self._read(size_bytes)
        if self._stall_left > 0:
            self._stall_left -= len(data)
            if self._stall_left <= 0:
                self._stalls()
                self.halt()
        return data

    def _read(self, size_bytes: int) -> bytes | memoryview:
        pieces: list[bytes | memoryview] = []
        got = 0
        with self.changed:
            while True:
                while not self.queue:
                    if self.gone:
                        raise Unplugged
                    self.changed.wait()
                transfer = self.queue[0]
                start = transfer.taken
                count = min(size_bytes - got, transfer.size_bytes - start)
                pieces.append(transfer.data[start : start + count])
                got += count
                transfer.taken = start + count
                if not transfer.completed:
                    transfer.actual = start + count
                if start + count == transfer.size_bytes:
                    self.queue.popleft()
                    transfer.complete(0, transfer.size_bytes)
                    if transfer.size_bytes % self.packet_bytes or not transfer.size_bytes or transfer.zero_packet:
                        break
                if got >= size_bytes:
                    break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass
class _Outgoing:
    data: memoryview
    ends: bool
    at: int = 0
    taken: bool = False


class InEndpoint(_Endpoint):
    """Device to host."""

    def __init__(self, packet_bytes: int, points: Points) -> None:
        super().__init__(packet_bytes, points)
        self._outgoing: deque[_Outgoing] = deque()

    def submit(self, transfer: Transfer) -> None:
        with self.changed:
            if self._refuses(transfer):
                return
            self.queue.append(transfer)
            self._move()

    def write(self, data: bytes | memoryview, *, zero_packet: bool = False, wait: bool = True) -> None:
        """Give one transfer's data to the host; ``wait`` until it took all. Raises Unplugged."""
        self._points.hit("usb-in")
        ends = zero_packet or len(data) % self.packet_bytes != 0 or not len(data)
        item = _Outgoing(memoryview(data), ends)
        with self.changed:
            if self.gone:
                raise Unplugged
            self._outgoing.append(item)
            self._move()
            while wait and not item.taken:
                if self.gone:
                    raise Unplugged
                self.changed.wait()

    def _move(self) -> None:
        while self.queue and self._outgoing:
            transfer, item = self.queue[0], self._outgoing[0]
            left, room = len(item.data) - item.at, transfer.size_bytes - transfer.actual
            count = min(left, room)
            overflow = left > room and room % self.packet_bytes != 0
            if count:
                transfer.pieces.append(item.data[item.at : item.at + count])
                transfer.actual += count
                item.at += count
            if overflow:  # the rest of the packet that did not fit is lost
                item.at += min(self.packet_bytes - room % self.packet_bytes, left - room)
            ended = False
            if item.at >= len(item.data):
                self._outgoing.popleft()
                item.taken, ended = True, item.ends
                self.changed.notify_all()
            if overflow or ended or transfer.actual == transfer.size_bytes:
                self.queue.popleft()
                transfer.complete(-errno.EOVERFLOW if overflow else 0)


@dataclass(frozen=True)
class Descriptor:
    """What a device says of itself. ``serial`` empty: no serial number descriptor, as in EDL."""

    vendor_id: int
    product_id: int
    interface: tuple[int, int, int]
    manufacturer: str
    product: str
    serial: str = ""
    packet_bytes: int = 512

    @property
    def speed(self) -> int:
        return SPEED_SUPER if self.packet_bytes == 1024 else SPEED_HIGH


class UsbDevice:
    """One plugged device, from the plug to its pulling. A new one is made for each plug.

    ``firmware`` runs behind the endpoints from the moment that a host takes the device; Unplugged ends it.
    """

    release = 0x0100
    endpoint_in = 0x81
    endpoint_out = 0x01

    def __init__(
        self, descriptor: Descriptor, firmware: Callable[[UsbDevice], None], points: Points | None = None,
        stall_after: int = 0, stalls: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        points = points or Points()
        self.descriptor = descriptor
        self.outgoing = InEndpoint(descriptor.packet_bytes, points)
        self.incoming = OutEndpoint(descriptor.packet_bytes, points, stall_after, stalls)
        self.configuration = 0
        self._firmware = firmware
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        d = descriptor
        self.strings = {1: d.manufacturer, 2: d.product, 3: d.serial, 4: d.product}
        usb_version = 0x0320 if d.speed == SPEED_SUPER else 0x0200
        packet0 = 9 if d.speed == SPEED_SUPER else CONTROL_PACKET_BYTES
        self.device_descriptor = struct.pack(
            "<BBHBBBBHHHBBBB", 18, 1, usb_version, 0, 0, 0, packet0, d.vendor_id, d.product_id, self.release,
            1, 2, 3 if d.serial else 0, 1,
        )  # fmt: skip
        body = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 2, *d.interface, 4)
        for address in (self.endpoint_in, self.endpoint_out):
            body += struct.pack("<BBBBHB", 7, 5, address, 2, d.packet_bytes, 0)
            if d.speed == SPEED_SUPER:
                body += struct.pack("<BBBBH", 6, 0x30, 0, 0, 0)
        self.configuration_descriptor = struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 1, 1, 0, 0x80, 250) + body

    def start(self) -> None:
        """A host took the device: its firmware runs from now on."""
        with self._start_lock:
            if self._thread is None and not self.incoming.gone:
                self._thread = threading.Thread(target=self._run, name="usb firmware", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            self._firmware(self)
        except Unplugged:
            return

    def unplug(self) -> None:
        """The host sees the device go; so does the firmware."""
        self.incoming.unplug()
        self.outgoing.unplug()

    @property
    def gone(self) -> bool:
        return self.incoming.gone

    def join(self) -> None:
        """Wait for the firmware to notice that it was unplugged."""
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    # --- the host's side ----------------------------------------------------------------------------------------------

    def submit(self, transfer: Transfer) -> None:
        if transfer.endpoint == 0:
            self._control(transfer)
        elif transfer.endpoint == 1 and transfer.incoming:
            self.outgoing.submit(transfer)
        elif transfer.endpoint == 1:
            self.incoming.submit(transfer)
        else:
            transfer.complete(-errno.ENOENT)

    def unlink(self, transfer: Transfer) -> bool:
        """True: given up, ``actual`` tells what moved. False: too late, its completion was or will be told."""
        return self.incoming.unlink(transfer) or self.outgoing.unlink(transfer)

    def clear_halt(self, address: int) -> None:
        (self.outgoing if address & 0x80 else self.incoming).clear_halt()

    def _control(self, transfer: Transfer) -> None:
        if self.gone:
            transfer.complete(-errno.ESHUTDOWN)
            return
        answer = self._answer(*struct.unpack("<BBHHH", transfer.setup))
        if answer is None:
            transfer.complete(-errno.EPIPE)
        elif transfer.incoming:
            answer = answer[: transfer.size_bytes]
            transfer.pieces = [memoryview(answer)]
            transfer.complete(0, len(answer))
        else:
            transfer.complete(0, len(transfer.data))

    def _answer(self, kind: int, request: int, value: int, index: int, _length: int) -> bytes | None:
        """Standard requests of USB 2.0 chapter 9; None is a stall."""
        if (kind, request) == (0x80, 6):
            return self._descriptor(value >> 8, value & 0xFF)
        if (kind, request) == (0x00, 9):
            self.configuration = value
            self.start()
            return b""
        if (kind, request) == (0x02, 1):
            self.clear_halt(index)
            return b""
        simple = {
            (0x80, 8): bytes([self.configuration]), (0x81, 10): b"\0", (0x01, 11): b"", (0x80, 0): b"\0\0",
            (0x81, 0): b"\0\0", (0x82, 0): b"\0\0", (0x00, 5): b"", (0x00, 3): b"", (0x00, 1): b"", (0x00, 48): b"",
            (0x00, 49): b"",
        }  # fmt: skip
        return simple.get((kind, request))

    def _descriptor(self, kind: int, index: int) -> bytes | None:
        if kind == 1:
            return self.device_descriptor
        if kind == 2:
            return self.configuration_descriptor
        if kind == 3 and index == 0:
            return struct.pack("<BBH", 4, 3, 0x0409)
        if kind == 3 and self.strings.get(index):
            text = self.strings[index].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        if kind == 15 and self.descriptor.speed == SPEED_SUPER:  # a SuperSpeed device must describe what else it can
            capabilities = struct.pack("<BBBI", 7, 16, 2, 2) + struct.pack("<BBBBHBBH", 10, 16, 3, 0, 0x0E, 3, 0, 0)
            return struct.pack("<BBHB", 5, 15, 5 + len(capabilities), 2) + capabilities
        return None
