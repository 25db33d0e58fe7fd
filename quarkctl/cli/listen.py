"""Evidence for a diagnosis: from a recording, or from a live device, guided or just listened to."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quarkctl.cli import show
from quarkctl.errors import HostUnfit, LayoutMismatch, QuarkError, UsageWrong
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.diag.check import Check
    from quarkctl.diag.evidence import Evidence
    from quarkctl.diag.guide import Step
    from quarkctl.diag.limits import Limits
    from quarkctl.diag.product import Product
    from quarkctl.formats.recording import Chunk
    from quarkctl.formats.stream import Batch, Sample

#: What is judged at once, so long after a pack came or went: a takeover that has not come by then will not come, and what
#: hardware held has arrived.
_JUDGED = {"pack_removed": ("takeover", "droop"), "pack_inserted": ("inrush", "inrush_energy")}
_VERDICT_AFTER_S = 0.5
_ACTUATOR_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Listening:
    """How a live device is listened to, and ``also`` other lines of it. ``limits_of`` reads the limits once the board is
    known."""

    device: str
    also: Sequence[str]
    seconds: float | None
    steps: Sequence[Step]
    step_timeout_s: float
    actuator: str
    chosen: Sequence[Check]
    product_of: Callable[[str], Product]
    limits_of: Callable[[str], Limits]
    events: str
    quiet: bool


def from_recording(
    path: Path, product_of: Callable[[str], Product], progress: show.Reporter, schema_folders: Sequence[Path] = ()
) -> Evidence:
    from quarkctl.diag import columns
    from quarkctl.telemetry.store import Recording

    progress(Event(str(path), "decode", Level.START))
    return columns.recorded(
        Recording(path, schema_folders), product_of,
        lambda frames: progress(Event(str(path), "decode", Level.PROGRESS, f"{frames} frames")),
    )  # fmt: skip


class _Live:
    """What a device sent so far, over one line or several."""

    def __init__(self, how: Listening, names: Sequence[str], progress: show.Reporter) -> None:
        from quarkctl import schemas
        from quarkctl.diag.columns import Columns
        from quarkctl.formats.stream import Decoder

        self.how, self.names, self.name, self.progress = how, names, names[0], progress
        self.decoders: list[Decoder | None] = [Decoder(schemas.telemetry()) for _ in names]
        self.columns, self.began_ns = Columns(), time.time_ns()
        self._due: list[tuple[float, Sample]] = []

    def feed(self, chunk: Chunk) -> list[Sample]:
        """Takes one read; returns the packs' comings and goings in it."""
        from quarkctl.diag import columns

        batch = self._decoded(chunk)
        if batch is None:
            return []
        self.columns.add(batch)
        new = columns.events(batch, _JUDGED)
        for text in swaps(new):
            self.note(text)
        now = time.monotonic()
        self._due += [(now + _VERDICT_AFTER_S, s) for s in new]
        while self.board and self._due and self._due[0][0] <= now:  # limits are those of a board
            self._tell(self._due.pop(0)[1])
        return new

    def _decoded(self, chunk: Chunk) -> Batch | None:
        decoder = self.decoders[chunk.line]
        if decoder is None:
            return None
        try:
            return decoder.batch(chunk.data, [len(chunk.data)], [chunk.host_ns])
        except LayoutMismatch as error:
            if not chunk.line:
                raise
            self.decoders[chunk.line] = None
            self.lost(chunk.line, error)
            return None

    def lost(self, line: int, error: QuarkError) -> None:
        """What comes beside the first line is evidence, not a condition."""
        self.note(f"{self.names[line]}: {error.message}; judged without what would have come")

    def note(self, text: str) -> None:
        self.progress(Event(self.name, "listen", Level.NOTE, text))

    def evidence(self) -> Evidence:
        from quarkctl.diag.columns import line_of_rtos
        from quarkctl.formats.stream import Decoder
        from quarkctl.sim.control import host_waits

        d = line_of_rtos([d for d in self.decoders if d is not None], " and ".join(self.names))
        assert isinstance(d, Decoder)  # noqa: S101 - that is what they are
        return self.columns.evidence(
            d.schema, d.counts, d.account.losses, self.how.product_of(self.board), self.name, "", "open",
            host_waits(self.name, self.began_ns),
        )  # fmt: skip

    @property
    def board(self) -> str:
        return self.columns.board

    def _tell(self, event: Sample) -> None:
        """The verdict on one removal or insertion, within a second of it. The whole record is judged at the end."""
        from quarkctl.diag import check, columns

        chosen = [c for c in self.how.chosen if c.name in _JUDGED[event.message.name]]
        if not chosen:
            return
        recent = columns.since(self.evidence(), event.boot, event.time_us - 1_500_000)
        limits = self.how.limits_of(self.board)
        for c in chosen:
            for f in check.run(c, recent, limits):
                if f.value is not None:
                    self.note(f"{f.code} {f.name} {f.value:.3g} {f.unit}: {f.verdict.value}")


