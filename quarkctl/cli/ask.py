"""Questions to the person at the terminal."""

from __future__ import annotations

import sys

from quarkctl.cli import show
from quarkctl.errors import UsageWrong


def insist(question: str, *, yes: bool) -> None:
    """Go on only after a yes. Without a terminal the answer is no. Raises UsageWrong."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageWrong(f"{question.rstrip('?')}: that needs a yes", hint="give it: --yes")
    show.err.print(f"{question} [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageWrong(f"{question.rstrip('?')}: not wanted", hint="nothing was written")
