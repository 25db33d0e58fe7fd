"""Programs that builds call, and how to get the missing ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from quarkctl.build.programs import find, search_path
from quarkctl.errors import HostUnfit, QuarkError

#: {program: Debian package}
RTOS_TOOLS = {"cmake": "cmake", "ninja": "ninja-build", "arm-none-eabi-gcc": "gcc-arm-none-eabi"}


def require(tools: dict[str, str]) -> None:
    """Raises HostUnfit naming every missing program at once."""
    missing = [t for t in tools if not find(t)]
    if missing:
        packages = " ".join(tools[t] for t in missing)
        raise HostUnfit(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            hint=f"on Debian or Ubuntu: apt-get install {packages}; `quarkctl doctor` tells for other systems",
        )


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program with its output in a log. Raises BuildFailed with the part of the log that matters."""
    fixed = {"LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0", "PATH": search_path()}
    with log.open("ab") as file:
        done = subprocess.run(
            [str(c) for c in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, **fixed, **(environment or {})}, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_text("utf-8", "replace").splitlines()
        told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")
        raise BuildFailed(f"{Path(str(command[0])).name} failed: {told.strip()}", hint=f"the whole output: {log}")


def output(*command: str | Path) -> str:
    """What a program prints; empty when it is not there or fails."""
    program = find(str(command[0]))
    if not program:
        return ""
    done = subprocess.run(
        [program, *map(str, command[1:])], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.stdout


class BuildFailed(QuarkError):
    """The sources do not build."""

    exit_code = 6
