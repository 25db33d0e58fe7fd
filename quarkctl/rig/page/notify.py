"""Tells systemd that the service is ready, and again and again that it lives (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell(words: str) -> bool:
    """Send to NOTIFY_SOCKET; False where there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel, suppress(OSError):
        channel.sendto(words.encode(), "\0" + path[1:] if path.startswith("@") else path)
    return True


def watchdog_s() -> float:
    """How often to say that we live: half of what the unit allows; 0 where nobody watches."""
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0