def from_device(how: Listening) -> Evidence:
    """Listen, and lead through the steps if there are any."""
    from quarkctl.cli.choose import choose, other_chip
    from quarkctl.telemetry import live

    openers = [choose(d) for d in (how.device, *how.also)]
    names = [o.identity for o in openers]
    if len(set(names)) < len(names):
        raise UsageWrong(
            f"{names[0]} cannot be listened to twice", hint="--also takes another line of the same glasses"
        )
    with ExitStack() as stack, show.Reporter(how.events, quiet=how.quiet) as progress:
        links = []
        for opener in openers:
            links.append(opener.open())
            stack.callback(links[-1].close)
        beside = other_chip(openers[0]) if not how.also else None
        if beside:
            try:
                links.append(beside.open())
                stack.callback(links[-1].close)
                names.append(beside.identity)
            except QuarkError as error:
                progress(Event(names[0], "listen", Level.NOTE, f"judged without the AR1's own line: {error.message}"))
        got = _Live(how, names, progress)
        progress(Event(names[0], "listen", Level.START))
        until = live.Until(how.seconds)
        # One course of reading for all steps: what arrives between two of them is not lost. Without steps it ends by the
        # clock, also where the device has said all that it had to say.
        chunks = live.merged(links, (lambda: False) if how.steps else until, lost=got.lost)
        stack.callback(chunks.close)
        for step in how.steps:
            _lead(got, step, chunks)
        if not how.steps:
            if not how.quiet and how.events != "-":
                todo = ": swap a battery now" if any(c.topic == "swap" for c in how.chosen) else ""
                show.err.print(f"listening to {' and '.join(names)} for {how.seconds:g} s{todo}")
            for chunk in chunks:
                got.feed(chunk)
                frames = f"{got.columns.frames} frames"
                progress(Event(names[0], "listen", Level.PROGRESS, frames, eta_s=until.left_s))
        return got.evidence()


def _lead(got: _Live, step: Step, chunks: Iterator[Chunk]) -> None:
    """One step: say it or have it done, wait until telemetry shows it, then until its consequences are in."""
    from quarkctl.telemetry.live import Until

    how = got.how
    got.progress(Event(got.name, "guide", Level.NOTE, step.text))
    if step.action and how.actuator:
        actuate(how.actuator, got.name, step.action)
    seen = not step.event
    until = Until(step.hold_s if seen else how.step_timeout_s)
    for chunk in chunks:
        for s in got.feed(chunk):
            if not seen and s.message.name == step.event and s.number("pack") == step.pack:
                seen, until = True, Until(step.hold_s)
        got.progress(Event(got.name, "listen", Level.PROGRESS, f"{got.columns.frames} frames", eta_s=until.left_s))
        if until():
            break
    if not seen:
        got.note(f"not seen within {how.step_timeout_s:g} s: {step.text}; judged without it")


def actuate(command: str, device: str, words: Sequence[str]) -> None:
    """Have a rig do it: the command gets the words as arguments and must end with 0. ``sim`` means the virtual glasses."""
    if command == "sim":
        from quarkctl.sim import control

        name = device.removeprefix("sim:")
        if words[0] in ("eject", "insert"):
            control.request(name, command="battery", action=words[0], side=words[1], soc_pct=None)
        elif words[0] == "charger":
            control.request(name, command="charger", on=words[1] == "on")
        else:
            control.request(name, command="load", load=words[1])
        return
    try:
        argv = [*shlex.split(command), *words]
    except ValueError as error:
        raise UsageWrong(f"cannot read --actuator {command!r}: {error}") from error
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ACTUATOR_TIMEOUT_S, check=False)
    except (OSError, IndexError) as error:
        raise HostUnfit(f"cannot run the actuator {command!r}: {error}") from error
    except subprocess.TimeoutExpired:
        raise HostUnfit(f"the actuator did not end within {_ACTUATOR_TIMEOUT_S:.0f} s: {shlex.join(argv)}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise HostUnfit(
            f"the actuator failed with {done.returncode}: {shlex.join(argv)}", hint=said[-1] if said else ""
        )


def swaps(samples: Sequence[Sample]) -> Iterator[str]:
    """What the operator wants to see at once: that a removal or an insertion was noticed."""
    from quarkctl.diag.product import SIDES

    for s in samples:
        if s.message.name in ("pack_removed", "pack_inserted"):
            with contextlib.suppress(TypeError):
                pack = SIDES[s.number("pack") & 1]
                yield f"{pack} pack {s.message.name.removeprefix('pack_')} at {s.time_us / 1e6:.3f} s"
