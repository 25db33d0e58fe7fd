"""Upload of one image through the SMP image group."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from quarkctl.errors import DeviceRefused, ProtocolError, VerificationFailed
from quarkctl.flash.smp import Client
from quarkctl.formats import smp

#: The device may erase a whole slot before it answers the first chunk.
FIRST_TIMEOUT_S = 40.0
#: Every device's flash takes multiples of this.
CHUNK_ALIGN = 32
#: Answers that do not move the offset, in a row, before we stop believing in progress.
STUCK_MAX = 8

Report = Callable[[int, float | None], None]
"""Called with bytes done and the estimated seconds left."""


def upload(client: Client, image: bytes, report: Report) -> None:
    """Send an image and follow the offsets that the device answers, forwards or backwards.

    A device that has part of the same file already (same SHA-256) says so at offset 0, and the rest is sent.
    Raises ProtocolError on nonsense, VerificationFailed when the device's hash of the whole differs.
    """
    sha = hashlib.sha256(image).digest()
    started = time.monotonic()
    offset = stuck = start_offset = 0
    first = True
    while True:
        data = image[offset : offset + chunk_bytes(client.frame_bytes, len(image), first)]
        request = {"off": offset, "data": data}
        if offset == 0:
            request = {"image": 0, "len": len(image), "off": 0, "sha": sha, "data": data}
        answer = client.write(
            smp.Group.IMAGE, smp.ImageCommand.UPLOAD, request, timeout_s=FIRST_TIMEOUT_S if first else 0.0
        )
        now = answer.get("off")
        if not isinstance(now, int) or isinstance(now, bool) or not 0 <= now <= len(image):
            raise ProtocolError(f"the device answered offset {now!r} for an image of {len(image)} bytes")
        if answer.get("match") is False:
            raise VerificationFailed(
                "the device's hash of the uploaded file differs", hint="try again; if it repeats, the flash is bad"
            )
        if first:
            first, start_offset = False, max(now - len(data), 0)
        stuck = stuck + 1 if now <= offset else 0
        if stuck > STUCK_MAX:
            raise DeviceRefused(f"the device does not get beyond offset {now}", hint="reset the device and try again")
        offset = now
        moved, spent = offset - start_offset, time.monotonic() - started
        report(offset, spent * (len(image) - offset) / moved if moved > 0 else None)
        if offset == len(image):
            return


def chunk_bytes(frame_bytes: int, image_bytes: int, first: bool) -> int:
    """Largest chunk whose message still fits into the device's buffer (length and CRC counted in)."""
    head = {"off": image_bytes, "data": b""}
    if first:
        head = {"image": 0, "len": image_bytes, "off": 0, "sha": bytes(32), "data": b""}
    overhead = len(smp.build_message(smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, 0, head)) + 2
    room = frame_bytes - smp.FRAME_EXTRA - overhead
    return max(room // CHUNK_ALIGN * CHUNK_ALIGN, CHUNK_ALIGN)
