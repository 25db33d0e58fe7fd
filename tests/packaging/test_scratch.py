"""What a test run leaves behind when it is killed, the next one clears up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import scratch
from tests.conftest import ROOT


def test_folders_of_killed_runs_are_cleared_up_and_those_of_living_ones_are_left_alone(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests import scratch; "
    code += f"print(scratch.make('qk-', Path({str(tmp_path)!r})), flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout and other.stdin
    theirs = Path(other.stdout.readline().strip())
    unknown = tmp_path / "qk-unknown"
    unknown.mkdir()
    first = scratch.make("qk-", tmp_path)
    assert theirs.is_dir(), "its process lives"
    other.kill()
    other.communicate()
    second = scratch.make("qk-", tmp_path)
    assert not theirs.exists()
    assert first.is_dir() and unknown.is_dir()
    scratch.remove(first)
    scratch.remove(second, look=True)
    assert not first.exists() and second.is_dir()
    scratch.remove(scratch.make("qk-", tmp_path))
    assert list(tmp_path.iterdir()) == [unknown]
