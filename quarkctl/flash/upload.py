"""Upload of one image through the SMP image group."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from quarkctl.errors import DeviceRefused, LinkTimeout, ProtocolError, VerificationFailed
from quarkctl.flash.smp import ATTEMPTS, Client
from quarkctl.formats import smp

#: The device may erase a whole slot before it answers the first chunk, or the chunk was lost: 40 s in all. The first chunk
#: is short, so that it is rarely lost.
FIRST_PATIENCE_S = (1.0, 2.0, 4.0, 8.0, 25.0)
FIRST_BYTES_MAX = 256
#: Every device's flash takes multiples of this.
CHUNK_ALIGN = 32
#: A device that restarts in the middle forgets the upload: it is begun again so many times.
RESTARTS_MAX = 2
_WRONG_STATE = 6
#: Answers that do not move the offset, in a row, before we stop believing in progress.
STUCK_MAX = 8
#: Chunks are halved at most so often, and doubled again after so many that got through.
SHRINK_MAX = 5
GOOD_TO_GROW = 8
#: The whole may take so long besides the time that its bytes take at the slowest rate that is worth waiting for.
DEADLINE_S = 120.0
BYTES_PER_S_MIN = 200.0
#: After so many silent attempts the buffer size is asked again.
RENEGOTIATE_AFTER = 3

Report = Callable[[int, float | None], None]
"""Called with bytes done and the estimated seconds left."""


def upload(client: Client, image: bytes, report: Report, image_number: int = 0) -> int:
    """Send an image and follow the offsets that the device answers, forwards or backwards.

    ``image_number`` chooses slot or chip where the device has several. Returns the offset at which the device was when
    this began: what lies before it was not sent. A device that has part of the same file already (same SHA-256) says so
    at offset 0, and the rest is sent. Where the device has buffers for several frames, chunks are sent ahead; a loss
    halves that, silence ends it, and it grows again while it goes well.
    Raises ProtocolError on nonsense, VerificationFailed when the device's hash of the whole differs.
    """
    transfer = _Transfer(client, image, report, image_number)
    transfer.begin()
    transfer.began_at = transfer.done if transfer.done > transfer.first_bytes else 0
    until = time.monotonic() + DEADLINE_S + len(image) / BYTES_PER_S_MIN
    while transfer.done < len(image):
        if time.monotonic() > until:
            raise LinkTimeout(
                f"{client.link.name}: {transfer.done} of {len(image)} bytes in {until - transfer.started:.0f} s: too slow",
                hint="flash again: it goes on where the device is; a noisy line may be the cause",
            )
        if transfer.done == 0:  # it has forgotten that we began
            transfer.begin()
        else:
            transfer.step()
    return transfer.began_at


@dataclass
class _Transfer:
    """What is known of an upload under way.

    ``inflight``: {sequence: (end offset, when it was sent)}. ``shrink`` halves the chunks that many times: where most
    frames are damaged, short ones get through.
    """

    client: Client
    image: bytes
    report: Report
    image_number: int = 0
    done: int = 0
    began_at: int = 0
    first_bytes: int = 0
    window: int = 1
    shrink: int = 0
    good: int = 0
    inflight: dict[int, tuple[int, float]] = field(default_factory=dict)
    next_offset: int = 0
    stuck: int = 0
    silent: int = 0
    heard_at: float = 0.0
    restarts: int = 0
    beginnings: int = 0
    started: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Offset 0: says what comes, and the device may say that it has some of it."""
        self.beginnings += 1
        if self.beginnings > RESTARTS_MAX + 1:
            raise DeviceRefused("the device does not get beyond offset 0", hint="reset the device and try again")
        head = _head(self.client.frame_bytes, self.image, self.image_number)
        first = self.image[: min(chunk_bytes(self.client.frame_bytes, head), FIRST_BYTES_MAX)]
        self.first_bytes = len(first)
        self.take(
            self.client.request(
                smp.Op.WRITE,
                smp.Group.IMAGE,
                smp.ImageCommand.UPLOAD,
                {**head, "data": first},
                patience_s=FIRST_PATIENCE_S,
            )
        )

    def step(self) -> None:
        """Fill the window, then wait for one answer or the end of patience."""
        full = chunk_bytes(self.client.frame_bytes, {"off": len(self.image)})
        chunk = max(full >> self.shrink, CHUNK_ALIGN) // CHUNK_ALIGN * CHUNK_ALIGN
        while len(self.inflight) < self.window and self.next_offset < len(self.image):
            data = self.image[self.next_offset : self.next_offset + chunk]
            sequence = self.client.send(
                smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, {"off": self.next_offset, "data": data}
            )
            self.next_offset += len(data)
            self.inflight[sequence] = (self.next_offset, time.monotonic())
        # The clock starts anew with each answer: chunks that queue behind others are late, not lost.
        until = max(min(sent for _, sent in self.inflight.values()), self.heard_at) + self.client.round_trips.timeout_s
        for response in self.client.pump(until - time.monotonic()):
            self._answered(response)
        if self.inflight and time.monotonic() >= max(until, self.heard_at + self.client.round_trips.timeout_s):
            self._lost()

    def _answered(self, response: smp.Response) -> None:
        sent = self.inflight.pop(response.sequence, None)
        if sent is None or response.command != smp.ImageCommand.UPLOAD:
            return  # late: what it answers was sent again
        if response.error:
            if response.code == smp.BUSY:
                self.client.pump(self.client.round_trips.timeout_s)
                self._lost()
                return
            if response.code != _WRONG_STATE or self.restarts == RESTARTS_MAX:
                raise DeviceRefused(f"the device refused image upload: {response.error}")
            self.restarts += 1  # it restarted and has forgotten the upload
            self.done = 0
            self._seek(0)
            return
        end, sent_at = sent
        self.silent = 0
        self.heard_at = time.monotonic()
        self.client.round_trips.measured(time.monotonic() - sent_at)
        self.take(response.payload, expected=end)

    def take(self, answer: Mapping[str, Any], expected: int | None = None) -> None:
        """Believe the offset that the device names, and go there when it is another than expected."""
        now = answer.get("off")
        if not isinstance(now, int) or isinstance(now, bool) or not 0 <= now <= len(self.image):
            raise ProtocolError(f"the device answered offset {repr(now)[:40]} for an image of {len(self.image)} bytes")
        if answer.get("match") is False:
            raise VerificationFailed(
                "the device's hash of the uploaded file differs", hint="try again; if it repeats, the flash is bad"
            )
        self.stuck = self.stuck + 1 if now <= self.done and expected is not None else 0
        if self.stuck > STUCK_MAX:
            raise DeviceRefused(f"the device does not get beyond offset {now}", hint="reset the device and try again")
        if expected is not None and now == expected:
            self.window = min(self.window + 1, max(self.client.buffer_count - 1, 1))
            # An answer speaks for everything before it: a lost answer needs no repetition.
            self.inflight = {k: v for k, v in self.inflight.items() if v[0] > now}
            self.good += 1
            if self.good >= GOOD_TO_GROW and self.shrink:
                self.shrink, self.good = self.shrink - 1, 0
        else:
            if expected is not None:
                self.client.round_trips.repeat_count += 1
            self._seek(now, max(self.window // 2, 1))
        self.done = now
        moved, spent = now - self.began_at, time.monotonic() - self.started
        self.report(now, spent * (len(self.image) - now) / moved if moved > 0 else None)

    def _seek(self, offset: int, window: int = 1) -> None:
        self.inflight.clear()
        self.next_offset = offset
        self.window = window
        self.good = 0

    def _lost(self) -> None:
        """Nothing came in time: everything behind the last known offset is sent again, one at a time, and shorter."""
        self.silent += 1
        self.client.lost()
        if self.silent >= ATTEMPTS:
            raise LinkTimeout(
                f"{self.client.link.name}: no answer to image upload after {ATTEMPTS} attempts",
                hint="flash again: it goes on where the device is",
            )
        if self.silent > 1:
            self.shrink = min(self.shrink + 1, SHRINK_MAX)
        if self.silent == RENEGOTIATE_AFTER:  # it may have restarted into something with smaller buffers
            with suppress(LinkTimeout):
                self.client.negotiate(attempts=2)
        self._seek(self.done)


def _head(frame_bytes: int, image: bytes, number: int) -> dict[str, object]:
    """What the first chunk says besides its data. Where one line is all that a server takes there is no room for the hash,
    since the image's header must be in the first chunk."""
    head: dict[str, object] = {"image": number, "len": len(image), "off": 0}
    sha = {"sha": hashlib.sha256(image).digest()}
    return {**head, **sha} if _room(frame_bytes, {**head, **sha}) >= CHUNK_ALIGN else head


def chunk_bytes(frame_bytes: int, head: Mapping[str, object]) -> int:
    """Largest chunk that still fits into the device's buffer (length and CRC counted in) beside the other fields."""
    return max(_room(frame_bytes, head) // CHUNK_ALIGN * CHUNK_ALIGN, CHUNK_ALIGN)


def _room(frame_bytes: int, head: Mapping[str, object]) -> int:
    empty = smp.build_message(smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, 0, {**head, "data": b""})
    return frame_bytes - smp.FRAME_EXTRA - len(empty) - 2  # the length of the data takes up to two bytes more
