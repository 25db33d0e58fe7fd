"""``rig.toml``: the stations of a rig, how each is recognised, powered, and how its batteries are swapped.

docs/rigs.md describes every key. Pure: text in, values out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from quarkctl.formats import toml_text
from quarkctl.formats.toml_text import Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z")
_STATION_KEYS = ("serial", "port", "sim", "also", "board", "tags", "power", "swap")
_RIG_KEYS = ("name", "history", "deadline_s", "attempt_s", "retries", "quarantine_after", "appear_s", "keep_days")


@dataclass(frozen=True)
class Power:
    """How a station's power is switched. ``kind``: command, uhubctl, labgrid, sim; empty where nothing can.

    ``words``: the command with ``{action}`` (off, on, cycle); hub location and port; or the place.
    """

    kind: str = ""
    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kind)


@dataclass(frozen=True)
class Swap:
    """The actuator that pulls batteries. ``kind``: command, sim; empty where there is none.

    ``words``: the command with ``{action}`` (eject, insert) and ``{side}`` (left, right).
    """

    kind: str = ""
    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kind)


@dataclass(frozen=True)
class Station:
    """One place of a rig with one device in it. Exactly one of ``serial``, ``port`` and ``sim`` is given. ``also``: other
    lines of the same glasses, as ``--also`` takes them."""

    name: str
    serial: str = ""
    port: str = ""
    sim: str = ""
    board: str = ""
    tags: tuple[str, ...] = ()
    power: Power = field(default_factory=Power)
    swap: Swap = field(default_factory=Swap)
    also: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What ``--device`` takes for it."""
        return self.serial or self.port or f"sim:{self.sim}"

    @property
    def lock(self) -> str:
        """What a run holds besides the device that it works with: there may be two in one place, a chip each."""
        return f"station:{self.name}"

    def __str__(self) -> str:
        place = f"serial {self.serial}" if self.serial else f"port {self.port}" if self.port else f"sim:{self.sim}"
        return f"{self.name} ({place})"


@dataclass(frozen=True)
class Policy:
    """What a station is allowed. Times in seconds. ``deadline_s``: for all the work on one station, without its wait in the
    queue; ``attempt_s``: for one attempt at one step. To both is added what the plan itself asks for (a soak of an hour).
    ``appear_s``: for a device that is not there (yet)."""

    deadline_s: float = 900.0
    attempt_s: float = 300.0
    retries: int = 1
    quarantine_after: int = 3
    appear_s: float = 15.0
    keep_days: int = 30


@dataclass(frozen=True)
class Rig:
    """The file. ``history`` is a URL of SQLAlchemy; empty for the database in the state folder."""

    name: str = ""
    history: str = ""
    policy: Policy = field(default_factory=Policy)
    stations: dict[str, Station] = field(default_factory=dict)


def parse(file: str, text: str) -> Rig:
    """Raises InputWrong with line and column."""
    top = toml_text.parse(file, text)
    top.only(("rig", "station"))
    table = top.table("rig")
    table.only(_RIG_KEYS)
    default = Policy()
    policy = Policy(
        table.number("deadline_s", default.deadline_s, least=1.0),
        table.number("attempt_s", default.attempt_s, least=1.0),
        table.integer("retries", default.retries),
        table.integer("quarantine_after", default.quarantine_after, least=1),
        table.number("appear_s", default.appear_s),
        table.integer("keep_days", default.keep_days, least=1),
    )
    stations: dict[str, Station] = {}
    places: dict[str, str] = {}
    named = top.table("station")
    for name in named.raw:
        if not isinstance(named.raw[name], dict):
            raise named.wrong(name, f"must be a table: [station.{name}]")
        station = _station(named.table(name), name)
        other = places.setdefault(station.word, name)
        if other != name:
            raise named.wrong(name, f"is the same device as station.{other} ({station.word})")
        stations[name] = station
    return Rig(table.text("name", ""), table.text("history", ""), policy, stations)


def _station(table: Table, name: str) -> Station:
    if not _NAME.match(name):
        raise table.wrong(None, "cannot be a name", hint="up to 40 letters, digits, dots, dashes and underscores")
    table.only(_STATION_KEYS)
    keys = ("serial", "port", "sim")
    given = [k for k in keys if table.text(k, "")]
    if len(given) != 1:
        raise table.wrong(None, f"needs one of serial, port and sim, and has {' and '.join(given) or 'none'}")
    sim = table.text("sim", "")
    return Station(
        name, table.text("serial", ""), table.text("port", ""), sim, table.text("board", ""), table.texts("tags", ()),
        _power(table, sim), _swap(table, sim), table.texts("also", ()),
    )  # fmt: skip


def _power(table: Table, sim: str) -> Power:
    if "power" not in table.raw:
        return Power("sim", (sim,)) if sim else Power()
    power = table.table("power")
    power.only(("command", "uhubctl", "port", "labgrid"))
    given = [k for k in ("command", "uhubctl", "labgrid") if k in power.raw]
    if len(given) != 1:
        raise power.wrong(None, f"needs one of command, uhubctl and labgrid, and has {' and '.join(given) or 'none'}")
    if given == ["uhubctl"]:
        return Power("uhubctl", (power.text("uhubctl"), str(power.integer("port", least=1))))
    if "port" in power.raw:
        raise power.wrong("port", "belongs to uhubctl")
    if given == ["labgrid"]:
        return Power("labgrid", (power.text("labgrid"),))
    return Power("command", _command(power, ("{action}",)))


def _swap(table: Table, sim: str) -> Swap:
    if "swap" not in table.raw:
        return Swap("sim", (sim,)) if sim else Swap()
    swap = table.table("swap")
    swap.only(("command",))
    return Swap("command", _command(swap, ("{action}", "{side}")))


def _command(table: Table, marks: tuple[str, ...]) -> tuple[str, ...]:
    words = table.texts("command")
    if not words:
        raise table.wrong("command", "is empty")
    for mark in marks:
        if not any(mark in w for w in words):
            raise table.wrong("command", f"does not say {mark}", hint="it is replaced by what to do")
    return words
