"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.rig import soak


@pytest.mark.qemu
@pytest.mark.long
def test_every_promise_holds_through_random_faults() -> None:
    counts = soak.run(cycles=2, station_count=2, seed=38)
    assert (counts["kill-worker"], counts["power"]) == (1, 1)
