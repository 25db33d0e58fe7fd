"""Where quarkctl keeps what outlives a command: locks, journals, virtual glasses."""

from __future__ import annotations

import os
import re
import time
import zlib
from pathlib import Path

from quarkctl.errors import HostUnfit

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def root() -> Path:
    """QUARKCTL_STATE_DIR, or the user's state folder of this system."""
    given = os.environ.get("QUARKCTL_STATE_DIR")
    if given:
        return Path(given).absolute()
    from platformdirs import user_state_path

    return user_state_path("quarkctl")


def folder(name: str) -> Path:
    """A private folder below `root`, made if it is missing. Raises HostUnfit when it cannot be made."""
    path = root() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostUnfit(
            f"cannot make {path}: {error.strerror}",
            hint="make it writable, or set QUARKCTL_STATE_DIR to a folder that is",
        ) from error
    return path


def boot_id() -> str:
    """The same until this computer starts again: what was only remembered in its memory is lost then.

    Where the system gives no name to its start it is the time of the start; a clock that is set makes another one of it.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"started {(time.time() - time.monotonic()) / 60:.0f}"


def file_name(identity: str) -> str:
    """A file name for an identity: readable, and different for different identities whatever characters they have."""
    return f"{_PLAIN.sub('-', identity)[:80]}-{zlib.crc32(identity.encode()):08x}"
