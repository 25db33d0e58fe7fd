"""Two chips, one update: what to do next, from what both chips say. Pure, and all of it is tables.

Each chip has two slots. Its state tells where the new image is on it. The next acts follow from the two states alone, so
it does not matter how they came about: after any cut (host, cable, a chip, power) both chips are asked, and the table
tells how to go on. Nothing else has to be remembered.

A chip on trial goes back by itself at any restart; that makes a cut of the power harmless, except that the two chips go
back, or stay, each for itself. So the order of the acts is chosen such that whatever power-on makes of it is allowed:

- One of the chips is *first*: its new version may run beside the other's old one (the manifest says so).
- Armed is first, then second: power-on gives new and old, then new and new.
- Restarted is second, then first: the armed one becomes new at power-on, the one on trial old: new and old, then old and
  old.
- Confirmed is first, then second: new and old, then new and new.

Where neither may run beside the other's old version, three moments remain at which a cut leaves a pair that the manifest
does not allow, until the next flash goes on: the plan says so and asks.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where the new image is on one chip. A chip that the update does not concern counts as CONFIRMED."""

    OLD = "old"
    WRITTEN = "written"
    ARMED = "armed"
    TRIAL = "trial"
    CONFIRMED = "confirmed"


class Act(Enum):
    WRITE = "write"
    ARM = "arm"
    RESTART = "restart"
    CHECK = "check"
    CONFIRM = "confirm"
    REVERT = "revert"


class Who(Enum):
    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


O, W, A, T, C = State  # noqa: E741 - the table below is read as a table

#: What an act makes of a chip, when it succeeds. An act that is not here is illegal in that state.
AFTER: dict[tuple[State, Act], State] = {
    (O, Act.WRITE): W,
    (W, Act.ARM): A,
    (A, Act.RESTART): T,
    (T, Act.CHECK): T,
    (T, Act.CONFIRM): C,
    (A, Act.REVERT): O,
    (T, Act.REVERT): W,
}

#: What a restart makes of a chip, by power or by itself.
RESTARTED: dict[State, State] = {O: O, W: W, A: T, T: W, C: C}

#: The states in which the new version runs.
RUNS_NEW = frozenset({T, C})

Acts = tuple[tuple[Act, Who], ...]

_WRITE_BOTH: Acts = ((Act.WRITE, Who.BOTH),)
_WRITE_FIRST: Acts = ((Act.WRITE, Who.FIRST),)
_WRITE_SECOND: Acts = ((Act.WRITE, Who.SECOND),)
_ARM_FIRST: Acts = ((Act.ARM, Who.FIRST),)
_ARM_SECOND: Acts = ((Act.ARM, Who.SECOND),)
_RESTART_FIRST: Acts = ((Act.RESTART, Who.FIRST),)
_RESTART_SECOND: Acts = ((Act.RESTART, Who.SECOND),)
_REVERT_FIRST: Acts = ((Act.REVERT, Who.FIRST),)
_REVERT_SECOND: Acts = ((Act.REVERT, Who.SECOND),)

#: {(first, second): what to do next}. Done when nothing is.
NEXT: dict[tuple[State, State], Acts] = {
    (O, O): _WRITE_BOTH,     (O, W): _WRITE_FIRST,   (O, A): _REVERT_SECOND, (O, T): _REVERT_SECOND, (O, C): _WRITE_FIRST,
    (W, O): _WRITE_SECOND,   (W, W): _ARM_FIRST,     (W, A): _REVERT_SECOND, (W, T): _REVERT_SECOND, (W, C): _ARM_FIRST,
    (A, O): _REVERT_FIRST,   (A, W): _ARM_SECOND,    (A, A): _RESTART_SECOND, (A, T): _RESTART_FIRST, (A, C): _RESTART_FIRST,
    (T, O): _REVERT_FIRST,   (T, W): _REVERT_FIRST,  (T, A): _RESTART_SECOND,
    (T, T): ((Act.CHECK, Who.BOTH), (Act.CONFIRM, Who.FIRST)),
    (T, C): ((Act.CHECK, Who.FIRST), (Act.CONFIRM, Who.FIRST)),
    (C, O): _WRITE_SECOND,   (C, W): _ARM_SECOND,    (C, A): _RESTART_SECOND,
    (C, T): ((Act.CHECK, Who.SECOND), (Act.CONFIRM, Who.SECOND)),
    (C, C): (),
}  # fmt: skip

#: {(first, second): what to do next to be rid of a new image that did not prove itself}. The second chip first: what is
#: left at any moment becomes new and old, or old and old, at power-on.
UNDO: dict[tuple[State, State], Acts] = {
    pair: _REVERT_SECOND if pair[1] in (A, T) else _REVERT_FIRST if pair[0] in (A, T) else () for pair in NEXT
}


def after(pair: tuple[State, State], act: Act, who: Who) -> tuple[State, State]:
    """Both states after an act that succeeds. Raises KeyError for an illegal one."""
    first, second = pair
    if who in (Who.FIRST, Who.BOTH):
        first = AFTER[first, act]
    if who in (Who.SECOND, Who.BOTH):
        second = AFTER[second, act]
    return first, second


def route(pair: tuple[State, State], table: dict[tuple[State, State], Acts] = NEXT) -> list[tuple[Act, Who]]:
    """All acts up to the end, if each succeeds."""
    acts: list[tuple[Act, Who]] = []
    while todo := table[pair]:
        for act, who in todo:
            acts.append((act, who))
            pair = after(pair, act, who)
    return acts
