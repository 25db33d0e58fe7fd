"""quarkctl whose deadlines of rigs a test moves: ``python tests/rig/clock.py FILE rig flash ...``

The clock of the run is ahead by as many seconds as FILE says, and the same as ever for its workers and their devices: a
deadline passes when the test wants it, however slow the machine is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from quarkctl.cli.main import main
from quarkctl.rig import fleet


class Clock:
    """What `fleet` takes from the module time."""

    time = staticmethod(time.time)

    def __init__(self, file: Path) -> None:
        self._file = file

    def monotonic(self) -> float:
        return time.monotonic() + (float(self._file.read_text() or 0) if self._file.exists() else 0.0)


if __name__ == "__main__":
    fleet.time = Clock(Path(sys.argv.pop(1)))  # type: ignore[assignment, attr-defined]
    main()
