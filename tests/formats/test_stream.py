"""From wire bytes to samples: nothing is invented, nothing disappears without being counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.errors import LayoutMismatch
from quarkctl.formats import frame, schema, smp
from quarkctl.formats.frame import Kind, Splitter
from quarkctl.formats.stream import Decoder

S = schemas.telemetry()


def hello(seq: int = 0, time_us: int = 1000, boot_id: int = 1, layout: int | None = None) -> bytes:
    m = S.messages["hello"]
    raw = S.pack(m, {"boot_id": boot_id, "layout_hash": S.layout_hash if layout is None else layout})
    return frame.build(frame.Frame(0x01, 0, seq, time_us, raw), S.crc_seed)


def event(seq: int, time_us: int = 0) -> bytes:
    raw = S.pack(S.messages["takeover"], {"sample_us": seq})
    return frame.build(frame.Frame(0x16, 0, seq & 0xFFFF, time_us or 1000 + 100 * seq, raw), S.crc_seed)


def seqs(wire: bytes) -> tuple[list[int], Decoder]:
    decoder = Decoder(S)
    return [s.seq for s in decoder.feed(wire)], decoder


def test_a_clean_stream_arrives_whole() -> None:
    got, decoder = seqs(hello(0) + b"".join(event(i) for i in range(1, 50)))
    assert got == list(range(50))
    assert (decoder.counts.received, decoder.counts.lost, decoder.counts.corrupt, decoder.counts.boots) == (50, 0, 0, 1)


def test_listening_may_begin_in_the_middle_of_a_frame_and_before_a_hello() -> None:
    got, decoder = seqs(event(4)[7:] + event(5) + hello(6, 2000) + event(7))
    assert got == [5, 6, 7]
    assert (decoder.counts.corrupt, decoder.counts.lost, decoder.counts.boots) == (0, 0, 1)


def test_lost_frames_are_counted_with_their_place() -> None:
    got, decoder = seqs(hello(0) + event(1) + event(5) + event(6))
    assert got == [0, 1, 5, 6]
    assert decoder.counts.lost == 3
    assert [(g.time_us, g.count) for g in decoder.gaps] == [(1500, 3)]


def test_a_late_frame_fills_its_gap_and_a_second_copy_is_a_duplicate() -> None:
    got, decoder = seqs(hello(0) + event(1) + event(3) + event(2) + event(2) + event(3))
    assert got == [0, 1, 3, 2]
    assert (decoder.counts.lost, decoder.counts.reordered, decoder.counts.duplicate) == (0, 1, 2)


def test_sequence_numbers_wrap() -> None:
    got, decoder = seqs(b"".join(event(i, 10_000 + i) for i in range(65530, 65545)))
    assert got[:7] == [65530, 65531, 65532, 65533, 65534, 65535, 0]
    assert decoder.counts.lost == 0


def test_a_new_boot_id_restarts_the_count() -> None:
    got, decoder = seqs(hello(0) + event(1) + hello(0, 500, boot_id=2) + event(1, 700))
    assert len(got) == 4
    assert (decoder.counts.boots, decoder.counts.lost, decoder.counts.duplicate) == (2, 0, 0)


def test_time_that_runs_back_is_a_restart_even_without_its_hello() -> None:
    wire = hello(0) + event(1, 90_000_000) + event(1, 20_000) + hello(2, 30_000, boot_id=2) + event(3, 40_000)
    _, decoder = seqs(wire)
    assert (decoder.counts.boots, decoder.counts.lost) == (2, 0)


def test_another_layout_is_named() -> None:
    with pytest.raises(LayoutMismatch, match=f"0x1234, this quarkctl {S.layout_hash:#06x}"):
        seqs(hello(layout=0x1234))


def test_a_frame_of_an_unknown_type_is_counted_not_lost() -> None:
    strange = frame.build(frame.Frame(0x77, 0, 1, 1100, b"abc"), S.crc_seed)
    _, decoder = seqs(hello(0) + strange + event(2))
    assert (decoder.counts.unknown, decoder.counts.lost, decoder.counts.corrupt) == (1, 0, 0)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), cut=st.integers(1, 9))
def test_damage_never_becomes_a_value(at: int, flip: int, cut: int) -> None:
    """One byte is changed: every sample that still arrives is one that was sent, and the rest is counted."""
    frames = [hello(0), *(event(i) for i in range(1, 20)), hello(20, 3100)]
    wire = bytearray(b"".join(frames))
    at %= len(wire)
    wire[at] ^= flip
    decoder = Decoder(S)
    samples = []
    for start in range(0, len(wire), cut * 7):
        samples += decoder.feed(bytes(wire[start : start + cut * 7]))
    for s in samples:
        if s.message.name == "takeover":
            assert s.number("sample_us") == s.seq and 1 <= s.seq < 20
    assert decoder.counts.received == len(samples) >= 18
    assert decoder.counts.lost <= 2


@given(data=st.binary(max_size=2000), cut=st.integers(1, 100))
def test_any_bytes_are_cut_without_error_and_independently_of_the_reads(data: bytes, cut: int) -> None:
    whole = Splitter().feed(data)
    parts, splitter = [], Splitter()
    for at in range(0, len(data), cut):
        parts += splitter.feed(data[at : at + cut])
    assert parts == whole


def test_a_line_without_delimiters_does_not_fill_memory() -> None:
    splitter = Splitter()
    for _ in range(100):
        splitter.feed(b"x" * 4096)
    assert splitter.dropped_bytes > 4096 * 50
    assert splitter.feed(b"\0" + b"y\0") == [(Kind.RUN, b"y")] or splitter.feed(b"y\0") == [(Kind.RUN, b"y")]


@given(message=st.binary(max_size=500))
def test_smp_lines_and_frames_share_a_line(message: bytes) -> None:
    lines = smp.build_lines(message)
    decoder = Decoder(S)
    samples = decoder.feed(hello(0) + lines + event(1) + event(2) + lines)
    assert [s.seq for s in samples] == [0, 1, 2]
    assert decoder.counts.smp_lines == 2 * lines.count(b"\n") and decoder.counts.corrupt == 0
    reader = smp.LineReader()
    found = [line for kind, line in Splitter().feed(hello(0) + lines + event(1) + lines) if kind is Kind.SMP_LINE]
    assert [m for m in map(reader.feed, found) if m is not None] == [message, message]


def test_layouts_that_change_at_every_frame_are_each_read_with_their_own_schema() -> None:
    """In one read, also where nothing but hellos comes."""
    from tests.telemetry.test_recorder import renamed, wire

    both = (schemas.telemetry(), schema.parse(renamed()))
    for frames in (1, 2, 300):
        decoder = Decoder(both[0], {s.layout_hash: s for s in both}.__getitem__)
        data = b"".join(wire(both[k % 2], frames, boot_id=k + 1) for k in range(20))
        assert len(decoder.feed(data)) == 20 * frames
        assert decoder.counts.corrupt == 0
