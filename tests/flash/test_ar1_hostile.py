"""Devices that break the rules: announced sizes, answers in crumbs, endless talk, restarts into another mode, stalls, twins.

What a device says is bounded here, whichever of the protocols it speaks.
"""

from __future__ import annotations

import array
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import usb.core

from quarkctl.errors import DeviceAmbiguous, LinkError, LinkLost, ProtocolError, QuarkError
from quarkctl.flash.fastboot import Client
from quarkctl.flash.firehose import Programmer
from quarkctl.flash.sahara import Sahara
from quarkctl.formats import fastboot, sahara
from quarkctl.formats.sahara import Command
from quarkctl.link import usb as usb_link
from quarkctl.link.tcp import TcpLink
from quarkctl.link.usb import TRANSFER_BYTES_MIN, UsbDevice, UsbLink, pick, scan
from quarkctl.link.usbip import Backend
from quarkctl.sim.usb_ip import UsbIpServer
from tests.ar1 import Bench, Maker, file, noise, rawprogram

Serve = Callable[[Callable[[socket.socket], None]], TcpLink]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(script)`` is a link to a device that does what the script does after the greeting."""
    listener = socket.create_server(("127.0.0.1", 0))
    links: list[TcpLink] = []

    def start(script: Callable[[socket.socket], None]) -> TcpLink:
        def run() -> None:
            channel, _ = listener.accept()
            with channel:
                channel.sendall(fastboot.TCP_HELLO)
                channel.recv(4)
                script(channel)
                channel.recv(65536)  # what was asked meanwhile; then the end

        threading.Thread(target=run, daemon=True).start()
        links.append(TcpLink("127.0.0.1", listener.getsockname()[1]))
        return links[-1]

    yield start
    for link in links:
        link.close()
    listener.close()


def message(data: bytes) -> bytes:
    return struct.pack(">Q", len(data)) + data


# --- fastboot ---------------------------------------------------------------------------------------------------------


def test_a_reply_in_crumbs_is_one_reply(serve: Serve) -> None:
    def crumbs(channel: socket.socket) -> None:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message(b"INFOhello") + message(b"OKAY0.4"):
            channel.sendall(bytes([byte]))

    answer = Client(serve(crumbs)).command("getvar:version")
    assert (answer.lines, answer.text) == (["hello"], "0.4")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (struct.pack(">Q", 1 << 60), "announces a message"),
        (message(b"DATA00000010"), "data that nobody asked for"),
        (message(b"X" * 4096), "4096|no fastboot|answered"),
    ],
)
def test_lengths_and_answers_that_make_no_sense_end_the_session(serve: Serve, said: bytes, match: str) -> None:
    with pytest.raises(ProtocolError, match=match):
        Client(serve(lambda channel: channel.sendall(said))).command("getvar:version")


def test_an_upload_of_more_than_was_announced_is_refused(serve: Serve) -> None:
    taken: list[bytes] = []
    link = serve(lambda channel: channel.sendall(message(b"DATA00000004") + message(b"12345678")))
    with pytest.raises(ProtocolError, match="4 bytes more than it announced"):
        Client(link).upload("upload", taken.append)
    assert b"".join(taken) == b""


def test_an_upload_without_end_is_refused_before_it_begins(serve: Serve) -> None:
    with pytest.raises(ProtocolError, match="without data"):
        Client(serve(lambda channel: channel.sendall(message(b"DATAffffffff")))).upload("upload", lambda _: None)


# --- emergency download -----------------------------------------------------------------------------------------------


class Script:
    """A link that gives prepared pieces, and keeps what it was told."""

    def __init__(self, *pieces: bytes) -> None:
        self.name, self.packet_bytes, self.told = "usb 1-1", 512, list[bytes]()
        self._pieces = list(pieces)

    def read(self, _timeout_s: float) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, data: bytes | memoryview) -> None:
        self.told.append(bytes(data))


def hello() -> bytes:
    return sahara.build(Command.HELLO, version=2, compatible=1, limit_bytes=1024, mode=0)


@pytest.mark.parametrize("cut", [1, 7, 8, 47])
def test_a_sahara_packet_in_crumbs_is_one_packet(cut: int) -> None:
    raw = hello() + sahara.build(Command.READ_DATA, image=13, offset=0, size_bytes=4)
    link: Any = Script(*(raw[at : at + cut] for at in range(0, len(raw), cut)))
    with pytest.raises(LinkError):  # it says no more; what it asked for was given
        Sahara(link).upload({13: b"\x7fELF"})
    assert link.told[-1] == b"\x7fELF"


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 5), (5, 1), (0xFFFFFFFF, 1), (0, 0xFFFFFFFF), (2, 0)]
)  # fmt: skip
def test_a_rom_that_asks_for_what_there_is_not_is_reset(offset: int, size: int) -> None:
    link: Any = Script(hello() + sahara.build(Command.READ_DATA, image=13, offset=offset, size_bytes=size))
    with pytest.raises(ProtocolError, match="asked for"):
        Sahara(link).upload({13: b"\x7fELF"})
    assert link.told[-1] == sahara.build(Command.RESET)


def test_a_rom_that_reads_for_ever_is_given_up() -> None:
    ask = sahara.build(Command.READ_DATA, image=13, offset=0, size_bytes=4)
    link: Any = Script(hello(), *[ask] * 100)
    with pytest.raises(ProtocolError, match="still wants more"):
        Sahara(link).upload({13: b"\x7fELF"})
    assert len(link.told) < 20


def test_an_answer_in_command_mode_of_any_length_is_bounded() -> None:
    link: Any = Script(
        hello(), sahara.build(Command.COMMAND_READY),
        sahara.build(Command.EXECUTE_RESPONSE, client=1, size_bytes=0xFFFFFFFF),
    )  # fmt: skip
    with pytest.raises(ProtocolError):
        Sahara(link).chip_info()


def test_a_table_of_memory_of_any_length_is_bounded() -> None:
    first = sahara.build(Command.HELLO, version=2, compatible=1, limit_bytes=1024, mode=2)
    link: Any = Script(first, sahara.build(Command.MEMORY_DEBUG_64, address=0, size_bytes=1 << 60))
    with pytest.raises(ProtocolError, match="table of memory"):
        Sahara(link).regions()


def test_a_programmer_that_gives_more_than_was_read_keeps_its_words_apart() -> None:
    reply = b'<?xml version="1.0"?><data><response value="ACK" rawmode="true"/></data>'
    end = b'<?xml version="1.0"?><data><response value="ACK" rawmode="false"/></data>'
    link: Any = Script(reply + b"12345678" + end)
    assert b"".join(Programmer(link).read({}, 8)) == b"12345678"


def test_a_payload_that_makes_no_sense_is_not_followed() -> None:
    for offered in ("0", "-1", "99999999999999999999", "abc", "17"):
        link: Any = Script(
            f'<?xml version="1.0"?><data><response value="ACK" MaxPayloadSizeToTargetInBytes="{offered}"/></data>'.encode()
        )
        programmer = Programmer(link)
        programmer.configure("ufs")
        assert programmer.payload_bytes == 1 << 20


# --- both -------------------------------------------------------------------------------------------------------------

IMAGE = noise(2 << 20)


def flash_fastboot(b: Bench) -> object:
    return b.fastboot(file(b.folder, "boot.img", IMAGE[: 1 << 20]), restart=False, force=True)


def flash_edl(b: Bench) -> object:
    file(b.folder, "boot.img", IMAGE)
    row = {"filename": "boot.img", "label": "super", "start_sector": 3000, "num_partition_sectors": 512}
    return b.edl(rawprogram(b.folder, [row]), restart=False, force=True)


BOTH = {"fastboot": flash_fastboot, "edl": flash_edl}


@pytest.mark.parametrize("other", ["system", "fastboot", "edl"])
@pytest.mark.parametrize("mode", BOTH)
def test_a_device_that_restarts_into_another_mode_is_told_and_the_next_try_succeeds(
    ar1: Maker, mode: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == other:
        pytest.skip("that is no other mode")
    monkeypatch.setattr("quarkctl.flash.edl_device.HELLO_S", 0.2)
    b = ar1(mode)
    b.ar1.storage.cut_after(300_000, lambda: b.ar1.enter(other))
    with pytest.raises(QuarkError) as stopped:
        BOTH[mode](b)
    assert stopped.value.exit_code in (4, 5)
    if other != "system":
        with pytest.raises(QuarkError) as told:  # it is there, in the wrong mode
            BOTH[mode](b)
        assert told.value.exit_code in (2, 4)
    b.ar1.enter(mode)
    BOTH[mode](b)


@pytest.mark.parametrize("mode", BOTH)
def test_a_stalled_endpoint_is_a_lost_link(ar1: Maker, mode: str) -> None:
    b = ar1(mode)
    original = b.ar1.points.hit
    passed = 0

    def hit(name: str) -> None:
        nonlocal passed
        original(name)
        passed += name == "usb-out"
        if passed == 3 and b.ar1.port.device:
            b.ar1.port.device.incoming.halt()
            b.ar1.port.device.outgoing.halt()

    b.ar1.points.hit = hit  # type: ignore[method-assign]
    with pytest.raises(LinkLost, match="stalled"):
        BOTH[mode](b)
    b.ar1.points.hit = original  # type: ignore[method-assign]
    b.ar1.enter(mode)
    BOTH[mode](b)


@pytest.mark.parametrize("mode", BOTH)
def test_two_devices_that_share_a_serial_number_are_never_guessed_between(ar1: Maker, mode: str) -> None:
    first, second = ar1(mode, serial="TWIN"), ar1(mode, serial="TWIN")
    second.ar1.port.number = 2
    server = UsbIpServer([first.ar1.port, second.ar1.port])
    try:
        found = scan(Backend(*server.address))
        with pytest.raises(DeviceAmbiguous, match="2 devices fit"):
            pick(found, "TWIN" if mode == "fastboot" else "")
        assert pick(found, "1-2").port == "1-2"
    finally:
        server.close()


# --- the bus ----------------------------------------------------------------------------------------------------------


def test_a_bus_that_chokes_on_large_transfers_gets_smaller_ones_and_no_byte_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usb_link, "WRITE_SLICE_S", 0.001)
    taken = bytearray()

    def write(_endpoint: int, data: array.array[int], _timeout_ms: int) -> int:
        if len(data) > 64 << 10:
            raise usb.core.USBTimeoutError("timed out")
        taken.extend(data)
        return len(data)

    def read(*_: object) -> int:
        raise usb.core.USBTimeoutError("timed out")

    device = SimpleNamespace(
        write=write, read=read, is_kernel_driver_active=lambda _: False, backend=None,
        _ctx=SimpleNamespace(managed_claim_interface=lambda *_: None, managed_release_interface=lambda *_: None,
                             dispose=lambda *_: None),
    )  # fmt: skip
    about = UsbDevice(1, 2, "S", "P", "1-1", 2, 0, (255, 255, 255), 512, 1, 0x81, device)
    link = UsbLink(about)
    link.write(noise(1 << 20))
    assert bytes(taken) == noise(1 << 20) and link.transfer_bytes == 64 << 10 >= TRANSFER_BYTES_MIN
    link.close()
