"""quarkctl telemetry show, record"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Also, Device, Events, Json, Seconds, finite
from quarkctl.cli.telemetry import words
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.cli.telemetry.screen import Screen
    from quarkctl.formats.account import Loss
    from quarkctl.formats.schema import Value
    from quarkctl.formats.stream import Decoder
    from quarkctl.telemetry.live import Until
    from quarkctl.telemetry.recorder import Recorder

Schemas = Annotated[
    list[Path] | None,
    typer.Option(
        "--schemas", metavar="DIR", exists=True, help="Schemas of other releases, or their bundles; may be given again."
    ),
]


#: A recorder runs for days; where nobody looks at a terminal, it says a line so often. Machines take --events.
_LINE_S = 10.0


def show_stream(
    device: Device = "", also: Also = None, seconds: Seconds = None, schemas: Schemas = None, as_json: Json = False
) -> None:
    """Show a live device: newest values with their course and limits, events, losses. Ctrl-C ends it.

    Without a terminal, a line a message.
    """
    from quarkctl import schemas as installed
    from quarkctl.cli.choose import choose
    from quarkctl.formats.account import Counts
    from quarkctl.formats.stream import Decoder
    from quarkctl.telemetry import live

    openers = [choose(d) for d in (device, *(also or ()))]
    decoders = [Decoder(installed.telemetry(), installed.finder(folders=schemas or ())) for _ in openers]
    numbers = [0] if len(openers) == 1 else range(1, len(openers) + 1)
    newest: dict[str, dict[str, Any]] = {}
    until = live.Until(seconds)
    with ExitStack() as stack:
        links = []
        for opener in openers:
            links.append(opener.open())
            stack.callback(links[-1].close)
        stack.enter_context(until_signal(until))
        screen = None
        if show.out.is_terminal and not as_json:
            screen = _screen([o.identity for o in openers], decoders)
            stack.callback(screen.close)
        for chunk in live.merged(links, until):
            decoder, of = decoders[chunk.line], numbers[chunk.line]
            for sample in decoder.feed(chunk.data, chunk.host_ns):
                if screen:
                    screen.take(chunk.line, sample)
                elif as_json:
                    newest[words.name(decoder.schema, sample, of)] = words.as_dict(decoder.schema, sample)
                else:
                    print(words.line(decoder.schema, sample, of), flush=True)
            if screen:
                screen.draw()
    counts = sum((d.counts for d in decoders), Counts())
    if as_json:
        show.document("quarkctl.telemetry-show/1", {"newest": newest, "counts": counts.as_dict()})
    elif not screen:
        show.err.print(words.account(counts))
    if seconds and until.requested:
        raise KeyboardInterrupt


def _screen(identities: list[str], decoders: list[Decoder]) -> Screen:
    from quarkctl.cli.telemetry.screen import Screen

    return Screen(identities, decoders)


def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file; by convention .qrec.")],
    device: Device = "",
    also: Also = None,
    seconds: Seconds = None,
    max_mb: Annotated[
        float, typer.Option("--max-mb", metavar="MB", min=0, callback=finite, help="Stop at this size of wire bytes.")
    ] = 0,
    rotate_mb: Annotated[
        float,
        typer.Option(
            "--rotate-mb", metavar="MB", min=0, callback=finite, help="Begin a new part (FILE-0001, ...) at this size."
        ),
    ] = 0,
    rotate_minutes: Annotated[
        float,
        typer.Option(
            "--rotate-minutes", metavar="MIN", min=0, callback=finite, help="Begin a new part after this time."
        ),
    ] = 0,
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=0, help="Delete all but the newest N parts.")] = 0,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Record the wire bytes of a device until Ctrl-C, SIGTERM, SIGHUP, --seconds or --max-mb.

    A signal before the end that --seconds or --max-mb asks for is an interruption: exit code 130, the file is whole.

    The file carries its schema and can be opened up to any byte at which it was cut. Reading the line never waits for the
    disk. A device whose schema is not known is recorded all the same.
    """
    from quarkctl import schemas
    from quarkctl.cli.choose import choose
    from quarkctl.sim.control import host_waits
    from quarkctl.telemetry import live
    from quarkctl.telemetry.host import Noting
    from quarkctl.telemetry.recorder import Recorder, Rotation

    openers = [choose(d) for d in (device, *(also or ()))]
    until = live.Until(seconds)
    rotation = Rotation(int(rotate_mb * 1e6), rotate_minutes * 60, keep)
    with ExitStack() as stack:
        links = []
        for opener in openers:
            links.append(opener.open())
            stack.callback(links[-1].close)
        stack.enter_context(until_signal(until))
        recorder = Recorder(file, schemas.telemetry(), [o.identity for o in openers], rotation)
        watch, host = _Watch(recorder, len(links)), Noting(recorder, partial(host_waits, openers[0].identity))
        try:
            with show.Reporter(events, quiet=as_json, line_s=_LINE_S) as progress:
                name, due = openers[0].identity, 0.0
                progress(Event(name, "record", Level.NOTE, f"{' and '.join(o.identity for o in openers)} into {file}"))
                progress(Event(name, "record", Level.START))
                for chunk in live.merged(links, until):
                    recorder.write(chunk)
                    host.step()
                    for note in watch.see(chunk):
                        progress(Event(name, "record", Level.NOTE, note))
                    if (now := time.monotonic()) >= due:
                        due = now + 1.0
                        for note in watch.losses():
                            progress(Event(name, "record", Level.NOTE, note))
                        text = words.account(watch.counts)
                        progress(Event(name, "record", Level.PROGRESS, text, recorder.wire_bytes, eta_s=until.left_s))
                    if max_mb and recorder.wire_bytes >= max_mb * 1e6:
                        break
                for note in watch.losses():
                    progress(Event(name, "record", Level.NOTE, note))
        finally:
            host.step(last=True)
            recorder.close()
    files = [str(p) for p in recorder.parts if p.exists()]
    if as_json:
        body = {
            "file": files[0], "files": files, "wire_bytes": recorder.wire_bytes, "dropped_bytes": recorder.dropped_bytes,
            "counts": watch.counts.as_dict(),
        }  # fmt: skip
        show.document("quarkctl.record/1", body)
    elif events != "-":
        name = files[0] if len(files) == 1 else f"{files[0]} to {files[-1]}"
        show.out.print(f"{name}  {recorder.wire_bytes / 1000:.1f} kB, {words.account(watch.counts)}")
        if recorder.dropped_bytes:
            show.err.print(f"{recorder.dropped_bytes} bytes were dropped: the disk did not keep up", style="bold red")
    if (seconds or max_mb) and until.requested:
        raise KeyboardInterrupt


