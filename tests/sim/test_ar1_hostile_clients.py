"""Clients that break the rules: the virtual AR1 answers, refuses or hangs up, and serves the next one as ever."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quarkctl.errors import DeviceBusy
from quarkctl.flash import fastboot
from quarkctl.formats import usbip
from quarkctl.link.tcp import TcpLink
from quarkctl.link.udp import UdpLink
from quarkctl.link.usb import scan
from quarkctl.link.usbip import Backend
from quarkctl.sim import usb_ip
from quarkctl.sim.ar1 import wires
from quarkctl.sim.ar1.boot_rom import BootRom, Restart
from quarkctl.sim.ar1.fastboot import Buffers, Fastboot, Refused, expand
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.programmer import Programmer
from quarkctl.sim.usb_device import Descriptor, UsbDevice
from quarkctl.sim.usb_host import CLIENTS_MAX
from tests import ar1
from tests.ar1 import Bench, Maker

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = ar1.make(tmp_path_factory.mktemp("hostile"), "fastboot")
    yield made
    made.usbip.close()
    made.ar1.close()


@pytest.fixture(autouse=True)
def no_thread_dies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a server's thread raises is told by nobody else."""
    died: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: died.append(args.exc_value))
    yield
    assert died == []


def well_over_tcp(b: Bench) -> bool:
    link = TcpLink("127.0.0.1", b.ar1.tcp_port)
    try:
        return fastboot.Client(link).variable("version") == "0.4"
    finally:
        link.close()


def well_over_udp(b: Bench) -> bool:
    link = UdpLink("127.0.0.1", b.ar1.udp_port)
    try:
        return fastboot.Client(link).variable("version") == "0.4"
    finally:
        link.close()


def well_over_usb(b: Bench) -> bool:
    """The one before lets go of the device after its connection is closed, not with it."""
    until = time.monotonic() + 10
    while True:
        backend = Backend(*b.usbip.address)
        try:
            return [d.serial for d in scan(backend)] == [b.ar1.settings.serial]
        except DeviceBusy:
            if time.monotonic() > until:
                raise
        finally:
            backend.release_all()


def test_only_this_computer_is_listened_to(bench: Bench) -> None:
    for server in (bench.ar1._tcp._listener, bench.ar1._udp._socket, bench.usbip._clients._listener):
        assert server.getsockname()[0] == "127.0.0.1"


# --- bytes that are no protocol

JUNK = st.lists(st.binary(max_size=64), max_size=4)


@settings(shared, max_examples=60)
@given(JUNK, st.booleans())
@example([b"\xff" * 8 + b"x"], True)
@example([struct.pack(">Q", 17) + b"download:7fffffff"], True)
@example([b"GET / HTTP/1.1\r\n\r\n"], False)
def test_fastboot_over_tcp_survives(bench: Bench, junk: list[bytes], greeted: bool) -> None:
    with socket.create_connection(("127.0.0.1", bench.ar1.tcp_port)) as channel, suppress(OSError):
        if greeted:
            channel.sendall(b"FB01")
        for piece in junk:
            channel.sendall(piece)
    assert well_over_tcp(bench)


