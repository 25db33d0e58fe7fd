"""What every flash in emergency download has in common: files, device, programmer, and what the device says meanwhile."""

from __future__ import annotations

from quarkctl.boards import Board
from quarkctl.errors import LinkError
from quarkctl.events import Event, Level
from quarkctl.flash import edl_sources
from quarkctl.flash.edl_device import EdlDevice, open_device
from quarkctl.flash.edl_sources import Work
from quarkctl.flash.plan import Job, Step
from quarkctl.flash.progress import Meter


class EdlSession:
    """One device from its programmer's greeting on. What is done with it is told by those who inherit this."""

    def __init__(self, job: Job, work: Work) -> None:
        self._job = job
        self._wish = job.wish.ar1
        self._work = work
        self._device: EdlDevice | None = None

    @property
    def where(self) -> str:
        return self._device.link.name if self._device else ""

    def close(self) -> None:
        if self._device:
            self._device.link.close()
            self._device = None
        self._work.close()

    def _told(self, text: str) -> None:
        """The device's own errors are always shown; the rest of its log is protocol detail."""
        if "error" in text.lower():
            self._job.progress(Event(self._job.opener.identity, "device", Level.NOTE, text))

    def _memory(self, board: Board | None) -> str:
        """Kind of storage: the user's word, the files', the profile's."""
        return self._wish.memory or self._work.memory or (str(board.get("ar1.storage", "")) if board else "") or "ufs"

    def _start(self, memory: str, *, vip: bool = False) -> EdlDevice:
        """A programmer that takes commands. Raises what `open_device` raises, InputWrong for a file that cannot be read."""
        images = edl_sources.load_programmers(self._work, self._wish.programmer)
        step = Step("programmer", "", sum(map(len, images.values())))
        meter = Meter(self._job.progress, self._job.opener.identity, step, step.size_bytes)
        self._device = open_device(
            self._job.opener, images, memory, self._told, self._job.journal, meter.at,
            assume_idle=self._wish.assume_idle, vip=vip,
        )  # fmt: skip
        return self._device

    def _open(self) -> EdlDevice:
        if self._device is None:
            raise LinkError("the device is not open")
        return self._device
