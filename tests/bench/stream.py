"""The stream that all telemetry figures are taken on: 200 000 frames of six messages of our own schema."""

from __future__ import annotations

import random
from functools import cache

from quarkctl import schemas
from quarkctl.formats import frame
from quarkctl.formats.schema import Field, Message

FRAMES = 200_000
#: How often each comes; hello once in a thousand.
MIX = {"power": 40, "battery": 40, "thermal": 8, "takeover": 6, "throttle_changed": 5, "log": 1}


def _value(r: random.Random, f: Field) -> object:
    if f.type == "char":
        return "x" * r.randrange(f.count)
    bits = 8 * {"8": 1, "6": 2, "2": 4, "4": 8}[f.type[-1]]
    low = 0 if f.type[0] == "u" else -(1 << (bits - 1))
    values = [low + r.getrandbits(bits) for _ in range(f.count or 1)]
    return values if f.count else values[0]


@cache
def wire(frames: int = FRAMES) -> bytes:
    """Wire bytes as a device sends them, both delimiters of every frame included."""
    s, r = schemas.telemetry(), random.Random(1)
    hello = s.pack(s.messages["hello"], {"layout_hash": s.layout_hash, "boot_id": 7})
    names = r.choices(list(MIX), list(MIX.values()), k=frames)
    pool: dict[str, list[bytes]] = {
        name: [s.pack(s.messages[name], {f.name: _value(r, f) for f in s.messages[name].fields}) for _ in range(256)]
        for name in MIX
    }
    out, time_us = [], 1000
    for i, name in enumerate(names):
        time_us += r.randrange(50, 900)
        m: Message = s.messages["hello" if i % 1000 == 0 else name]
        payload = hello if i % 1000 == 0 else r.choice(pool[name])
        assert m.type
        out.append(frame.build(frame.Frame(m.type, 0x71, i & 0xFFFF, time_us, payload), s.crc_seed))
    return b"".join(out)


def damaged(share: float, frames: int = FRAMES) -> bytes:
    """The same with one byte changed in about this share of the frames."""
    data, r = bytearray(wire(frames)), random.Random(2)
    for _ in range(int(frames * share)):
        data[r.randrange(len(data))] ^= r.randrange(1, 256)
    return bytes(data)
