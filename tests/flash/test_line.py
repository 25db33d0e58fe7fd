"""Uploads over modelled lines, in virtual time: slow flash, lost bytes, few and many buffers, devices that misbehave."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quarkctl.errors import DeviceRefused, LinkTimeout, QuarkError
from quarkctl.flash import smp as client_module
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import chunk_bytes, upload
from quarkctl.formats import smp
from tests.flash.smp_server import Clock, Model, Settings, VirtualLine

IMAGE = random.Random(3).randbytes(60_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(client_module.time, "monotonic", clock.monotonic)
    return clock


def connect(clock: Clock, model: Model) -> Client:
    return Client(VirtualLine(model, clock), "raw" if model.settings.raw else "console")


def send(clock: Clock, model: Model, image: bytes = IMAGE) -> Client:
    client = connect(clock, model)
    client.negotiate()
    upload(client, image, lambda done, eta: None)
    assert bytes(model.stored) == image
    return client


@pytest.mark.parametrize("error_rate", [0.0, 1e-5, 1e-4, 5e-4])
@pytest.mark.parametrize("settings", [
    {"buffers": 1}, {"buffers": 4, "erase_s": 0.03, "page_s": 0.0004}, {"buffers": 8, "buf_size": 4096}, {"params": False},
], ids=["MCUboot", "window, slow flash", "large buffers", "one line"])  # fmt: skip
def test_an_image_arrives_whole_over_a_line_that_damages_bytes(
    clock: Clock, settings: dict[str, Any], error_rate: float
) -> None:
    model = Model(Settings(error_rate=error_rate, **settings))
    client = send(clock, model)
    assert error_rate < 1e-4 or client.round_trips.repeat_count > 0
    assert model.largest_frame <= client.frame_bytes


@pytest.mark.parametrize("latency", [{}, {"erase_s": 0.03, "page_s": 0.0004}], ids=["fast flash", "slow flash"])
def test_a_server_with_buffers_keeps_the_line_busy(clock: Clock, latency: dict[str, float]) -> None:
    """Modelled time, so it is exact: at least 95 % of what the framing leaves of the line."""
    model = Model(Settings(buffers=8, **latency))
    client = send(clock, model)
    chunk = chunk_bytes(client.frame_bytes, {"off": len(IMAGE)})
    least_s = len(IMAGE) / chunk * smp.wire_bytes(chunk + 26) / model.settings.rate
    assert model.last_at - model.first_at <= least_s / 0.95
    assert model.dropped_count == 0


def test_raw_framing_uses_all_of_the_line(clock: Clock) -> None:
    model = Model(Settings(raw=True, buffers=4, buf_size=2048))
    send(clock, model)
    assert len(IMAGE) / (model.last_at - model.first_at) >= 0.97 * model.settings.rate


def test_raw_framing_recovers_by_silence_where_bytes_are_lost(clock: Clock) -> None:
    model = Model(Settings(raw=True))
    client = connect(clock, model)
    client.negotiate()
    receive, lost = model.receive, iter([False, False, True, False, False, True])

    def lossy(data: bytes, now: float) -> None:
        receive(data[1:] if next(lost, False) else data, now)

    model.receive = lossy  # type: ignore[method-assign]
    upload(client, IMAGE[:20_000], lambda done, eta: None)
    assert bytes(model.stored) == IMAGE[:20_000]
    assert clock.now > 2 * smp.RAW_SILENCE_S


def test_a_device_whose_buffers_become_smaller_in_the_middle_is_asked_again(clock: Clock) -> None:
    model = Model(Settings(buf_size=2048))

    def shrinks(group: int, command: int, request: dict[str, Any]) -> dict[str, Any] | bytes | None:
        if request.get("off", 0) > 20_000:
            model.settings.buf_size = 256
        return model.serve(group, command, request)

    model.answer = shrinks
    client = send(clock, model)
    assert client.frame_bytes == 256


def test_a_device_that_sends_half_a_frame_is_silent(clock: Clock) -> None:
    client = connect(clock, Model(Settings(), answer=lambda *_: b"\x06\x09AKgLAAAF"))
    with pytest.raises(LinkTimeout, match="no answer to os params after 6 attempts"):
        client.negotiate()


def test_a_busy_device_is_asked_again_and_not_for_ever(clock: Clock) -> None:
    model = Model(Settings())
    busy = iter([True, True, False, True])
    model.answer = lambda *a: {"rc": 10} if next(busy, False) else model.serve(*a)
    send(clock, model)
    model.answer = lambda *_: {"rc": 10}
    with pytest.raises(QuarkError, match="busy"):
        connect(clock, model).read(smp.Group.OS, smp.Os.ECHO)


def test_log_lines_of_the_device_between_frames_are_passed_over(clock: Clock) -> None:
    model = Model(Settings())
    framed = model._framed
    model._framed = lambda m: b"[00:01.250] <inf> mcumgr: chunk\r\nuart:~$ " + framed(m) + b"*** log"  # type: ignore[method-assign]
    send(clock, model, IMAGE[:9000])


def test_a_minute_of_noise_ends_in_an_error_and_fills_no_memory(clock: Clock) -> None:
    noise = random.Random(9)

    class Noisy(VirtualLine):
        read_bytes = 0

        def read(self, timeout_s: float) -> bytes:
            self.clock.now += min(timeout_s + 1e-6, 0.01)
            self.read_bytes += 1000
            # Without line ends it is the worst: nothing ever completes.
            return noise.randbytes(1000).replace(b"\n", b"")

    for framing in client_module.FRAMINGS:
        line = Noisy(Model(Settings()), clock)
        client = Client(line, framing)
        with pytest.raises(LinkTimeout):
            client.request(smp.Op.READ, 0, 6, {}, patience_s=(60.0,))
        assert line.read_bytes > 1_000_000
        assert len(client._reader._rest) <= smp.HEADER.size + smp.MESSAGE_MAX


def test_a_device_that_always_starts_over_is_given_up(clock: Clock) -> None:
    with pytest.raises(DeviceRefused, match="does not get beyond offset 0"):
        send(clock, Model(Settings(), answer=lambda *_: {"off": 0}))


def test_a_device_that_takes_all_day_is_given_up(clock: Clock) -> None:
    """It answers every time, and each answer takes it four seconds."""
    model = Model(Settings())

    def slowly(group: int, command: int, request: dict[str, Any]) -> dict[str, Any] | bytes | None:
        model._cost = 4.0 if (group, command) == (1, 1) else 0.0
        answer = model.serve(group, command, request)
        model.stored[request.get("off", 0) + 64 :] = b""
        return {"off": len(model.stored)} if command == 1 else answer

    model.answer = slowly
    with pytest.raises(LinkTimeout, match="too slow"):
        send(clock, model)


BOMBS = {
    "nested arrays": b"\xa1\x61a" + b"\x81" * 30_000,
    "endless maps": b"\xbf\x61a" * 9_000,
    "a string of 4 GB": b"\xa1\x61a\x5a\xff\xff\xff\xff",
    "a map of 2**64 entries": b"\xbb" + b"\xff" * 8,
    "a number of 60 kB": b"\xa1\x62rc\xc2\x59\xea\x60" + b"\x01" * 60_000,
    "a pattern to compile": b"\xa1\x62rc\xd8\x23\x78\x1e" + b"(a*)*" * 6,
    "ten to the power of a billion": b"\xa1\x62rc\xc4\x82\x1a\x3b\x9a\xca\x00\x01",
    "a value that contains itself": b"\xa1\x61a\xd8\x1c\x81\xd8\x1d\x00",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_cbor_bomb_is_no_answer(clock: Clock, bomb: bytes) -> None:
    model = Model(Settings(rate=0))

    def boom(group: int, command: int, request: dict[str, Any]) -> bytes:
        return model._framed(smp.HEADER.pack(0x09, 0, len(bomb), group, 1, command) + bomb)

    model.answer = boom
    with pytest.raises(LinkTimeout):
        connect(clock, model).negotiate()
