"""Points in time as people write them."""

from __future__ import annotations

import re
import time

from quarkctl.errors import UsageWrong

_UNITS_S = {"h": 3600, "d": 86400, "w": 7 * 86400}


def since_of(text: str, now: float | None = None) -> float:
    """Seconds since 1970 of a date or of so long ago; 0 for nothing. Raises UsageWrong."""
    if not text:
        return 0.0
    ago = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if ago:
        return (time.time() if now is None else now) - int(ago[1]) * _UNITS_S[ago[2]]
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    raise UsageWrong(f"{text!r} is no time", hint="such as 12h, 7d, 4w, or 2026-11-21")
