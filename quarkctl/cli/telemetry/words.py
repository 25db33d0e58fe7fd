"""How samples and accounts read, on a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quarkctl.formats.account import Counts

if TYPE_CHECKING:
    from quarkctl.formats.schema import Schema
    from quarkctl.formats.stream import Sample


def as_dict(schema: Schema, sample: Sample) -> dict[str, Any]:
    return {
        "message": sample.message.name, "chip": sample.chip, "seq": sample.seq, "boot": sample.boot,
        "time_us": sample.time_us, "host_ns": sample.host_ns, **schema.named(sample.message, sample.values),
    }  # fmt: skip


def line(schema: Schema, sample: Sample, of: int = 0) -> str:
    """``of`` is the number of the line that it came on, 0 where there is but one."""
    values = " ".join(f"{k}={value(v)}" for k, v in schema.named(sample.message, sample.values).items())
    return f"{sample.boot}:{sample.time_us / 1e6:012.6f} {name(schema, sample, of)} {values}"


def name(schema: Schema, sample: Sample, of: int = 0) -> str:
    """The message, with its line and its chip where these do not go without saying."""
    chip = "" if sample.chip == 1 else f"{schema.enum_name('chip', sample.chip)} "
    return f"{of} {chip}{sample.message.name}" if of else f"{chip}{sample.message.name}"


def value(v: Any) -> str:
    if isinstance(v, dict):
        return "+".join(k for k, on in v.items() if on) or "-"
    if isinstance(v, list):
        return ",".join(value(x) for x in v)
    if isinstance(v, float):
        return f"{v:g}"
    if isinstance(v, str) and not v.isprintable():
        return json.dumps(v)
    return json.dumps(v) if isinstance(v, str) and " " in v else str(v)


def account(c: Counts) -> str:
    words = [f"{c.received} frames", f"{c.lost} lost", f"{c.corrupt} corrupt"]
    words += [f"{getattr(c, k)} {k}" for k in ("unknown", "duplicate", "reordered") if getattr(c, k)]
    return ", ".join([*words, f"{c.boots} start{'s' if c.boots != 1 else ''}"])
