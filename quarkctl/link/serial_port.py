"""Serial ports through pyserial, held exclusively."""

from __future__ import annotations

import errno
import os
import select
import stat
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quarkctl.errors import DeviceBusy, DeviceMissing, HostUnfit, LinkError, LinkLost, LinkTimeout
from quarkctl.link.holder import openers_of
from quarkctl.link.lock import Lock, hold
from quarkctl.link.serial_url import UrlLink, open_url

if TYPE_CHECKING:
    import serial

#: A write that makes no progress for so long means that nobody takes the bytes.
WRITE_STALL_S = 5.0
_CHUNK = 4096


class SerialLink:
    """An open port. Reads block in select; nothing polls."""

    def __init__(self, port: serial.Serial, path: str) -> None:
        self._port = port
        self._fd = port.fileno()
        self.name = path
        self.lock: Lock | None = None

    def read(self, timeout_s: float) -> bytes:
        try:
            ready, _, _ = select.select([self._fd], [], [], max(timeout_s, 0.0))
            if not ready:
                return b""
            data = os.read(self._fd, 65536)
        except OSError as error:
            raise LinkLost(f"{self.name} went away: {error.strerror}") from error
        except ValueError as error:  # closed under our feet
            raise LinkLost(f"{self.name} is closed") from error
        if not data and self._hung_up():
            raise LinkLost(f"{self.name} went away")
        return data

    def _hung_up(self) -> bool:
        """Readable without data is either the end, or a terminal whose other side was just opened."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                _, ready, _ = select.select([], [self._fd], [], WRITE_STALL_S)
                if not ready:
                    raise LinkTimeout(
                        f"{self.name} takes no bytes for {WRITE_STALL_S:.0f} s",
                        hint="the device is stopped or its line is blocked: reset it",
                    )
                view = view[os.write(self._fd, view[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise LinkLost(f"{self.name} went away: {error.strerror}") from error

    def set_dtr(self, asserted: bool) -> None:
        self._set("dtr", asserted)

    def set_rts(self, asserted: bool) -> None:
        self._set("rts", asserted)

    def _set(self, line: str, asserted: bool) -> None:
        try:
            setattr(self._port, line, asserted)
        except OSError as error:  # of which SerialException is one
            if error.errno == errno.ENOTTY:
                raise LinkError(f"{self.name} has no {line.upper()} line", hint="reset the device by hand") from error
            raise LinkLost(f"{self.name} went away: {error.strerror}") from error

    def close(self) -> None:
        with suppress(OSError):  # the port is gone already, and so is the reason to complain
            self._port.close()
        if self.lock:
            self.lock.release()


def open_serial(path: str, baud: int) -> SerialLink:
    """Open and lock a port.

    Raises DeviceMissing, DeviceBusy (with the holder's name), HostUnfit (permissions).
    """
    import serial

    if _is_something_else(path):
        raise DeviceMissing(f"{path} is no serial port", hint="`quarkctl devices` lists what is there")
    openers = openers_of(path)
    if openers:
        more = f" and {len(openers) - 3} others" if len(openers) > 3 else ""
        raise DeviceBusy(
            f"{path} is held by {', '.join(str(h) for h in openers[:3])}{more}",
            hint="quarkctl doctor --udev prints the rule that keeps it away from serial ports"
            if any("ModemManager" in h.command for h in openers)
            else "close that program, or choose another device",
        )
    try:
        port = serial.Serial(path, baud, timeout=0, exclusive=True)
    except serial.SerialException as error:
        raise _open_error(path, error) from error
    except (OSError, termios.error, ValueError) as error:
        raise LinkError(f"cannot open {path}: {error}") from error
    return SerialLink(port, path)


def _is_something_else(path: str) -> bool:
    """A file, a folder, or a character device that Linux does not count among its terminals. Opens nothing: that alone
    would move the control lines of a port."""
    try:
        found = Path(path).stat()
    except OSError:
        return False  # opening tells what is wrong
    if not stat.S_ISCHR(found.st_mode):
        return True
    node = Path(f"/sys/dev/char/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")
    return node.exists() and "/tty/" not in str(node.resolve())


def _open_error(path: str, error: serial.SerialException) -> Exception:
    code = error.errno
    if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return DeviceMissing(f"there is no {path}", hint="plug the device in; `quarkctl devices` lists what is there")
    if code == errno.EACCES:
        return HostUnfit(
            f"no permission to open {path}",
            hint="`quarkctl doctor` shows the group and the udev rule that give it",
        )
    if code in (errno.EBUSY, errno.EAGAIN):
        return DeviceBusy(f"{path} is held by another program", hint="close it; `quarkctl devices` names it")
    return LinkError(f"cannot open {path}: {error}")


@dataclass(frozen=True)
class SerialOpener:
    """A device whose port is looked up anew at every opening, and which is locked while a link to it is open."""

    identity: str
    resolve: Callable[[], str]
    baud: int

    def hold(self) -> Lock:
        """Keep the device over several openings. Raises DeviceBusy."""
        return hold(self.identity)

    def open(self) -> SerialLink | UrlLink:
        lock = hold(self.identity)
        try:
            port = self.resolve()
            link = open_url(port, self.baud) if "://" in port else open_serial(port, self.baud)
        except BaseException:
            lock.release()
            raise
        link.lock = lock
        return link


@dataclass(frozen=True)
class SerialPort:
    """A USB serial port, as the operating system describes it. ``location``: bus and hub ports, and interface if several."""

    path: str
    usb_id: str
    serial: str
    location: str
    product: str


def list_ports() -> list[SerialPort]:
    """USB serial ports; ports without any USB description (such as ttyS0) are left out."""
    from serial.tools.list_ports import comports

    return [
        SerialPort(
            p.device, f"{p.vid:04x}:{p.pid:04x}", p.serial_number or "", p.location or "", p.product or p.description
        )
        for p in sorted(comports())
        if p.vid is not None and p.pid is not None
    ]
