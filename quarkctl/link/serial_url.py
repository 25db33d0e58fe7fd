"""Serial ports of other computers, through pyserial: ``rfc2217://HOST:PORT`` with line rate and modem lines,
``socket://HOST:PORT`` with bytes only. Neither is authenticated or encrypted: for loopback and ssh tunnels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from quarkctl.errors import DeviceMissing, LinkError, LinkLost, LinkTimeout, UsageWrong

if TYPE_CHECKING:
    from quarkctl.link.lock import Lock

SCHEMES = ("rfc2217", "socket")
#: pyserial cannot change a time-out over RFC 2217 without setting up the whole port again: one short one, repeated.
_SLICE_S = 0.05
_READ_MAX = 65536


class UrlLink:
    """An open port of another computer: pyserial's, whose type depends on the scheme."""

    def __init__(self, port: Any, url: str) -> None:
        self._port = port
        self.name = url
        self.lock: Lock | None = None

    def read(self, timeout_s: float) -> bytes:
        import serial

        until = time.monotonic() + timeout_s
        try:
            while not (data := bytearray(self._port.read(1))):
                if time.monotonic() >= until:
                    return b""
            while len(data) < _READ_MAX and (waiting := self._port.in_waiting):
                data += self._port.read(waiting)
        except (serial.SerialException, OSError, ValueError, TypeError, AttributeError) as error:
            raise LinkLost(f"{self.name} went away: {error}") from error
        return bytes(data)

    def write(self, data: bytes | memoryview) -> None:
        import serial

        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise LinkTimeout(f"{self.name} takes no bytes") from error
        except (serial.SerialException, OSError, ValueError, AttributeError) as error:
            raise LinkLost(f"{self.name} went away: {error}") from error

    def set_dtr(self, asserted: bool) -> None:
        self._set("dtr", asserted)

    def set_rts(self, asserted: bool) -> None:
        self._set("rts", asserted)

    def _set(self, line: str, asserted: bool) -> None:
        import serial

        if self.name.startswith("socket:"):
            raise LinkError(f"{self.name} has no {line.upper()} line", hint="rfc2217://HOST:PORT carries modem lines")
        try:
            setattr(self._port, line, asserted)
        except (serial.SerialException, OSError, ValueError, AttributeError) as error:
            raise LinkLost(f"{self.name} went away: {error}") from error

    def close(self) -> None:
        self._port.close()
        if self.lock:
            self.lock.release()


def open_url(url: str, baud: int) -> UrlLink:
    """Raises UsageWrong for another scheme, DeviceMissing when nobody is there."""
    import serial

    if url.partition("://")[0] not in SCHEMES:
        raise UsageWrong(
            f"{url}: no such way to a serial port", hint=f"there are {' and '.join(f'{s}://' for s in SCHEMES)}"
        )
    try:
        port = serial.serial_for_url(url, baud, timeout=_SLICE_S)
    except (serial.SerialException, OSError, ValueError) as error:
        raise DeviceMissing(
            f"cannot open {url}: {str(error).rpartition(': ')[2]}", hint="is its server running, and the tunnel open?"
        ) from error
    return UrlLink(port, url)
