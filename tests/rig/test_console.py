"""A console: text both ways, one at a time, and an end that leaves the terminal in order."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.formats import frame
from quarkctl.rig.console import Text
from tests.conftest import Quarkctl

FRAME = frame.build(frame.Frame(3, 1, 7, 123_456_789, bytes(range(60))), 0x1234)


@pytest.fixture
def device(tmp_path: Path, quarkctl: Quarkctl) -> Iterator[int]:
    """Station ``a`` of the test's rig.toml; what it is sent and says goes through this file descriptor."""
    quarkctl.env["QUARKCTL_STATE_DIR"] = str(tmp_path / "state")
    master, slave = os.openpty()
    tty.setraw(slave)
    (tmp_path / "rig.toml").write_text(f'[rig]\nappear_s = 0\n[station.a]\nport = "{os.ttyname(slave)}"\n')
    os.close(slave)  # who has it open is asked for before it is opened
    yield master
    os.close(master)


def heard(fd: int, ending: bytes) -> bytes:
    """What comes until this has come. A terminal that nobody has opened yet answers with an error."""
    got, until = b"", time.monotonic() + 60
    while not got.endswith(ending):
        assert time.monotonic() < until, got
        if select.select([fd], [], [], 1)[0]:
            with suppress(OSError):
                got += os.read(fd, 1)
    return got


def test_what_is_piped_in_is_sent_and_the_answer_is_shown_without_telemetry(device: int, quarkctl: Quarkctl) -> None:
    process = subprocess.Popen(
        quarkctl.command("rig", "console", "a"), cwd=quarkctl.folder, env={**os.environ, **quarkctl.env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"version\n")
    process.stdin.close()
    assert heard(device, b"\n") == b"version\n"
    os.write(device, FRAME + b"\x1b[31mversion\x1b[0m 1.2\r\n" + FRAME + b"> ")
    assert heard(process.stdout.fileno(), b"> ") == b"version 1.2\n> "
    second = quarkctl("rig", "console", "a", "--seconds", "1")
    assert second.code == 4 and "is held by quarkctl rig console a" in second.err
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    for stream in (process.stdout, process.stderr):
        stream.close()


def test_on_a_terminal_each_key_is_sent_and_the_end_key_gives_the_terminal_back(
    device: int, quarkctl: Quarkctl
) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        quarkctl.command("rig", "console", "a"), cwd=quarkctl.folder, env={**os.environ, **quarkctl.env},
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while termios.tcgetattr(theirs) == before:
        assert process.poll() is None
    os.write(device, b"hello\r\n")
    assert heard(ours, b"\n").endswith(b"hello\r\n")
    assert termios.tcgetattr(theirs) != before
    os.write(ours, b"a\r")
    assert heard(device, b"\r") == b"a\r"
    os.write(ours, b"\x1d")
    assert process.wait(30) == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_read_only_sends_nothing(device: int, quarkctl: Quarkctl) -> None:
    done = subprocess.run(
        quarkctl.command("rig", "console", "a", "--read-only", "--seconds", "0.5"), cwd=quarkctl.folder,
        env={**os.environ, **quarkctl.env}, input=b"reboot\n", capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b""
    with pytest.raises(OSError, match="Input/output error"):  # not even what it sent before it closed the port
        os.read(device, 1)


@given(
    st.lists(st.sampled_from([b"boot ok\n", b"caf\xc3\xa9\r\n", FRAME, b"\x06\x09AAAA\n", b""]), max_size=8), st.data()
)
def test_text_comes_out_whole_however_the_line_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(b"\0" + p if p == FRAME else p for p in parts) + b"\0"
    text, said, at = Text(), "", 0
    while at < len(wire):
        step = data.draw(st.integers(1, 40))
        said += text.feed(wire[at : at + step])
        at += step
    assert said == "".join(p.decode().replace("\r", "") for p in parts if p[-1:] == b"\n" and p[0] != 6)


@given(st.binary(max_size=300))
def test_no_device_commands_the_terminal_of_its_reader(noise: bytes) -> None:
    text = Text()
    said = text.feed(noise) + text.idle()
    assert "\x1b" not in said and all(c.isprintable() or c in "\t\r\n\b" for c in said)