@settings(shared, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3), st.integers(0, 5), st.binary(max_size=40)), max_size=8)
)
@example([(3, 1, 0, b"x" * 40)] * 8)
def test_fastboot_over_udp_survives(bench: Bench, packets: list[tuple[int, int, int, bytes]]) -> None:
    """Packets with numbers that the device waits for, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for kind, flags, ahead, data in packets:
            number = (bench.ar1._udp._sequence + ahead) & 0xFFFF
            raw = struct.pack(">BBH", kind, flags, number) + data
            channel.sendto(raw if kind < 250 else data, ("127.0.0.1", bench.ar1.udp_port))
    assert well_over_udp(bench)


HEADERS = st.builds(
    lambda command, number, endpoint, size, incoming: struct.pack(
        ">IIIII", command, number, 0x10002, incoming, endpoint
    ) + struct.pack(">IiiiI8s", 0x200, size, 0, -1, 0, b"\x80\x06\x00\x01\x00\x00\x12\x00"),
    st.sampled_from([1, 1, 1, 2, 3, 0xFFFFFFFF]), st.integers(0, 3), st.sampled_from([0, 1, 1, 7, 0xFFFFFFFF]),
    st.sampled_from([-1, 0, 8, 64, 1 << 24, (1 << 31) - 1]), st.integers(0, 1),
)  # fmt: skip


@settings(shared, max_examples=60)
@given(st.one_of(JUNK, st.lists(HEADERS, max_size=6)), st.sampled_from(["", "1-1", "9-9", "\xff"]))
@example([b""], "")
def test_usbip_survives(bench: Bench, pieces: list[bytes], imported: str) -> None:
    with socket.create_connection(bench.usbip.address) as channel, suppress(OSError):
        if imported:
            name = imported.encode("latin-1").ljust(usbip.BUS_ID_BYTES, b"\0")
            channel.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REQUEST, 0) + name)
        for piece in pieces:
            channel.sendall(piece)
        channel.shutdown(socket.SHUT_WR)
        while channel.recv(65536):
            continue
    assert well_over_usb(bench)


# --- floods


def test_clients_that_say_nothing_are_not_collected(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usb_ip, "_GREETING_S", 0.2)
    monkeypatch.setattr(wires, "_GREETING_S", 0.2)
    b = ar1("fastboot")
    before = threading.active_count()
    crowd = [socket.create_connection(b.usbip.address) for _ in range(3 * CLIENTS_MAX)]
    crowd += [socket.create_connection(("127.0.0.1", b.ar1.tcp_port)) for _ in range(3)]
    try:
        assert threading.active_count() <= before + CLIENTS_MAX + 1
        for channel in crowd[: 3 * CLIENTS_MAX]:  # cut off, each of them
            channel.settimeout(20)
            with suppress(ConnectionResetError):
                assert channel.recv(1) == b""
        assert well_over_usb(b) and well_over_tcp(b)
    finally:
        for channel in crowd:
            channel.close()


@pytest.mark.parametrize("kind", ["data", "requests"])
def test_transfers_that_nobody_takes_are_not_collected(ar1: Maker, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(usb_ip, "_WAITING_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(usb_ip, "_WAITING_MAX", 64)
    b = ar1("fastboot")
    size, incoming = (256 << 10, 0) if kind == "data" else (64, 1)
    with socket.create_connection(b.usbip.address) as channel:
        name = b"1-1".ljust(usbip.BUS_ID_BYTES, b"\0")
        channel.sendall(usbip.REQUEST.pack(usbip.VERSION, usbip.IMPORT_REQUEST, 0) + name)
        sent = 0
        with suppress(OSError):
            for sent in range(1, 1000):
                head = struct.pack(">IIIII", 1, sent, 0x10002, incoming, 1) + struct.pack(
                    ">IiiiI8s", 0, size, 0, -1, 0, bytes(8)
                )
                channel.sendall(head + (bytes(size) if not incoming else b""))
            while channel.recv(65536):  # hung up on
                continue
    assert sent < 1000 and well_over_usb(b)


def test_datagrams_that_the_boot_loader_is_too_slow_for_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "_AHEAD_BYTES", 1000)
    monkeypatch.setattr(wires, "_AHEAD_S", 0.0)
    wire = wires._UdpWire(500, lambda _: None)
    assert [wire.put(bytes(600), ends=False) for _ in range(4)] == [True, True, False, False]
    assert len(wire._piece()) == 600 and wire.put(b"more", ends=True)


# --- words that are the protocol, with contents that are not


class Talk:
    """A wire that gives commands, and downloads of zeros or of what is given, and counts answers."""

    def __init__(self, commands: list[bytes], data: bytes) -> None:
        self.commands, self.data, self.said = deque(commands), data, list[bytes]()

    def receive_command(self) -> bytes:
        if not self.commands:
            raise ConnectionResetError
        return self.commands.popleft()

    def receive_into(self, view: memoryview) -> int:
        piece = self.data[: len(view)].ljust(len(view), b"\0")
        view[:] = piece
        return len(view)

    def send(self, data: bytes) -> None:
        self.said.append(bytes(data))


WORDS = st.sampled_from([
    "boot_a", "super", "userdata", "misc", "nothing", "a", "b", "", "0", "-1", "1", "4096", "9" * 20, "0x10", "00001000",
    "ffffffff", "all", "current-slot", "unlock", "lock", "trial", "digest", "stage", "cancel", "merge", "wipe", "status",
    "9" * 400,
])  # fmt: skip
VERBS = st.sampled_from([
    "getvar", "download", "flash", "erase", "set_active", "fetch", "snapshot-update", "create-logical-partition", "upload",
    "delete-logical-partition", "resize-logical-partition", "update-super", "gsi", "oem", "flashing", "boot", "reboot",
])  # fmt: skip
COMMANDS = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(
        lambda verb, joint, words: f"{verb}{joint}{joint.join(words)}".encode(), VERBS, st.sampled_from(": "),
        st.lists(WORDS, max_size=4),
    ),
)  # fmt: skip


@settings(shared, max_examples=150)
@given(st.lists(COMMANDS, min_size=1, max_size=6), st.booleans(), st.binary(max_size=200))
@example(
    [b"download:00001000", b"flash:super", b"getvar:all", b"resize-logical-partition:a:9"],
    True,
    b"\x3a\xff\x26\xed" * 9,
)
def test_every_fastboot_command_is_answered_once(
    bench: Bench, commands: list[bytes], userspace: bool, data: bytes
) -> None:
    talk = Talk(commands, data)
    bench.ar1.remembered.unlocked = True
    with suppress(ConnectionResetError):
        Fastboot(bench.ar1, Buffers(), userspace=userspace).serve(talk)
    answers = [s for s in talk.said if s[:4] in (b"OKAY", b"FAIL")]
    assert len(answers) == len(commands) - len(talk.commands)


SPARSE = struct.Struct("<I4H4I")
CHUNK = struct.Struct("<2H2I")
U32 = st.integers(0, 2**32 - 1)


@given(
    st.integers(0, 3), st.sampled_from([4, 4096, 1 << 31, 0, 5]), U32, U32,
    st.lists(st.tuples(st.sampled_from([0xCAC1, 0xCAC2, 0xCAC3, 0xCAC4, 1]), U32, st.integers(0, 64)), max_size=4),
)  # fmt: skip
@example(1, 4096, 0, 2**32 - 1, [(0xCAC3, 0, 0)])
def test_a_hostile_sparse_image_is_refused_at_once(
    major: int, block: int, blocks: int, chunks: int, body: list[tuple[int, int, int]]
) -> None:
    data = SPARSE.pack(0xED26FF3A, major, 0, 28, 12, block, blocks, chunks, 0)
    data += b"".join(CHUNK.pack(kind, 0, count, total) + bytes(max(total - 12, 0)) for kind, count, total in body)

    def write(offset: int, piece: memoryview) -> None:
        if offset + len(piece) > 1 << 20:
            raise Refused("outside")

    with suppress(Refused):
        expand(memoryview(data), write)


class Pipe:
    """Endpoints of a programmer under test: what the host gives, and what it is told."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.said = deque(pieces), list[bytes]()
        self.incoming = self.outgoing = self

    def read(self, size_bytes: int) -> bytes:
        if not self.pieces:
            raise ConnectionResetError
        piece = self.pieces.popleft()
        if len(piece) > size_bytes:
            self.pieces.appendleft(piece[size_bytes:])
        return piece[:size_bytes]

    def write(self, data: bytes, **_: bool) -> None:
        self.said.append(bytes(data))

    def halt(self) -> None:
        return


