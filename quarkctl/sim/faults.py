"""What can go wrong in the virtual glasses, and how badly by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    name: str
    doc: str
    unit: str
    default: float


#: Faults of the plant; `Plant.faults` holds those that are on, with their size.
PLANT_FAULTS: Mapping[str, Fault] = {
    f.name: f
    for f in (
        Fault("late_switchover", "the remaining pack takes over late", "us", 400.0),
        Fault("high_resistance", "the left pack has that much series resistance more", "mohm", 400.0),
        Fault("missing_throttle", "the AR1 ignores the throttle level", "", 1.0),
        Fault("stuck_thermistor", "the skin sensor always shows this", "0.1 degC", 280.0),
        Fault("offset_thermistor", "the skin sensor shows that much more", "0.1 degC", 60.0),
        Fault("counterfeit_pack", "the left pack does not prove what it is", "", 1.0),
    )
}

#: Faults that are done to the machine instead.
RESET_ON_SWAP = Fault("reset_on_swap", "every removal of a pack resets the microcontroller", "", 1.0)
FROZEN_CONVERTER = Fault("frozen_converter", "the converter delivers no more samples", "", 1.0)

FAULTS: Mapping[str, Fault] = {
    **PLANT_FAULTS,
    RESET_ON_SWAP.name: RESET_ON_SWAP,
    FROZEN_CONVERTER.name: FROZEN_CONVERTER,
}
