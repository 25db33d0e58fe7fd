"""Verdicts on swaps that are built frame by frame: what is proved, what is not, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quarkctl import boards, schemas
from quarkctl.diag import checks, columns, limits
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict, worst
from quarkctl.diag.product import product
from quarkctl.errors import UsageWrong
from quarkctl.formats.account import Counts, Loss
from quarkctl.formats.stream import Sample
from tests.diag.virtual import table

S = schemas.telemetry()
PRODUCT = product(boards.load("s1-virtual"))
LIMITS = limits.parse(*boards.limits_text("s1-virtual"), checks.UNITS)
BOTH = 0b111111


class Story:
    """A recording told message by message, 100 ms apart, with a held minimum that is chained as the firmware does it."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.boot = 0
        self.last_power = 0
        self.seq = 0

    def add(self, name: str, **values: Any) -> Story:
        self.seq += 1
        full = S.unpack(S.messages[name], S.pack(S.messages[name], values))
        self.samples.append(Sample(S.messages[name], self.seq, 100_000 * self.seq, self.boot, full))
        return self

    def hello(self, **values: Any) -> Story:
        return self.add("hello", board="s1-virtual", serial="VS1-1", boot_id=self.boot + 1, **values)

    def power(self, lowest: int = 4000, since: int | None = None) -> Story:
        self.add("power", bus_mv=4050, bus_mv_min=lowest, latched_since_seq=self.last_power if since is None else since)
        self.last_power = self.seq
        return self

    def battery(self, state: int = BOTH, ma: tuple[int, int] = (240, 240)) -> Story:
        return self.add("battery", pack_mv=[4000, 4000], pack_ma=list(ma), pack_soc_pct=[80, 79], pack_state=state)

    def event(self, code: str, pack: int = 0, at_us: int = 0, **values: Any) -> Story:
        return self.add(code, pack=pack, sample_us=at_us, **values)

    def reset(self) -> Story:
        self.boot += 1
        self.last_power = 0
        return self

    def evidence(self, counts: Counts | None = None, losses: tuple[Loss, ...] = ()) -> Evidence:
        rows: dict[str, list[dict[str, Any]]] = {}
        for x in self.samples:
            numbers = {k: v for k, v in x.values.items() if not isinstance(v, str)}
            rows.setdefault(x.message.name, []).append({"boot": x.boot, "seq": x.seq, "time_us": x.time_us, **numbers})
        tables = {name: table(S, name, found) for name, found in rows.items() if name != "hello"}
        hello = next((x.values for x in reversed(self.samples) if x.message.name == "hello"), {})
        counts = counts or Counts(received=len(self.samples))
        return Evidence(S, tables, counts, losses, PRODUCT, "story", hello=hello, frames=len(self.samples))


def swap() -> Story:
    s = Story().hello().power().battery().power().battery()
    s.event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_001_000, switch_us=40, bus_mv_min=3700)
    s.power(3700).battery(0b101010, (0, 480))
    return s.event("pack_inserted", 0, 3_000_000, inrush_ma=300).power().battery()


def find(story: Story, check: str, **how: Any) -> Finding:
    return checks.run(story.evidence(**how), LIMITS, checks.select("battery", [check]), asked=True)[0]


def test_a_good_swap_passes_every_check() -> None:
    names = ("takeover", "bus_minimum", "both_packs", "state_kept", "telemetry_whole", "brown_out", "inrush", "droop")
    found = {n: find(swap(), n) for n in names}
    assert {f.verdict for f in found.values()} == {Verdict.PASS}
    assert (found["takeover"].value, found["bus_minimum"].value, found["inrush"].value) == (0.04, 3700, 300)
    assert found["brown_out"].value == 3700 - 2900 and found["droop"].value == 4050 - 3700


def test_without_a_swap_there_is_no_verdict_on_it() -> None:
    quiet = Story().hello().power().battery().power().battery()
    f = find(quiet, "takeover")
    assert f.verdict is Verdict.INVALID and "pull one while this records" in f.note
    left_out = checks.run(quiet.evidence(), LIMITS, checks.select("battery", ["takeover"]))[0]
    assert left_out.verdict is Verdict.SKIP and left_out.note == f.note


