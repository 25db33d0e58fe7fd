"""quarkctl telemetry decode, info, plot, export, query: on recordings"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Events, Json, Out, finite
from quarkctl.cli.telemetry import words
from quarkctl.cli.telemetry.live import Schemas
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.telemetry.timeline import Timeline

File = Annotated[Path, typer.Argument(metavar="FILE", help="A recording.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Recordings: parts of one, or of both chips; one time line.")
]


class Target(StrEnum):
    parquet = "parquet"
    csv = "csv"
    arrow = "arrow"
    mcap = "mcap"
    perfetto = "perfetto"


def decode(
    files: Files,
    message: Annotated[str, typer.Option("--message", "-m", metavar="NAME", help="Only this message.")] = "",
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Print the samples of recordings, decoded with the schema that each carries."""
    from quarkctl.formats.account import Counts
    from quarkctl.telemetry import store

    sessions = store.open_all(files, schemas or ())
    first = sessions[0][0]
    if message and all(message not in parts[0].schema.messages for parts in sessions):
        known = ", ".join(m.name for m in first.schema.by_type.values())
        raise UsageWrong(f"there is no message {message!r}", hint=f"the recording has {known}")
    rows: list[dict[str, Any]] = []
    for parts in sessions:
        for piece in store.pieces_of(parts, hashed=True):
            for sample in piece.batch.samples():
                schema = parts[-1].decoders[piece.line].schema if piece.line in parts[-1].decoders else parts[0].schema
                if message and sample.message.name != message:
                    continue
                if as_json:
                    rows.append(words.as_dict(schema, sample))
                else:
                    print(words.line(schema, sample))
    counts = sum((parts[-1].counts for parts in sessions), Counts())
    endings = list(dict.fromkeys(r.ending for parts in sessions for r in parts))
    if as_json:
        body: dict[str, Any] = {
            "file": str(first.path), "device": first.device, "ending": ", ".join(endings), "sha256": first.sha256,
            "counts": counts.as_dict(), "samples": rows,
        }  # fmt: skip
        show.document("quarkctl.decode/1", body)
        return
    show.err.print(f"{words.account(counts)}; file {', '.join(endings)}")


def info(files: Files, schemas: Schemas = None, as_json: Json = False) -> None:
    """What is in recordings: devices, starts, messages and rates, losses with their times, clocks."""
    from quarkctl.telemetry.info import summary
    from quarkctl.telemetry.timeline import open_timeline

    timeline = open_timeline(files, schemas or ())
    body = summary(timeline)
    if as_json:
        show.document("quarkctl.telemetry-info/1", body)
        return
    for f in body["files"]:
        show.out.print(
            f"{f['file']}  {f['wire_bytes'] / 1000:.1f} kB, {f['ending']}, layout {f['layout']}, {f['tool']}"
        )
        for start, end in f["damage"][:5]:
            show.out.print(f"  bytes {start} to {end} are damaged", style="yellow")
    for s in body["streams"]:
        version = f"  {s['board']} {s['serial']}  build {s['build_id']}" if s.get("serial") else ""
        show.out.print(show.styled(f"\n{s['device']}  {s['chip']}{version}", "bold"))
        show.table(
            ("start", "boot id", "from", "for", "drift", "+-", "delay 95 %"),
            (
                (b["boot"], b["boot_id"] or "?", _when(b["host_ns"]), f"{b['span_s']:.3f} s", *_clock(b["clock"]))
                for b in s["starts"]
            ),
        )
        show.table(
            ("message", "samples", "a second"),
            ((m["message"], m["count"], f"{m['rate_hz']:.2f}") for m in s["messages"]),
        )
        c = s["counts"]
        kinds = ("lost", "duplicate", "reordered", "corrupt", "unknown")
        told = ", ".join(f"{c[k]} {k}" for k in kinds)
        show.out.print(f"{c['received']} frames, {told}; the device dropped {s['device_dropped']}")
        losses = s["losses"]
        if losses:
            show.table(
                ("loss", "frames", "start", "device time"),
                ((x["kind"], f"{'about ' if x['estimated'] else ''}{x['count']}", x["boot"],
                  f"{x['from_us'] / 1e6:.6f} to {x['to_us'] / 1e6:.6f} s") for x in losses[:20]),
            )  # fmt: skip
        if len(losses) > 20 or s["losses_unlisted"]:
            show.out.print(f"and {len(losses) - min(len(losses), 20) + s['losses_unlisted']} more; --json lists them")