TAGS = st.sampled_from([
    "program", "read", "patch", "configure", "erase", "power", "getstorageinfo", "getsha256digest", "ufs", "peek", "nop",
    "setbootablestoragedrive", "nothing", "range",
])  # fmt: skip
KEYS = st.sampled_from([
    "SECTOR_SIZE_IN_BYTES", "num_partition_sectors", "physical_partition_number", "start_sector", "byte_offset",
    "size_in_bytes", "value", "filename", "address64", "MemoryName", "MaxPayloadSizeToTargetInBytes", "commit",
])  # fmt: skip
VALUES = st.sampled_from([
    "0", "1", "4096", "-1", "x", "", "1e9", "9" * 20, "NUM_DISK_SECTORS-1.", "CRC32(0,4096)",
    "CRC32(NUM_DISK_SECTORS,9)", "CRC32(-1,-1)", "0x10", "ufs", "DISK", "reset", "\u0660", "CRC32(" * 50, "9" * 500,
])  # fmt: skip


@settings(shared, max_examples=150)
@given(
    st.lists(st.tuples(TAGS, st.dictionaries(KEYS, VALUES, max_size=6)), min_size=1, max_size=5),
    st.lists(st.binary(max_size=30), max_size=2),
)
@example([("patch", {"start_sector": "0", "value": "1"})], [])
def test_every_firehose_document_is_answered(
    bench: Bench, elements: list[tuple[str, dict[str, str]]], junk: list[bytes]
) -> None:
    documents = [
        f'<?xml version="1.0"?><data><{tag} {" ".join(f"{k}={quoteattr(v)}" for k, v in words.items())}/></data>'.encode()
        for tag, words in elements
    ]
    pipe = Pipe(*documents, *junk)
    a: VirtualAr1 = bench.ar1
    with suppress(ConnectionResetError):
        Programmer(a.settings, a.remembered, a.storage, lambda: None).serve(pipe)  # type: ignore[arg-type]
    asked = len(documents) - sum(d in documents for d in pipe.pieces)
    assert b"".join(pipe.said).count(b"<response ") >= min(asked, 1)


