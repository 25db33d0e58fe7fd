"""Reset by the modem lines of a serial adapter: DTR and RTS drive the reset and boot pins of many boards.

A sequence is written as esptool writes it in its configuration: steps separated by ``|``, ``D0`` and ``D1`` for DTR, ``R0``
and ``R1`` for RTS, ``W0.1`` for a wait in seconds. 1 asserts a line, which pulls its pin low.
"""

from __future__ import annotations

import time
from typing import Protocol

from quarkctl.errors import InputWrong

#: By name. Espressif's two-transistor circuit: RTS alone resets, DTR alone holds the boot pin while reset is let go.
SEQUENCES = {
    "none": "",
    "hard": "D0|R1|W0.1|R0",
    "bootloader": "D0|R1|W0.1|D1|R0|W0.05|D0",
}
_WAIT_MAX_S = 10.0


class Lines(Protocol):
    """A link with modem lines. Both raise LinkError where there are none, LinkLost when the port is gone."""

    def set_dtr(self, asserted: bool) -> None: ...

    def set_rts(self, asserted: bool) -> None: ...


def parse(text: str) -> tuple[tuple[str, float], ...]:
    """(step, value) of a sequence or of the name of one. Raises InputWrong naming the step."""
    out = []
    for word in filter(None, SEQUENCES.get(text, text).split("|")):
        kind, value = word[:1], word[1:]
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if (
            (kind in ("D", "R") and value not in ("0", "1"))
            or kind not in ("D", "R", "W")
            or not 0 <= number <= _WAIT_MAX_S
        ):
            raise InputWrong(f"reset sequence {text!r}: {word!r} is no step", hint="D0 D1 R0 R1 W0.1, separated by |")
        out.append((kind, number))
    return tuple(out)


def run(lines: Lines, text: str) -> None:
    """Drive the lines. Takes as long as the sequence says."""
    for kind, value in parse(text):
        if kind == "D":
            lines.set_dtr(bool(value))
        elif kind == "R":
            lines.set_rts(bool(value))
        else:
            time.sleep(value)