class _Watch:
    """Follows what is recorded: the account for the eye, and notes of every start for the file."""

    def __init__(self, recorder: Recorder, lines: int) -> None:
        from quarkctl import schemas
        from quarkctl.formats.stream import Decoder

        self._recorder = recorder
        self._decoders: list[Decoder | None] = [Decoder(schemas.telemetry(), schemas.finder()) for _ in range(lines)]
        self._said: dict[int, Value] = {}
        self._lost: list[Loss] = []
        self._counts = {i: d.counts for i, d in enumerate(self._decoders) if d}

    @property
    def counts(self) -> Any:
        from quarkctl.formats.account import Counts

        return sum(self._counts.values(), Counts())

    def see(self, chunk: Any) -> Iterator[str]:
        from quarkctl.errors import LayoutMismatch

        decoder = self._decoders[chunk.line]
        if decoder is None:
            return
        known = len(decoder.account.losses)
        try:
            decoder.feed(chunk.data, chunk.host_ns)
        except LayoutMismatch as error:
            self._decoders[chunk.line] = None
            self._recorder.note({"note": "unknown layout", "line": chunk.line, "text": error.message})
            yield f"{error.message}: recorded as it comes"
            return
        self._counts[chunk.line] = decoder.counts
        hello = decoder.hello
        if hello and self._said.get(chunk.line) != (boot_id := hello.values.get("boot_id", 0)):
            self._said[chunk.line] = boot_id
            names = ("boot_id", "boot_count", "build_id", "board", "serial", "layout_hash")
            self._recorder.note(
                {"note": "start", "line": chunk.line, **{n: hello.values[n] for n in names if n in hello.values}}
            )
        self._lost += [loss for loss in decoder.account.losses[known:] if loss.kind == "lost"]

    def losses(self) -> Iterator[str]:
        """Those since the last call, in one line: a bad line loses frames many times a second."""
        lost, self._lost = self._lost, []
        first, last = (min(x.to_us for x in lost), max(x.to_us for x in lost)) if lost else (0, 0)
        if first < last:
            count = sum(x.count for x in lost)
            yield f"{count} frames lost in {len(lost)} places from {first / 1e6:.3f} to {last / 1e6:.3f} s"
        elif lost:
            yield f"{sum(x.count for x in lost)} frames lost at {first / 1e6:.3f} s"


@contextmanager
def until_signal(until: Until) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the work in good order; a second Ctrl-C does not wait for it. What whoever started us
    has switched off (nohup) stays off."""

    def asked(number: int, _frame: FrameType | None) -> None:
        if until.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        until.requested = True

    numbers = [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {n: signal.getsignal(n) for n in (getattr(signal, name) for name in numbers)}
    ours = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
    for n in ours:
        signal.signal(n, asked)
    try:
        yield
    finally:
        for n in ours:
            signal.signal(n, before[n])


COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "show": (show_stream, ("quarkctl telemetry show", "quarkctl telemetry show -d sim:s1 --also sim:s1/ar1")),
    "record": (
        record,
        ("quarkctl telemetry record swap.qrec --seconds 10",
         "quarkctl telemetry record soak.qrec -d sim:s1 --rotate-mb 100 --keep 20"),
    ),
}  # fmt: skip
