"""setup.sh: on systems without apt it says what is missing and how to get it, and touches nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("manager", "told"),
    [("dnf", "sudo dnf install cmake"), ("brew", "brew install cmake"), ("", "get them with your package manager")],
    ids=["Fedora", "macOS", "another system"],
)
def test_missing_tools_are_named_with_the_way_to_get_them(manager: str, told: str, tmp_path: Path) -> None:
    for name in ("sh", "dirname", "id", "uname", "cat", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    if manager:
        (tmp_path / manager).symlink_to("/bin/true")
    done = subprocess.run(
        ["/bin/sh", ROOT / "setup.sh", "test"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 3
    for tool in ("cmake", "ninja", "arm-none-eabi-gcc", "newlib", "qemu-system-arm", "gcc", "python"):
        assert tool in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("moved", [True, False], ids=["made elsewhere", "made here"])
def test_an_environment_that_leads_into_another_clone_is_made_anew(moved: bool, tmp_path: Path) -> None:
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    venv = clone / "build" / "venv"
    (venv / "bin").mkdir(parents=True)
    programs.mkdir()
    shutil.copy(ROOT / "pyproject.toml", clone)
    shutil.copy(ROOT / "setup.sh", clone)
    (venv / "bin" / "python").symlink_to("/bin/true")
    made_in = "/another/clone/build/venv" if moved else venv.resolve()
    (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {made_in}\n")
    (venv / ".run").touch()
    kept = venv / "kept"
    kept.touch()
    python = programs / "python3"
    python.write_text(
        '#!/bin/sh\n[ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && exec ln -s /bin/true "$3/bin/python"\n'
        f'exec {shutil.which("python3")} "$@"\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", clone / "setup.sh", "run"], env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert kept.exists() != moved
    assert ("was made in another place (/another/clone/build/venv)" in done.stderr) == moved
    assert (venv / ".run").exists()
