"""An empty file system for a partition that is formatted: ext4 by ``mke2fs``, whose file has holes where nothing is."""

from __future__ import annotations

from pathlib import Path

from quarkctl.build import tools
from quarkctl.errors import InputWrong

_BLOCK = 4096
KINDS = ("ext4",)


def make(kind: str, target: Path, size_bytes: int, label: str) -> None:
    """Raises InputWrong for another kind or no room, HostUnfit, BuildFailed."""
    if kind not in KINDS:
        raise InputWrong(f"cannot format {label} as {kind}", hint=f"known are {', '.join(KINDS)}: --type")
    if size_bytes < 64 * _BLOCK:
        raise InputWrong(f"{label} has {size_bytes} bytes: no room for a file system")
    tools.require({"mke2fs": "e2fsprogs"})
    log = target.with_suffix(".log")
    tools.run(
        ["mke2fs", "-q", "-F", "-t", kind, "-b", str(_BLOCK), "-m", "0", "-L", label[:16], target,
         str(size_bytes // _BLOCK)], log,
    )  # fmt: skip
