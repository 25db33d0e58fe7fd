"""``python -m tests.fuzz TARGET``: one decoder under coverage-guided fuzzing. ``make fuzz`` runs all of them.

A target takes any bytes and may raise nothing but our own input errors. What is found is kept in build/fuzz/TARGET; add it
to the target's property test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import atheris

from tests.fuzz import telemetry

with atheris.instrument_imports(include=["quarkctl"]):
    from quarkctl.errors import QuarkError
    from quarkctl.flash import device, esptool
    from quarkctl.flash.smp import Client
    from quarkctl.formats import esp_image, esp_rom, mcuboot_image, smp
    from quarkctl.formats.explain import explain
    from tests.formats.samples import SAMPLES


def smp_message(data: bytes) -> None:
    """One answer of a device: header and CBOR."""
    parsed = smp.parse_message(data)
    if parsed:
        _ = (parsed.error, parsed.code, repr(parsed)[:100])


def smp_body(data: bytes) -> None:
    """The same behind a header that is right, so that all of the bytes reach the decoder."""
    smp_message(smp.HEADER.pack(0x09, 0, len(data) & 0xFFFF, 0, 0, 0) + data[:0xFFFF])


def smp_console(data: bytes) -> None:
    reader = smp.ConsoleReader()
    half = len(data) // 2
    for message in reader.feed(data[:half]) + reader.feed(data[half:]):
        smp_message(message)


def smp_raw(data: bytes) -> None:
    reader = smp.RawReader()
    half = len(data) // 2
    for message in reader.feed(data[:half]) + reader.feed(data[half:]):
        smp_message(message)


class _Answers:
    """A line on which every request gets the fuzzer's bytes as its answer's body."""

    name = "fuzz"

    def __init__(self, body: bytes) -> None:
        self._body, self._wire = body[:4000], b""

    def write(self, data: bytes) -> None:
        message = smp.LineReader().feed(data.splitlines()[0]) or bytes(8)
        head = smp.HEADER.unpack_from(message)
        answer = smp.HEADER.pack(head[0] | 1, 0, len(self._body), head[3], head[4], head[5]) + self._body
        self._wire = smp.build_lines(answer)

    def read(self, timeout_s: float) -> bytes:
        wire, self._wire = self._wire, b""
        return wire

    def close(self) -> None: ...


def smp_device(data: bytes) -> None:
    """All that the plan asks of a device, answered by these bytes."""
    if smp.parse_message(smp.HEADER.pack(0x09, 0, len(data[:4000]), 0, 0, 0) + data[:4000]) is None:
        return  # it would only be waited for
    client = Client(_Answers(data))
    for ask in (device.probe, device.read_health, device.read_fault):
        _ours(lambda ask=ask: ask(client))  # type: ignore[misc]


def image(data: bytes) -> None:
    _ours(lambda: mcuboot_image.parse(mcuboot_image.MAGIC.to_bytes(4, "little") + data))


def esp(data: bytes) -> None:
    for packet in esp_rom.PacketReader().feed(data):
        esp_rom.parse_request(packet)
    esp_image.parse(b"\xe9" + data)


def esptool_output(data: bytes) -> None:
    reading = esptool._Reading(lambda done: None, verifies=True)
    reading.feed(data)
    esptool.failure(reading.tail, 2)


def ar1_images(data: bytes) -> None:
    """The first byte chooses a format, the next three where the rest overwrites its sample."""
    names = sorted(SAMPLES)
    make, parse = SAMPLES[names[data[0] % len(names)]] if data else SAMPLES["sparse"]
    whole = _sample(make)
    at = int.from_bytes(data[1:4], "little") % len(whole)
    spoiled = whole[:at] + data[4:] + whole[at + len(data[4:]) :]
    _ours(lambda: parse(spoiled))
    _ours(lambda: explain(spoiled))


@cache
def _sample(make: Callable[[], bytes]) -> bytes:
    return make()


def _ours(act: Callable[[], object]) -> None:
    try:
        act()
    except QuarkError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (smp_message, smp_body, smp_console, smp_raw, smp_device, image, esp, esptool_output, ar1_images)
} | telemetry.TARGETS

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print("\n".join(TARGETS))
        sys.exit(0 if len(sys.argv) < 2 else 2)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
