"""Packets of the ESP32 family's loader, and its images."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quarkctl.formats import esp_image, esp_rom


def test_a_sync_request_is_the_documented_bytes() -> None:
    wire = bytes.fromhex("c0 00 08 24 00 00 00 00 00 07 07 12 20") + b"\x55" * 32 + b"\xc0"
    (packet,) = esp_rom.PacketReader().feed(wire)
    assert esp_rom.parse_request(packet) == esp_rom.Request(
        esp_rom.Command.SYNC, bytes.fromhex("07071220") + b"\x55" * 32, 0
    )


@given(bodies=st.lists(st.binary(min_size=1, max_size=200), max_size=4), cuts=st.lists(st.integers(1, 40), max_size=20))
def test_packets_come_out_as_they_went_in_whatever_the_pieces(bodies: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(esp_rom.build_packet, bodies))
    reader, got, at = esp_rom.PacketReader(), [], 0
    for cut in [*cuts, len(wire)]:
        got += reader.feed(wire[at : at + cut])
        at += cut
    assert got == bodies


@given(data=st.lists(st.binary(max_size=300), max_size=8))
def test_any_bytes_are_survived_and_the_next_packet_is_found(data: list[bytes]) -> None:
    reader = esp_rom.PacketReader()
    for piece in data:
        for packet in reader.feed(piece):
            esp_rom.parse_request(packet)
    assert reader.feed(b"\xc0" + esp_rom.build_packet(b"next"))[-1] == b"next"


def test_a_packet_without_end_fills_no_memory() -> None:
    reader = esp_rom.PacketReader()
    for _ in range(100):
        reader.feed(b"x" * 10_000)
    assert len(reader._rest) <= esp_rom.PACKET_MAX + 1
    assert reader.feed(b"\xc0\xc0") == [] and reader.bad_count == 1


@given(data=st.binary(max_size=300), head=st.booleans())
def test_any_file_is_an_image_or_none(data: bytes, head: bool) -> None:
    parsed = esp_image.parse(b"\xe9" + data if head else data)
    assert parsed is None or parsed.version.isprintable()
