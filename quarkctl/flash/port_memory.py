"""What was learnt of a device and is of use next time: the baud rate that works on its cable, who it was.

One small file an identity, in the state folder. Losing it costs some seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from quarkctl import state


@dataclass(frozen=True)
class Memory:
    """``baud`` 0 and ``mac`` empty: nothing known."""

    baud: int = 0
    mac: str = ""


def load(identity: str) -> Memory:
    try:
        raw = json.loads((state.folder("ports") / f"{state.file_name(identity)}.json").read_text("utf-8"))
        return Memory(int(raw["baud"]), str(raw["mac"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Memory()


def save(identity: str, memory: Memory) -> None:
    path = state.folder("ports") / f"{state.file_name(identity)}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"identity": identity, **asdict(memory)}), "utf-8")
    temporary.replace(path)
