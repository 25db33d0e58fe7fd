"""The fastboot client: commands and data over any link, every wait bounded, the device's own words kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from quarkctl.errors import DeviceRefused, LinkTimeout, ProtocolError
from quarkctl.flash.payload import Part, send
from quarkctl.formats import fastboot
from quarkctl.formats.fastboot import Kind, Reply
from quarkctl.link import Link

#: Silence after which a quick command is given up, and what a chatty device may take in all.
QUICK_S = 5.0
LIMIT_S = 600.0
#: Slowest medium that is waited for, and what a device may do before it starts writing.
MEDIA_BYTES_PER_S = 1 << 20
START_S = 30.0
_UPLOAD_MAX = 1 << 31
#: A device that says so many INFO lines to one command talks nonsense.
_INFO_MAX = 20_000

#: {a word of the device's refusal: what to do}
_HINTS = {
    "locked": "unlock it first: quarkctl ar1 flashing unlock (this erases user data)",
    "not allowed on locked": "unlock it first: quarkctl ar1 flashing unlock (this erases user data)",
    "battery": "charge the device, then flash again",
    "does not exist": "`quarkctl ar1 getvar all` lists the partitions; logical ones are only seen in fastbootd",
    "too small": "the image is larger than the partition: is it for this board?",
    "snapshot": "`quarkctl ar1 snapshot cancel` or `merge` first",
    "storage": "the device's storage fails: power-cycle it; if it happens again, the part is worn out",
    "unknown command": "this boot loader does not know that command",
}


@dataclass(frozen=True)
class Answer:
    """What came with OKAY, and the INFO and TEXT lines before it."""

    text: str
    lines: list[str] = field(default_factory=list)


class Client:
    """One session with a device in fastboot. ``told`` is called with each line that the device says meanwhile."""

    def __init__(self, link: Link, told: Callable[[str], None] = lambda _: None) -> None:
        self.link = link
        self._told = told

    def command(self, text: str, silence_s: float = 0.0, limit_s: float = LIMIT_S) -> Answer:
        """``silence_s`` 0 means QUICK_S. Raises DeviceRefused (the device's words), ProtocolError, LinkTimeout, LinkLost."""
        self.link.write(fastboot.build_command(text))
        return self._finish(text, silence_s or QUICK_S, limit_s)

    def _finish(self, text: str, silence_s: float, limit_s: float = LIMIT_S) -> Answer:
        lines: list[str] = []
        reply = self._reply(text, silence_s, limit_s, lines)
        if reply.kind is Kind.DATA:
            raise ProtocolError(f"the device answered {text!r} with data that nobody asked for")
        return Answer(reply.text, lines)

    def _reply(self, text: str, silence_s: float, limit_s: float, lines: list[str]) -> Reply:
        """The next OKAY or DATA; FAIL is raised."""
        limit = time.monotonic() + max(limit_s, silence_s)
        while True:
            packet = self.link.read(silence_s)
            if not packet:
                raise LinkTimeout(
                    f"{self.link.name} did not answer {text!r} within {silence_s:.0f} s",
                    hint="the boot loader hangs: hold the power key for 10 s, start it into fastboot again, and repeat",
                )
            reply = fastboot.parse_reply(packet)
            if reply.kind in (Kind.INFO, Kind.TEXT):
                lines.append(reply.text)
                self._told(reply.text)
                if len(lines) > _INFO_MAX or time.monotonic() > limit:
                    raise ProtocolError(
                        f"the device said {len(lines)} lines to {text!r} and no end",
                        hint="restart it into fastboot and repeat",
                    )
                continue
            if reply.kind is Kind.FAIL:
                raise DeviceRefused(
                    f"the device refused {text!r}: {reply.text or 'no reason given'}", _hint(reply.text)
                )
            return reply

    # --- variables ----------------------------------------------------------------------------------------------------

    def variable(self, name: str) -> str:
        """Empty where the device does not know it."""
        try:
            return self.command(f"getvar:{name}").text.strip()
        except DeviceRefused:
            return ""

    def variables(self) -> dict[str, str]:
        """All that the device tells; empty where it does not know ``getvar all``."""
        try:
            answer = self.command("getvar:all")
        except DeviceRefused:
            return {}
        found = fastboot.parse_variables(answer.lines)
        found.pop("all", None)
        return found

    def number(self, name: str) -> int:
        """0 where the device does not know it. Raises ProtocolError for what is no number."""
        text = self.variable(name)
        return fastboot.parse_number(text) if text else 0

    # --- data ---------------------------------------------------------------------------------------------------------

    def download(self, parts: Iterable[Part], size_bytes: int, moved: Callable[[int], None] = lambda _: None) -> None:
        """Give the device ``size_bytes``, which it holds until the next command that uses them."""
        command = f"download:{size_bytes:08x}"
        self.link.write(fastboot.build_command(command))
        reply = self._reply(command, START_S, LIMIT_S, [])
        if reply.kind is not Kind.DATA or reply.size_bytes != size_bytes:
            raise ProtocolError(
                f"the device wants {reply.size_bytes} bytes instead of {size_bytes}",
                hint="nothing was sent; restart the device into fastboot",
            )
        sent = send(self.link, parts, moved)
        if sent != size_bytes:
            raise ProtocolError(
                f"{sent} bytes were sent instead of {size_bytes}", hint="a file changed while it was sent"
            )
        self._finish(command, START_S)

    def upload(self, command: str, moved: Callable[[bytes], object]) -> int:
        """Take what the device has: ``moved`` gets it piece by piece. Returns its size."""
        self.link.write(fastboot.build_command(command))
        reply = self._reply(command, START_S, LIMIT_S, [])
        if reply.kind is not Kind.DATA or reply.size_bytes > _UPLOAD_MAX:
            raise ProtocolError(f"the device answered {command!r} without data")
        left = reply.size_bytes
        while left:
            piece = self.link.read(QUICK_S)
            if not piece:
                raise LinkTimeout(f"{self.link.name} stopped {left} bytes before the end of its data")
            if len(piece) > left:
                raise ProtocolError(f"the device sent {len(piece) - left} bytes more than it announced")
            left -= len(piece)
            moved(piece)
        self._finish(command, START_S)
        return reply.size_bytes

    def flash(self, partition: str, size_bytes: int) -> Answer:
        """Write what was downloaded. ``size_bytes`` is what it grows to: the time allowed follows it."""
        allowed = START_S + size_bytes / MEDIA_BYTES_PER_S
        return self.command(f"flash:{partition}", allowed, max(allowed, LIMIT_S))


def _hint(refusal: str) -> str:
    return next((hint for word, hint in _HINTS.items() if word in refusal.lower()), "")
