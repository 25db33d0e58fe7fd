"""Where the firmware's sources are."""

from __future__ import annotations

from pathlib import Path

from quarkctl.errors import HostUnfit


def root() -> Path:
    """The source tree: around the current folder, else around this package when it is installed editable."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "firmware/rtos/CMakeLists.txt").is_file():
            return folder
    raise HostUnfit("there is no firmware source tree here", hint="run this in a clone of the quarkctl repository")


def rtos() -> Path:
    return root() / "firmware" / "rtos"


def default_version() -> str:
    return (rtos() / "VERSION").read_text("utf-8").strip()


def development_key() -> Path:
    return rtos() / "keys" / "development.pem"
