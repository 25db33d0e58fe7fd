"""Names that people give to devices of a rig, from ``rig.toml`` (`quarkctl.formats.rig_file`)."""

from __future__ import annotations

import os
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.formats import rig_file
from quarkctl.formats.rig_file import Rig, Station


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
