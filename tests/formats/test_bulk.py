"""The bulk decoder says what the definition says: same runs, same values, whatever the damage and the reads."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.formats import bulk, frame, plan, schema, smp
from quarkctl.formats.frame import Kind, Splitter
from quarkctl.formats.stream import Decoder
from tests.formats.test_schema import message_values

S = schemas.telemetry()


def wire_of(message: schema.Message, values: dict[str, Any], seq: int, s: schema.Schema = S) -> bytes:
    assert message.type
    raw = s.pack(message, {**values, **({"layout_hash": s.layout_hash} if message.name == "hello" else {})})
    return frame.build(frame.Frame(message.type, 0x11, seq & 0xFFFF, 1000 + 10 * seq, raw), s.crc_seed)


def by_definition(wire: bytes, s: schema.Schema = S) -> list[tuple[str, int, dict[str, Any]]]:
    """One run at a time: Splitter, COBS, CRC, construct."""
    out = []
    for kind, run in Splitter().feed(wire):
        one = frame.parse(run, s.crc_seed) if kind is Kind.RUN else None
        message = s.by_type.get(one.type) if one else None
        if one and message and len(one.payload) == message.size_bytes:
            out.append((message.name, one.seq, s.unpack(message, one.payload)))
    return out


def same(a: Any, b: Any) -> bool:
    """Equal, where a number that is none equals itself."""
    return repr(a) == repr(b)


@given(data=st.data(), count=st.integers(1, 12))
def test_every_message_has_the_same_values_both_ways(data: st.DataObject, count: int) -> None:
    messages = data.draw(st.lists(st.sampled_from(list(S.by_type.values())), min_size=count, max_size=count))
    wire = b"".join(wire_of(m, data.draw(message_values(m)), i) for i, m in enumerate(messages))
    got = [(x.message.name, x.seq, x.values) for x in Decoder(S).feed(wire)]
    assert same(got, by_definition(wire)) and len(got) == count


def test_columns_have_the_values_of_the_samples_and_the_parts_of_bit_words() -> None:
    m = S.messages["battery"]
    wire = b"".join(wire_of(m, {"pack_mv": [i, 2 * i], "pack_state": i % 64}, i) for i in range(200))
    (table,) = Decoder(S).batch(wire, [len(wire)], [5]).tables
    assert table.columns["pack_mv"].tolist() == [[i, 2 * i] for i in range(200)]
    assert table.columns["pack_state.right_enabled"].tolist() == [(i % 64) >> 5 for i in range(200)]
    assert table.columns["pack_mv"].flags.c_contiguous and set(table.host_ns.tolist()) == {5}


def mixed(seed: int, count: int) -> bytes:
    """Frames of all messages with random payloads, and SMP lines between them."""
    r = random.Random(seed)
    out = []
    for i in range(count):
        m = r.choice(list(S.by_type.values()))
        assert m.type
        payload = bytearray(r.randbytes(m.size_bytes) if r.random() < 0.7 else bytes(m.size_bytes))
        if m.name == "hello":
            payload[:2] = S.layout_hash.to_bytes(2, "little")
        out.append(frame.build(frame.Frame(m.type, 0x11, i & 0xFFFF, 10 * i, bytes(payload)), S.crc_seed))
        if r.random() < 0.05:
            out.append(smp.build_lines(r.randbytes(r.randrange(300))))
    return b"".join(out)


def hurt(wire: bytes, seed: int, share: float) -> bytes:
    r, data = random.Random(seed), bytearray(wire)
    for _ in range(int(len(data) * share)):
        at = r.randrange(len(data))
        match r.randrange(4):
            case 0:
                data[at] ^= 1 << r.randrange(8)
            case 1:
                data[at] = 0
            case 2:
                del data[at : at + r.randrange(1, 30)]
                data.append(1)
            case _:
                data[at:at] = r.randbytes(r.randrange(1, 300))
    return bytes(data)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 600), share=st.sampled_from([0.0, 0.00005, 0.0005, 0.01]))
def test_a_damaged_stream_is_read_as_the_definition_reads_it(seed: int, count: int, share: float) -> None:
    wire = b"\0" + hurt(mixed(seed, count), seed, share) + b"\0"
    runs = [run for kind, run in Splitter().feed(wire) if kind is Kind.RUN]
    frames = bulk.decode(wire)
    bulk.check(frames, S.crc_seed)
    got = [
        frames.decoded[at : at + size].tobytes() if whole else None
        for at, size, whole in zip(frames.start, frames.size, frames.whole, strict=True)
    ]
    assert got == [frame.unwrap(run, S.crc_seed) for run in runs]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.0005, 0.01]), cut=st.integers(20, 5000))
def test_the_reads_make_no_difference(seed: int, share: float, cut: int) -> None:
    wire = hurt(mixed(seed, 200), seed, share)
    whole, parts = Decoder(S, find=lambda _: S), Decoder(S, find=lambda _: S)
    try:
        want = [(x.seq, x.boot, repr(x.values)) for x in whole.feed(wire)]
        got = [
            (x.seq, x.boot, repr(x.values)) for at in range(0, len(wire), cut) for x in parts.feed(wire[at : at + cut])
        ]
    except Exception as error:  # noqa: BLE001 - a damaged hello with a good CRC is one in four billion
        pytest.fail(str(error))
    assert got == want
    assert parts.counts == whole.counts


@given(data=st.binary(max_size=3000), cut=st.integers(1, 700))
def test_any_bytes_are_read_without_error_and_in_bounded_memory(data: bytes, cut: int) -> None:
    decoder = Decoder(S)
    for at in range(0, len(data), cut):
        assert decoder.feed(data[at : at + cut]) == []
    assert len(decoder._carry) <= frame.RUN_MAX + 1


def test_a_line_without_delimiters_does_not_fill_memory_and_heals() -> None:
    decoder = Decoder(S)
    for _ in range(100):
        decoder.feed(b"x" * 4096)
    assert len(decoder._carry) <= frame.RUN_MAX
    assert [x.seq for x in decoder.feed(b"yyy" + wire_of(S.messages["takeover"], {}, 7))] == [7]
    assert decoder.counts.corrupt == 1


def test_a_frame_whose_end_runs_into_the_next_is_lost_even_where_its_bytes_survive() -> None:
    """A code that leads across the border would leave both payloads intact; alone, the first is no frame."""
    wire = bytearray(b"".join(wire_of(S.messages["takeover"], {"sample_us": 2**60 + i}, i) for i in range(3)))
    assert len(by_definition(bytes(wire))) == 3
    stripped = wire.split(b"\0")
    first = next(i for i, run in enumerate(stripped) if run)
    run, following = stripped[first], stripped[first + 2]
    last_code = len(run) - 1
    while True:  # the last code of the run: the one that leads exactly to its end
        if last_code + run[last_code] == len(run) and frame.unwrap(bytes(run), S.crc_seed):
            break
        last_code -= 1
    run[last_code] += following[0]
    damaged = b"\0".join(stripped)
    assert [x.seq for x in Decoder(S).feed(damaged)] == [seq for _, seq, _ in by_definition(damaged)] == [1, 2]


def test_a_schema_that_changes_in_mid_stream_is_followed() -> None:
    texts = dict(S.sources)
    texts["thermal"] = texts["thermal"].replace("throttle_changes", "throttle_count")
    other = schema.parse(texts)
    old = wire_of(S.messages["hello"], {}, 0) + wire_of(S.messages["thermal"], {"throttle_level": 2}, 1)
    new = wire_of(other.messages["hello"], {"boot_id": 9}, 2, other) + wire_of(other.messages["thermal"], {}, 3, other)
    decoder = Decoder(S, find={other.layout_hash: other, S.layout_hash: S}.get)
    got = decoder.feed(old + new + old)
    assert [(x.boot, x.seq) for x in got] == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 1)]
    assert "throttle_count" in got[3].values and decoder.counts.corrupt == 0
    early = Decoder(S, find={other.layout_hash: other}.get)
    assert [x.seq for x in early.feed(wire_of(other.messages["thermal"], {}, 1, other) + new)] == [1, 2, 3]


def test_messages_that_cannot_go_the_fast_way_are_named_with_the_reason() -> None:
    assert plan.slow_reasons(S) == {}
    text = 'set = "x"\n[[message]]\ntype = 0x40\nname = "wide"\nfields = [{ name = "a", type = "u8", count = 300 }]\n'
    wide = schema.parse({"x": text})
    assert "a frame of 316 bytes, more than 253" in plan.slow_reasons(wide)["wide"]
    m = wide.messages["wide"]
    raw = wide.pack(m, {"a": [i % 256 for i in range(300)]})
    wire = frame.build(frame.Frame(0x40, 1, 0, 0, raw), wide.crc_seed)
    assert Decoder(wide).feed(wire)[0].values["a"] == [i % 256 for i in range(300)]


def test_what_construct_cannot_place_is_no_plan() -> None:
    import construct as c

    for node in (c.GreedyRange(c.Byte), c.Prefixed(c.Byte, c.GreedyBytes), c.VarInt):
        with pytest.raises(plan.NotPlannable, match=r"a: .* has no fixed place"):
            plan.parts(c.Struct("a" / node))
