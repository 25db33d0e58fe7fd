"""SMP (Simple Management Protocol) over a serial line.

Source: Zephyr documentation, "SMP protocol specification" and "SMP console transport". A message is an 8-byte header and
a CBOR map. On a console it travels as lines of base64 around length, message and CRC-16/XMODEM; on a raw UART (MCUboot
``BOOT_SERIAL_RAW_PROTOCOL``, Zephyr ``UART_MCUMGR_RAW_PROTOCOL``) as it is, with nothing to find its start again but
silence.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

HEADER = struct.Struct(">BBHHBB")
LINE_CHARS = 124
MESSAGE_MAX = 0xFFFF - 2
#: Length and CRC around a message: what a device's buf_size counts besides it.
FRAME_EXTRA = 4
#: A raw receiver forgets half a message after this much silence (MCUboot, Zephyr: 3000 ms).
RAW_SILENCE_S = 3.0

FIRST_MARK = b"\x06\x09"
NEXT_MARK = b"\x04\x14"
#: Text without a line end that is kept: a console line has 127 bytes, what stands before it is of no interest.
_LINE_MAX = 1024
#: No SMP message nests deeper.
_DEPTH_MAX = 8


class Op(IntEnum):
    READ = 0
    READ_RESPONSE = 1
    WRITE = 2
    WRITE_RESPONSE = 3


class Group(IntEnum):
    OS = 0
    IMAGE = 1
    QUARK = 64


class Os(IntEnum):
    ECHO = 0
    RESET = 5
    PARAMS = 6
    BOOTLOADER_INFO = 8


class ImageCommand(IntEnum):
    STATE = 0
    UPLOAD = 1
    ERASE = 5
    SLOT_INFO = 6


class Quark(IntEnum):
    IDENTITY = 0
    HEALTH = 1
    FAULT = 2


BUSY = 10
#: Return codes of SMP version 1.
ERRORS = {
    1: "unknown error", 2: "out of memory", 3: "invalid value", 4: "timeout", 5: "no such entry", 6: "wrong state",
    7: "too large", 8: "not supported", 9: "corrupt payload", 10: "busy", 11: "access denied",
}  # fmt: skip


@dataclass(frozen=True)
class Response:
    op: int
    group: int
    command: int
    sequence: int
    payload: Mapping[str, Any]

    @property
    def code(self) -> object:
        """The return code, of version 1 or 2; 0 when all is well."""
        fault = self.payload.get("err")
        return fault.get("rc", 0) if isinstance(fault, Mapping) else self.payload.get("rc", 0)

    @property
    def error(self) -> str:
        """What the device complains about, in its words where it has any; empty when it does not."""
        code = self.code
        if not code:
            return ""
        reason = self.payload.get("rsn")
        name = ERRORS.get(code, f"error {code}") if isinstance(code, int) else str(code)
        return f"{reason} ({name})" if isinstance(reason, str) and reason else name


def build_message(op: int, group: int, command: int, sequence: int, payload: Mapping[str, Any]) -> bytes:
    import cbor2

    body = cbor2.dumps(dict(payload), canonical=False)
    return HEADER.pack(0x08 | op, 0, len(body), group, sequence, command) + body


def parse_message(message: bytes) -> Response | None:
    """None when the bytes are no SMP response with a plain CBOR map: no tags, numbers of 64 bits, nested at most 8 deep, so
    that no device can make the host work or grow by more than the message's own 64 KiB."""
    import cbor2

    if len(message) < HEADER.size:
        return None
    first, _, size, group, sequence, command = HEADER.unpack_from(message)
    op = first & 7
    if op not in (Op.READ_RESPONSE, Op.WRITE_RESPONSE) or size != len(message) - HEADER.size:
        return None
    if not _is_plain(message[HEADER.size :]):
        return None
    try:
        payload = cbor2.loads(message[HEADER.size :])
    except (cbor2.CBORDecodeError, RecursionError, ValueError, OverflowError, MemoryError, TypeError):
        return None
    if not isinstance(payload, Mapping) or not all(isinstance(k, str) for k in payload):
        return None
    return Response(op, group, command, sequence, payload)


