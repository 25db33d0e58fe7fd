"""The microcontroller as one of two chips of an update, over its SMP session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quarkctl.errors import QuarkError
from quarkctl.events import Event, Level
from quarkctl.flash.chip import Look, Pieces
from quarkctl.flash.device import DeviceState
from quarkctl.flash.plan import Job, Step
from quarkctl.flash.rtos import Session
from quarkctl.flash.transaction import State
from quarkctl.formats.bundle import Component

#: Values of reset_reason (protocols/stream.toml) that mean: the supply was gone.
_POWER_RESETS = (0, 4)


class RtosChip:
    """``report`` gets the bytes that are done while an image is uploaded."""

    def __init__(self, job: Job, image: bytes, report: Callable[[int], None]) -> None:
        def progress(event: Event) -> None:
            if event.level is Level.PROGRESS and event.step == "upload":
                report(event.done_bytes)
            elif event.level is Level.NOTE:
                job.progress(event)

        self._session = Session(replace(job, progress=progress), image)
        self._checked = False

    @property
    def where(self) -> str:
        return self._session.where

    def look(self) -> Look:
        if not self._checked:
            self._session.plan()
            self._checked = True
        else:
            self._session.observe()
        seen = self._session.state
        active, settled, health = seen.active, seen.confirmed, self._session.health()
        return Look(
            state_of(seen, self._session.digest), active.version if active else None,
            settled.version if settled else None, seen.board, rollback_index=seen.security_counter,
            packs=health.soc_pct, hottest_decic=health.hottest_decic,
            power_lost=seen.reset_reason in _POWER_RESETS,
        )  # fmt: skip

    def write(self, component: Component, pieces: Pieces) -> None:
        for _ in pieces:  # the session has the whole image: it was checked before the device was asked
            continue
        self._session.do(Step("upload"))
        self._session.do(Step("verify"))

    def arm(self) -> str:
        return self._session.do(Step("arm"))

    def restart(self) -> str:
        return self._session.do(Step("start"))

    def check(self) -> str:
        return self._session.do(Step("health"))

    def confirm(self) -> str:
        return self._session.do(Step("confirm"))

    def revert(self) -> str:
        return self._session.do(Step("revert"))

    def fell_back(self) -> QuarkError:
        return self._session.fell_back()

    def close(self) -> None:
        self._session.close()


def state_of(seen: DeviceState, digest: bytes) -> State:
    """Where the image with this hash is on a microcontroller."""
    image = next((i for i in seen.images if i.hash == digest), None)
    if image is None:
        return State.OLD
    if image.active:
        return State.CONFIRMED if image.confirmed else State.TRIAL
    return State.ARMED if image.pending else State.WRITTEN
