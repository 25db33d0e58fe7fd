"""Guided runs: what the operator (or a rig) does, and what must then be seen. Pure: no clock, no device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quarkctl.diag.check import Check
from quarkctl.diag.product import SIDES

#: After an awaited event, so long passes until its consequences (takeover, held minimum) have arrived.
SETTLE_S = 0.7


@dataclass(frozen=True)
class Step:
    """``action``: words for the actuator. ``event``: message that shows it was done, with this pack; empty: only time
    passes, ``hold_s`` of it."""

    text: str
    action: tuple[str, ...] = ()
    event: str = ""
    pack: int = -1
    hold_s: float = SETTLE_S


def _swap() -> list[Step]:
    out = [Step("hold still", hold_s=2.0)]
    for i, side in enumerate(SIDES):
        out.append(Step(f"remove the {side.upper()} battery now", ("eject", side), "pack_removed", i, 2.0))
        out.append(Step(f"put the {side.upper()} battery back", ("insert", side), "pack_inserted", i, 2.0))
    return out


def _load(*loads: tuple[str, float]) -> list[Step]:
    words = {
        "sleep": "let the glasses sleep",
        "camera": "start the camera",
        "idle": "stop the camera",
        "display": "show something",
    }
    return [
        Step(f"{words[name]} now, and wait {seconds:.0f} s", ("load", name), hold_s=seconds) for name, seconds in loads
    ]


#: Topic -> steps. Topics that are not here need nothing but time.
SCRIPTS = {
    "swap": _swap(),
    "dcir": _load(("idle", 11.0), ("camera", 2.0), ("idle", 11.0), ("camera", 2.0), ("idle", 2.0)),
    "link": _load(("sleep", 3.0), ("camera", 5.0), ("idle", 3.0)),
    "soc": _load(("sleep", 240.0)),
    "life": _load(("sleep", 240.0), ("camera", 1500.0), ("sleep", 240.0)),
    "charge": [Step("put the glasses on the charger", ("charger", "on"), hold_s=20.0)],
    "step": _load(("sleep", 60.0), ("camera", 900.0)),
    "soak": _load(("display", 2400.0)),
    "throttle": _load(("camera", 900.0), ("sleep", 300.0)),
    "sensors": _load(("sleep", 90.0), ("camera", 300.0)),
}


def script(chosen: Sequence[Check]) -> list[Step]:
    """Steps for the topics of these checks, each topic once, in the order of the checks."""
    return [s for topic in dict.fromkeys(c.topic for c in chosen) for s in SCRIPTS.get(topic, [])]