def _is_plain(body: bytes) -> bool:
    """One CBOR item (RFC 8949) that is whole, without tags and without indefinite strings. Walks without recursion."""
    at, end = 0, len(body)
    left: list[int] = []  # items still to come at each depth; -1 until a break
    while True:
        if at >= end:
            return False
        if body[at] == 0xFF:  # break
            if not left or left.pop() != -1:
                return False
            at += 1
        else:
            major, info = body[at] >> 5, body[at] & 31
            at += 1
            argument = info
            if 24 <= info <= 27:
                size = 1 << (info - 24)
                argument = int.from_bytes(body[at : at + size], "big")
                at += size
            elif info > 27 and not (info == 31 and major in (4, 5)):
                return False
            if major == 6:
                return False
            if major in (2, 3):
                at += argument
            elif major in (4, 5):
                count = -1 if info == 31 else argument * (major - 3)
                if len(left) == _DEPTH_MAX or count > end - at:
                    return False
                left.append(count + 1 if count >= 0 else -1)
        while left and left[-1] != -1:
            left[-1] -= 1
            if left[-1]:
                break
            left.pop()
        if not left:
            return at == end


def build_lines(message: bytes) -> bytes:
    """Console lines of one message, newlines included."""
    framed = struct.pack(">H", len(message) + 2) + message + struct.pack(">H", binascii.crc_hqx(message, 0))
    text = base64.b64encode(framed)
    out = bytearray()
    for at in range(0, len(text), LINE_CHARS):
        out += (NEXT_MARK if at else FIRST_MARK) + text[at : at + LINE_CHARS] + b"\n"
    return bytes(out)


def wire_bytes(message_bytes: int) -> int:
    """Bytes on the line for a message of this size."""
    chars = 4 * -(-(message_bytes + FRAME_EXTRA) // 3)
    return chars + 3 * -(-chars // LINE_CHARS)


@dataclass
class LineReader:
    """Puts console lines together. Holds at most one message."""

    _text: bytearray = field(default_factory=bytearray)
    _open: bool = False
    bad_count: int = 0

    def feed(self, line: bytes) -> bytes | None:
        """One line with its marker, without the newline; returns a message whose CRC held."""
        marker, text = line[:2], line[2:]
        if marker == FIRST_MARK:
            self._text[:] = text
            self._open = True
        elif marker == NEXT_MARK and self._open:
            self._text += text
        else:
            return None
        try:
            framed = base64.b64decode(bytes(self._text[: 4 * (len(self._text) // 4)]), validate=True)
        except (binascii.Error, ValueError):
            self._give_up()
            return None
        if len(framed) < 2:
            return None
        size = int.from_bytes(framed[:2], "big")
        if len(framed) - 2 < size:
            return None
        self._open = False
        body = framed[2 : 2 + size]
        if size < 2 or len(framed) - 2 != size or binascii.crc_hqx(body, 0) != 0:
            self._give_up()
            return None
        return body[:-2]

    def _give_up(self) -> None:
        self._open = False
        self.bad_count += 1


@dataclass
class ConsoleReader:
    """Messages from a console that also shows other things: log lines, prompts, telemetry frames. Holds at most one message
    and one line."""

    _rest: bytearray = field(default_factory=bytearray)
    _lines: LineReader = field(default_factory=LineReader)

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that these bytes completed and whose CRC held."""
        out = []
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            # Neither text nor base64 has the marks; what stands before the last one is somebody else's.
            at = max(line.rfind(FIRST_MARK), line.rfind(NEXT_MARK))
            message = self._lines.feed(bytes(line[at:]).rstrip(b"\r")) if at >= 0 else None
            if message is not None:
                out.append(message)
        self._rest = bytearray(rest[-_LINE_MAX:])
        return out

    def silence(self) -> None:
        """A new first line always starts over: nothing has to be forgotten."""


@dataclass
class RawReader:
    """Messages from a raw UART. What cannot be a message is passed over until `silence`: there is no other way to find the
    next start. Holds at most one message."""

    _rest: bytearray = field(default_factory=bytearray)
    _lost: bool = False
    bad_count: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        out: list[bytes] = []
        if self._lost:
            return out
        self._rest += data
        while len(self._rest) >= HEADER.size:
            first, flags, size, _, _, _ = HEADER.unpack_from(self._rest)
            if first & 0xE0 or first & 7 > Op.WRITE_RESPONSE or flags:
                self._lost = True
                self.bad_count += 1
                self._rest.clear()
                return out
            if len(self._rest) < HEADER.size + size:
                break
            out.append(bytes(self._rest[: HEADER.size + size]))
            del self._rest[: HEADER.size + size]
        return out

    def silence(self) -> None:
        """Nothing came for a while: whatever comes now is the start of a message."""
        self.bad_count += bool(self._rest)
        self._rest.clear()
        self._lost = False
