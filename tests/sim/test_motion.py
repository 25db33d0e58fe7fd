"""The inertial sensor: a sample depends on its time alone, and no wait of the host fills memory with samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quarkctl.sim.motion import FIFO_SAMPLES, RATE_HZ_MAX, Motion

HOUR_US = 3600 * 1_000_000


@given(rate_hz=st.integers(1, RATE_HZ_MAX), waits_us=st.lists(st.integers(0, 600_000), min_size=1, max_size=8))
def test_however_often_it_is_asked_the_same_samples_come(rate_hz: int, waits_us: list[int]) -> None:
    often, once = Motion(seed=3), Motion(seed=3)
    often.switch(rate_hz, 1_000)
    once.switch(rate_hz, 1_000)
    now_us, came, missing = 1_000, [], 0
    for wait_us in waits_us:
        now_us += wait_us
        lost, samples = often.advance(now_us)
        assert lost == 0 or len(samples) == FIFO_SAMPLES
        came, missing = came + samples, missing + lost
    lost, samples = once.advance(now_us)
    assert lost + len(samples) == missing + len(came)
    assert samples == came[len(came) - len(samples) :] or missing
    assert all(s.time_us <= now_us for s in samples)
    assert often.advance(now_us) == (0, [])


def test_after_an_hour_of_sleep_only_what_the_fifo_holds_is_made() -> None:
    motion = Motion(seed=3)
    motion.switch(RATE_HZ_MAX, 0)
    lost, samples = motion.advance(HOUR_US)
    assert (lost + len(samples), len(samples)) == (3_600_001, FIFO_SAMPLES)
    assert samples[-1].time_us == HOUR_US
