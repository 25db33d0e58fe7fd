"""What an update of a pair of glasses needs from each of its chips, whatever it is flashed by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from quarkctl.errors import QuarkError
from quarkctl.flash.transaction import State
from quarkctl.formats.bundle import Component
from quarkctl.formats.mcuboot_image import Version

#: Bytes of a component and where they belong in it, in order; each was verified.
Pieces = Iterator[tuple[int, bytes]]


@dataclass(frozen=True)
class Look:
    """What a chip says at one moment. Empty fields: it does not say.

    ``running`` is the version that runs now, ``settled`` the one that runs after a restart with nothing armed.
    ``packs`` is {battery pack: charge in percent}, ``hottest_decic`` the hottest zone in tenths of a degree Celsius.
    ``power_lost``: its last restart was for want of power.
    """

    state: State
    running: Version | None = None
    settled: Version | None = None
    board: str = ""
    hardware: str = ""
    rollback_index: int = 0
    packs: Mapping[str, int] = field(default_factory=dict)
    hottest_decic: int | None = None
    power_lost: bool = False


class Chip(Protocol):
    """One chip and the image that it is to get. Every method raises a QuarkError when it fails or nobody answers.

    ``arm`` takes effect at the next start, and that start is a trial: if nothing confirms it, any restart goes back to
    the image before, the first one already. ``revert`` works in every state and may leave the new image written.
    """

    @property
    def where(self) -> str:
        """The way to the chip at the moment, such as ``serial /dev/ttyACM0``."""
        ...

    def look(self) -> Look:
        """Ask the chip. Changes nothing; raises what forbids the update for good, such as a foreign key."""
        ...

    def write(self, component: Component, pieces: Pieces) -> None:
        """Into the slot that does not run, and compare what is there with what was sent."""
        ...

    def arm(self) -> str: ...

    def restart(self) -> str:
        """Returns when the new image runs and answers."""
        ...

    def check(self) -> str:
        """Returns when the running image has proved itself."""
        ...

    def confirm(self) -> str: ...

    def revert(self) -> str: ...

    def fell_back(self) -> QuarkError:
        """Why the image that was on trial runs no more, as far as the chip can tell."""
        ...

    def close(self) -> None: ...
