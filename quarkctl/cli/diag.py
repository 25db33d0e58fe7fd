"""quarkctl diag"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Device, Events, Json, Seconds, examples
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Evidence
    from quarkctl.diag.finding import Finding, Verdict
    from quarkctl.formats.stream import Decoder, Sample

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Run diagnostics and give a verdict.")

#: Exit codes by verdict; every other verdict is 0.
EXIT = {"FAIL": 7, "INVALID": 8}
_LIVE_SECONDS = 10.0


@app.callback(epilog=examples("quarkctl diag battery --recording swap.qrec", "quarkctl diag explain PWR-002"))
def _diag() -> None:
    """Run diagnostics and give a verdict.

    Exit code 7: a fault was found. 8: the evidence cannot support a verdict.
    """


def complete_check(incomplete: str) -> list[str]:
    from quarkctl.diag import battery as battery_checks

    return [n for n in battery_checks.CHECKS if n.startswith(incomplete)]


@app.command(
    epilog=examples("quarkctl diag battery --recording swap.qrec", "quarkctl diag battery -d sim:s1 --seconds 15")
)
def battery(
    check: Annotated[
        str, typer.Argument(metavar="[CHECK]", autocompletion=complete_check, help="Only this check.")
    ] = "",
    device: Device = "",
    recording: Annotated[
        Path | None, typer.Option("--recording", "-r", metavar="FILE", help="Judge a recording instead of a device.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(metavar="FILE", help="Limits; default: those of the board.")] = None,
    seconds: Seconds = None,
    as_json: Json = False,
    events: Events = "",
) -> int:
    """Judge the batteries: are both seen, is a swap survived, does the bus hold.

    On a live device this listens for --seconds (10): swap a battery meanwhile.
    """
    from quarkctl.diag import battery as battery_checks
    from quarkctl.diag import limits as limits_format
    from quarkctl.diag.finding import worst

    if check and check not in battery_checks.CHECKS:
        raise UsageWrong(f"there is no check {check!r}", hint=f"there are {', '.join(battery_checks.CHECKS)}")
    evidence = (
        _from_recording(recording)
        if recording
        else _from_device(device, seconds or _LIVE_SECONDS, events, quiet=as_json)
    )
    name, text = _limits(limits, evidence)
    parsed = limits_format.parse(name, text)
    findings = battery_checks.run(evidence, parsed, check)
    verdict = worst(findings)
    identity = {
        **evidence.identity(),
        "limits": f"{parsed.sku} v{parsed.version}",
        "limits_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "recording_sha256": evidence.sha256,
    }
    if as_json:
        body = {
            "verdict": verdict.value, "evidence": identity, "counts": evidence.counts.as_dict(),
            "span_s": round(evidence.span_s(), 3), "findings": [f.as_dict() for f in findings],
        }  # fmt: skip
        show.document("quarkctl.diag/1", body)
    elif events != "-":
        _print(findings, verdict, evidence, identity)
    return EXIT.get(verdict.value, 0)


@app.command("list", epilog=examples("quarkctl diag list", "quarkctl diag list --json"))
def list_checks(as_json: Json = False) -> None:
    """List all checks."""
    from quarkctl.diag import battery as battery_checks

    checks = battery_checks.CHECKS.values()
    if as_json:
        rows = [{"code": c.code, "check": f"battery {c.name}", "title": c.title, "why": c.why} for c in checks]
        show.document("quarkctl.diag-list/1", {"checks": rows})
        return
    show.table(("code", "check", "why"), ((c.code, f"battery {c.name}", c.why) for c in checks))


@app.command(epilog=examples("quarkctl diag explain PWR-002", "quarkctl diag explain PWR-004"))
def explain(code: Annotated[str, typer.Argument(metavar="CODE")]) -> None:
    """Tell what a finding means and how it is measured."""
    from quarkctl.diag import battery as battery_checks

    for c in battery_checks.CHECKS.values():
        if c.code == code.upper():
            show.out.print(f"{c.code}  {c.title}: {c.why}.\n")
            show.out.print(" ".join((c.run.__doc__ or "").split()))
            return
    raise UsageWrong(
        f"there is no finding {code!r}", hint=f"there are {', '.join(c.code for c in battery_checks.CHECKS.values())}"
    )


def _from_recording(path: Path) -> Evidence:
    from quarkctl.diag.evidence import Evidence
    from quarkctl.telemetry import store

    r = store.load(path)
    if not r.samples:
        raise InputWrong(f"{path} holds no samples ({r.ending}, {r.wire_bytes} wire bytes)")
    return Evidence(r.schema, r.samples, r.counts, r.gaps, str(path), r.sha256, r.ending)


def _from_device(device: str, seconds: float, events: str, *, quiet: bool) -> Evidence:
    from quarkctl import schemas
    from quarkctl.cli.choose import choose
    from quarkctl.diag.evidence import Evidence
    from quarkctl.formats.stream import Decoder
    from quarkctl.telemetry import live

    opener = choose(device)
    link = opener.open()
    decoder = Decoder(schemas.telemetry())
    samples: list[Sample] = []
    until = live.Until(seconds)
    try:
        with show.Reporter(events, quiet=quiet) as progress:
            if not quiet and events != "-":
                show.err.print(f"listening to {opener.identity} for {seconds:g} s: swap a battery now")
            progress(Event(opener.identity, "listen", Level.START))
            for chunk in live.chunks(link, until):
                new = decoder.feed(chunk.data, chunk.host_ns)
                samples += new
                for text in _swaps(decoder, new):
                    progress(Event(opener.identity, "listen", Level.NOTE, text))
                progress(Event(opener.identity, "listen", Level.PROGRESS, f"{len(samples)} frames", eta_s=until.left_s))
    finally:
        link.close()
    return Evidence(decoder.schema, samples, decoder.counts, decoder.gaps, opener.identity)


def _swaps(decoder: Decoder, samples: list[Sample]) -> Iterator[str]:
    """What the operator wants to see at once: that a removal or an insertion was noticed."""
    from quarkctl.diag.battery import SIDES

    for s in samples:
        if s.message.name in ("pack_removed", "pack_inserted"):
            yield f"{SIDES[s.number('pack') & 1]} {s.message.name.replace('_', ' ')} at {s.time_us / 1e6:.3f} s"


def _limits(given: Path | None, evidence: Evidence) -> tuple[str, str]:
    from quarkctl import boards

    if given:
        try:
            return given.name, given.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputWrong(f"cannot read {given}: {error}") from error
    board = evidence.identity().get("board", "")
    if not board:
        raise InputWrong(
            "the evidence does not say which board it is from",
            hint="record for two seconds or more, or give --limits FILE",
        )
    return boards.limits_text(board)


def _print(findings: list[Finding], verdict: Verdict, evidence: Evidence, identity: dict[str, str]) -> None:
    show.out.print(
        f"{identity.get('serial', '?')}  {identity.get('board', '?')}  rtos {identity.get('rtos', '?')}   "
        f"limits {identity['limits']}   {evidence.span_s():.1f} s of {identity['source']}"
    )
    show.table(
        ("code", "check", "measured", "limit", "verdict", ""),
        ((f.code, f.check, _measured(f), f.limit or "-", show.verdict(f.verdict.value), f.note) for f in findings),
    )
    if evidence.ending not in ("complete", "open"):
        show.err.print(f"the recording is {evidence.ending}: judged up to there", style="yellow")
    bad = sum(f.verdict.value not in ("PASS", "SKIP") for f in findings)
    show.out.print(show.verdict(verdict.value).append(f": {len(findings)} checks, {bad} to look at", "default"))


def _measured(f: Finding) -> str:
    if f.value is None:
        return "-"
    unit = "" if f.limit is None or f.limit.unit == "1" else f" {f.limit.unit}"
    u = f" +-{f.limit.u:g}" if f.limit and f.limit.u else ""
    return f"{f.value:g}{unit}{u}"