def test_a_swap_just_before_the_part_that_is_judged_at_once_does_not_spoil_it() -> None:
    s = Story().hello().event("pack_removed", 0, 500_000).event("takeover", 1, 501_000, switch_us=40)
    begin_us = s.samples[-1].time_us
    s.battery().battery(0b101010, (0, 480)).event("pack_inserted", 0, 900_000).power().battery().power().battery()
    s.event("pack_removed", 0, 1_600_000).event("takeover", 1, 1_601_000, switch_us=40).power().battery(0b101010)
    recent = columns.since(s.evidence(), 0, begin_us)
    assert len(recent.of("pack_removed")) == 1 and len(recent.of("battery")) < 5
    assert checks.run(recent, LIMITS, checks.select("battery", ["takeover"]))[0].verdict is Verdict.PASS


def test_a_slow_takeover_fails_and_a_missing_one_too() -> None:
    slow = Story().hello().event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_000_000, switch_us=300)
    assert find(slow, "takeover").verdict is Verdict.FAIL
    never = Story().hello().event("pack_removed", 1, 1_000_000).power().power().power()
    f = find(never, "takeover")
    assert f.verdict is Verdict.FAIL and "after the right one left" in f.note


def test_a_capture_timer_that_says_little_does_not_hide_slow_samples() -> None:
    s = Story().hello().event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_009_000, switch_us=40)
    f = find(s, "takeover")
    assert (f.verdict, f.value) == (Verdict.FAIL, 7.5)


def test_converter_samples_alone_cannot_time_a_switchover_of_microseconds() -> None:
    import numpy as np

    s = Story().hello().event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_000_000)
    e = s.evidence()
    t = e.tables["takeover"]
    old = np.zeros(len(t), [d for d in t.dtype.descr if d[0] != "switch_us"])
    for name in old.dtype.names or ():
        old[name] = t[name]
    e = replace(e, tables={**e.tables, "takeover": old})
    f = checks.run(e, LIMITS, checks.select("battery", ["takeover"]), asked=True)[0]
    assert f.verdict is Verdict.INVALID and "leaves no room to pass" in f.note


def test_the_takeover_of_an_earlier_swap_does_not_count() -> None:
    s = Story().hello().event("takeover", 1, 500_000).event("pack_removed", 0, 1_000_000).power().power().power()
    assert find(s, "takeover").verdict is Verdict.FAIL


def test_a_record_that_ends_in_the_swap_proves_nothing() -> None:
    s = Story().hello().event("pack_removed", 0, 1_000_000)
    f = find(s, "takeover")
    assert f.verdict is Verdict.INVALID and "ends in the swap" in f.note


def test_a_swap_after_a_day_of_converter_time_is_judged_like_any_other() -> None:
    s = Story().hello().event("pack_removed", 0, 86_400_000_000).event("takeover", 1, 86_400_002_000, switch_us=20)
    f = find(s, "takeover")
    assert (f.verdict, f.value) == (Verdict.FAIL, 0.5)


@pytest.mark.parametrize(
    ("lost", "spoilt"),
    [("pack_removed", {"takeover", "droop", "hold_up"}), ("pack_inserted", {"inrush", "inrush_energy"})],
)
def test_a_swap_whose_event_is_missing_is_not_passed_over(lost: str, spoilt: set[str]) -> None:
    """The frames around show that a pack left and came back. With a second swap that is whole there is no verdict either."""
    twice = swap().battery(0b010101).event("pack_removed", 1, 5_000_000)
    twice.event("takeover", 0, 5_001_000, switch_us=40, bus_mv_min=3700).power(3700).battery(0b010101, (480, 0))
    twice.event("pack_inserted", 1, 6_000_000, inrush_ma=300).power().battery()
    for story in (swap(), twice):
        assert {find(story, check).verdict for check in spoilt - {"hold_up"}} == {Verdict.PASS}
        gone = next(x for x in story.samples if x.message.name == lost)
        story.samples.remove(gone)
        for check in spoilt:
            f = find(story, check)
            assert f.verdict is Verdict.INVALID, (check, f)
        assert "is missing" in find(story, "takeover" if "takeover" in spoilt else "inrush").note


def test_a_takeover_that_may_hide_in_a_gap_is_no_fault() -> None:
    s = Story().hello().event("pack_removed", 0, 1_000_000)
    at = s.samples[-1].time_us
    gap = Loss("lost", 1, 0, 2, at, at + 1, 0, 0)
    assert find(s, "takeover", losses=(gap,)).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("lowest", "verdict"),
    [(3099, Verdict.FAIL), (3100, Verdict.MARGINAL), (3119, Verdict.MARGINAL), (3120, Verdict.PASS)],
)
def test_the_bus_minimum_is_judged_with_its_guard_band(lowest: int, verdict: Verdict) -> None:
    assert find(Story().hello().power().power(lowest).power(), "bus_minimum").verdict is verdict


