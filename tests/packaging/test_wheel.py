"""What is shipped: a wheel with the schemas, without tests, that works alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_the_wheel_carries_the_schemas_and_the_boards_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"quarkctl/protocols/stream.toml", "quarkctl/boards/s1-virtual.toml"} <= set(names)
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "quarkctl").rglob("*.py")}
    assert sources <= set(names)
    assert "quarkctl/boards/limits/s1-virtual.toml" in names
    top = {n.split("/")[0] for n in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"quarkctl"}
    assert not [n for n in names if "/test" in n or "vectors" in n or n.endswith(".pem")]


def test_the_installed_wheel_works_outside_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    code = "import quarkctl.schemas as s; print(s.__file__, hex(s.telemetry().layout_hash), s.folder())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert str(site) in done.stdout and str(site / "quarkctl" / "protocols") in done.stdout, done.stderr
    script = site / "bin" / "quarkctl"
    shown = subprocess.run(
        [script, "--version"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True
    )
    assert shown.returncode == 0 and shown.stdout.startswith(b"quarkctl ")
