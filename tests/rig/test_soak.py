"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.rig import soak


@pytest.mark.qemu
def test_every_promise_holds_through_random_faults() -> None:
    counts = soak.run(cycles=4, station_count=2, seed=3)
    assert sum(counts[f] for f in soak.FAULTS) >= 2
