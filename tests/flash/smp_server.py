"""An SMP server on a modelled line: byte times, flash times, buffers, damaged bytes. Written from the protocol, not from
the client.

`Model` is pure: time is an argument. Tests let it run in virtual time (`VirtualLine`); the bench runs it as a program
behind a pseudo-terminal, in real time: ``python -m tests.flash.smp_server '{"buffers": 4}'``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import random
import select
import struct
import sys
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2

from quarkctl.formats import mcuboot_image

SECTOR, PAGE = 4096, 256


@dataclass
class Settings:
    """``rate``: bytes per second, 0 for no line at all. ``error_rate``: share of bytes that arrive damaged."""

    rate: float = 100_000.0
    buf_size: int = 1024
    buffers: int = 1
    erase_s: float = 0.0
    page_s: float = 0.0
    error_rate: float = 0.0
    seed: int = 1
    raw: bool = False
    params: bool = True
    forever: bool = False


@dataclass
class Model:
    """``answer`` may be replaced by a test to misbehave: it gets (group, command, request) and returns the answer's map,
    or bytes to put on the line as they are, or None for silence."""

    settings: Settings
    answer: Callable[[int, int, dict[str, Any]], dict[str, Any] | bytes | None] | None = None
    stored: bytearray = field(default_factory=bytearray)
    size: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    #: Images by slot; the first is what runs at the start.
    slots: list[bytes] = field(default_factory=lambda: [b"", b""])
    active: int = 0
    confirmed: int = 0
    pending: int = -1
    dropped_count: int = 0
    largest_frame: int = 0
    #: (time, bytes) that the line delivers to the host.
    due: list[tuple[float, bytes]] = field(default_factory=list)
    _line: bytearray = field(default_factory=bytearray)
    _text: bytearray | None = None
    _raw_at: float = 0.0
    _receiver_free: float = 0.0
    _sender_free: float = 0.0
    _handler_free: float = 0.0
    _busy: list[float] = field(default_factory=list)
    _erased: int = 0
    _cost: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.settings.seed)
        if self.settings.forever:
            self.active = self.confirmed = 1  # from the factory with nothing: slot 0 is written first

    # --- line ---------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Bytes that the host wrote; they arrive one byte time after the other."""
        s = self.settings
        at = max(now, self._receiver_free)
        for byte in self._damaged(data):
            at += 1 / s.rate if s.rate else 0.0
            self._raw_byte(byte, at) if s.raw else self._console_byte(byte, at)
        self._receiver_free = at

    def _damaged(self, data: bytes) -> bytes:
        rate = self.settings.error_rate
        if not rate:
            return data
        flip = self._random.random
        return bytes(b ^ (1 << self._random.randrange(8)) if flip() < rate else b for b in data)

    def _raw_byte(self, byte: int, at: float) -> None:
        if at - self._raw_at > 3.0:
            self._line.clear()
        self._raw_at = at
        self._line.append(byte)
        if len(self._line) >= 8 and len(self._line) == 8 + int.from_bytes(self._line[2:4], "big"):
            message = bytes(self._line)
            self._line.clear()
            self._arrived(message, at)
        elif len(self._line) > self.settings.buf_size:
            self._line.clear()

    def _console_byte(self, byte: int, at: float) -> None:
        if byte != 0x0A:
            if len(self._line) < 128:
                self._line.append(byte)
            return
        line = bytes(self._line)
        self._line.clear()
        if line[:2] == b"\x06\x09":
            self._text = bytearray(line[2:])
        elif line[:2] == b"\x04\x14" and self._text is not None:
            self._text += line[2:]
        else:
            return
        try:
            frame = base64.b64decode(bytes(self._text), validate=True)
        except (binascii.Error, ValueError):
            self._text = None
            return
        if len(frame) > self.settings.buf_size:
            self._text = None
        elif len(frame) >= 2 and len(frame) >= 2 + int.from_bytes(frame[:2], "big"):
            self._text = None
            if binascii.crc_hqx(frame[2:], 0) == 0:
                self.largest_frame = max(self.largest_frame, len(frame))
                self._arrived(frame[2:-2], at)

    def _arrived(self, message: bytes, at: float) -> None:
        self._busy = [t for t in self._busy if t > at]
        if len(self._busy) >= self.settings.buffers:
            self.dropped_count += 1
            return
        op, _, size, group, sequence, command = struct.unpack_from(">BBHHBB", message)
        if size != len(message) - 8:
            return
        try:
            request = cbor2.loads(message[8:])
        except cbor2.CBORDecodeError:
            return
        self._cost = 0.0
        answer = (self.answer or self.serve)(group, command, request)
        done = max(at, self._handler_free) + self._cost
        self._handler_free = done
        self._busy.append(done)
        if answer is None:
            return
        if isinstance(answer, dict):
            body = cbor2.dumps(answer)
            answer = self._framed(struct.pack(">BBHHBB", op + 1, 0, len(body), group, sequence, command) + body)
        starts = max(done, self._sender_free)
        self._sender_free = starts + (len(answer) / self.settings.rate if self.settings.rate else 0.0)
        self.due.append((self._sender_free, self._damaged(answer)))
        if (group, command) == (1, 1):
            self.first_at = self.first_at or at - len(message) / (self.settings.rate or 1e9)
            self.last_at = self._sender_free

    def _framed(self, message: bytes) -> bytes:
        if self.settings.raw:
            return message
        frame = struct.pack(">H", len(message) + 2) + message + struct.pack(">H", binascii.crc_hqx(message, 0))
        text = base64.b64encode(frame)
        lines = [text[i : i + 124] for i in range(0, len(text), 124)]
        return b"".join((b"\x04\x14" if i else b"\x06\x09") + line + b"\n" for i, line in enumerate(lines))

    # --- server -------------------------------------------------------------------------------------------------------

    def serve(self, group: int, command: int, request: dict[str, Any]) -> dict[str, Any] | bytes | None:
        if (group, command) == (0, 6) and self.settings.params:
            return {"buf_size": self.settings.buf_size, "buf_count": self.settings.buffers}
        if (group, command) == (1, 1):
            return self._upload(request)
        if (group, command) == (1, 0):
            return self._state(request)
        if (group, command) == (0, 5):
            self.active, self.pending = (self.pending if self.pending >= 0 else self.confirmed), -1
            return {"rc": 0}
        return {"rc": 8}

    def _state(self, request: dict[str, Any]) -> dict[str, Any]:
        images = [(slot, mcuboot_image.parse(data)) for slot, data in enumerate(self.slots) if data]
        for slot, image in images:
            if request.get("hash") == image.digest and request.get("confirm") and slot == self.active:
                self.confirmed = slot
            elif request.get("hash") == image.digest and slot != self.active:
                self.pending = slot
        return {
            "images": [
                {"slot": slot, "version": str(image.version), "hash": image.digest, "bootable": True,
                 "active": slot == self.active, "confirmed": slot == self.confirmed, "pending": slot == self.pending}
                for slot, image in images
            ]
        }  # fmt: skip

    def _upload(self, request: dict[str, Any]) -> dict[str, Any]:
        offset, data = request["off"], request["data"]
        if offset == 0:
            self.stored.clear()
            self._erased = 0
            self.size = request["len"]
        if offset == len(self.stored) and offset + len(data) <= self.size:
            self.stored += data
            while self._erased < len(self.stored):
                self._erased += SECTOR
                self._cost += self.settings.erase_s
            self._cost += self.settings.page_s * len(data) / PAGE
            if len(self.stored) == self.size and self.settings.forever:
                self.slots[1 - self.active] = bytes(self.stored)
        return {"rc": 0, "off": len(self.stored)}


