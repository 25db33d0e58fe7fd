"""Verdicts on swaps that are built frame by frame: what is proved, what is not, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from quarkctl import boards, schemas
from quarkctl.diag import battery, limits
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict, judge, worst
from quarkctl.errors import InputWrong
from quarkctl.formats.stream import Counts, Gap, Sample

S = schemas.telemetry()
LIMITS = limits.parse(*boards.limits_text("s1-virtual"))
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

    def event(self, code: str, pack: int = 0, at_us: int = 0) -> Story:
        return self.add(code, pack=pack, sample_us=at_us)

    def reset(self) -> Story:
        self.boot += 1
        self.last_power = 0
        return self

    def evidence(self, counts: Counts | None = None, gaps: tuple[Gap, ...] = ()) -> Evidence:
        return Evidence(S, self.samples, counts or Counts(received=len(self.samples)), gaps, "story")


def swap() -> Story:
    s = Story().hello().power().battery().power().battery()
    s.event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_001_000).power(3700).battery(0b101010, (0, 480))
    return s.event("pack_inserted", 0, 3_000_000).power().battery()


def find(story: Story, check: str, **how: Any) -> Finding:
    return battery.run(story.evidence(**how), LIMITS, check)[0]


def test_a_good_swap_passes_every_check() -> None:
    findings = battery.run(swap().evidence(), LIMITS)
    assert {f.verdict for f in findings} == {Verdict.PASS}
    assert [f.code for f in findings] == ["PWR-001", "PWR-002", "PWR-003", "PWR-004", "PWR-005"]
    assert (findings[0].value, findings[1].value) == (1.0, 3700)


def test_without_a_swap_there_is_no_verdict_on_it() -> None:
    f = find(Story().hello().power().battery().power().battery(), "takeover")
    assert f.verdict is Verdict.INVALID and "pull one while this records" in f.note


def test_a_slow_takeover_fails_and_a_missing_one_too() -> None:
    slow = Story().hello().event("pack_removed", 0, 1_000_000).event("takeover", 1, 1_009_000)
    assert find(slow, "takeover").verdict is Verdict.FAIL
    never = Story().hello().event("pack_removed", 1, 1_000_000).power()
    f = find(never, "takeover")
    assert f.verdict is Verdict.FAIL and "after the right one left" in f.note


def test_the_takeover_of_an_earlier_swap_does_not_count() -> None:
    s = Story().hello().event("takeover", 1, 500_000).event("pack_removed", 0, 1_000_000)
    assert find(s, "takeover").verdict is Verdict.FAIL


def test_a_swap_after_a_day_of_converter_time_is_judged_like_any_other() -> None:
    s = Story().hello().event("pack_removed", 0, 86_400_000_000).event("takeover", 1, 86_400_002_000)
    f = find(s, "takeover")
    assert (f.verdict, f.value) == (Verdict.PASS, 2.0)


def test_a_takeover_that_may_hide_in_a_gap_is_no_fault() -> None:
    s = Story().hello().event("pack_removed", 0, 1_000_000)
    gap = Gap(0, s.samples[-1].time_us + 1, 2)
    assert find(s, "takeover", gaps=(gap,)).verdict is Verdict.INVALID


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
    assert find(swap(), "telemetry_whole", counts=lost, gaps=(Gap(0, 5, 2),)).verdict is Verdict.FAIL
    corrupt = Counts(received=90, lost=2, corrupt=1)
    assert find(swap(), "telemetry_whole", counts=corrupt).verdict is Verdict.INVALID


def test_nothing_at_all_is_no_pass() -> None:
    assert all(f.verdict is Verdict.INVALID for f in battery.run(Story().evidence(), LIMITS))


def test_a_fault_outweighs_missing_evidence_and_that_a_narrow_pass() -> None:
    def of(*verdicts: Verdict) -> Verdict:
        return worst([Finding("X", "x", v) for v in verdicts])

    assert of(Verdict.PASS, Verdict.INVALID, Verdict.FAIL) is Verdict.FAIL
    assert of(Verdict.PASS, Verdict.MARGINAL, Verdict.INVALID) is Verdict.INVALID
    assert of(Verdict.PASS, Verdict.MARGINAL, Verdict.SKIP) is Verdict.MARGINAL
    assert of() is Verdict.SKIP


# --- limits files


TEXT = boards.limits_text("s1-virtual")[1]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('unit = "mV"\n', "", "limit bus_mv_min: unit is missing"),
        ("lsl = 3100", "lsl = nan", "must be a finite number"),
        ("lsl = 3100", "lsl = 3100\nusl = 3000", "is above usl"),
        ("lsl = 3100\n", "", "needs lsl or usl"),
        ('guard = "ilac-g8"', 'guard = "vibes"', "is none of"),
        ('label = "P"', 'label = "X"', "label 'X' is none of"),
        ("u = 20", "u = -1", "missing or negative"),
        ("u = 20", "tolerance = 20", "unknown key 'tolerance'"),
        ("version = 1", 'version = "1"', "integer version"),
        ("version = 1", "version = ", "limits.toml"),
    ],
)
def test_a_mistake_in_the_limits_is_named(old: str, new: str, told: str) -> None:
    with pytest.raises(InputWrong) as error:
        limits.parse("limits.toml", TEXT.replace(old, new, 1))
    assert told in error.value.message


def test_a_limit_in_another_unit_is_an_error_and_a_missing_one_is_skipped() -> None:
    volts = limits.parse("x", TEXT.replace('unit = "mV"', 'unit = "V"', 1))
    with pytest.raises(InputWrong, match="is in 'V', the measurement in 'mV'"):
        battery.run(swap().evidence(), volts, "bus_minimum")
    nothing = limits.parse("x", 'version = 1\nsku = "x"\n')
    skipped = [f for f in battery.run(swap().evidence(), nothing) if f.verdict is Verdict.SKIP]
    assert {f.code for f in skipped} == {"PWR-001", "PWR-002", "PWR-004", "PWR-005"}


def test_a_value_on_the_limit_is_inside_it() -> None:
    one = LIMITS.limits["reset_count"]
    assert judge(0, one) is Verdict.PASS and judge(1, one) is Verdict.FAIL


def test_every_check_explains_itself() -> None:
    for c in battery.CHECKS.values():
        assert c.why and c.run.__doc__ and c.code.startswith("PWR-")
    assert len({c.code for c in battery.CHECKS.values()}) == len(battery.CHECKS)
