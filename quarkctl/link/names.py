"""Names that people give to devices of a rig, from ``rig.toml`` (`quarkctl.formats.rig_file`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quarkctl.errors import InputWrong
from quarkctl.formats import rig_file
from quarkctl.formats.rig_file import Rig, Station

if TYPE_CHECKING:
    from quarkctl.link.identity import Device

#: What the identity of virtual glasses is followed by where only their application processor is meant.
AR1 = "/ar1"


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


def load_rig(file: Path | None = None) -> Rig:
    """The rig of ``file``, else of `path`; one without stations where there is none. Raises InputWrong."""
    file = file or path()
    if file is None:
        return Rig()
    try:
        return rig_file.parse(str(file), file.read_text("utf-8"))
    except OSError as error:
        raise InputWrong(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputWrong(f"{file} is not UTF-8 text") from error


def load() -> dict[str, Station]:
    """{name: station}, empty without a rig file. Raises InputWrong naming file and place."""
    return load_rig().stations


def twins(stations: Iterable[Station], found: Sequence[Device]) -> list[tuple[Station, Station, str]]:
    """(station, a later one, identity of the device that both mean). One by serial number and one by port may be the same,
    which the file alone does not show; nor do two paths of one port."""
    first: dict[str, Station] = {}
    out = []
    for station in stations:
        fitting = [d.identity.removesuffix(AR1) for d in found if d.is_called(station.word)]
        if not fitting and station.port.startswith("/"):
            fitting = [str(Path(station.port).resolve())]
        for identity in dict.fromkeys(fitting):
            other = first.setdefault(identity, station)
            if other is not station:
                out.append((other, station, identity))
    return out
