"""Wires of the virtual AR1's fastboot: USB, TCP, UDP. Each takes commands and data and gives answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from quarkctl.errors import ProtocolError
from quarkctl.formats import fastboot
from quarkctl.formats.fastboot import UdpId, UdpPacket
from quarkctl.sim.ar1.fastboot import Wire
from quarkctl.sim.fault_points import Points
from quarkctl.sim.usb_device import UsbDevice

_TRANSFER = 1 << 20
_COMMAND_MAX = 4096
_UDP_PACKET_BYTES = 2048
_LINGER_S = 1.0
#: A client that connects and says nothing is cut off: there is one connection at a time.
_GREETING_S = 10.0
#: What a UDP host may send ahead of the boot loader. More of it is not taken: a host sends again what was not answered.
_AHEAD_BYTES = 4 << 20
_AHEAD_S = 0.2


class UsbWire:
    """A command is one transfer; data is any number of them, and zero-length packets mean nothing."""

    def __init__(self, usb: UsbDevice) -> None:
        self._usb = usb

    def receive_command(self) -> bytes:
        return bytes(self._usb.incoming.read(_COMMAND_MAX))

    def receive_into(self, view: memoryview) -> int:
        piece = self._usb.incoming.read(min(len(view), _TRANSFER))
        view[: len(piece)] = piece
        return len(piece)

    def send(self, data: bytes) -> None:
        self._usb.outgoing.write(data)


class TcpWire:
    """One connection."""

    def __init__(self, connection: socket.socket, points: Points) -> None:
        self._socket = connection
        self._points = points
        self._left = 0
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_GREETING_S)
        connection.sendall(fastboot.TCP_HELLO)
        fastboot.parse_tcp_hello(self._exactly(len(fastboot.TCP_HELLO)))
        connection.settimeout(None)

    def _exactly(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            piece = self._socket.recv(size_bytes - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def receive_command(self) -> bytes:
        (size,) = fastboot.TCP_LENGTH.unpack(self._exactly(fastboot.TCP_LENGTH.size))
        if size > _COMMAND_MAX:
            raise ConnectionResetError
        self._points.hit("tcp-in")
        return self._exactly(size)

    def receive_into(self, view: memoryview) -> int:
        while not self._left:
            (self._left,) = fastboot.TCP_LENGTH.unpack(self._exactly(fastboot.TCP_LENGTH.size))
            self._points.hit("tcp-in")
        count = self._socket.recv_into(view[: min(len(view), self._left)])
        if not count:
            raise ConnectionResetError
        self._left -= count
        return count

    def send(self, data: bytes) -> None:
        self._points.hit("tcp-out")
        self._socket.sendall(fastboot.TCP_LENGTH.pack(len(data)) + data)


class TcpServer:
    """Listens on loopback for as long as the virtual AR1 lives; connections come through only while fastboot runs."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._serve: Callable[[Wire], None] | None = None
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="fastboot tcp", daemon=True).start()

    def attach(self, serve: Callable[[Wire], None]) -> None:
        """Fastboot runs from now on: ``serve(wire)`` takes one connection to its end."""
        self._serve = serve

    def detach(self) -> None:
        """Fastboot does not run any more: whoever is connected is cut off."""
        self._serve = None
        with self._lock:
            if self._connection:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError, ProtocolError):
                    if self._serve is None:
                        continue
                    with self._lock:
                        self._connection = connection
                    try:
                        self._serve(TcpWire(connection, self._points))
                    finally:
                        with self._lock:
                            self._connection = None

    def close(self) -> None:
        self.detach()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class UdpServer:
    """The device's side of fastboot over UDP, for one host at a time."""

    def __init__(self, points: Points, lose: Callable[[], bool]) -> None:
        """``lose`` says of each packet whether the network loses it."""
        self._points = points
        self._lose = lose
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._wire: _UdpWire | None = None
        self._serve: Callable[[Wire], None] | None = None
        self._sequence = 0
        self._last = b""
        self._packet_bytes = fastboot.UDP_PACKET_MIN
        self._lock = threading.RLock()
        self._closed = False
        self._asked: tuple[UdpPacket, tuple[str, int]] | None = None
        self._thread = threading.Thread(target=self._receive, name="fastboot udp", daemon=True)
        self._thread.start()

    def attach(self, serve: Callable[[Wire], None]) -> None:
        self._serve = serve

    def detach(self) -> None:
        """What was said already is still given to the host, for a moment: the answer to ``reboot`` is one."""
        wire = self._wire
        if wire:
            if threading.current_thread() is not self._thread:
                wire.drain(_LINGER_S)
            wire.break_off()
        self._serve = self._wire = None

    def _receive(self) -> None:
        while not self._closed:
            try:
                raw, address = self._socket.recvfrom(65536)
            except OSError:
                return
            packet = fastboot.parse_udp(raw)
            if packet is None or self._lose():
                continue
            self._points.hit("udp-in")
            serve = self._serve
            if serve is None:
                continue
            if packet.id is UdpId.QUERY:
                self._send(address, UdpPacket(UdpId.QUERY, packet.sequence, struct.pack(">H", self._sequence)))
            elif packet.sequence == self._sequence:
                self._take(packet, address, serve)
            elif packet.sequence == (self._sequence - 1) & 0xFFFF and self._last and not self._lose():
                self._socket.sendto(self._last, address)

    def _take(self, packet: UdpPacket, address: tuple[str, int], serve: Callable[[Wire], None]) -> None:
        if packet.id is UdpId.INIT and len(packet.data) >= 4:
            _, wanted = fastboot.UDP_INIT.unpack_from(packet.data)
            self._packet_bytes = min(max(wanted, fastboot.UDP_PACKET_MIN), _UDP_PACKET_BYTES)
            before, wire = self._wire, _UdpWire(self._packet_bytes - fastboot.UDP_HEADER.size, self._give)
            self._asked = None
            if before:
                before.break_off()
            self._wire = wire
            threading.Thread(target=self._run, args=(wire, serve), name="fastboot udp", daemon=True).start()
            self._answer(address, UdpPacket(UdpId.INIT, packet.sequence, fastboot.UDP_INIT.pack(1, _UDP_PACKET_BYTES)))
        elif packet.id is UdpId.FASTBOOT and (session := self._wire):
            self._fastboot(session, packet, address)
        else:
            self._answer(address, UdpPacket(UdpId.ERROR, packet.sequence, b"no session"))

    @staticmethod
    def _run(wire: _UdpWire, serve: Callable[[Wire], None]) -> None:
        with suppress(OSError):
            serve(wire)

    def _fastboot(self, wire: _UdpWire, packet: UdpPacket, address: tuple[str, int]) -> None:
        if packet.data:
            if not wire.put(packet.data, ends=not packet.continued):
                return
            self._answer(address, UdpPacket(UdpId.FASTBOOT, packet.sequence))
            return
        # An empty packet asks for what the device has to say; where that takes its time, so does the answer.
        with self._lock:
            self._asked = (packet, address)
        self._give(wire)

    def _give(self, wire: _UdpWire) -> None:
        """Answer the host that asks, if there is something to say."""
        with self._lock:
            if self._asked is None or wire is not self._wire:
                return
            answer = wire.take_answer()
            if answer:
                (packet, address), self._asked = self._asked, None
                self._answer(address, UdpPacket(UdpId.FASTBOOT, packet.sequence, *answer))

    def _answer(self, address: tuple[str, int], packet: UdpPacket) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._last = fastboot.build_udp(packet)
        self._send(address, packet)

    def _send(self, address: tuple[str, int], packet: UdpPacket) -> None:
        if not self._lose():
            with suppress(OSError):
                self._socket.sendto(fastboot.build_udp(packet), address)

    def close(self) -> None:
        self._closed = True
        self.detach()
        # A datagram to itself wakes the thread that waits for one.
        with suppress(OSError):
            self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._socket.close()


