"""Board profiles: what is known of a product, each fact with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quarkctl.errors import InputWrong, UsageWrong

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Fact:
    """One field of a profile. ``unverified``: not confirmed on a device by anybody here."""

    value: Any
    source: str
    unverified: bool = False


@dataclass(frozen=True)
class Board:
    """A profile: facts by dotted name, such as ``rtos.slot_bytes``."""

    name: str
    title: str
    virtual: bool
    facts: Mapping[str, Fact]

    def get(self, key: str, default: Any = None) -> Any:
        fact = self.facts.get(key)
        return default if fact is None else fact.value

    def need(self, key: str) -> Any:
        """The value of a fact. Raises InputWrong where the profile does not have it."""
        if key not in self.facts:
            raise InputWrong(f"board {self.name} has no {key}", hint=f"add it to quarkctl/boards/{self.name}.toml")
        return self.facts[key].value

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "virtual": self.virtual,
            "facts": {k: vars(f) for k, f in self.facts.items()},
        }


def names() -> list[str]:
    """All boards known, in a fixed order: virtual ones first."""
    found = [p.stem for p in _FOLDER.glob("*.toml")]
    return sorted(found, key=lambda n: (not n.endswith("-virtual"), n))


@cache
def load(name: str) -> Board:
    """Read one profile, once. Raises UsageWrong for an unknown board, InputWrong for a damaged file."""
    path = _FOLDER / f"{name}.toml"
    if name not in names():
        raise UsageWrong(f"there is no board {name!r}", hint=f"known are {', '.join(names())}")
    return parse(path.name, path.read_text("utf-8"))


def parse(file_name: str, text: str) -> Board:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputWrong(f"{file_name}: {error}") from error
    facts: dict[str, Fact] = {}
    _collect(file_name, "", {k: v for k, v in raw.items() if isinstance(v, dict)}, facts)
    return Board(str(raw["name"]), str(raw["title"]), bool(raw.get("virtual", False)), facts)


def _collect(file_name: str, prefix: str, table: Mapping[str, Any], facts: dict[str, Fact]) -> None:
    for key, entry in table.items():
        name = f"{prefix}{key}"
        if not isinstance(entry, dict):
            raise InputWrong(f"{file_name}: {name} must be a fact: {{ value = ..., source = ... }}")
        if "value" not in entry:
            _collect(file_name, f"{name}.", entry, facts)
        elif not entry.get("source"):
            raise InputWrong(f"{file_name}: {name} has no source")
        else:
            facts[name] = Fact(entry["value"], str(entry["source"]), bool(entry.get("unverified", False)))


def limits_text(name: str) -> tuple[str, str]:
    """File name and content of the limits of a board. Raises InputWrong when it has none."""
    path = _FOLDER / "limits" / f"{name}.toml"
    if not path.is_file():
        raise InputWrong(f"board {name} has no limits file", hint="give one: --limits FILE")
    return path.name, path.read_text("utf-8")
