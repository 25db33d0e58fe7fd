"""The Firehose client: commands to a programmer, raw data in both directions, and the programmer's logs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from quarkctl.errors import DeviceRefused, LinkLost, LinkTimeout, ProtocolError
from quarkctl.formats import firehose
from quarkctl.formats.firehose import Documents, Element, StorageInfo
from quarkctl.link.usb import COMMAND_BYTES, UsbLink

#: Silence after which a quick command is given up; logs start the time anew, up to LIMIT_S.
QUICK_S = 10.0
LIMIT_S = 600.0
#: Slowest medium that is waited for, and what a programmer may do before it starts.
MEDIA_BYTES_PER_S = 1 << 20
START_S = 60.0
#: Once, after the start of a programmer: so long without a word means that its greeting is over.
GREETING_S = 0.3
GREETING_LIMIT_S = 5.0
_GREETING_END = "end of supported functions"
#: After the last byte of an interrupted write, and between the packets that follow while it is not enough.
_CLOSING_S, _CLOSING_NEXT_S = 2.0, 0.001
PAYLOAD_BYTES = 1 << 20
PAYLOAD_MIN, PAYLOAD_MAX = 4096, 16 << 20
_LOGS_KEPT = 100

#: {pattern of a device's error log: what to do}
_HINTS = (
    (r"unknown command getsha256", "quarkctl ar1 backup, then sha256sum"),
    (r"outside of the memory", "the programmer lets only some addresses be read"),
    (r"sector size .* different", "the files are made for another sector size: give those for this device's storage"),
    (r"storage type|memory ?name", "the files are made for another kind of storage: --memory names the right one"),
    (r"write protect", "the storage is write protected: is the device locked, or its storage worn out?"),
    (
        r"digest|vip|validat",
        "the programmer takes only what its signed digest table lists: use the bundle of that table",
    ),
    (r"outside|out of range|range", "the files are made for a larger storage: compare with `quarkctl ar1 storage`"),
    (r"write (error|failure)|media", "the storage fails: if it happens again, the part is worn out"),
    (r"too large|watchdog", "repeat with a smaller range"),
)


@dataclass(frozen=True)
class Response:
    """ACK or NAK with its attributes, and what the device logged before it."""

    ok: bool
    attributes: Mapping[str, str]
    logs: list[str] = field(default_factory=list)


class Programmer:
    """A running Firehose programmer. ``told`` gets each of its log lines.

    ``pad``: end documents visibly by one newline (else by a zero-length packet, as digest tables need it).
    """

    def __init__(
        self, link: UsbLink, told: Callable[[str], None] = lambda _: None, first: bytes = b"", *, pad: bool = True
    ) -> None:
        self._link = link
        self._told = told
        self._documents = Documents()
        self._documents.feed(first)
        self._elements: list[Element] = []
        self._logs: list[str] = []
        self._pad = pad
        self.payload_bytes = PAYLOAD_BYTES
        #: Called before each document and each piece of raw data: digest tables have to come before what they list.
        self.before_packet: Callable[[], None] = lambda: None
        #: Zero-length packet after raw data of a whole number of packets: only if the programmer was told so.
        self.zero_packets = not pad

    # --- the stream ---------------------------------------------------------------------------------------------------

    def _next(self, timeout_s: float) -> Element | None:
        """The next element; None when nothing came in time."""
        deadline = time.monotonic() + timeout_s
        while not self._elements:
            document = self._documents.next()
            if document is not None:
                self._elements = document
                continue
            piece = self._link.read(max(deadline - time.monotonic(), 0.0))
            if not piece:
                return None
            self._documents.feed(piece)
        return self._elements.pop(0)

    def _keep(self, text: str) -> None:
        self._logs.append(text)
        del self._logs[:-_LOGS_KEPT]
        self._told(text)

    def greet(self) -> None:
        """Take the programmer's greeting, and what else is on its way."""
        limit = time.monotonic() + GREETING_LIMIT_S
        while time.monotonic() < limit:
            element = self._next(GREETING_S)
            if element is None:
                break
            if element.tag == "log":
                self._keep(element.text)
                if _GREETING_END in element.text.lower():
                    break
        self._logs.clear()

    def _response(self, what: str, silence_s: float, limit_s: float = LIMIT_S) -> Response:
        """The next response, logs collected. Raises LinkTimeout, ProtocolError."""
        limit = time.monotonic() + max(limit_s, silence_s)
        while True:
            element = self._next(silence_s)
            if element is None:
                raise LinkTimeout(
                    f"the programmer did not answer {what} within {silence_s:.0f} s",
                    hint="power-cycle the device into emergency download and repeat: what is right already is skipped",
                )
            if element.tag == "log":
                self._keep(element.text)
            elif element.tag == "response":
                logs, self._logs = self._logs, []
                return Response(element.ok, element.attributes, logs)
            if time.monotonic() > limit:
                raise ProtocolError(f"the programmer logs without end and does not answer {what}")

    def _late(self) -> Response | None:
        """A response that came by itself, without waiting for it."""
        while (element := self._next(0.0)) is not None:
            if element.tag == "log":
                self._keep(element.text)
            elif element.tag == "response":
                logs, self._logs = self._logs, []
                return Response(element.ok, element.attributes, logs)
        return None

    def send(self, tag: str, attributes: Mapping[str, object]) -> None:
        document = firehose.build(tag, attributes, pad=self._pad)
        self.before_packet()
        self._link.write(document)
        if not self._pad and len(document) % self._link.packet_bytes == 0:
            self._link.end_transfer()

    def ask(self, tag: str, attributes: Mapping[str, object], silence_s: float = QUICK_S) -> Response:
        """One command and its response, ACK or NAK."""
        self.send(tag, attributes)
        return self._response(tag, silence_s)

    def command(self, tag: str, attributes: Mapping[str, object], silence_s: float = QUICK_S) -> Response:
        """One command that must be acknowledged. Raises DeviceRefused with the device's own words."""
        response = self.ask(tag, attributes, silence_s)
        if not response.ok:
            raise refusal(tag, response)
        return response

    # --- set-up -------------------------------------------------------------------------------------------------------

    def configure(self, memory: str, *, skip_storage_init: bool = False) -> None:
        """Agree on kind of memory and payload. A refusal that names a payload is followed once."""
        wanted = self.payload_bytes
        for attempt in (1, 2):
            response = self.ask("configure", {
                "MemoryName": memory, "MaxPayloadSizeToTargetInBytes": wanted, "Verbose": 0,
                "ZlpAwareHost": int(self.zero_packets), "SkipStorageInit": int(skip_storage_init),
            })  # fmt: skip
            offered = _size(response.attributes.get("MaxPayloadSizeToTargetInBytes"))
            supported = _size(response.attributes.get("MaxPayloadSizeToTargetInBytesSupported"))
            if response.ok:
                sizes = [s for s in (wanted, offered, supported) if s]
                self.payload_bytes = min(sizes)
                return
            if attempt == 2 or not offered or offered >= wanted:
                raise refusal("configure", response)
            wanted = offered

    def use_sectors(self, sector_bytes: int) -> None:
        """A payload is whole sectors. Raises ProtocolError for a programmer that takes less than one."""
        self.payload_bytes -= self.payload_bytes % sector_bytes
        if not sector_bytes <= self.payload_bytes <= PAYLOAD_MAX:
            raise ProtocolError(f"the programmer takes {self.payload_bytes} bytes at once: no whole sector")

    def storage_info(self, lun: int) -> StorageInfo | None:
        """None where the programmer does not tell."""
        response = self.ask("getstorageinfo", {"physical_partition_number": lun})
        return firehose.parse_storage_info(response.logs) if response.ok else None

    # --- data ---------------------------------------------------------------------------------------------------------

    def program(
        self, attributes: Mapping[str, object], size_bytes: int, pieces: Iterable[bytes | memoryview],
        moved: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Write ``size_bytes``: exactly that many, in pieces of whole payloads. ``moved`` gets the bytes sent so far.

        Raises DeviceRefused. A refusal in the middle of the data is told after the phase was closed properly.
        """
        response = self.command("program", attributes, START_S)
        if response.attributes.get("rawmode", "").lower() != "true":
            raise ProtocolError("the programmer took a write and does not wait for its data")
        self.finish_program(
            str(attributes.get("label") or attributes.get("filename") or "program"), size_bytes, pieces, moved
        )

    def finish_program(
        self, what: str, size_bytes: int, pieces: Iterable[bytes | memoryview], moved: Callable[[int], None]
    ) -> None:
        sent = 0
        early: Response | None = None
        if size_bytes > COMMAND_BYTES:  # the thread gets ready while the first piece is made
            self._link.listen()
        for piece in pieces:
            self._write_raw(piece)
            sent += len(piece)
            moved(sent)
            early = early or self._late()
        if sent != size_bytes:  # the phase must not stay open, and what was sent is wrong anyway
            while sent < size_bytes:
                fill = bytes(min(size_bytes - sent, self.payload_bytes))
                self._write_raw(fill)
                sent += len(fill)
            self._response(what, START_S)
            raise ProtocolError(f"{what} ended too early: a file changed while it was sent")
        allowed = START_S + size_bytes / MEDIA_BYTES_PER_S
        response = early or self._response(f"the end of {what}", allowed, max(allowed, LIMIT_S))
        if not response.ok:
            raise refusal(what, response)

    def give_table(self, table: bytes, silence_s: float) -> Response:
        """A table of digests, and what the device says of it."""
        self._put(table)
        return self._response("a digest table", silence_s)

    def _write_raw(self, piece: bytes | memoryview) -> None:
        self.before_packet()
        self._put(piece)

    def _put(self, piece: bytes | memoryview) -> None:
        self._link.write(piece)
        if self.zero_packets and len(piece) % self._link.packet_bytes == 0:
            self._link.end_transfer()

    def read(self, attributes: Mapping[str, object], size_bytes: int) -> Iterator[bytes]:
        """Raw data from the device, exactly ``size_bytes``. Raises DeviceRefused, ProtocolError, LinkTimeout."""
        self.command("read", attributes, START_S)
        return self._raw_data(size_bytes)

    def _raw_data(self, size_bytes: int) -> Iterator[bytes]:
        left = size_bytes
        if self._elements:
            raise ProtocolError("the programmer goes on talking where its data belongs")
        while left:
            piece = self._documents.take_raw(left) or self._link.read(START_S)
            if not piece:
                raise LinkTimeout(f"the programmer stopped {left} bytes before the end of its data")
            if len(piece) > left:
                self._documents.feed(piece[left:])
                piece = piece[:left]
            left -= len(piece)
            yield piece
        response = self._response("the end of its data", START_S)
        if not response.ok:
            raise refusal("read", response)

    def drain_read(self, size_bytes: int) -> None:
        """Take what a read gives that was only asked for to see whether it is possible."""
        for _ in self._raw_data(size_bytes):
            continue

    def close_phase(self, left_bytes: int, extra_bytes_max: int) -> bool:
        """End a write that an earlier run has left open: zeros until the device answers. False when it never does.

        The device may be ahead of what is known by a transfer, and takes the rest for a broken command then.
        """
        answered = self._send_zeros(left_bytes, extra_bytes_max)
        while self._next(GREETING_S) is not None:  # what it has to say of zeros that were too many
            continue
        return answered

    def _send_zeros(self, left_bytes: int, extra_bytes_max: int) -> bool:
        sent, fill = 0, bytes(self._link.packet_bytes)
        piece = bytes(min(left_bytes, self.payload_bytes))
        while sent < left_bytes:
            part = piece[: left_bytes - sent]
            self._link.write(part)
            sent += len(part)
            if self._late():
                return True
        silence_s = _CLOSING_S
        for _ in range(extra_bytes_max // len(fill)):
            if self._answered(silence_s):
                return True
            self._link.write(fill)
            silence_s = _CLOSING_NEXT_S
        return self._answered(_CLOSING_S)

    def _answered(self, silence_s: float) -> bool:
        while (element := self._next(silence_s)) is not None:
            if element.tag == "response":
                self._logs.clear()
                return True
        return False

    def digest(
        self, attributes: Mapping[str, object], size_bytes: int, meanwhile: Callable[[], object] | None = None
    ) -> bytes | None:
        """SHA-256 of a range, as the device computes it; None where it cannot. ``meanwhile`` is done at the same time.

        It is read from at once: a programmer says first what it is going to do, and does nothing before that was heard.
        """
        allowed = START_S + size_bytes / MEDIA_BYTES_PER_S
        self.send("getsha256digest", attributes)
        if meanwhile:
            self._link.listen()
            meanwhile()
        response = self._response("getsha256digest", allowed)
        return firehose.parse_digest(response.logs, response.attributes) if response.ok else None

    def configure_exactly(self, attributes: Mapping[str, object]) -> None:
        """No negotiation. Raises DeviceRefused, also where the programmer wants a smaller payload than that."""
        response = self.command("configure", attributes)
        offered = _size(response.attributes.get("MaxPayloadSizeToTargetInBytes"))
        wanted = int(str(attributes["MaxPayloadSizeToTargetInBytes"]))
        if offered and offered < wanted:
            raise DeviceRefused(f"the device takes {offered} bytes at once, the digest tables are made for {wanted}")
        self.payload_bytes = wanted

    def leave(self, attributes: Mapping[str, object]) -> None:
        """The ``power`` command. Takes its last words: some programmers go only when these were read."""
        self.command("power", attributes)
        try:
            while self._next(GREETING_S) is not None:
                continue
        except LinkLost:
            return

    def alive(self) -> bool:
        """Does it answer a command that does nothing?"""
        try:
            self.ask("nop", {}, 3.0)
        except LinkTimeout:
            return False
        return True


def refusal(what: str, response: Response) -> DeviceRefused:
    """What the device says of it, with what to do."""
    errors = [line for line in response.logs if "error" in line.lower()] or response.logs[-2:]
    words = "; ".join(re.sub(r"^\s*ERROR:\s*", "", line).strip() for line in errors[-3:])
    hint = next((h for pattern, h in _HINTS if re.search(pattern, words, re.IGNORECASE)), "")
    return DeviceRefused(f"the device refused {what}: {words or 'without a reason'}", hint)


def _size(text: str | None) -> int:
    """A size that the device offers; 0 for none or nonsense."""
    if text is None or not text.isascii() or not text.isdigit():
        return 0
    value = int(text)
    return value if PAYLOAD_MIN <= value <= 1 << 30 else 0
