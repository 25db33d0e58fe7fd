"""What every flash method has in common: the order, the plan, its steps, the result.

A method (``METHODS``) reads its sources and makes a session from a job. The session looks at the device and makes the
plan; nothing is written before that. Then `quarkctl.flash.run.carry_out` lets it do one step after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol

from quarkctl.events import Progress

if TYPE_CHECKING:
    from quarkctl.flash.journal import Journal
    from quarkctl.link import Opener


@dataclass(frozen=True)
class Ar1Wish:
    """What only the application processor's methods know.

    ``slot``: ``inactive`` (the safe default), ``active``, ``a`` or ``b``. ``restart``: into the system at the end.
    ``erase_first``: the places that are written are erased before. ``programmer``: the Firehose programmer's file.
    ``memory``: kind of storage, where the profile does not tell. ``secdata``: places that hold fuses or keys may be
    written. ``assume_idle``: the user's word that a programmer of unknown state waits for commands.
    ``vip_tables``: folder of signed digest tables, for a programmer that takes nothing else.
    """

    slot: str = "inactive"
    restart: bool = True
    erase_first: bool = False
    verify: bool = True
    programmer: str = ""
    memory: str = ""
    secdata: bool = False
    assume_idle: bool = False
    vip_tables: str = ""
    #: Which AR1 belongs to the microcontroller of an update; empty where that is known.
    device: str = ""


@dataclass(frozen=True)
class Wish:
    """What the user asked for, besides what to write.

    ``force``: write even what is there already. ``verify_only``: compare, write nothing. ``framing``: of SMP, where it is
    not what the board's profile says.
    """

    force: bool = False
    allow_downgrade: bool = False
    verify_only: bool = False
    framing: str = ""
    ar1: Ar1Wish = field(default_factory=Ar1Wish)

    @property
    def asked(self) -> frozenset[str]:
        """Names of what is not as it is by default."""
        return _asked(self) - {"ar1"} | _asked(self.ar1)


def _asked(wish: Wish | Ar1Wish) -> frozenset[str]:
    plain = type(wish)()
    return frozenset(f.name for f in fields(wish) if getattr(wish, f.name) != getattr(plain, f.name))


@dataclass(frozen=True)
class Job:
    """One order for one device; what to write is known to the session already. ``chip``: only this one, empty for all.

    ``find(word, method)`` opens what else belongs to it: the AR1 beside a microcontroller.
    """

    opener: Opener
    journal: Journal
    progress: Progress
    board: str = ""
    wish: Wish = field(default_factory=Wish)
    chip: str = ""
    find: Callable[[str, str], Opener] | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do. ``name`` is what events and result call it; ``text`` is what ``--dry-run`` prints."""

    name: str
    text: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """What will happen to one device, in order. Made without writing anything.

    ``digest`` (hex) stands for everything that is to be on the device at the end: a later run with the same one goes on
    where this one ended. ``questions`` need a yes before the first step; ``reasons`` tell why steps are left out.
    ``facts`` are the method's own, for the result; ``seen`` is what the device said, in a line for people.
    """

    device: str
    board: str
    chip: str
    method: str
    old_version: str
    new_version: str
    size_bytes: int
    digest: str
    steps: tuple[Step, ...]
    reasons: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    seen: str = ""

    @property
    def step_names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.steps)

    def as_dict(self) -> dict[str, object]:
        return {
            "device": self.device,
            "board": self.board,
            "chip": self.chip,
            "method": self.method,
            "old_version": self.old_version or None,
            "new_version": self.new_version or None,
            "image_bytes": self.size_bytes,
            "digest": self.digest,
            "steps": list(self.step_names),
            "todo": [{"step": s.name, "text": s.text, "size_bytes": s.size_bytes} for s in self.steps],
            "reasons": list(self.reasons),
            "questions": list(self.questions),
            **self.facts,
        }


@dataclass
class Result:
    """What was done. ``seconds`` by step; ``resumed`` tells which earlier run this one went on with, if it did."""

    plan: Plan
    outcome: str = "done"
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: str = ""
    facts: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {
            **self.plan.as_dict(),
            "result": self.outcome,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "resumed": self.resumed or None,
            **self.facts,
        }


class Session(Protocol):
    """One device from the first question to the last answer."""

    @property
    def where(self) -> str:
        """The way to the device at the moment, such as ``serial /dev/ttyACM0``."""
        ...

    def plan(self) -> Plan:
        """Open the device, ask it, and decide. Writes nothing. Raises what refuses the plan."""
        ...

    def do(self, step: Step) -> str:
        """Carry one step of the plan out and return what to tell of it. May report PROGRESS events."""
        ...

    def facts(self) -> dict[str, object]:
        """What the result tells besides the plan, after the last step."""
        ...

    def interrupted(self, step: Step) -> str:
        """Called when the user stops in this step: bring the device into a known state, quickly, and tell which."""
        ...

    def close(self) -> None: ...