#: The head of a programmer whose table of segments lies far behind every end.
FAR = b"\x7fELF\x02".ljust(32, b"\0") + b"\xff" * 8 + bytes(14) + struct.pack("<5H", 56, 1, 0, 0, 0)
SAID_TO_A_ROM = st.sampled_from([
    struct.pack("<12I", 2, 48, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0), struct.pack("<12I", 2, 48, 2, 1, 0, 3, 0, 0, 0, 0, 0, 0),
    struct.pack("<3I", 13, 12, 1), FAR,
])  # fmt: skip


@settings(shared, max_examples=100)
@given(
    st.lists(st.one_of(st.binary(max_size=64), SAID_TO_A_ROM), max_size=8),
    st.sampled_from([frozenset(), frozenset({"reads_32"}), frozenset({"reads_twice"})]),
)
@example([struct.pack("<12I", 2, 48, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0), FAR], frozenset({"reads_32"}))
def test_a_boot_rom_only_ever_starts_again(bench: Bench, pieces: list[bytes], quirks: frozenset[str]) -> None:
    pipe = Pipe(*pieces)
    before = set(bench.ar1.settings.quirks)
    bench.ar1.settings.quirks |= quirks
    try:
        with suppress(ConnectionResetError):
            while True:
                with suppress(Restart):
                    BootRom(bench.ar1.settings, pipe).load()  # type: ignore[arg-type]
    finally:
        bench.ar1.settings.quirks.clear()
        bench.ar1.settings.quirks |= before


@given(st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.booleans(), st.integers(0, 300)), max_size=6))
def test_every_control_request_is_answered(requests: list[tuple[bytes, bool, int]]) -> None:
    from quarkctl.sim.usb_device import Transfer

    device = UsbDevice(Descriptor(1, 2, (255, 66, 3), "m", "p", "s"), lambda _: None)
    done: list[Transfer] = []
    for setup, incoming, size in requests:
        device.submit(Transfer(0, incoming, size, done.append, b"" if incoming else bytes(size), setup))
    assert len(done) == len(requests) and all(t.status in (0, -errno.EPIPE) and t.actual <= t.size_bytes for t in done)
