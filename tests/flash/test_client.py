"""The SMP client against a scripted line: repeats, seeks, and does not believe nonsense."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import DeviceRefused, LinkTimeout, ProtocolError, QuarkError, VerificationFailed
from quarkctl.flash import device
from quarkctl.flash import smp as client_module
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import chunk_bytes, upload
from quarkctl.formats import smp

Answer = Callable[[smp.Response], Mapping[str, Any] | bytes | None]


@dataclass
class ScriptedLink:
    """A line whose far end is a function; it loses what ``lose`` says. Nothing waits: silence ends a read at once."""

    answer: Answer
    lose: Callable[[], bool] = lambda: False
    name: str = "scripted"
    sent: list[smp.Response] = field(default_factory=list)
    _reader: smp.LineReader = field(default_factory=smp.LineReader)
    _pending: bytes = b""

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            message = self._reader.feed(line)
            if message is None:
                continue
            op, _, _, group, sequence, command = smp.HEADER.unpack_from(message)
            request = smp.Response(op & 7, group, command, sequence, cbor2.loads(message[8:]))
            self.sent.append(request)
            if self.lose():
                continue
            body = self.answer(request)
            if isinstance(body, bytes):
                self._pending += body
            elif body is not None and not self.lose():
                raw = cbor2.dumps(dict(body))
                head = smp.HEADER.pack(0x08 | (request.op + 1), 0, len(raw), group, sequence, command)
                self._pending += smp.build_lines(head + raw)

    def read(self, timeout_s: float) -> bytes:
        data, self._pending = self._pending, b""
        return data

    def close(self) -> None:
        pass


def client(link: ScriptedLink) -> Client:
    return Client(link)


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only when somebody looks at it: time-outs happen without waiting."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 0.01
        return now[0]

    monkeypatch.setattr(client_module.time, "monotonic", monotonic)


def test_a_request_is_repeated_until_it_is_answered() -> None:
    losses = iter([True, False, True])  # request, then answer of the second sending
    link = ScriptedLink(lambda _: {"r": "x"}, lambda: next(losses, False))
    assert client(link).read(smp.Group.OS, smp.Os.ECHO) == {"r": "x"}
    assert len(link.sent) == 3
    assert len({r.sequence for r in link.sent}) == 1


def test_silence_ends_in_an_error_that_names_port_and_question() -> None:
    link = ScriptedLink(lambda _: None)
    with pytest.raises(LinkTimeout, match="scripted: no answer to os params after 6 attempts"):
        client(link).read(smp.Group.OS, smp.Os.PARAMS)


def test_a_refusal_is_told_in_the_devices_words() -> None:
    link = ScriptedLink(lambda _: {"rc": 6, "rsn": "a trial is running"})
    with pytest.raises(DeviceRefused, match="refused image state: a trial is running"):
        client(link).write(smp.Group.IMAGE, smp.ImageCommand.STATE)


def test_the_answer_to_an_earlier_request_is_not_taken_for_this_one() -> None:
    def late(request: smp.Response) -> bytes:
        raw = cbor2.dumps({"r": "old"})
        stale = smp.HEADER.pack(0x09, 0, len(raw), 0, (request.sequence - 1) & 0xFF, 0) + raw
        fresh_raw = cbor2.dumps({"r": "new"})
        fresh = smp.HEADER.pack(0x09, 0, len(fresh_raw), 0, request.sequence, 0) + fresh_raw
        return smp.build_lines(stale) + b"noise" + b"\0" + smp.build_lines(fresh)

    assert client(ScriptedLink(late)).read(smp.Group.OS, smp.Os.ECHO) == {"r": "new"}


@pytest.mark.parametrize("size", [0, -5, "big", True, None, 10**9])
def test_a_strange_buffer_size_does_not_break_anything(size: object) -> None:
    c = client(ScriptedLink(lambda _: {"buf_size": size}))
    c.negotiate()
    assert client_module.ONE_LINE_FRAME <= c.frame_bytes <= smp.MESSAGE_MAX


@given(frame=st.integers(93, 8192), size=st.integers(1, 2**24), first=st.booleans())
def test_a_chunk_always_fits_the_devices_buffer(frame: int, size: int, first: bool) -> None:
    head: dict[str, object] = {"off": size}
    if first:
        head = {"image": 0, "len": size, "off": 0, **({"sha": bytes(32)} if frame >= 160 else {})}
    chunk = chunk_bytes(frame, head)
    message = smp.build_message(smp.Op.WRITE, 1, 1, 0, {**head, "data": bytes(chunk)})
    assert len(message) + smp.FRAME_EXTRA <= frame
    assert chunk % 32 == 0


@dataclass
class Store:
    """A device that keeps what it gets."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0

    def __call__(self, request: smp.Response) -> Mapping[str, Any]:
        if request.command != smp.ImageCommand.UPLOAD:
            return {"rc": 8}
        offset, chunk = request.payload["off"], request.payload["data"]
        if offset == 0 and not self.data:
            self.size = request.payload["len"]
        if offset == len(self.data):
            self.data += chunk
        return {"rc": 0, "off": len(self.data)}


