"""The fault matrix: every fault at three sizes, judged on units that never repeat. `make bench-diag` runs all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from quarkctl.diag.finding import Verdict
from quarkctl.sim.faults import FAULTS
from tests.diag.virtual import Unit, charge_run, day_run, hot_day_run, judge, swap_run

Run = Callable[..., Unit]


@dataclass(frozen=True)
class Story:
    """``sizes``: three severities, the first just above what the fault table promises. ``beside``: codes that may fail
    besides the one that names the fault, since the fault truly breaks them too."""

    fault: str
    run: Run
    sizes: tuple[float, float, float]
    beside: tuple[str, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        return FAULTS[self.fault].codes


#: What a dip that deep takes along.
_SHOWN = ("DSP-001", "CAM-001")
_HOT = ("THM-007", "THM-003", "THM-002")
STORIES = (
    Story(
        "late_switchover", swap_run, (150, 300, 900), ("PWR-010", "PWR-002", "PWR-009", "PWR-011", *_SHOWN, "PWR-004")
    ),
    Story("aged_capacitor", swap_run, (70, 80, 90), ("PWR-001", "PWR-009", "PWR-002", "PWR-011", *_SHOWN, "PWR-004")),
    Story("hard_insertion", swap_run, (2500, 4000, 9000), ("PWR-021",)),
    Story("long_inrush", swap_run, (15000, 30000, 60000)),
    Story("display_glitch", swap_run, (1, 3, 20)),
    Story("camera_glitch", swap_run, (1, 3, 20)),
    Story("high_resistance", swap_run, (130, 200, 400)),
    Story("weak_cell", swap_run, (22, 30, 50)),
    Story("drifting_gauge", day_run, (5, 10, 20), ("PWR-007", "PWR-014")),
    Story("wrong_capacity", day_run, (25, 35, 50), ("PWR-007", "PWR-014")),
    Story("cross_charging", swap_run, (15, 50, 150)),
    Story("counterfeit_pack", swap_run, (1, 2, 3), ("PWR-003", "PWR-001", "PWR-002", "PWR-004", "PWR-011", *_SHOWN)),
    Story("hot_charging", charge_run, (0.4, 0.7, 1.0)),
    Story("missing_throttle", hot_day_run, (0.75, 0.9, 1), (*_HOT, "THM-004")),
    Story("detached_spreader", day_run, (45, 60, 80), (*_HOT, "SEN-004", "SEN-006", "THM-005")),
    Story("stuck_thermistor", day_run, (240, 280, 330), ("SEN-004", "SEN-005", "SEN-006", "THM-002", "THM-003")),
    Story("lagging_thermistor", day_run, (40, 90, 240), ("THM-002", "SEN-006")),
    Story("swapped_thermistors", day_run, (1, 2, 3), ("SEN-004", *_HOT, "THM-001", "THM-005", "THM-004")),
    Story("offset_thermistor", day_run, (35, 60, 120), (*_HOT, "SEN-006")),
    Story(
        "spiking_thermistor", day_run, (30, 80, 200), ("THM-004", "THM-005", "THM-002", "SEN-004", "SEN-006", "THM-007")
    ),
    Story("open_thermistor", day_run, (1, 1, 1), ("THM-004", "THM-005", "THM-003")),
    Story("throttle_without_hysteresis", hot_day_run, (0, 2, 4)),
    Story("reset_on_swap", swap_run, (1, 1, 1), ("PWR-001",)),
    Story("lost_telemetry", swap_run, (1, 2, 10)),
    Story("clock_jump", swap_run, (200, 500, 5000)),
    Story("slow_link", swap_run, (40, 80, 300)),
    Story("lossy_link", swap_run, (3, 5, 20)),
    Story("slow_wake", swap_run, (600, 900, 3000)),
    Story("slow_hand_over", swap_run, (150, 300, 900)),
)


@dataclass
class Cell:
    """Of one fault and size: ``found`` runs with the right code among the faults, ``alone`` of those with nothing besides
    that the fault does not explain."""

    runs: int = 0
    found: int = 0
    named: int = 0
    wrong: dict[str, int] = field(default_factory=dict)


def failing(unit: Unit) -> set[str]:
    return {f.code for f in judge(unit) if f.verdict is Verdict.FAIL}


def cell(story: Story, size: float, seeds: Iterable[int]) -> Cell:
    out = Cell()
    for seed in seeds:
        u = jumping(seed, size) if story.fault == "clock_jump" else story.run(seed, story.fault, size)
        bad = failing(u)
        out.runs += 1
        hit = bool(bad & set(story.codes))
        rest = bad - set(story.codes) - set(story.beside)
        out.found += hit
        out.named += hit and not rest
        for code in rest:
            out.wrong[code] = out.wrong.get(code, 0) + 1
    return out


def jumping(seed: int, size_ms: float) -> Unit:
    """The clock jumps in the middle of the record."""
    u = swap_run(seed)
    return u.fault("clock_jump", size_ms).run([(12, "idle", 0.1)])


def false_alarms(seeds: Iterable[int]) -> tuple[int, dict[str, int]]:
    """Healthy units that were called faulty, of one run of each kind, and by which code."""
    alarms, by = 0, dict[str, int]()
    for seed in seeds:
        bad: set[str] = set()
        for run in (swap_run, day_run, charge_run):
            bad |= failing(run(seed))
        alarms += bool(bad)
        for code in bad:
            by[code] = by.get(code, 0) + 1
    return alarms, by
