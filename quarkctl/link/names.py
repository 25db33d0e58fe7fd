"""Names that people give to devices of a rig, in ``rig.toml``:

    [station.bench-1]
    serial = "QS1-0042"      # USB serial number, or
    port = "1-1.2"           # physical port: bus and hub ports, as `quarkctl devices` shows it

Other keys are left to those who need them.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from quarkctl.errors import InputWrong


@dataclass(frozen=True)
class Station:
    """One device by the name of its place. Exactly one of ``serial`` and ``port`` is given."""

    name: str
    serial: str = ""
    port: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({f'serial {self.serial}' if self.serial else f'port {self.port}'})"


def path() -> Path | None:
    """QUARKCTL_RIG, ./rig.toml, or rig.toml in the user's configuration folder; None when there is none."""
    given = os.environ.get("QUARKCTL_RIG")
    if given:
        return Path(given)
    if Path("rig.toml").is_file():
        return Path("rig.toml")
    from platformdirs import user_config_path

    found = user_config_path("quarkctl") / "rig.toml"
    return found if found.is_file() else None


def load() -> dict[str, Station]:
    """{name: station}, empty without a rig file. Raises InputWrong naming file and place."""
    file = path()
    if file is None:
        return {}
    try:
        return parse(str(file), file.read_text("utf-8"))
    except OSError as error:
        raise InputWrong(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputWrong(f"{file} is not UTF-8 text") from error


def parse(file: str, text: str) -> dict[str, Station]:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputWrong(f"{file}: {error}") from error
    tables = raw.get("station", {})
    if not isinstance(tables, dict):
        raise InputWrong(f"{file}: station must be tables: [station.NAME]")
    out: dict[str, Station] = {}
    places: dict[tuple[str, str], str] = {}
    for name, table in tables.items():
        serial, port = (table.get(k, "") if isinstance(table, dict) else "" for k in ("serial", "port"))
        if not isinstance(serial, str) or not isinstance(port, str) or bool(serial) == bool(port):
            raise InputWrong(f"{file}: station.{name} needs serial or port, one of them, as text")
        other = places.setdefault((serial, port), name)
        if other != name:
            raise InputWrong(f"{file}: station.{other} and station.{name} are the same device ({serial or port})")
        out[name] = Station(name, serial, port)
    return out
