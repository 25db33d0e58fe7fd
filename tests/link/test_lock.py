"""The lock by identity: one process a device, the holder named, free when its process is gone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarkctl.errors import DeviceBusy, HostUnfit
from quarkctl.link import lock

HOLD = """
import sys
from quarkctl.link import lock
lock.hold(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def other(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds usb:QS1-0042."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, "usb:QS1-0042"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_held_device_is_refused_with_pid_command_and_time_of_the_holder(other: subprocess.Popen[bytes]) -> None:
    with pytest.raises(DeviceBusy, match=rf"usb:QS1-0042 is held by .*\(pid {other.pid}\) since 20\d\d-") as error:
        lock.hold("usb:QS1-0042")
    assert f"kill {other.pid}" in error.value.hint
    found = lock.holder_of("usb:QS1-0042")
    assert found and found.pid == other.pid
    lock.hold("usb:QS1-0043").release()


def test_a_killed_holder_leaves_the_device_free(other: subprocess.Popen[bytes]) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert lock.holder_of("usb:QS1-0042") is None
    with lock.hold("usb:QS1-0042"):
        found = lock.holder_of("usb:QS1-0042")
        assert found and found.pid == os.getpid()
    assert lock.holder_of("usb:QS1-0042") is None


def test_a_device_stays_ours_while_its_link_is_closed_and_opened() -> None:
    outer = lock.hold("sim:s1")
    lock.hold("sim:s1").release()
    outer_free = subprocess.run([sys.executable, "-c", HOLD, "sim:s1"], stdin=subprocess.DEVNULL, capture_output=True)
    assert b"DeviceBusy" in outer_free.stderr
    outer.release()
    outer.release()
    assert lock.holder_of("sim:s1") is None


@pytest.mark.parametrize("left", ["", "{", '{"pid": "x"}', '{"pid": 999999999, "command": "c", "since": "s"}'])
def test_what_a_crashed_holder_wrote_is_not_told_as_the_truth(
    state: Path, other: subprocess.Popen[bytes], left: str
) -> None:
    (path,) = (state / "locks").iterdir()
    path.write_text(left)
    with pytest.raises(DeviceBusy, match="held by another process"):
        lock.hold("usb:QS1-0042")


@pytest.mark.parametrize("identity", ["usb:../../etc/passwd", "usb:" + "x" * 500, "usb:a/b", "usb:ä\0\n"])
def test_an_identity_with_strange_characters_stays_in_the_folder(state: Path, identity: str) -> None:
    with lock.hold(identity):
        assert len(list((state / "locks").iterdir())) == 1
    assert [p.name for p in state.iterdir()] == ["locks"]


def test_an_unwritable_state_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(HostUnfit, match="cannot make"):
        lock.hold("usb:x")


def test_a_full_disk_costs_the_name_of_the_holder_and_not_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    held = lock.hold("usb:QS1-0042")
    monkeypatch.undo()
    assert lock.holder_of("usb:QS1-0042")
    held.release()
    assert lock.holder_of("usb:QS1-0042") is None
