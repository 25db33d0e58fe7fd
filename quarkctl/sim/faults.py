"""What can go wrong in the virtual glasses, and how badly by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """``codes``: findings that name it. ``least``: the smallest size that they promise to see."""

    name: str
    doc: str
    unit: str
    default: float
    codes: tuple[str, ...] = ()
    least: float = 0.0


#: Faults of the plant; `Plant.faults` holds those that are on, with their size.
PLANT_FAULTS: Mapping[str, Fault] = {
    f.name: f
    for f in (
        Fault("late_switchover", "the remaining pack takes over late", "us", 400.0, ("PWR-001",), 150.0),
        Fault("aged_capacitor", "the bus capacitance has lost that much", "%", 80.0, ("PWR-010",), 70.0),
        Fault("hard_insertion", "an inserted pack draws that peak current", "mA", 4000.0, ("PWR-012",), 2500.0),
        Fault("display_glitch", "the displays drop so many frames at each removal", "1", 3.0, ("DSP-001",), 1.0),
        Fault("long_inrush", "the inrush of an inserted pack dies away with that time constant", "us", 30000.0, ("PWR-021",),
              15000.0),
        Fault("camera_glitch", "the camera drops so many frames at each removal", "1", 3.0, ("CAM-001",), 1.0),
        Fault("high_resistance", "the left pack has that much series resistance more", "mohm", 400.0, ("PWR-006",), 130.0),
        Fault("weak_cell", "the left pack is worn by so much, and its gauge knows", "%", 30.0, ("PWR-019",), 22.0),
        Fault("drifting_gauge", "the left gauge counts that much more than flows", "%", 10.0, ("PWR-008",), 5.0),
        Fault("wrong_capacity", "the left pack holds that much less than its gauge says", "%", 35.0, ("PWR-020",), 25.0),
        Fault("cross_charging", "a switch conducts so much back into the pack that rests", "mA", 50.0, ("PWR-016",), 15.0),
        Fault("counterfeit_pack", "the left pack: no secret (1), replays an answer (2), changes identity (3)", "kind", 1.0,
              ("PWR-018",), 1.0),
        Fault("hot_charging", "the charger gives that share of its current at any temperature", "1", 1.0, ("PWR-017",), 0.4),
        Fault("missing_throttle", "the AR1 gives way by that share less than it should", "1", 1.0, ("THM-006",), 0.75),
        Fault("detached_spreader", "the AR1's way to the shell conducts that much less", "%", 60.0, ("THM-001",), 45.0),
        Fault("stuck_thermistor", "the skin sensor always shows this", "0.1 degC", 280.0, ("SEN-001",), 0.0),
        Fault("lagging_thermistor", "the skin sensor follows with that time constant", "s", 90.0, ("SEN-004",), 40.0),
        Fault("swapped_thermistors", "the ar1 channel is swapped with skin (1), rtos (2), battery_left (3)", "kind", 1.0,
              ("SEN-006",), 1.0),
        Fault("offset_thermistor", "the skin sensor shows that much more", "0.1 degC", 60.0, ("SEN-005",), 35.0),
        Fault("spiking_thermistor", "the skin sensor jumps by that much now and then", "0.1 degC", 80.0, ("SEN-003",), 30.0),
        Fault("open_thermistor", "the skin sensor has no contact", "", 1.0, ("SEN-002",), 1.0),
        Fault("clock_jump", "the power path's clock jumps by that much", "ms", 500.0, ("PWR-013",), 200.0),
        Fault("slow_link", "the AR1 answers after that time", "ms", 80.0, ("LNK-001",), 40.0),
        Fault("lossy_link", "so many requests to the AR1 stay unanswered", "%", 5.0, ("LNK-002",), 3.0),
        Fault("slow_wake", "the AR1 wakes after that time", "ms", 900.0, ("LNK-003",), 600.0),
        Fault("slow_hand_over", "a hand-over between the chips takes that time", "ms", 300.0, ("LNK-004",), 150.0),
    )
}  # fmt: skip

#: Faults that are done to the machine instead.
RESET_ON_SWAP = Fault("reset_on_swap", "every removal of a pack resets the microcontroller", "", 1.0, ("PWR-004",))
FROZEN_CONVERTER = Fault("frozen_converter", "the converter delivers no more samples", "", 1.0, ("PWR-002",))
NO_HYSTERESIS = Fault(
    "throttle_without_hysteresis", "the calibration in flash sets that hysteresis; takes effect at the next start",
    "0.1 degC", 0.0, ("THM-005",), 0.0,
)  # fmt: skip
LOST_TELEMETRY = Fault("lost_telemetry", "that share of whole frames never arrives", "%", 2.0, ("PWR-005",), 1.0)

FAULTS: Mapping[str, Fault] = {
    **PLANT_FAULTS,
    **{f.name: f for f in (RESET_ON_SWAP, FROZEN_CONVERTER, NO_HYSTERESIS, LOST_TELEMETRY)},
}
