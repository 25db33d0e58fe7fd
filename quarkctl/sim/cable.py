"""The serial cable between the virtual glasses and the host, with a plug that can be pulled.

QEMU's own pseudo-terminal is not handed out: it notices a new reader only once a second, and dies with QEMU. The cable
holds QEMU's end open all the time and gives the host a terminal that outlives power cuts, like a USB serial adapter.
With nobody at the host's end, bytes go nowhere. A host that is there and does not read blocks the line, as flow control
does: then the firmware's own buffers fill, and it must drop frames and count them.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import selectors
import time
import tty
from collections.abc import Callable

_CHUNK = 4096
#: Bytes under way in one direction before reading stops.
_PENDING_MAX = 4096


class Cable:
    """Pumps bytes both ways, driven by its owner's selector: each key's data is the handler to call with the events."""

    def __init__(self, selector: selectors.BaseSelector, seed: int = 0) -> None:
        self._selector = selector
        self._guest = -1
        self._host = -1
        self._to_host = b""
        self._to_guest = b""
        self._host_there = False
        self._watched: dict[int, int] = {}
        self._random = random.Random(seed)
        #: Share of bytes that arrive damaged, in either direction.
        self.error_rate = 0.0
        #: Share of whole frames from the device that never arrive.
        self.drop_rate = 0.0
        self._partial = b""
        #: When the guest was attached or said something, on the clock of time.monotonic.
        self.heard_s = time.monotonic()
        self.port = ""
        self.plug()

    # --- plugs --------------------------------------------------------------------------------------------------------

    def plug(self) -> None:
        """Give the host a (new) terminal."""
        if self._host >= 0:
            return
        self._host, slave = os.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._host, False)
        self._host_there = False

    def unplug(self) -> None:
        """The host's terminal vanishes, also under a program that has it open."""
        if self._host < 0:
            return
        self._watch(self._host, 0)
        os.close(self._host)
        self._host, self.port = -1, ""
        self._to_host = b""

    def attach(self, guest_port: str) -> None:
        """Connect to QEMU's terminal."""
        self.detach()
        self._guest = os.open(guest_port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._guest)
        self.heard_s = time.monotonic()
        self._update()

    def detach(self) -> None:
        """What the guest has sent is on its way, and arrives; what it was to get is lost with it."""
        if self._guest >= 0:
            self._last_words()
            self._watch(self._guest, 0)
            os.close(self._guest)
            self._guest = -1
        self._to_guest = b""

    def _last_words(self) -> None:
        with contextlib.suppress(OSError):
            while self._host_there and len(self._to_host) < _PENDING_MAX and (data := os.read(self._guest, _CHUNK)):
                self._to_host += self._noisy(self._thinned(data))
        self._flush_host()

    def close(self) -> None:
        self.detach()
        self.unplug()

    # --- pumping ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Look whether somebody opened the host's end; a hung-up terminal cannot be waited on without spinning."""
        if self._host >= 0 and not self._host_there:
            poll = select.poll()
            poll.register(self._host, select.POLLIN)
            self._host_there = not any(event & select.POLLHUP for _, event in poll.poll(0))
        self._update()

    def _update(self) -> None:
        """Watch only what can make progress."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        if self._guest >= 0:
            wanted = read if len(self._to_host) < _PENDING_MAX else 0
            self._watch(self._guest, wanted | (write if self._to_guest else 0))
        if self._host >= 0:
            wanted = read if self._host_there and len(self._to_guest) < _PENDING_MAX else 0
            self._watch(self._host, wanted | (write if self._host_there and self._to_host else 0))

    def _watch(self, fd: int, events: int) -> None:
        if self._watched.get(fd, 0) == events:
            return
        if fd in self._watched:
            self._selector.unregister(fd)
            del self._watched[fd]
        if events:
            handler: Callable[[int], None] = self._serve_guest if fd == self._guest else self._serve_host
            self._selector.register(fd, events, handler)
            self._watched[fd] = events

    def _serve_guest(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            with contextlib.suppress(BlockingIOError):
                try:
                    data = os.read(self._guest, _CHUNK)
                except OSError:  # QEMU is gone; its owner will notice
                    self.detach()
                    return
                self.heard_s = time.monotonic()
                if self._host_there:
                    self._to_host += self._noisy(self._thinned(data))
                    self._flush_host()
        if events & selectors.EVENT_WRITE:
            self._flush_guest()
        self._update()

    def _serve_host(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                self._to_guest += self._noisy(os.read(self._host, _CHUNK))
            except BlockingIOError:
                pass
            except OSError:  # the program at the other end closed the port
                self._host_there = False
                self._to_host = b""
            self._flush_guest()
        if events & selectors.EVENT_WRITE:
            self._flush_host()
        self._update()

    def _flush_host(self) -> None:
        with contextlib.suppress(OSError):  # full: later; closed: the next read notices
            self._to_host = self._to_host[os.write(self._host, self._to_host) :]

    def _flush_guest(self) -> None:
        if self._guest < 0:
            self._to_guest = b""  # no power: nobody listens
            return
        with contextlib.suppress(OSError):  # full: later; gone: its owner notices
            self._to_guest = self._to_guest[os.write(self._guest, self._to_guest) :]

    def _thinned(self, data: bytes) -> bytes:
        """Without some whole frames. Cut at the delimiters, so that what is left is undamaged."""
        if not self.drop_rate:
            data, self._partial = self._partial + data, b""
            return data
        *whole, self._partial = (self._partial + data).split(b"\0")
        return b"".join(f + b"\0" for f in whole if not f or self._random.random() >= self.drop_rate)

    def _noisy(self, data: bytes) -> bytes:
        if not self.error_rate:
            return data
        flip = self._random.random
        return bytes(b ^ (1 << self._random.randrange(8)) if flip() < self.error_rate else b for b in data)
