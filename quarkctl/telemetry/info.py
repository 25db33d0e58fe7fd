"""What recordings hold, without their samples."""

from __future__ import annotations

from typing import Any

from quarkctl.formats.stream import Sample
from quarkctl.telemetry.store import printable
from quarkctl.telemetry.timeline import Timeline


def summary(timeline: Timeline) -> dict[str, Any]:
    """Files, and a stream for every chip of every line: starts, messages, counts, losses, clocks."""
    counted: dict[tuple[int, int], dict[str, int]] = {}
    spans: dict[tuple[int, int, int], tuple[int, int]] = {}
    for rows in timeline.rows():
        for chip, boot in sorted(set(zip(rows.chip.tolist(), rows.boot.tolist(), strict=True))):
            mine = (rows.chip == chip) & (rows.boot == boot)
            names = counted.setdefault((rows.source, chip), {})
            names[rows.name] = names.get(rows.name, 0) + int(mine.sum())
            low, high = int(rows.time_us[mine].min()), int(rows.time_us[mine].max())
            before = spans.get((rows.source, chip, boot), (low, high))
            spans[rows.source, chip, boot] = min(low, before[0]), max(high, before[1])
    return {"files": _files(timeline), "streams": _streams(timeline, counted, spans)}


def _said(hello: Sample | None, name: str) -> str:
    """A field of a hello as text; the schema may be any release's, and the device anybody's."""
    value = hello.values.get(name, "") if hello else ""
    if isinstance(value, list):
        return "".join(f"{v:02x}" if isinstance(v, int) else "?" for v in value)
    return printable(value)


def _files(timeline: Timeline) -> list[dict[str, Any]]:
    return [
        {"file": str(r.path), "device": r.device, "started_ns": r.started_ns, "wire_bytes": r.wire_bytes, "ending": r.ending,
         "damage": [list(d) for d in r.reader.damage], "layout": f"{r.schema.layout_hash:#06x}",
         "tool": printable(r.reader.meta.get("tool", "")), "notes": [dict(n) for n in r.reader.notes]}
        for parts in timeline.sessions for r in parts
    ]  # fmt: skip


def _streams(
    timeline: Timeline,
    counted: dict[tuple[int, int], dict[str, int]],
    spans: dict[tuple[int, int, int], tuple[int, int]],
) -> list[dict[str, Any]]:
    out = []
    for source in timeline.sources:
        session, line = next(k for k, s in timeline.keys.items() if s == source.number)
        account = source.decoder.account
        chips = {v: k for k, v in source.decoder.schema.enums.get("chip", {}).items()} | {0: "line"}
        for number, chip in sorted(account.chips.items()):
            hello = source.decoder.hellos.get(number)
            mine = [s for s in account.starts if s.chip == number]
            starts: list[dict[str, Any]] = []
            for s in mine:
                clock = timeline.clocks.get((session, line, number, s.boot))
                low, high = spans.get((source.number, number, s.boot), (s.time_us, s.time_us))
                starts.append(
                    {"boot": s.boot, "boot_id": None if s.boot_id is None else f"{s.boot_id:08x}", "time_us": low,
                     "host_ns": timeline.host_ns(source.number, number, s.boot, low), "span_s": (high - low) / 1e6,
                     "clock": clock.as_dict() if clock else None}
                )  # fmt: skip
            span_s = sum(s["span_s"] for s in starts) or 1.0
            names = counted.get((source.number, number), {})
            out.append(
                {"device": source.device, "chip": chips.get(number, str(number)),
                 "board": _said(hello, "board"), "serial": _said(hello, "serial"), "build_id": _said(hello, "build_id"),
                 "device_dropped": hello.values.get("dropped_count", 0) if hello else 0,
                 "starts": starts, "counts": chip.counts.as_dict(),
                 "messages": [{"message": n, "count": c, "rate_hz": c / span_s} for n, c in sorted(names.items())],
                 "losses": [vars(x) for x in account.losses if x.chip == number and x.count],
                 "losses_unlisted": account.unlisted}
            )  # fmt: skip
    return out