def _when(host_ns: int) -> str:
    if not 10**18 <= host_ns < 2**62:  # no receive times, or none that can be
        return "-"
    return datetime.fromtimestamp(host_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _clock(clock: dict[str, Any] | None) -> tuple[str, str, str]:
    if not clock:
        return "-", "-", "-"
    return (
        f"{clock['drift_ppm']:+.2f} ppm",
        f"{clock['drift_uncertainty_ppm']:.2f} ppm",
        f"{clock['delay_us'][1] / 1000:.2f} ms",
    )


def export(
    files: Files,
    to: Annotated[
        Target,
        typer.Option(
            "--to", metavar="FORMAT", help="parquet, csv, arrow (a folder with a file a message), mcap, perfetto."
        ),
    ],
    out: Out = None,
    schemas: Schemas = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Write recordings for other tools; the default output stands beside the first recording."""
    from quarkctl.telemetry import export as exports
    from quarkctl.telemetry.timeline import open_timeline

    out = out or files[0].with_name(files[0].stem + exports.SUFFIX.get(to, f"-{to}"))
    with show.Reporter(events, quiet=as_json) as progress:
        name = str(files[0])
        progress(Event(name, "export", Level.START))
        timeline = open_timeline(files, schemas or (), out.parent)
        count = exports.export(
            timeline, to, out, lambda rows: progress(Event(name, "export", Level.PROGRESS, f"{rows} samples"))
        )
    if as_json:
        show.document("quarkctl.export/1", {"out": str(out), "format": to, "samples": count})
    elif events != "-":
        show.out.print(f"{out}  {count} samples")


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="What DuckDB understands; a view a message, and notices.")],
    files: Files,
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Ask recordings in SQL: `select time, bus_mv from power where bus_mv_min < 3500`."""
    from quarkctl.telemetry.query import query as ask
    from quarkctl.telemetry.timeline import open_timeline

    answer = ask(open_timeline(files, schemas or (), Path(tempfile.gettempdir())), sql)
    if as_json:
        rows = [dict(zip(answer.columns, r, strict=True)) for r in answer.rows]
        show.document("quarkctl.query/1", {"columns": list(answer.columns), "rows": rows})
    else:
        show.table(answer.columns, answer.rows)


def plot(
    files: Files,
    out: Out = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", metavar="NAME", help="message.field, with * and ?; may be given again."),
    ] = None,
    start: Annotated[
        float | None, typer.Option("--from", metavar="S", callback=finite, help="Seconds after the beginning.")
    ] = None,
    end: Annotated[
        float | None, typer.Option("--to", metavar="S", callback=finite, help="Seconds after the beginning.")
    ] = None,
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Draw recordings: one HTML page that zooms (default), or PNG or SVG by the suffix of --out."""
    from quarkctl.telemetry import plot as plots
    from quarkctl.telemetry.timeline import open_timeline

    out = out or files[0].with_suffix(".html")
    if out.suffix not in (".html", ".png", ".svg"):
        raise UsageWrong(f"{out} is no kind of plot", hint="let the name end in .html, .png or .svg")
    if out.exists() and out in files:
        raise UsageWrong(f"{out} is the recording itself")
    timeline = open_timeline(files, schemas or (), out.parent)
    drawing = plots.collect(timeline, fields or (), _span(timeline, start, end))
    work = out.with_name(f".{out.name}.new{out.suffix}")
    try:
        if out.suffix == ".html":
            work.write_text(plots.page(drawing), "utf-8")
        else:
            plots.picture(drawing, work)
        work.replace(out)
    except OSError as error:
        raise HostUnfit(f"cannot write {out}: {error.strerror}") from error
    finally:
        work.unlink(missing_ok=True)
    if as_json:
        show.document("quarkctl.plot/1", {"out": str(out), "points": drawing.points, "bytes": out.stat().st_size})
    else:
        show.out.print(f"{out}  {drawing.points} points, {out.stat().st_size / 1e6:.1f} MB")


def _span(timeline: Timeline, start: float | None, end: float | None) -> tuple[int, int]:
    if start is None and end is None:
        return 0, 2**63 - 1
    first = min((int(r.time_ns.min()) for r in timeline.rows() if r.time_ns.size), default=None)
    if first is None:
        raise InputWrong("the recording holds no samples")
    return first + int((start or 0) * 1e9), first + int(end * 1e9) if end is not None else 2**63 - 1


def lint(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder of schemas; default: those installed here.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Check schemas, and name the messages that cannot be decoded the fast way, with the reason."""
    from quarkctl import schemas
    from quarkctl.formats import plan

    schema = schemas.load_folder(folder) if folder else schemas.telemetry()
    slow = plan.slow_reasons(schema)
    rows = [
        {"message": m.name, "set": m.set, "kind": m.kind.value, "type": m.type, "payload_bytes": m.size_bytes,
         "way": "slow" if m.name in slow else "fast", "reason": slow.get(m.name, "")}
        for m in schema.by_type.values()
    ]  # fmt: skip
    if as_json:
        show.document("quarkctl.telemetry-lint/1", {"layout_hash": f"{schema.layout_hash:#06x}", "messages": rows})
    else:
        show.out.print(f"layout {schema.layout_hash:#06x}, sets {', '.join(schema.docs)}")
        show.table(
            ("message", "kind", "type", "payload", "way", ""),
            (
                (r["message"], r["kind"], f"{r['type']:#04x}", f"{r['payload_bytes']} B", r["way"], r["reason"])
                for r in rows
            ),
        )
    return InputWrong.exit_code if slow else 0


COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "decode": (decode, ("quarkctl telemetry decode swap.qrec", "quarkctl telemetry decode swap.qrec -m takeover --json")),
    "info": (info, ("quarkctl telemetry info swap.qrec", "quarkctl telemetry info soak-*.qrec --json")),
    "plot": (plot, ("quarkctl telemetry plot swap.qrec", "quarkctl telemetry plot swap.qrec -f 'power.bus*' -o bus.png")),
    "export": (
        export,
        ("quarkctl telemetry export swap.qrec --to parquet", "quarkctl telemetry export a.qrec b.qrec --to mcap"),
    ),
    "query": (
        query,
        ("quarkctl telemetry query 'select min(bus_mv_min) from power' swap.qrec",
         "quarkctl telemetry query 'from notices' soak-*.qrec --json"),
    ),
    "lint": (lint, ("quarkctl telemetry lint", "quarkctl telemetry lint protocols")),
}  # fmt: skip
