"""Where a release is in the AR1's slots, from what boot loader or system say: decision 21's table."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from quarkctl.flash import ar1_slots
from quarkctl.flash.ar1_slots import Slot, Slots
from quarkctl.flash.transaction import State
from quarkctl.formats.mcuboot_image import Version

NEW, OLD = b"n" * 32, b"o" * 32
GOOD = Slot(OLD, Version(1, 0, 0), active=True, successful=True, tries=7)
SPARE = Slot(NEW, Version(1, 0, 1), unbootable=True)


@pytest.mark.parametrize(
    ("b", "running", "state"),
    [
        (replace(SPARE, digest=b""), "a", State.OLD),
        (replace(SPARE, digest=OLD), "", State.OLD),
        (replace(SPARE, digest=NEW[:7]), "a", State.OLD),  # too few bytes to tell
        (SPARE, "a", State.WRITTEN),
        (SPARE, "", State.WRITTEN),
        (replace(SPARE, active=True, unbootable=False, tries=1), "a", State.ARMED),
        (replace(SPARE, active=True, unbootable=False, tries=1), "", State.ARMED),
        (replace(SPARE, active=True, unbootable=False), "", State.WRITTEN),  # it was tried
        (replace(SPARE, active=True, unbootable=False), "b", State.TRIAL),
        (replace(SPARE, active=True, unbootable=False, digest=NEW[:8]), "b", State.TRIAL),
        (replace(SPARE, active=True, unbootable=False, successful=True), "b", State.CONFIRMED),
        (replace(SPARE, active=True, unbootable=False, successful=True), "", State.CONFIRMED),
    ],
)
def test_the_state_follows_from_digest_and_attributes(b: Slot, running: str, state: State) -> None:
    a = replace(GOOD, active=not b.active)
    slots = Slots(a, b, running)
    assert slots.state(NEW) is state
    assert slots.target(NEW) == "b"
    assert slots.settled == ("b" if state is State.CONFIRMED else "a")


def test_what_was_never_confirmed_and_cannot_go_back_is_what_stays() -> None:
    """A storage that emergency download wrote: the only slot, with tries."""
    fresh = Slot(NEW, Version(1, 0, 1), active=True, tries=5)
    for running in ("a", ""):
        assert Slots(fresh, Slot(), running).state(NEW) is State.CONFIRMED
        assert Slots(fresh, Slot(), running).state(OLD) is State.OLD
        assert Slots(fresh, Slot(), running).target(OLD) == "b"


def test_the_slot_that_is_written_is_never_the_one_that_would_run() -> None:
    flags = list(product((False, True), repeat=3))
    for (active, good_a, bad_a), (_, good_b, bad_b), running in product(flags, flags, ("a", "b", "")):
        a = Slot(OLD, active=active, successful=good_a, unbootable=bad_a, tries=1)
        b = Slot(OLD, active=not active, successful=good_b, unbootable=bad_b, tries=1)
        slots = Slots(a, b, running)
        assert slots.target(NEW) != slots.settled
        if running and slots[running].successful and not slots[running].unbootable:
            assert slots.target(NEW) != running


def test_nonsense_of_a_device_is_nothing() -> None:
    slots = ar1_slots.from_variables({"slot-vbmeta-digest:a": "zz", "slot-version:a": "?", "current-slot": "_b"})
    assert slots.a == Slot() and slots.active == "b"
