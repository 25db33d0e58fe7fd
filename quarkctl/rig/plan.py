"""What a run does with each station: a list of steps, from a plan file or from a command line. Pure.

docs/rigs.md describes the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from quarkctl.errors import UsageWrong
from quarkctl.flash.plan import Ar1Wish, Wish
from quarkctl.formats import toml_text
from quarkctl.formats.rig_file import Station
from quarkctl.formats.toml_text import Table

#: Of the application processor.
SLOTS = ("inactive", "active", "a", "b")


class When(Enum):
    """A step is done when everything before it on this station passed, when something did not, or in any case."""

    PASSED = "passed"
    FAILED = "failed"
    ALWAYS = "always"


@dataclass(frozen=True)
class Flash:
    """Put firmware on the device: what `quarkctl flash` takes. ``yes``: go on where it would ask."""

    what: tuple[str, ...]
    via: str = ""
    chip: str = ""
    force: bool = False
    allow_downgrade: bool = False
    yes: bool = False
    ar1: Ar1Wish = field(default_factory=Ar1Wish)

    @property
    def wish(self) -> Wish:
        return Wish(self.force, self.allow_downgrade, ar1=self.ar1)


@dataclass(frozen=True)
class Diag:
    """Listen for so long and judge. ``checks`` empty: all of the area."""

    area: str = "battery"
    checks: tuple[str, ...] = ()
    seconds: float = 10.0


@dataclass(frozen=True)
class Swap:
    """Pull a battery and put it back, ``count`` times, and judge the batteries. ``side``: left, right, both in turn."""

    side: str = "left"
    count: int = 1
    out_s: float = 1.0
    settle_s: float = 2.0


@dataclass(frozen=True)
class Soak:
    """Let the glasses work for so long, then judge. ``load`` needs glasses whose load can be set."""

    seconds: float = 60.0
    load: str = ""
    area: str = "battery"


@dataclass(frozen=True)
class PowerCycle:
    """Power off and on again."""


Kind = Flash | Diag | Swap | Soak | PowerCycle


def planned_s(kind: Kind) -> float:
    """Seconds that the step is meant to take by itself."""
    if isinstance(kind, Swap):
        return kind.settle_s + kind.count * (kind.out_s + kind.settle_s)
    return kind.seconds if isinstance(kind, Diag | Soak) else 0.0


@dataclass(frozen=True)
class Step:
    """``name`` is unique in its plan."""

    name: str
    kind: Kind
    when: When = When.PASSED
    repeat: int = 1
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """``repeat``: rounds over all steps."""

    name: str
    steps: tuple[Step, ...]
    repeat: int = 1
    where: tuple[str, ...] = ()

    def turns(self, station: Station) -> list[tuple[int, Step]]:
        """What this station is to do, in order: (round from 1, step), repeats written out."""
        return [
            (turn, step)
            for turn in range(1, self.repeat + 1)
            for step in self.steps
            if matches(station, step.where)
            for _ in range(step.repeat)
        ]


def _flash(t: Table) -> Flash:
    what = t.raw.get("what")
    words = (t.text("what"),) if isinstance(what, str) else t.texts("what")
    if not words:
        raise t.wrong("what", "is empty")
    slot = t.text("slot", "inactive")
    if slot not in SLOTS:
        raise t.wrong("slot", f"is {slot!r}; there are {', '.join(SLOTS)}")
    return Flash(
        words, t.text("via", ""), t.text("chip", ""), t.flag("force", False), t.flag("allow_downgrade", False),
        t.flag("yes", False), Ar1Wish(slot, programmer=t.text("programmer", ""), memory=t.text("memory", "")),
    )  # fmt: skip


def _swap(t: Table) -> Swap:
    side = t.text("side", "left")
    if side not in ("left", "right", "both"):
        raise t.wrong("side", f"is {side!r}; there are left, right and both")
    return Swap(side, t.integer("count", 1, least=1), t.number("out_s", 1.0), t.number("settle_s", 2.0))


def _thermal(t: Table) -> Soak:
    return Soak(t.number("seconds", 600.0, least=1.0), t.text("load", ""), "thermal")


#: {what a step does: (its own keys, how they are read)}
KINDS: Mapping[str, tuple[tuple[str, ...], Callable[[Table], Kind]]] = {
    "flash": (("what", "via", "chip", "force", "allow_downgrade", "yes", "slot", "programmer", "memory"), _flash),
    "diag": (
        ("area", "checks", "seconds"),
        lambda t: Diag(t.text("area", "battery"), t.texts("checks", ()), t.number("seconds", 10.0, least=0.5)),
    ),
    "swap": (("side", "count", "out_s", "settle_s"), _swap),
    "soak": (
        ("seconds", "load", "area"),
        lambda t: Soak(t.number("seconds", 60.0, least=0.5), t.text("load", ""), t.text("area", "battery")),
    ),
    "thermal": (("seconds", "load"), _thermal),
    "power-cycle": ((), lambda _: PowerCycle()),
}
_COMMON = ("do", "name", "when", "repeat", "where")


def parse(file: str, text: str) -> Plan:
    """Raises InputWrong with line and column."""
    top = toml_text.parse(file, text)
    top.only(("name", "repeat", "where", "step"))
    steps: list[Step] = []
    for t in top.tables("step"):
        do = t.text("do")
        if do not in KINDS:
            raise t.wrong("do", f"is {do!r}", hint=f"there are {', '.join(KINDS)}")
        keys, read = KINDS[do]
        t.only((*_COMMON, *keys))
        when = t.text("when", When.PASSED.value)
        if when not in [w.value for w in When]:
            raise t.wrong("when", f"is {when!r}; there are {', '.join(w.value for w in When)}")
        name = t.text("name", "") or _unused(do, [s.name for s in steps])
        if any(s.name == name for s in steps):
            raise t.wrong("name", f"is {name!r}, like that of an earlier step")
        steps.append(Step(name, read(t), When(when), t.integer("repeat", 1, least=1), _where(t)))
    if not steps:
        raise top.wrong(None, "the plan has no steps", hint='[[step]] with do = "flash", for example')
    return Plan(top.text("name", "") or file, tuple(steps), top.integer("repeat", 1, least=1), _where(top))


def _unused(do: str, taken: Sequence[str]) -> str:
    return do if do not in taken else next(n for i in range(2, 10_000) if (n := f"{do}-{i}") not in taken)


def _where(table: Table) -> tuple[str, ...]:
    given = table.raw.get("where", ())
    words = (given,) if isinstance(given, str) else table.texts("where", ())
    for word in words:
        try:
            _condition(word)
        except UsageWrong as error:
            raise table.wrong("where", error.message, error.hint) from error
    return words


@dataclass(frozen=True)
class _Condition:
    key: str
    values: tuple[str, ...] = field(default=())

    def holds(self, station: Station) -> bool:
        have = {"name": (station.name,), "tag": station.tags, "board": (station.board,)}[self.key]
        return any(fnmatch.fnmatchcase(h, v) for h in have for v in self.values)


def _condition(word: str) -> _Condition:
    key, equals, values = word.partition("=")
    if not equals:
        key, values = "name", word
    if key not in ("name", "tag", "board") or not values:
        raise UsageWrong(
            f"{word!r} selects nothing",
            hint="name=PATTERN, tag=PATTERN or board=PATTERN; or a name alone; a,b means either",
        )
    return _Condition(key, tuple(values.split(",")))


def matches(station: Station, where: Sequence[str]) -> bool:
    """All conditions hold. Raises UsageWrong for one that makes no sense."""
    return all(_condition(w).holds(station) for w in where)


def choose(stations: Mapping[str, Station], where: Sequence[str]) -> list[Station]:
    """The stations that all conditions select. Raises UsageWrong when there are none: a typing mistake is no success."""
    if not stations:
        raise UsageWrong("there are no stations", hint="quarkctl rig discover writes a rig.toml")
    chosen = [s for s in stations.values() if matches(s, where)]
    if not chosen:
        raise UsageWrong(f"no station fits {' and '.join(where)}", hint=f"there are {', '.join(stations)}")
    return chosen
