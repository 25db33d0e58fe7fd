"""Evidence for a diagnosis: from a recording, or from a live device, guided or just listened to."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quarkctl.cli import show
from quarkctl.errors import HostUnfit, UsageWrong
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.diag.check import Check
    from quarkctl.diag.evidence import Evidence
    from quarkctl.diag.guide import Step
    from quarkctl.diag.limits import Limits
    from quarkctl.diag.product import Product
    from quarkctl.formats.stream import Sample

#: What is judged at once, so long after a pack came or went: a takeover that has not come by then will not come, and what
#: hardware held has arrived.
_JUDGED = {"pack_removed": ("takeover", "droop"), "pack_inserted": ("inrush", "inrush_energy")}
_VERDICT_AFTER_S = 0.5
_ACTUATOR_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Listening:
    """How a live device is listened to. ``limits_of`` reads the limits once the board is known."""

    device: str
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
    """What a device sent so far."""

    def __init__(self, how: Listening, name: str, progress: show.Reporter) -> None:
        from quarkctl import schemas
        from quarkctl.diag.columns import Columns
        from quarkctl.formats.stream import Decoder

        self.how, self.name, self.progress = how, name, progress
        self.decoder, self.columns = Decoder(schemas.telemetry()), Columns()
        self._due: list[tuple[float, Sample]] = []

    def feed(self, data: bytes, host_ns: int) -> list[Sample]:
        """Takes one read; returns the packs' comings and goings in it."""
        from quarkctl.diag import columns

        batch = self.decoder.batch(data, [len(data)], [host_ns])
        self.columns.add(batch)
        new = columns.events(batch, _JUDGED)
        for text in swaps(new):
            self.note(text)
        now = time.monotonic()
        self._due += [(now + _VERDICT_AFTER_S, s) for s in new]
        while self._due and self._due[0][0] <= now:
            self._tell(self._due.pop(0)[1])
        return new

    def note(self, text: str) -> None:
        self.progress(Event(self.name, "listen", Level.NOTE, text))

    def evidence(self) -> Evidence:
        d = self.decoder
        return self.columns.evidence(
            d.schema, d.counts, d.account.losses, self.how.product_of(self.board), self.name, "", "open"
        )

    @property
    def board(self) -> str:
        return self.columns.board

    def _tell(self, event: Sample) -> None:
        """The verdict on one removal or insertion, within a second of it. The whole record is judged at the end."""
        from quarkctl.diag import check, columns

        chosen = [c for c in self.how.chosen if c.name in _JUDGED[event.message.name]]
        if not self.board or not chosen:
            return
        recent = columns.since(self.evidence(), event.boot, event.time_us - 1_500_000)
        limits = self.how.limits_of(self.board)
        for c in chosen:
            for f in check.run(c, recent, limits):
                if f.value is not None:
                    self.note(f"{f.code} {f.name} {f.value:.3g} {f.unit}: {f.verdict.value}")


def from_device(how: Listening) -> Evidence:
    """Listen, and lead through the steps if there are any."""
    from quarkctl.cli.choose import choose
    from quarkctl.telemetry import live

    opener = choose(how.device)
    link = opener.open()
    try:
        with show.Reporter(how.events, quiet=how.quiet) as progress:
            got = _Live(how, opener.identity, progress)
            progress(Event(opener.identity, "listen", Level.START))
            if how.steps:
                for step in how.steps:
                    _lead(got, step, lambda stop: live.chunks(link, stop))
            else:
                until = live.Until(how.seconds)
                if not how.quiet and how.events != "-":
                    todo = ": swap a battery now" if any(c.topic == "swap" for c in how.chosen) else ""
                    show.err.print(f"listening to {opener.identity} for {how.seconds:g} s{todo}")
                for chunk in live.chunks(link, until):
                    got.feed(chunk.data, chunk.host_ns)
                    progress(
                        Event(
                            opener.identity,
                            "listen",
                            Level.PROGRESS,
                            f"{got.columns.frames} frames",
                            eta_s=until.left_s,
                        )
                    )
    finally:
        link.close()
    return got.evidence()


def _lead(got: _Live, step: Step, chunks: Callable[[Callable[[], bool]], Iterator[object]]) -> None:
    """One step: say it or have it done, wait until telemetry shows it, then until its consequences are in."""
    from quarkctl.telemetry.live import Until

    how = got.how
    got.progress(Event(got.name, "guide", Level.NOTE, step.text))
    if step.action and how.actuator:
        actuate(how.actuator, got.name, step.action)
    seen = not step.event
    until = Until(step.hold_s if seen else how.step_timeout_s)
    for chunk in chunks(until):
        for s in got.feed(chunk.data, chunk.host_ns):  # type: ignore[attr-defined]
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
