"""What docs/rigs offers to copy is what works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Quarkctl
from tests.rig.terminals import Terminals

RECIPES = ROOT / "docs" / "rigs"


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml", "Jenkinsfile"])
def test_the_commands_of_a_recipe_leave_what_it_collects(name: str, three: Terminals, quarkctl: Quarkctl) -> None:
    text = (RECIPES / name).read_text()
    if name.endswith(".yml"):
        assert isinstance(yaml.safe_load(text), dict)
    (quarkctl.folder / "nightly.toml").write_text('[[step]]\ndo = "flash"\nwhat = "new.bin"\n')
    (command,) = re.findall(r"quarkctl (rig (?:run|artifacts) [^'\"\n]+)", text)
    done = quarkctl(*shlex.split(command))
    assert done.code == 0, done.err
    assert ET.parse(quarkctl.folder / "junit.xml").getroot().get("tests") == "3"
    assert json.loads((quarkctl.folder / "rig-run" / "run.json").read_text())["verdict"] == "passed"
    again = quarkctl(*shlex.split(command))  # and no station was touched
    assert again.code == 6 and "rig-run exists already" in again.err and three.devices[0].restarts == 1


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed: this is no computer with systemd")
    unit = (RECIPES / "quarkctl-rig.service").read_text().replace("/opt/quarkctl/bin/quarkctl", "/bin/true")
    (tmp_path / "quarkctl-rig.service").write_text(unit)
    done = subprocess.run(
        [verify, "verify", tmp_path / "quarkctl-rig.service"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
