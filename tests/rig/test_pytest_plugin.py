"""The pytest plugin, used as a product team uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quarkctl.build import rtos
from tests.conftest import ROOT, Glasses


def run_pytest(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}", *args],
        cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.qemu
def test_the_documented_example_passes_on_virtual_glasses(
    glasses: Callable[..., Glasses], firmware: Callable[..., rtos.Built]
) -> None:
    device, image = glasses(name="plugin").device, firmware("1.1.0").image
    done = run_pytest(ROOT / "docs" / "examples", "--quark-station", device, "--image", str(image), "test_swap.py")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "which glasses? give --quark-station NAME"),
        (("--quark-station", "sim:nobody"), "no virtual glasses called nobody are running"),
        (
            ("--quark-station", "bench", "--quark-rig", "bad.toml"),
            "line 2, column 1: station.bench.color is not known here",
        ),
    ],
)
def test_a_station_that_cannot_be_had_fails_the_test_with_the_cause(
    args: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text('[station.bench]\ncolor = "red"\nsim = "x"\n')
    (tmp_path / "test_it.py").write_text("def test_it(glasses):\n    pass\n")
    done = run_pytest(tmp_path, *args, "test_it.py")
    assert done.returncode == 1 and told in done.stdout, done.stdout


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n    ours = {m for m in sys.modules if m.startswith('quarkctl')}\n"
        "    assert ours <= {'quarkctl', 'quarkctl.pytest_plugin'}\n"
    )
    done = run_pytest(tmp_path, "test_it.py")
    assert done.returncode == 0, done.stdout