@given(
    size=st.integers(1, 5000), seed=st.integers(0, 1000), loss=st.floats(0, 0.3), frame=st.integers(93, 2048),
    buffers=st.integers(1, 8),
)  # fmt: skip
def test_an_upload_arrives_whole_over_a_line_that_loses_frames(
    size: int, seed: int, loss: float, frame: int, buffers: int
) -> None:
    image = random.Random(size).randbytes(size)
    dice = random.Random(seed)
    store = Store()
    link = ScriptedLink(store, lambda: dice.random() < loss)
    c = client(link)
    c.frame_bytes, c.buffer_count = frame, buffers
    done: list[int] = []
    for _ in range(20):  # with such a loss an attempt may fail; the next one goes on where the device is
        try:
            upload(c, image, lambda at, eta: done.append(at))
            break
        except LinkTimeout:
            continue
    assert bytes(store.data) == image and store.size == size
    assert done[-1] == size


def test_an_upload_goes_on_where_the_device_is() -> None:
    image = bytes(range(256)) * 20
    store = Store(bytearray(image[:3000]), len(image))
    link = ScriptedLink(store)
    c = client(link)
    c.frame_bytes = 512
    upload(c, image, lambda at, eta: None)
    assert bytes(store.data) == image
    assert link.sent[1].payload["off"] == 3000


@pytest.mark.parametrize("offset", [10**9, -1, "x", None, True])
def test_an_offset_outside_the_image_is_a_protocol_error(offset: object) -> None:
    with pytest.raises(ProtocolError, match="for an image of 100 bytes"):
        upload(client(ScriptedLink(lambda _: {"off": offset})), bytes(100), lambda at, eta: None)


def test_a_device_that_never_gets_further_is_given_up() -> None:
    link = ScriptedLink(lambda _: {"off": 32})
    with pytest.raises(DeviceRefused, match="does not get beyond offset 32"):
        upload(client(link), bytes(1000), lambda at, eta: None)


def test_a_device_whose_hash_differs_is_believed() -> None:
    link = ScriptedLink(lambda r: {"off": r.payload["off"] + len(r.payload["data"]), "match": False})
    with pytest.raises(VerificationFailed):
        upload(client(link), bytes(10), lambda at, eta: None)


def test_telemetry_of_another_layout_does_not_disturb() -> None:
    """A device with other messages can still be flashed: that is how it gets the right ones."""

    def answer(request: smp.Response) -> bytes:
        raw = cbor2.dumps({"r": "x"})
        head = smp.HEADER.pack(0x09, 0, len(raw), 0, request.sequence, 0)
        return b"\0\x03\x01\x02\x05some\x01\0" + smp.build_lines(head + raw) + b"\0junk\0"

    assert client(ScriptedLink(answer)).read(smp.Group.OS, smp.Os.ECHO) == {"r": "x"}


@dataclass
class CountingLink(ScriptedLink):
    """Counts how many requests are on their way before an answer is read."""

    ahead: int = 0
    most_ahead: int = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.ahead += 1
        self.most_ahead = max(self.most_ahead, self.ahead)

    def read(self, timeout_s: float) -> bytes:
        self.ahead = 0
        return super().read(timeout_s)


@pytest.mark.parametrize(("buffers", "ahead"), [(1, 1), (2, 1), (4, 3)])
def test_chunks_are_sent_ahead_only_where_the_device_has_buffers(buffers: int, ahead: int) -> None:
    image = bytes(20_000)
    store = Store()
    link = CountingLink(store)
    c = client(link)
    c.frame_bytes, c.buffer_count = 512, buffers
    upload(c, image, lambda at, eta: None)
    assert bytes(store.data) == image and link.most_ahead == ahead


@pytest.mark.parametrize(
    "answer", [{"rc": 6, "rsn": "no upload is open"}, {"rc": 0, "off": 0}], ids=["refuses", "starts over"]
)
def test_a_device_that_restarts_in_the_middle_is_begun_again(answer: Mapping[str, Any]) -> None:
    image = bytes(range(256)) * 10
    store = Store()
    forget = iter([False] * 3 + [True])

    def forgetful(request: smp.Response) -> Mapping[str, Any]:
        if request.payload["off"] and next(forget, False):
            store.data.clear()
            return answer
        return store(request)

    c = client(ScriptedLink(forgetful))
    c.frame_bytes = 512
    upload(c, image, lambda at, eta: None)
    assert bytes(store.data) == image


def test_a_device_that_restarts_again_and_again_is_given_up() -> None:
    def forgetful(request: smp.Response) -> Mapping[str, Any]:
        return {"rc": 6} if request.payload["off"] else {"rc": 0, "off": len(request.payload["data"])}

    with pytest.raises(DeviceRefused, match="wrong state"):
        upload(client(ScriptedLink(forgetful)), bytes(5000), lambda at, eta: None)


ANYTHING = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40), st.text(max_size=20), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["board", "serial", "mode", "boot_id", "slot", "images", "version", "hash", "image", "size", "slots", "key_hash",
     "buf_size", "buf_count", "passed", "total", "failed", "soc_left", "record", "rc", "rsn", "err", "active"]
)  # fmt: skip
ANSWER = st.dictionaries(
    FIELDS, ANYTHING | st.lists(st.dictionaries(FIELDS, ANYTHING, max_size=6), max_size=3), max_size=8
)


@given(answers=st.lists(ANSWER, min_size=1, max_size=6))
def test_whatever_a_device_answers_is_facts_or_an_error_of_ours(answers: list[Mapping[str, Any]]) -> None:
    turn = iter(range(10**6))
    c = client(ScriptedLink(lambda _: answers[next(turn) % len(answers)]))
    for ask in (device.probe, device.read_health, device.read_fault):
        try:
            ask(c)
        except QuarkError as error:
            assert error.exit_code in (4, 5)
