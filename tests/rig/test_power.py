"""Power by uhubctl, here one that writes down how it was called: no hub that switches is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quarkctl.cli import rig_setup
from tests.conftest import Quarkctl
from tests.rig.terminals import Terminals


@pytest.fixture
def uhubctl(three: Terminals, quarkctl: Quarkctl) -> Path:
    """Station p0 hangs on port 2 of hub 1-1; the file has what uhubctl was told, and it ends with the number in ``code``."""
    programs, calls = quarkctl.folder / "bin", quarkctl.folder / "calls"
    programs.mkdir()
    (quarkctl.folder / "code").write_text("0")
    program = programs / "uhubctl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\necho "No compatible devices detected at location 1-1!" >&2\n'
        f"exit $(cat {quarkctl.folder}/code)\n"
    )
    program.chmod(0o755)
    quarkctl.env["PATH"] = f"{programs}:{os.environ['PATH']}"
    three.write_rig(quarkctl.folder, more=lambda i: 'power = { uhubctl = "1-1", port = 2 }\n' if i == 0 else "")
    return calls


def test_a_hub_is_told_which_port_to_cycle(uhubctl: Path, quarkctl: Quarkctl) -> None:
    assert quarkctl("rig", "power-cycle", "p0").out == f"p0 (port {_port(quarkctl)}): power off and on\n"
    assert uhubctl.read_text() == "-l 1-1 -p 2 -a cycle\n"


def test_a_hub_that_does_not_switch_is_an_error_in_its_own_words(uhubctl: Path, quarkctl: Quarkctl) -> None:
    (quarkctl.folder / "code").write_text("1")
    done = quarkctl("rig", "power-cycle", "p0")
    assert done.code == 4 and "uhubctl ended with 1: No compatible devices detected at location 1-1!" in done.err


def test_doctor_knows_whether_the_hub_is_there_and_has_that_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig_setup, "USB_DEVICES", tmp_path)
    (tmp_path / "1-1").mkdir()
    (tmp_path / "1-1" / "maxchild").write_text("4\n")
    assert [c.text for c in rig_setup._hub_port("a", "1-2", "1")] == ["there is no hub 1-2"]
    assert [c.text for c in rig_setup._hub_port("a", "1-1", "5")] == ["hub 1-1 has 4 ports, not 5"]
    assert list(rig_setup._hub_port("a", "1-1", "4")) == []


def _port(quarkctl: Quarkctl) -> str:
    return (quarkctl.folder / "rig.toml").read_text().split('port = "')[1].split('"')[0]
