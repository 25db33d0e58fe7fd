"""The message sets of ``protocols/`` that this installation carries."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from quarkctl.formats.schema import Schema, parse

#: Sets that travel in telemetry frames.
TELEMETRY_SETS = ("stream", "power", "thermal", "motion", "ar1")
#: The set of the virtual glasses' mailbox.
PLANT_SETS = ("plant",)


def folder() -> Path:
    """Where the TOML files are: inside the package when installed, beside it in a source tree."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "protocols"
    return packaged if packaged.is_dir() else here.parent / "protocols"


def load(sets: tuple[str, ...]) -> Schema:
    """Read these sets and check them as one schema."""
    root = folder()
    return parse({name: (root / f"{name}.toml").read_text("utf-8") for name in sets})


@cache
def telemetry() -> Schema:
    return load(TELEMETRY_SETS)


@cache
def plant() -> Schema:
    return load(PLANT_SETS)
