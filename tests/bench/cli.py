"""Start-up: what every call of the command line costs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figure import Figure, interleaved, program, save, seconds

ROUNDS = 5


def run() -> None:
    quarkctl = program("quarkctl")
    verb = {"_QUARKCTL_COMPLETE": "complete_bash", "COMP_WORDS": "quarkctl fl", "COMP_CWORD": "1"}
    option = {"_QUARKCTL_COMPLETE": "complete_bash", "COMP_WORDS": "quarkctl flash --dev", "COMP_CWORD": "2"}
    command = {"_QUARKCTL_COMPLETE": "complete_bash", "COMP_WORDS": "quarkctl sim st", "COMP_CWORD": "2"}

    def one(command: Sequence[str | Path], env: dict[str, str] | None = None) -> float:
        return seconds(command, 3, env)

    bare, version, help_, boards, verbs, options, commands, peer = interleaved(
        ROUNDS,
        lambda: one([sys.executable, "-c", "pass"]),
        lambda: one([quarkctl, "--version"]),
        lambda: one([quarkctl, "--help"]),
        lambda: one([quarkctl, "boards", "--json"]),
        lambda: one([quarkctl], verb),
        lambda: one([quarkctl], option),
        lambda: one([quarkctl], command),
        lambda: one([program("esptool"), "--help"]),
    )
    save(
        "cli",
        [
            Figure(
                "quarkctl --version / python -c pass", version / bare, "x", 3.0, "<=", f"python {bare * 1000:.0f} ms"
            ),
            Figure("quarkctl --help / esptool --help", help_ / peer, "x", 1.0, "<=", f"esptool {peer * 1000:.0f} ms"),
            Figure(
                "quarkctl boards --json / esptool --help",
                boards / peer,
                "x",
                0.5,
                "<=",
                f"esptool {peer * 1000:.0f} ms",
            ),
            *(
                Figure(
                    f"completion of {what} / esptool --help",
                    took / peer,
                    "x",
                    0.5,
                    "<=",
                    f"esptool {peer * 1000:.0f} ms",
                )
                for what, took in (("a verb", verbs), ("an option", options), ("a command of sim", commands))
            ),
        ],
    )
