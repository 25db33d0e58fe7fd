"""Answers that are faster than the parser can be imported."""

from __future__ import annotations

import json

from quarkctl import boards


def boards_json(names: list[str]) -> str:
    """The document of ``quarkctl boards --json``."""
    found = [boards.load(n).as_dict() for n in names or boards.names()]
    return json.dumps({"schema": "quarkctl.boards/1", "boards": found}, indent=1)
