"""setup.sh on systems without apt: it says what is missing and how to get it, and touches nothing."""

from __future__ import annotations

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
