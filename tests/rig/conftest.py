"""Rigs of protocol-only stations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Quarkctl
from tests.rig.postgres import Postgres
from tests.rig.terminals import Terminals, image


@pytest.fixture
def state_of_its_own(tmp_path: Path, quarkctl: Quarkctl) -> Path:
    """Runs, locks and quarantine of one test only."""
    quarkctl.env["QUARKCTL_STATE_DIR"] = str(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def three(tmp_path: Path, state_of_its_own: Path) -> Iterator[Terminals]:
    """Stations p0, p1, p2 with 1.0.0 on them; rig.toml and new.bin (1.1.0) in the test's folder."""
    with Terminals(3) as terminals:
        terminals.write_rig(tmp_path, "[rig]\nappear_s = 0.2\nretries = 0\n")
        (tmp_path / "new.bin").write_bytes(image("1.1.0"))
        yield terminals


def processes_of(state: Path) -> list[int]:
    """Processes that use this state folder."""
    mark = f"QUARKCTL_STATE_DIR={state}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()
