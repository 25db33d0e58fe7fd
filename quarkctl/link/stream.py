"""A serial line that somebody forwards as a plain TCP stream, such as `quarkctl rig bridge` on another computer."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from quarkctl.errors import DeviceMissing, LinkLost, LinkTimeout
from quarkctl.link.lock import Lock, hold

CONNECT_TIMEOUT_S = 3.0
_STALL_S = 5.0
_AGAIN_S = 0.2


class StreamLink:
    """An open connection. What closes it at the far end counts as an unplugged cable."""

    def __init__(self, channel: socket.socket, name: str) -> None:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.settimeout(_STALL_S)
        self._channel = channel
        self.name = name
        self.lock: Lock | None = None

    def read(self, timeout_s: float) -> bytes:
        try:
            if not select.select([self._channel], [], [], max(timeout_s, 0.0))[0]:
                return b""
            data = self._channel.recv(65536)
        except (OSError, ValueError) as error:
            raise LinkLost(f"{self.name} went away") from error
        if not data:
            raise LinkLost(f"{self.name} was closed at the other end")
        return data

    def write(self, data: bytes | memoryview) -> None:
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise LinkTimeout(f"{self.name} takes no bytes for {_STALL_S:.0f} s", hint="is the network up?") from None
        except OSError as error:
            raise LinkLost(f"{self.name} went away: {error.strerror}") from error

    def close(self) -> None:
        with suppress(OSError):
            self._channel.close()
        if self.lock:
            self.lock.release()


@dataclass(frozen=True)
class StreamOpener:
    """A device behind host and port, locked on this computer by its identity. ``appear_s``: a far end that is just being
    started again is waited for."""

    identity: str
    host: str
    port: int
    appear_s: float = 15.0

    def hold(self) -> Lock:
        return hold(self.identity)

    def resolve(self) -> str:
        """The host's name is looked up at each opening."""
        return f"{self.host}:{self.port}"

    def open(self) -> StreamLink:
        lock = hold(self.identity)
        until = time.monotonic() + self.appear_s
        while True:
            try:
                channel = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S)
            except OSError as error:
                if time.monotonic() < until:
                    time.sleep(_AGAIN_S)  # nothing to wait on while nobody listens
                    continue
                lock.release()
                raise DeviceMissing(
                    f"{self.identity}: nobody answers at {self.host}:{self.port}: {error.strerror or error}",
                    hint="does the exporter run there?",
                ) from error
            except BaseException:
                lock.release()
                raise
            link = StreamLink(channel, f"{self.host}:{self.port}")
            link.lock = lock
            return link
