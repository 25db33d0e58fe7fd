"""SMP (Simple Management Protocol) over a serial console.

Source: Zephyr documentation, "SMP protocol specification" and "SMP console transport". A message is an 8-byte header and
a CBOR map; on a console it travels as lines of base64 around length, message and CRC-16/XMODEM.
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
    def error(self) -> str:
        """What the device complains about, in its words where it has any; empty when it does not."""
        fault = self.payload.get("err")
        code = fault.get("rc", 0) if isinstance(fault, Mapping) else self.payload.get("rc", 0)
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
    """None when the bytes are no SMP response with a CBOR map. Nesting and size are bounded by the message's 64 KiB."""
    import cbor2

    if len(message) < HEADER.size:
        return None
    first, _, size, group, sequence, command = HEADER.unpack_from(message)
    op = first & 7
    if op not in (Op.READ_RESPONSE, Op.WRITE_RESPONSE) or size != len(message) - HEADER.size:
        return None
    try:
        payload = cbor2.loads(message[HEADER.size :])
    except (cbor2.CBORDecodeError, RecursionError, ValueError, OverflowError, MemoryError, TypeError):
        return None
    if not isinstance(payload, Mapping) or not all(isinstance(k, str) for k in payload):
        return None
    return Response(op, group, command, sequence, payload)


def build_lines(message: bytes) -> bytes:
    """Console lines of one message, newlines included."""
    framed = struct.pack(">H", len(message) + 2) + message + struct.pack(">H", binascii.crc_hqx(message, 0))
    text = base64.b64encode(framed)
    out = bytearray()
    for at in range(0, len(text), LINE_CHARS):
        out += (b"\x04\x14" if at else b"\x06\x09") + text[at : at + LINE_CHARS] + b"\n"
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
        if marker == b"\x06\x09":
            self._text[:] = text
            self._open = True
        elif marker == b"\x04\x14" and self._open:
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