class _UdpWire:
    """Between the packets and the boot loader."""

    def __init__(self, room_bytes: int, said: Callable[[_UdpWire], None]) -> None:
        """``said`` is called when the boot loader has said something."""
        self._room = room_bytes
        self._said = said
        self._incoming: deque[bytes] = deque()
        self._partial = b""
        self._ahead_bytes = 0
        self._outgoing: deque[tuple[bytes, bool]] = deque()
        self._changed = threading.Condition()
        self._broken = False

    def put(self, data: bytes, *, ends: bool) -> bool:
        """False: the boot loader is too far behind, nothing was taken."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ahead_bytes < _AHEAD_BYTES, _AHEAD_S):
                return False
            self._ahead_bytes += len(data)
            self._incoming.append(data)
            if ends:
                self._incoming.append(b"")
            self._changed.notify_all()
            return True

    def take_answer(self) -> tuple[bytes, bool] | None:
        """The next piece of an answer and whether more of it follows; None where there is none yet."""
        with self._changed:
            answer = self._outgoing.popleft() if self._outgoing else None
            self._changed.notify_all()
            return answer

    def drain(self, timeout_s: float) -> None:
        """Wait until the host has taken every answer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._outgoing, timeout_s)

    def break_off(self) -> None:
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def _piece(self) -> bytes:
        with self._changed:
            while not self._incoming:
                if self._broken:
                    raise ConnectionResetError
                self._changed.wait()
            piece = self._incoming.popleft()
            self._ahead_bytes -= len(piece)
            self._changed.notify_all()
            return piece

    def receive_command(self) -> bytes:
        command = b""
        while piece := self._piece():
            command += piece
            if len(command) > _COMMAND_MAX:
                raise ConnectionResetError
        return command

    def receive_into(self, view: memoryview) -> int:
        if not self._partial:
            self._partial = self._piece()  # b"" is the end of a message: data may be several
        count = min(len(view), len(self._partial))
        view[:count] = self._partial[:count]
        self._partial = self._partial[count:]
        with self._changed:
            while count == len(view) and self._incoming and not self._incoming[0]:
                self._incoming.popleft()
        return count

    def send(self, data: bytes) -> None:
        pieces = [data[at : at + self._room] for at in range(0, len(data), self._room)] or [b""]
        with self._changed:
            if self._broken:
                raise ConnectionResetError
            for index, piece in enumerate(pieces):
                self._outgoing.append((piece, index + 1 < len(pieces)))
        self._said(self)