def test_a_missing_power_frame_takes_its_held_minimum_with_it() -> None:
    s = Story().hello().power().power(since=77).power()
    f = find(s, "bus_minimum")
    assert f.verdict is Verdict.INVALID and "missing frame" in f.note


def test_a_dip_held_since_before_the_record_is_neither_a_fault_nor_a_pass() -> None:
    f = find(Story().hello().power(2500).power().power(), "bus_minimum")
    assert f.verdict is Verdict.INVALID and "2500 mV was held since before the record began" in f.note
    assert find(Story().hello().power(2500).power(2400).power(), "bus_minimum").verdict is Verdict.FAIL


def test_a_reset_takes_the_held_minimum_with_it_and_is_never_a_pass() -> None:
    s = swap().reset().hello(reset_reason=4).power().power()
    assert find(s, "bus_minimum").verdict is Verdict.INVALID
    f = find(s, "state_kept")
    assert f.verdict is Verdict.FAIL and "brownout" in f.note and f.value == 1


def test_a_dip_that_was_seen_before_the_reset_is_a_fault() -> None:
    s = Story().hello().power().power(2500).reset().hello(reset_reason=4).power().power()
    assert find(s, "bus_minimum").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("state", "ma", "told"),
    [(0b101010, (0, 480), "not seen: left"), (0b111011, (240, 240), "not authentic: left")],
)
def test_a_pack_that_is_absent_or_fake_is_named(state: int, ma: tuple[int, int], told: str) -> None:
    f = find(Story().hello().battery(state, ma).battery(state, ma), "both_packs")
    assert f.verdict is Verdict.FAIL and told in f.note


def test_a_pack_that_rests_while_the_fuller_one_supplies_is_no_fault() -> None:
    f = find(Story().hello().battery(BOTH, (85, 0)).battery(BOTH, (85, 0)), "both_packs")
    assert f.verdict is Verdict.PASS and "right carried no current" in f.note


def test_lost_frames_fail_and_corrupt_ones_prove_nothing() -> None:
    lost = Counts(received=90, lost=2)
    assert (
        find(swap(), "telemetry_whole", counts=lost, losses=(Loss("lost", 1, 0, 2, 0, 5, 0, 0),)).verdict
        is Verdict.FAIL
    )
    corrupt = Counts(received=90, lost=2, corrupt=1)
    assert find(swap(), "telemetry_whole", counts=corrupt).verdict is Verdict.INVALID


def test_nothing_at_all_is_no_pass() -> None:
    found = checks.run(Story().evidence(), LIMITS, checks.select("all", []))
    assert {f.verdict for f in found} <= {Verdict.INVALID, Verdict.SKIP}
    assert checks.verdict(found) is Verdict.INVALID


def test_a_run_in_which_nothing_could_be_judged_is_no_pass() -> None:
    assert checks.verdict([Finding("X", "x", Verdict.SKIP)]) is Verdict.INVALID


def test_a_fault_outweighs_missing_evidence_and_that_a_narrow_pass() -> None:
    def of(*verdicts: Verdict) -> Verdict:
        return worst([Finding("X", "x", v) for v in verdicts])

    assert of(Verdict.PASS, Verdict.INVALID, Verdict.FAIL) is Verdict.FAIL
    assert of(Verdict.PASS, Verdict.MARGINAL, Verdict.INVALID) is Verdict.INVALID
    assert of(Verdict.PASS, Verdict.MARGINAL, Verdict.SKIP) is Verdict.MARGINAL
    assert of() is Verdict.SKIP


def test_words_select_a_topic_a_check_or_a_code_and_nothing_else() -> None:
    assert [c.code for c in checks.select("battery", ["dcir"])] == ["PWR-006"]
    assert [c.code for c in checks.select("all", ["pwr-002", "skin"])] == ["PWR-002", "THM-007"]
    assert {"PWR-001", "PWR-013"} <= {c.code for c in checks.select("battery", ["swap"])}
    with pytest.raises(UsageWrong, match="no check 'skin'"):
        checks.select("battery", ["skin"])


def test_every_check_explains_itself_and_has_a_limit_of_its_own() -> None:
    for c in checks.CHECKS.values():
        assert c.why and c.method and c.source and c.doubt and c.code[3] == "-"
        assert bool(c.measure) == bool(c.unit)
    measures = [c.measure for c in checks.CHECKS.values() if c.measure]
    assert len(set(measures)) == len(measures)
