"""Reset by DTR and RTS: through real pyserial on a terminal with modem lines, and over RFC 2217."""

from __future__ import annotations

import ctypes.util
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import serial
from serial import rfc2217

from quarkctl.errors import DeviceMissing, InputWrong, LinkError, LinkLost, UsageWrong
from quarkctl.link import reset
from quarkctl.link.serial_port import SerialOpener, open_serial
from quarkctl.link.serial_url import open_url
from tests.link.modem_port import DTR, PRELOAD, RTS, ModemPort

CHILD = """
import sys
from quarkctl.link import reset
from quarkctl.link.serial_port import open_serial
link = open_serial("/dev/ttyUSB0", 115200)
for sequence in sys.argv[1:]:
    reset.run(link, sequence)
    print(link.read(5.0).decode(), flush=True)
link.close()
"""


def board(port: ModemPort) -> list[str]:
    """A board with the usual circuit: letting RTS go starts it, and DTR then chooses what."""
    started: list[str] = []

    def edge(before: int, after: int) -> None:
        if before & RTS and not after & RTS:
            started.append("bootloader" if after & DTR else "application")
            os.write(port.master, started[-1].encode())

    port.on_edge = edge
    return started


def test_both_sequences_start_what_they_name(tmp_path: Path) -> None:
    port = ModemPort(tmp_path)
    started = board(port)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "bootloader", "hard"], env={**os.environ, **port.env}, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    port.close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == started == ["bootloader", "application"]
    assert port.edges[-2:] == [("RTS", True), ("RTS", False)]


def test_a_terminal_without_modem_lines_says_so() -> None:
    master, slave = os.openpty()
    link = open_serial(os.ttyname(slave), 115200)
    try:
        with pytest.raises(LinkError, match="has no DTR line"):
            reset.run(link, "bootloader")
    finally:
        link.close()
        os.close(slave)
        os.close(master)


class FakePort:
    """What pyserial's RFC 2217 server drives; remembers the lines."""

    def __init__(self) -> None:
        self.__dict__.update(baudrate=9600, bytesize=8, parity="N", stopbits=1, rtscts=False, xonxoff=False)
        self.__dict__.update(cts=True, dsr=True, ri=False, cd=False, break_condition=False, edges=[])

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("dtr", "rts") and self.__dict__.get(name) != value:
            self.__dict__["edges"].append((name.upper(), value))
        self.__dict__[name] = value

    def reset_input_buffer(self) -> None: ...

    def reset_output_buffer(self) -> None: ...


class Server:
    """An RFC 2217 server that echoes, around pyserial's own protocol engine."""

    def __init__(self) -> None:
        self.port = FakePort()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        channel, _ = self._listener.accept()
        with channel:
            self.channel = channel
            manager = rfc2217.PortManager(self.port, self)
            while data := channel.recv(1024):
                plain = b"".join(manager.filter(data))
                if plain:
                    channel.sendall(b"".join(manager.escape(plain)))

    def write(self, data: bytes) -> None:
        self.channel.sendall(data)

    def close(self) -> None:
        self._listener.close()
        self._thread.join()


@pytest.mark.filterwarnings("ignore:set\\w+\\(\\) is deprecated")  # pyserial 3.5
def test_rfc2217_carries_bytes_rate_and_the_order_of_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reset.SEQUENCES, "bootloader", "D0|R0|R1|D1|R0|D0")
    server = Server()
    link = open_url(server.url, 921_600)
    try:
        link.write(b"hello\xff")
        got = b""
        while len(got) < 6:
            got += link.read(5.0)
        assert got == b"hello\xff"
        assert server.port.__dict__["baudrate"] == 921_600
        server.port.__dict__["edges"].clear()
        reset.run(link, "bootloader")
        assert server.port.__dict__["edges"][-4:] == [("RTS", True), ("DTR", True), ("RTS", False), ("DTR", False)]
    finally:
        link.close()
        server.close()


def test_a_socket_carries_bytes_and_its_end_is_a_lost_link() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
    link = SerialOpener("usb:x", lambda: url, 115200).open()
    channel, _ = listener.accept()
    channel.sendall(b"x" * 1000)
    got = b""
    while len(got) < 1000:
        got += link.read(5.0)
    assert link.read(0.0) == b""
    with pytest.raises(LinkError, match="has no RTS line"):
        link.set_rts(True)
    channel.close()
    with pytest.raises(LinkLost, match="went away"):
        link.read(5.0)
    link.close()
    listener.close()


@pytest.mark.parametrize("url", ["spy://dev/ttyUSB0", "loop://", "http://x"])
def test_other_ways_than_the_two_are_refused(url: str) -> None:
    with pytest.raises(UsageWrong):
        open_url(url, 115200)


def test_nobody_at_the_other_end_is_a_missing_device() -> None:
    with pytest.raises(DeviceMissing, match="cannot open socket"):
        open_url("socket://127.0.0.1:1", 115200)


@pytest.mark.parametrize("text", ["X1", "D2", "D", "W-1", "W99", "Wx", "D0|", "hard|D0"])
def test_a_sequence_with_a_mistake_is_refused(text: str) -> None:
    if text == "D0|":
        assert reset.parse(text) == (("D", 0.0),)
        return
    with pytest.raises(InputWrong, match="is no step"):
        reset.parse(text)


def test_the_preload_library_is_there() -> None:
    """setup.sh installs it: without it the test above would say something else than what is wrong."""
    assert ctypes.CDLL(PRELOAD) and serial.VERSION >= "3.5"
