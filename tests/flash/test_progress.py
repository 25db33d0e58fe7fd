"""Progress inside a transfer."""

from __future__ import annotations

import itertools

import pytest

from quarkctl.events import Event
from quarkctl.flash import progress
from quarkctl.flash.plan import Step


def test_how_long_it_takes_is_not_guessed_from_the_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    events: list[Event] = []
    meter = progress.Meter(events.append, "x", Step("s"), 10_000)
    meter.skip(5000)
    for done in (5001, 5049, 5050, 7500):
        meter.at(done)
    assert [e.eta_s for e in events] == [None, None, None, 4 / 50 * 4950, 5 / 2500 * 2500]
