"""Targets of telemetry for ``python -m tests.fuzz``: any bytes, never a traceback, no value from a frame that is none."""

from __future__ import annotations

import io
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["quarkctl"]):
    from quarkctl import schemas
    from quarkctl.errors import InputWrong, LayoutMismatch
    from quarkctl.formats import bulk, frame, recording, schema
    from quarkctl.formats.frame import Kind, Splitter
    from quarkctl.formats.stream import Decoder

S = schemas.telemetry()
#: Wire that the fuzzer's bytes are mixed into, so that whole frames are there to be spoiled.
_FRAMES = b"".join(
    frame.build(frame.Frame(m.type or 0, 0x11, i, 1000 * i, bytes(m.size_bytes)), S.crc_seed)
    for i, m in enumerate(S.by_type.values()) if m.name != "hello"
)  # fmt: skip


def telemetry_frames(data: bytes) -> None:
    """Bulk and single decoding agree, and so do the values."""
    at = int.from_bytes(data[:2], "little") % (len(_FRAMES) + 1)
    wire = b"\0" + _FRAMES[:at] + data[2:] + _FRAMES[at:] + b"\0"
    runs = [run for kind, run in Splitter().feed(wire) if kind is Kind.RUN]
    frames = bulk.decode(wire)
    bulk.check(frames, S.crc_seed)
    want = [frame.unwrap(run, S.crc_seed) for run in runs]
    got = [
        frames.decoded[o : o + n].tobytes() if w else None
        for o, n, w in zip(frames.start.tolist(), frames.size.tolist(), frames.whole.tolist(), strict=True)
    ]
    assert got == want


def telemetry_stream(data: bytes) -> None:
    decoder = Decoder(S)
    half = len(data) // 2
    try:
        for part in (data[:half], _FRAMES, data[half:]):
            decoder.feed(part, 1)
    except LayoutMismatch:
        return
    assert len(decoder._carry) <= frame.RUN_MAX + 1
    _ = decoder.counts, decoder.gaps


_HEAD = recording.build_start({"schema": dict(S.sources), "device": "x"})
_BLOCK = recording.build_reads([recording.Chunk(5, b"\0abc\0"), recording.Chunk(6, b"\0")])


def telemetry_recording(data: bytes) -> None:
    for file in (data, _HEAD + data, _HEAD + _BLOCK + data + _BLOCK):
        try:
            reader = recording.Reader.open(io.BytesIO(file).read)
            reader.schema()
        except InputWrong:
            continue
        for reads in reader.reads():
            assert len(reads.ends) == len(reads.stamps)
        assert reader.ending


def telemetry_schema(data: bytes) -> None:
    good, text = S.sources["power"].replace('set = "power"', 'set = "x"'), data[4:].decode("utf-8", "replace")
    at, size = int.from_bytes(data[:2], "little") % len(good), int.from_bytes(data[2:4], "little") % 200
    for candidate in (text, 'set = "x"\n[[message]]\ntype = 0x40\n' + text, good[:at] + text + good[at + size :]):
        try:
            parsed = schema.parse({"x": candidate})
        except InputWrong as error:
            assert error.message.startswith("x.toml line ")
            continue
        for m in parsed.messages.values():
            if m.size_bytes < 1 << 16:
                parsed.unpack(m, bytes(m.size_bytes))


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (telemetry_frames, telemetry_stream, telemetry_recording, telemetry_schema)
}
