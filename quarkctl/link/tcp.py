"""fastboot over TCP: each write is one message, each read what is there of the next one."""

from __future__ import annotations

import select
import socket
import time

from quarkctl.errors import DeviceMissing, LinkError, LinkLost, LinkTimeout, ProtocolError
from quarkctl.formats import fastboot

CONNECT_TIMEOUT_S = 5.0
#: A write that makes no progress for so long means that nobody takes the bytes.
WRITE_STALL_S = 10.0
#: A message from a device is an answer or uploaded data; more than that in one message is nonsense.
MESSAGE_MAX = 1 << 32
_READ_BYTES = 1 << 20
_GONE_HINT = "the device restarted or lost its network: start it into fastboot again and repeat the command"


class TcpLink:
    """A fastboot connection. Small messages come whole, large ones in the pieces in which they arrive."""

    def __init__(self, host: str, port: int) -> None:
        """Raises DeviceMissing, ProtocolError (not fastboot)."""
        self.name = f"tcp:{host}:{port}"
        self._left = 0
        try:
            self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise DeviceMissing(
                f"nobody answers at {self.name}: {error.strerror or error}",
                hint="is the device in fastboot, and the port right? the usual one is 5554",
            ) from error
        self._socket.settimeout(WRITE_STALL_S)
        # A last short segment must not wait for the acknowledgement of the one before.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(fastboot.TCP_HELLO)
            hello = self._exactly(len(fastboot.TCP_HELLO), time.monotonic() + CONNECT_TIMEOUT_S)
            if not hello:
                raise LinkTimeout(f"{self.name} does not say what it is", hint="is this the port of fastboot?")
            fastboot.parse_tcp_hello(hello)
        except (LinkError, ProtocolError):
            self.close()
            raise
        except OSError as error:
            self.close()
            raise LinkLost(f"{self.name} closed the connection") from error

    def _exactly(self, size_bytes: int, deadline: float) -> bytes:
        """So many bytes; empty when none came in time. Raises LinkTimeout in the middle, LinkLost."""
        data = b""
        while len(data) < size_bytes:
            if not self._ready(deadline):
                if data:
                    raise LinkTimeout(f"{self.name} stopped in the middle of a message")
                return b""
            data += self._receive(size_bytes - len(data))
        return data

    def _ready(self, deadline: float) -> bool:
        try:
            return bool(select.select([self._socket], [], [], max(deadline - time.monotonic(), 0.0))[0])
        except ValueError as error:
            raise LinkLost(f"{self.name} is closed") from error

    def _receive(self, size_bytes: int) -> bytes:
        try:
            data = self._socket.recv(min(size_bytes, _READ_BYTES))
        except OSError as error:
            raise LinkLost(f"{self.name} went away: {error.strerror or error}", hint=_GONE_HINT) from error
        if not data:
            raise LinkLost(f"{self.name} closed the connection", hint=_GONE_HINT)
        return data

    def read(self, timeout_s: float) -> bytes:
        """A message or the next piece of one; empty when nothing came in time. Raises LinkLost, ProtocolError."""
        deadline = time.monotonic() + timeout_s
        while not self._left:
            header = self._exactly(fastboot.TCP_LENGTH.size, deadline)
            if not header:
                return b""
            (self._left,) = fastboot.TCP_LENGTH.unpack(header)
            if self._left > MESSAGE_MAX:
                raise ProtocolError(f"{self.name} announces a message of {self._left} bytes")
        if self._left <= fastboot.REPLY_MAX:  # a reply: never in pieces
            data = self._exactly(self._left, deadline)
        else:
            data = self._receive(self._left) if self._ready(deadline) else b""
        self._left -= len(data)
        return data

    def write(self, data: bytes | memoryview) -> None:
        """One message. Raises LinkTimeout, LinkLost."""
        try:
            self._send(fastboot.TCP_LENGTH.pack(len(data)), memoryview(data))
        except TimeoutError as error:
            raise LinkTimeout(
                f"{self.name} takes no bytes for {WRITE_STALL_S:.0f} s", hint="the device hangs: power-cycle it"
            ) from error
        except OSError as error:
            raise LinkLost(f"{self.name} went away: {error.strerror or error}", hint=_GONE_HINT) from error

    def _send(self, header: bytes, view: memoryview) -> None:
        sent = self._socket.sendmsg([header, view])
        if sent < len(header):
            self._socket.sendall(header[sent:])
            sent = len(header)
        self._socket.sendall(view[sent - len(header) :])

    def close(self) -> None:
        self._socket.close()
