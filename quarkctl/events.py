"""What long work tells while it goes on: a callback, so that work never waits for somebody to listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    START = "start"
    PROGRESS = "progress"
    DONE = "done"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """One step of one device. Bytes are 0 where the step has none; ``eta_s`` is None while it is unknown."""

    device: str
    step: str
    level: Level
    text: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    eta_s: float | None = None


Progress = Callable[[Event], None]


def silent(_: Event) -> None:
    """For callers that only want the result."""
