"""quarkctl telemetry"""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Device, Events, Json, Seconds, examples
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.formats.schema import Schema
    from quarkctl.formats.stream import Counts, Decoder, Sample

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show, record and decode the telemetry stream.")

_REDRAW_S = 0.25


@app.callback(epilog=examples("quarkctl telemetry show", "quarkctl telemetry record swap.qrec --seconds 10"))
def _telemetry() -> None:
    """Show, record and decode the telemetry stream."""


@app.command("show", epilog=examples("quarkctl telemetry show", "quarkctl telemetry show -d sim:s1 --seconds 2 --json"))
def show_stream(device: Device = "", seconds: Seconds = None, as_json: Json = False) -> None:
    """Show the newest values of a live device, with events and losses. Ctrl-C ends it."""
    from quarkctl import schemas
    from quarkctl.cli.choose import choose
    from quarkctl.formats.stream import Counts
    from quarkctl.telemetry import live

    schema = schemas.telemetry()
    link = choose(device).open()
    newest: dict[str, Sample] = {}
    counts = Counts()
    try:
        screen = _Screen(schema) if show.out.is_terminal and not as_json else None
        try:
            for sample, decoder in live.samples(link, schema, live.Until(seconds)):
                counts = decoder.counts
                newest[sample.message.name] = sample
                if screen:
                    screen.update(newest, decoder)
                elif not as_json:
                    print(_line(schema, sample), flush=True)
        except KeyboardInterrupt:
            pass
        finally:
            if screen:
                screen.close()
    finally:
        link.close()
    if as_json:
        body = {name: _as_dict(schema, s) for name, s in newest.items()}
        show.document("quarkctl.telemetry-show/1", {"newest": body, "counts": counts.as_dict()})
    else:
        show.err.print(_account(counts))


@app.command(
    epilog=examples("quarkctl telemetry record swap.qrec --seconds 10", "quarkctl telemetry record soak.qrec -d sim:s1")
)
def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file; by convention .qrec.")],
    device: Device = "",
    seconds: Seconds = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Record the wire bytes of a device until Ctrl-C, SIGTERM or --seconds.

    The file carries its schema and can be opened up to any byte at which it was cut.
    """
    from quarkctl import schemas
    from quarkctl.cli.choose import choose
    from quarkctl.formats.stream import Decoder
    from quarkctl.telemetry import live
    from quarkctl.telemetry.recorder import Recorder

    opener = choose(device)
    link = opener.open()
    decoder = Decoder(schemas.telemetry())
    until = live.Until(seconds)
    before = signal.signal(signal.SIGTERM, lambda *_: setattr(until, "requested", True))
    recorder = None
    try:
        recorder = Recorder(file, decoder.schema, opener.identity)
        with show.Reporter(events, quiet=as_json) as progress, suppress(KeyboardInterrupt):
            progress(Event(opener.identity, "record", Level.START))
            for chunk in live.chunks(link, until):
                recorder.write(chunk)
                decoder.feed(chunk.data, chunk.host_ns)
                account, got = _account(decoder.counts), recorder.wire_bytes
                progress(Event(opener.identity, "record", Level.PROGRESS, account, got, eta_s=until.left_s))
    finally:
        if recorder:
            recorder.close()
        link.close()
        signal.signal(signal.SIGTERM, before)
    if as_json:
        show.document(
            "quarkctl.record/1",
            {"file": str(file), "wire_bytes": recorder.wire_bytes, "counts": decoder.counts.as_dict()},
        )
    elif events != "-":
        show.out.print(f"{file}  {recorder.wire_bytes / 1000:.1f} kB, {_account(decoder.counts)}")


@app.command(
    epilog=examples("quarkctl telemetry decode swap.qrec", "quarkctl telemetry decode swap.qrec --message event --json")
)
def decode(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording.")],
    message: Annotated[str, typer.Option("--message", "-m", metavar="NAME", help="Only this message.")] = "",
    as_json: Json = False,
) -> None:
    """Print the samples of a recording, decoded with the schema that it carries."""
    from quarkctl.telemetry.recorder import load

    recording = load(file)
    wanted = [s for s in recording.samples if not message or s.message.name == message]
    if message and message not in recording.schema.messages:
        from quarkctl.errors import UsageWrong

        known = ", ".join(m.name for m in recording.schema.by_type.values())
        raise UsageWrong(f"there is no message {message!r}", hint=f"the recording has {known}")
    if as_json:
        body: dict[str, Any] = {
            "file": str(file), "device": recording.device, "ending": recording.ending, "sha256": recording.sha256,
            "counts": recording.counts.as_dict(), "samples": [_as_dict(recording.schema, s) for s in wanted],
        }  # fmt: skip
        show.document("quarkctl.decode/1", body)
        return
    for sample in wanted:
        print(_line(recording.schema, sample))
    show.err.print(f"{_account(recording.counts)}; file {recording.ending}")


def _as_dict(schema: Schema, sample: Sample) -> dict[str, Any]:
    return {
        "message": sample.message.name, "seq": sample.seq, "boot": sample.boot, "time_us": sample.time_us,
        "host_ns": sample.host_ns, **schema.named(sample.message, sample.values),
    }  # fmt: skip


def _line(schema: Schema, sample: Sample) -> str:
    values = " ".join(f"{k}={_text(v)}" for k, v in schema.named(sample.message, sample.values).items())
    return f"{sample.boot}:{sample.time_us / 1e6:012.6f} {sample.message.name} {values}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(k for k, v in value.items() if v) or "-"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, str) and " " in value else str(value)


def _account(c: Counts) -> str:
    words = [f"{c.received} frames", f"{c.lost} lost", f"{c.corrupt} corrupt"]
    words += [f"{getattr(c, k)} {k}" for k in ("unknown", "duplicate", "reordered") if getattr(c, k)]
    return ", ".join([*words, f"{c.boots} start{'s' if c.boots != 1 else ''}"])


class _Screen:
    """The live view: one block a message, the last events below."""

    def __init__(self, schema: Schema) -> None:
        from rich.live import Live

        self._schema = schema
        self._events: list[str] = []
        self._drawn = 0.0
        self._live = Live(console=show.out, auto_refresh=False)
        self._live.start()

    def update(self, newest: dict[str, Sample], decoder: Decoder) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        from quarkctl.formats.schema import Kind

        for name in [n for n, s in newest.items() if s.message.kind is Kind.EVENT]:
            self._events = [*self._events[-5:], _line(self._schema, newest.pop(name))]
        if time.monotonic() - self._drawn < _REDRAW_S:
            return
        self._drawn = time.monotonic()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("message", "field", "value", "unit"):
            table.add_column(column)
        for name, sample in newest.items():
            if name == "hello":
                continue
            for i, (key, value) in enumerate(self._schema.named(sample.message, sample.values).items()):
                unit = sample.message.field(key).unit
                table.add_row(name if i == 0 else "", key, _text(value), unit)
        hello = newest.get("hello")
        head = (
            f"{hello.text('serial')}  {hello.text('board')}  up {hello.number('uptime_ms') / 1000:.0f} s"
            if hello
            else ""
        )
        self._live.update(
            Group(
                Text(head, style="bold"),
                table,
                Text("\n".join(self._events)),
                Text(_account(decoder.counts), style="dim"),
            ),
            refresh=True,
        )

    def close(self) -> None:
        self._live.stop()
