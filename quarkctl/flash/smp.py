"""SMP client: requests that are repeated until they are answered, over a line shared with telemetry or a console.

Everything else on the line is passed over unread: a device whose messages have another layout can still be flashed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import DeviceRefused, LinkTimeout, ProtocolError
from quarkctl.formats import smp
from quarkctl.link import Link

_log = logging.getLogger(__name__)

#: Bounds of the retransmission timer. Measured round trips set it in between (Jacobson's estimator, RFC 6298).
RTO_MIN_S = 0.08
RTO_MAX_S = 5.0
RTO_START_S = 1.0
ATTEMPTS = 6
#: Frames ahead that are worth it, whatever a device claims.
BUFFERS_MAX = 16
#: Frame size that every SMP server takes: one console line of 124 characters (MCUboot without the params command).
ONE_LINE_FRAME = 93
FRAMINGS = ("console", "raw")


@dataclass
class RoundTrips:
    """Round-trip times in seconds, smoothed and slowest, and the time-out that follows from them."""

    smoothed_s: float = 0.0
    deviation_s: float = 0.0
    slowest_s: float = 0.0
    repeat_count: int = 0
    _patience: float = 1.0

    def measured(self, seconds: float) -> None:
        self._patience = 1.0
        # Erasing a sector takes a device longer than all else, and rarely: remembered for some hundred answers.
        self.slowest_s = max(seconds, self.slowest_s * 0.99)
        if not self.smoothed_s:
            self.smoothed_s, self.deviation_s = seconds, seconds / 2
        else:
            self.deviation_s += (abs(seconds - self.smoothed_s) - self.deviation_s) / 4
            self.smoothed_s += (seconds - self.smoothed_s) / 8

    def back_off(self) -> None:
        """After a time-out the next one is twice as long, until something is measured again. Not before the first answer:
        where nobody ever answered, there is probably nobody."""
        if self.smoothed_s:
            self._patience = min(self._patience * 2, RTO_MAX_S / RTO_MIN_S)

    @property
    def timeout_s(self) -> float:
        base = self.smoothed_s + 4 * self.deviation_s if self.smoothed_s else RTO_START_S
        return min(max(base, RTO_MIN_S, 1.25 * self.slowest_s) * self._patience, RTO_MAX_S)


@dataclass
class Client:
    """One device behind a link. ``framing`` is what the device was built with; it cannot be asked."""

    link: Link
    framing: str = "console"
    round_trips: RoundTrips = field(default_factory=RoundTrips)
    frame_bytes: int = ONE_LINE_FRAME
    buffer_count: int = 1
    _sequence: int = 0
    _reader: smp.ConsoleReader | smp.RawReader = field(default_factory=smp.ConsoleReader)

    def __post_init__(self) -> None:
        if self.framing == "raw":
            self._reader = smp.RawReader()

    def read(self, group: int, command: int, payload: Mapping[str, Any] | None = None, **how: Any) -> Mapping[str, Any]:
        return self.request(smp.Op.READ, group, command, payload or {}, **how)

    def write(
        self, group: int, command: int, payload: Mapping[str, Any] | None = None, **how: Any
    ) -> Mapping[str, Any]:
        return self.request(smp.Op.WRITE, group, command, payload or {}, **how)

    def request(
        self,
        op: int,
        group: int,
        command: int,
        payload: Mapping[str, Any],
        *,
        timeout_s: float = 0.0,
        attempts: float = ATTEMPTS,
        patience_s: Sequence[float] = (),
    ) -> Mapping[str, Any]:
        """Send until answered and return the answer's map.

        ``timeout_s`` is a floor for the time-out of one attempt, for requests that take the device long; ``patience_s``
        gives one for each attempt, where the device may take long or the request may simply be lost.
        Raises LinkTimeout, LinkLost, DeviceRefused (with the device's words), ProtocolError.
        """
        self._sequence = (self._sequence + 1) & 0xFF
        wire = self._framed(smp.build_message(op, group, command, self._sequence, payload))
        floors = [float(p) for p in patience_s] or [timeout_s] * int(attempts)
        for attempt, floor_s in enumerate(floors):
            _log.debug(
                "%s %s %s, attempt %d", _name(group, command), smp.Op(op).name.lower(), _brief(payload), attempt + 1
            )
            sent_at = time.monotonic()
            self.link.write(wire)
            response = self._await(op, group, command, sent_at + max(self.round_trips.timeout_s, floor_s))
            if response is None:
                self.lost()
                continue
            if attempt == 0:  # only then it is known which sending was answered (Karn's rule)
                self.round_trips.measured(time.monotonic() - sent_at)
            if response.code == smp.BUSY and attempt + 1 < len(floors):
                self.round_trips.back_off()
                self.pump(self.round_trips.timeout_s)
                continue
            if response.error:
                raise DeviceRefused(f"the device refused {_name(group, command)}: {response.error}")
            return response.payload
        raise LinkTimeout(
            f"{self.link.name}: no answer to {_name(group, command)} after {len(floors)} attempts",
            hint="is this the right port, and does the device run? `quarkctl devices` lists what is there",
        )

    def send(self, op: int, group: int, command: int, payload: Mapping[str, Any]) -> int:
        """Send without waiting; returns the sequence number that the answer will carry. `pump` brings it."""
        self._sequence = (self._sequence + 1) & 0xFF
        _log.debug("%s %s %s", _name(group, command), smp.Op(op).name.lower(), _brief(payload))
        self.link.write(self._framed(smp.build_message(op, group, command, self._sequence, payload)))
        return self._sequence

    def _framed(self, message: bytes) -> bytes:
        return message if self.framing == "raw" else smp.build_lines(message)

    def lost(self) -> None:
        """No answer in time. A raw receiver may hold half a message now: it must be left in silence before the next one."""
        self.round_trips.repeat_count += 1
        self.round_trips.back_off()
        if self.framing == "raw":
            until = time.monotonic() + smp.RAW_SILENCE_S * 1.1
            while (left := until - time.monotonic()) > 0:
                self.link.read(left)
        self._reader.silence()

    def _await(self, op: int, group: int, command: int, until: float) -> smp.Response | None:
        while True:
            for response in self.pump(until - time.monotonic()):
                if response.sequence == self._sequence:
                    if (response.op, response.group, response.command) != (op + 1, group, command):
                        raise ProtocolError(f"answer of another kind to {_name(group, command)}")
                    return response
            if time.monotonic() >= until:
                return None

    def pump(self, timeout_s: float) -> list[smp.Response]:
        """Read once and sort what came; late answers to earlier requests are among the result."""
        responses = []
        for message in self._reader.feed(self.link.read(max(timeout_s, 0.0))):
            response = smp.parse_message(message)
            if response is not None:
                _log.debug("answer %s", response)
                responses.append(response)
        return responses

    def negotiate(self, **how: float) -> None:
        """Learn how large a frame may be and how many may be under way. A server without that command gets one line at a
        time."""
        try:
            answer = self.read(smp.Group.OS, smp.Os.PARAMS, None, **how)
        except DeviceRefused:
            return
        size = answer.get("buf_size")
        if isinstance(size, int) and not isinstance(size, bool):
            self.frame_bytes = min(max(size, ONE_LINE_FRAME), smp.MESSAGE_MAX)
        count = answer.get("buf_count")
        if isinstance(count, int) and not isinstance(count, bool):
            self.buffer_count = min(max(count, 1), BUFFERS_MAX)


def _brief(payload: Mapping[str, Any]) -> str:
    """A request in one line of a log; image data by its size."""
    return ", ".join(f"{k} {len(v)} bytes" if k == "data" else f"{k} {v!r}" for k, v in payload.items()) or "-"


def _name(group: int, command: int) -> str:
    names: dict[int, type[smp.Os | smp.ImageCommand | smp.Quark]] = {
        smp.Group.OS: smp.Os, smp.Group.IMAGE: smp.ImageCommand, smp.Group.QUARK: smp.Quark,
    }  # fmt: skip
    try:
        return f"{smp.Group(group).name.lower()} {names[group](command).name.lower().replace('_', ' ')}"
    except (ValueError, KeyError):
        return f"command {command} of group {group}"
