"""What the glasses do, and what that draws from the bus. Apart from the plant, since shell completion asks for the names."""

from __future__ import annotations

from collections.abc import Mapping

#: Current in mA of each load: microcontroller plus AR1 state.
LOADS_MA: Mapping[str, int] = {"sleep": 12, "idle": 85, "display": 260, "camera": 480}
