"""Upload of one image through the SMP image group."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import DeviceRefused, LinkTimeout, ProtocolError, VerificationFailed
from quarkctl.flash.smp import ATTEMPTS, Client
from quarkctl.formats import smp

#: The device may erase a whole slot before it answers the first chunk.
FIRST_TIMEOUT_S = 40.0
#: Every device's flash takes multiples of this.
CHUNK_ALIGN = 32
#: A device that restarts in the middle forgets the upload: it is begun again so many times.
RESTARTS_MAX = 2
_WRONG_STATE = 6
#: Answers that do not move the offset, in a row, before we stop believing in progress.
STUCK_MAX = 8

Report = Callable[[int, float | None], None]
"""Called with bytes done and the estimated seconds left."""


def upload(client: Client, image: bytes, report: Report) -> int:
    """Send an image and follow the offsets that the device answers, forwards or backwards.

    Returns the offset at which the device was when this began: what lies before it was not sent.

    A device that has part of the same file already (same SHA-256) says so at offset 0, and the rest is sent. Where the
    device has buffers for several frames, chunks are sent ahead; after a loss one at a time, until it goes well again.
    Raises ProtocolError on nonsense, VerificationFailed when the device's hash of the whole differs.
    """
    sha = hashlib.sha256(image).digest()
    head = {"image": 0, "len": len(image), "off": 0, "sha": sha}
    first = image[: chunk_bytes(client.frame_bytes, len(image), first=True)]
    answer = client.write(smp.Group.IMAGE, smp.ImageCommand.UPLOAD, {**head, "data": first}, timeout_s=FIRST_TIMEOUT_S)
    transfer = _Transfer(client, image, report)
    transfer.take(answer)
    transfer.began_at = transfer.done if transfer.done > len(first) else 0
    while transfer.done < len(image):
        if transfer.done == 0:  # it has forgotten that we began
            transfer.take(client.write(smp.Group.IMAGE, smp.ImageCommand.UPLOAD, {**head, "data": first}))
        else:
            transfer.step()
    return transfer.began_at


@dataclass
class _Transfer:
    """What is known of an upload under way. ``inflight``: {sequence: (end offset, when it was sent)}."""

    client: Client
    image: bytes
    report: Report
    done: int = 0
    began_at: int = 0
    window: int = 1
    inflight: dict[int, tuple[int, float]] = field(default_factory=dict)
    next_offset: int = 0
    stuck: int = 0
    silent: int = 0
    restarts: int = 0
    started: float = field(default_factory=time.monotonic)

    def step(self) -> None:
        """Fill the window, then wait for one answer or the end of patience."""
        chunk = chunk_bytes(self.client.frame_bytes, len(self.image), first=False)
        while len(self.inflight) < self.window and self.next_offset < len(self.image):
            data = self.image[self.next_offset : self.next_offset + chunk]
            sequence = self.client.send(
                smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, {"off": self.next_offset, "data": data}
            )
            self.next_offset += len(data)
            self.inflight[sequence] = (self.next_offset, time.monotonic())
        oldest = min(sent for _, sent in self.inflight.values())
        for response in self.client.pump(oldest + self.client.round_trips.timeout_s - time.monotonic()):
            self._answered(response)
        if self.inflight and time.monotonic() >= oldest + self.client.round_trips.timeout_s:
            self._lost()

    def _answered(self, response: smp.Response) -> None:
        sent = self.inflight.pop(response.sequence, None)
        if sent is None or response.command != smp.ImageCommand.UPLOAD:
            return  # late: what it answers was sent again
        if response.error:
            if response.payload.get("rc") != _WRONG_STATE or self.restarts == RESTARTS_MAX:
                raise DeviceRefused(f"the device refused image upload: {response.error}")
            self.restarts += 1  # it restarted and has forgotten the upload
            self.done = 0
            self._seek(0)
            return
        end, sent_at = sent
        self.silent = 0
        self.client.round_trips.measured(time.monotonic() - sent_at)
        self.take(response.payload, expected=end)

    def take(self, answer: Mapping[str, Any], expected: int | None = None) -> None:
        """Believe the offset that the device names, and go there when it is another than expected."""
        now = answer.get("off")
        if not isinstance(now, int) or isinstance(now, bool) or not 0 <= now <= len(self.image):
            raise ProtocolError(f"the device answered offset {now!r} for an image of {len(self.image)} bytes")
        if answer.get("match") is False:
            raise VerificationFailed(
                "the device's hash of the uploaded file differs", hint="try again; if it repeats, the flash is bad"
            )
        self.stuck = self.stuck + 1 if now <= self.done and expected is not None else 0
        if self.stuck > STUCK_MAX:
            raise DeviceRefused(f"the device does not get beyond offset {now}", hint="reset the device and try again")
        if expected is not None and now == expected:
            self.window = min(self.window + 1, max(self.client.buffer_count - 1, 1))
        else:
            self._seek(now)
        self.done = now
        moved, spent = now - self.began_at, time.monotonic() - self.started
        self.report(now, spent * (len(self.image) - now) / moved if moved > 0 else None)

    def _seek(self, offset: int) -> None:
        self.inflight.clear()
        self.next_offset = offset
        self.window = 1

    def _lost(self) -> None:
        """Nothing came in time: everything behind the last known offset is sent again, one at a time."""
        self.silent += 1
        self.client.round_trips.repeat_count += 1
        self.client.round_trips.back_off()
        if self.silent >= ATTEMPTS:
            raise LinkTimeout(
                f"{self.client.link.name}: no answer to image upload after {ATTEMPTS} attempts",
                hint="flash again: it goes on where the device is",
            )
        self._seek(self.done)


def chunk_bytes(frame_bytes: int, image_bytes: int, first: bool) -> int:
    """Largest chunk whose message still fits into the device's buffer (length and CRC counted in)."""
    head: dict[str, object] = {"off": image_bytes, "data": b""}
    if first:
        head = {"image": 0, "len": image_bytes, "off": 0, "sha": bytes(32), "data": b""}
    overhead = len(smp.build_message(smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, 0, head)) + 2
    room = frame_bytes - smp.FRAME_EXTRA - overhead
    return max(room // CHUNK_ALIGN * CHUNK_ALIGN, CHUNK_ALIGN)