class Clock:
    """Virtual time: passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class VirtualLine:
    """A link to a model in virtual time."""

    model: Model
    clock: Clock
    name: str = "virtual"

    def write(self, data: bytes) -> None:
        self.model.receive(data, self.clock.now)

    def read(self, timeout_s: float) -> bytes:
        due = self.model.due
        if not due or due[0][0] > self.clock.now + timeout_s:
            self.clock.now += timeout_s + 1e-6
            return b""
        at, data = due.pop(0)
        self.clock.now = max(self.clock.now, at)
        return data

    def close(self) -> None:
        pass


def serve_terminal(settings: Settings) -> None:
    """One upload over a pseudo-terminal whose path is printed first; then its account, as JSON. ``forever``: a device that
    is updated and restarted as often as somebody likes."""
    master, slave = os.openpty()
    tty.setraw(slave)
    print(os.ttyname(slave), flush=True)
    os.close(slave)  # so that nobody but the client has it open
    model = Model(settings)
    while settings.forever or not (model.size and len(model.stored) == model.size and not model.due):
        wait = max(model.due[0][0] - time.perf_counter(), 0.0) if model.due else None
        try:
            if select.select([master], [], [], wait)[0]:
                model.receive(os.read(master, 65536), time.perf_counter())
        except OSError:  # nobody has the other end open yet
            time.sleep(0.002)
        while model.due and model.due[0][0] <= time.perf_counter():
            os.write(master, model.due.pop(0)[1])
    account = {"seconds": model.last_at - model.first_at, "dropped": model.dropped_count, "frame": model.largest_frame,
               "crc": binascii.crc32(bytes(model.stored))}  # fmt: skip
    print(json.dumps(account), flush=True)
    sys.stdin.read()  # the terminal stays until the client has left


if __name__ == "__main__":
    serve_terminal(Settings(**json.loads(sys.argv[1])))
