"""quarkctl diag"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Also, Board, Device, Events, Json, Seconds, Timeout, bounded, examples
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong
from quarkctl.events import Event, Level

if TYPE_CHECKING:
    from quarkctl.diag.check import Check
    from quarkctl.diag.evidence import Evidence
    from quarkctl.diag.finding import Finding
    from quarkctl.diag.limits import Limits
    from quarkctl.diag.product import Product
    from quarkctl.diag.result import Result

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Run diagnostics and give a verdict.")

#: Exit codes by verdict; every other verdict is 0.
EXIT = {"FAIL": 7, "INVALID": 8}
_LIVE_SECONDS = 10.0


@app.callback(epilog=examples("quarkctl diag battery --recording swap.qrec", "quarkctl diag explain PWR-002"))
def _diag() -> None:
    """Run diagnostics and give a verdict.

    Exit code 7: a fault was found. 8: the evidence cannot support a verdict.
    """


def complete_check(ctx: typer.Context, incomplete: str) -> list[str]:
    from quarkctl.diag import checks

    known = [c for c in checks.CHECKS.values() if ctx.info_name in (c.area, "all")]
    return sorted({w for c in known for w in (c.topic, c.name) if w.startswith(incomplete)})


def complete_code(incomplete: str) -> list[str]:
    from quarkctl.diag import checks

    return [c for c in checks.CHECKS if c.startswith(incomplete.upper())]


Recordings = Annotated[
    list[Path] | None,
    typer.Option(
        "--recording", "-r", metavar="FILE", help="Judge a recording instead of a device; several are repeated runs."
    ),
]
LimitsFile = Annotated[
    Path | None, typer.Option("--limits", metavar="FILE", help="Limits; default: those of the board.")
]
Override = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME.BOUND=VALUE UNIT", help="Change one bound of a limit; the report says so."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE", help="Write a report: .html, .xml (JUnit), .json or .csv; may be given often."
    ),
]
Repeat = Annotated[int, typer.Option("--repeat", metavar="N", min=1, max=10000, help="Judge a live device N times.")]
Guided = Annotated[bool, typer.Option("--guided", help="Tell the operator what to do and when; wait until it is seen.")]
Actuator = Annotated[
    str,
    typer.Option(
        metavar="COMMAND",
        help="Guided, and COMMAND does it: gets `eject left` and the like. `sim`: the virtual glasses.",
    ),
]
StepTimeout = Annotated[
    float, typer.Option("--step-timeout", metavar="S", min=0.1, help="How long to wait for each step.")
]
Strict = Annotated[bool, typer.Option("--strict", help="MARGINAL counts as a fault.")]
Operator = Annotated[
    str, typer.Option(metavar="NAME", help="Who runs this: kept in the report, and for a gauge study.")
]
Schemas = Annotated[
    list[Path] | None,
    typer.Option("--schemas", metavar="DIR", help="Schemas of other firmware releases; may be given often."),
]
Fixture = Annotated[
    str, typer.Option(metavar="NAME", help="Rig or instrument with its calibration: kept in the report.")
]


def _command(area: str, text: str, live: str, *, example: tuple[str, str]) -> None:
    """One command a area; they differ only in which checks they choose."""

    def run(
        ctx: typer.Context,
        check: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[CHECK]...", autocompletion=complete_check, help="Only these: topic, check or code."
            ),
        ] = None,
        device: Device = "",
        also: Also = None,
        recording: Recordings = None,
        board: Board = "",
        limits: LimitsFile = None,
        limit: Override = None,
        report: Reports = None,
        repeat: Repeat = 1,
        guided: Guided = False,
        actuator: Actuator = "",
        step_timeout: StepTimeout = 60.0,
        seconds: Seconds = None,
        timeout: Timeout = 0.0,
        strict: Strict = False,
        operator: Operator = "",
        fixture: Fixture = "",
        schemas: Schemas = None,
        as_json: Json = False,
        events: Events = "",
    ) -> int:
        by_environment = ctx.get_parameter_source("device")
        if recording and by_environment and by_environment.name == "ENVIRONMENT":
            device = ""  # that of the shell, not of this command
        with bounded(timeout):
            request = _Request(
                area, check or [], device, also or [], recording or [], board, limits, limit or [], report or [],
                repeat, guided or bool(actuator), actuator, step_timeout, seconds, strict, operator, fixture,
                schemas or [], as_json, events,
            )  # fmt: skip
            return request.run()

    run.__doc__ = f"{text}\n\n{live}"
    app.command(area, epilog=examples(*example))(run)


class _Request:
    """What was asked for on the command line."""

    def __init__(
        self, area: str, words: Sequence[str], device: str, also: Sequence[str], recordings: Sequence[Path],
        board: str, limits: Path | None,
        overrides: Sequence[str], reports: Sequence[Path], repeat: int, guided: bool, actuator: str, step_timeout: float,
        seconds: float | None, strict: bool, operator: str, fixture: str, schemas: Sequence[Path], as_json: bool,
        events: str,
    ) -> None:  # fmt: skip
        from quarkctl.diag import checks
        from quarkctl.diag.report import KINDS

        self.chosen = checks.select(area, words)
        self.asked = bool(words)
        self.device, self.also, self.recordings, self.board = device, also, recordings, board
        self.limits_file, self.overrides, self.reports = limits, overrides, reports
        self.repeat, self.guided, self.actuator, self.step_timeout = repeat, guided, actuator, step_timeout
        self.seconds, self.strict, self.operator, self.fixture = seconds, strict, operator, fixture
        self.schemas, self.as_json, self.events = schemas, as_json, events
        for path in reports:
            if path.suffix not in KINDS:
                kinds = ", ".join(f"{k} ({v})" for k, v in KINDS.items())
                raise UsageWrong(f"do not know what report {path.name} is", hint=f"there are {kinds}")
        if recordings and (repeat > 1 or guided or device or also or seconds):
            raise UsageWrong(
                "a recording is judged as it is",
                hint="--device, --also, --seconds, --repeat, --guided and --actuator are for live devices",
            )
        if limits and not limits.is_file():
            raise InputWrong(
                f"cannot read {limits}: {'it is a folder' if limits.is_dir() else 'there is no such file'}"
            )

    # --- run ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        from quarkctl.diag import checks
        from quarkctl.diag.result import Result

        runs: list[list[Finding]] = []
        evidence: Evidence | None = None
        limits: Limits | None = None
        hashes: list[str] = []
        before: Evidence | None = None
        for number in range(len(self.recordings) or self.repeat):
            evidence = self._evidence(number)
            if evidence.ar1_hello and not evidence.hello:
                raise InputWrong(
                    f"{evidence.source} holds the AR1's stream alone",
                    hint="what is judged is on the microcontroller's line; the AR1's comes beside it: --also",
                )
            if evidence.sha256 in hashes:
                raise UsageWrong(f"{evidence.source} is given twice", hint="repeated runs are different recordings")
            hashes += [evidence.sha256] if evidence.sha256 else []
            if before is not None:
                _same_device(before, evidence)
            before = evidence
            limits = self._limits(self.board or str(evidence.hello.get("board", "")))
            with show.Reporter(self.events, quiet=self.as_json) as progress:

                def told(check: Check, reporter: show.Reporter = progress, source: str = evidence.source) -> None:
                    reporter(Event(source, "judge", Level.PROGRESS, f"{check.code} {check.title}"))

                runs.append(checks.run(evidence, limits, self.chosen, asked=self.asked, progress=told))
            if self.repeat > 1 and not self.as_json and self.events != "-":
                show.err.print(f"run {number + 1} of {self.repeat}: {checks.verdict(runs[-1]).value}")
        if evidence is None or limits is None:
            raise AssertionError("at least one run")
        result = Result(runs, evidence, self._provenance(evidence, limits, hashes), limits)
        for path in self.reports:
            _write(path, self._report(path, result))
        if self.as_json:
            show.document("quarkctl.diag/2", result.as_dict())
        elif self.events != "-":
            _print(result, self.reports, asked=self.asked)
        verdict = result.verdict.value
        return EXIT["FAIL"] if self.strict and verdict == "MARGINAL" else EXIT.get(verdict, 0)

    def _evidence(self, number: int) -> Evidence:
        from quarkctl.cli import listen
        from quarkctl.diag import guide

        if self.recordings:
            with show.Reporter(self.events, quiet=self.as_json) as progress:
                return listen.from_recording(self.recordings[number], self._product, progress, self.schemas)
        steps = guide.script(self.chosen) if self.guided else []
        if self.guided and not steps:
            raise UsageWrong("there is nothing to guide through", hint=f"steps exist for {', '.join(guide.SCRIPTS)}")
        return listen.from_device(listen.Listening(
            self.device, self.also, self.seconds or _LIVE_SECONDS, steps, self.step_timeout, self.actuator, self.chosen,
            self._product, self._limits, self.events, self.as_json,
        ))  # fmt: skip

    def _product(self, board: str) -> Product:
        from quarkctl.diag.product import product_of

        return product_of(self.board or board)

    def _limits(self, board: str) -> Limits:
        from quarkctl.diag import checks, limits

        name, text = self._limits_text(board)
        parsed = limits.parse(name, text, checks.UNITS)
        if board and parsed.sku != board:
            raise InputWrong(
                f"{name} holds the limits of {parsed.sku}, the device is {board}", hint="give the right file: --limits"
            )
        for override in self.overrides:
            parsed = parsed.override(override)
        return parsed

    def _limits_text(self, board: str) -> tuple[str, str]:
        from quarkctl import boards

        if self.limits_file:
            try:
                return self.limits_file.name, self.limits_file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputWrong(f"cannot read {self.limits_file}: {error}") from error
        if not board:
            raise InputWrong(
                "the evidence does not say which board it is from",
                hint="record for two seconds or more, or give --board NAME or --limits FILE",
            )
        return boards.limits_text(board)

    def _provenance(self, evidence: Evidence, limits: Limits, hashes: Sequence[str]) -> Any:
        import datetime

        from quarkctl import __version__
        from quarkctl.diag.result import Provenance

        _, text = self._limits_text(self.board or str(evidence.hello.get("board", "")))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return Provenance(
            f"quarkctl {__version__}", now, limits.title, hashlib.sha256(text.encode()).hexdigest(), limits.overrides,
            {**evidence.identity(), "source": ", ".join(str(r) for r in self.recordings) or evidence.source},
            " ".join(hashes), self.operator, self.fixture,
        )  # fmt: skip

    def _report(self, path: Path, result: Result) -> str:
        if path.suffix == ".html":
            from quarkctl.diag.report import page

            return page.build(result)
        if path.suffix == ".xml":
            from quarkctl.diag.report import junit

            return junit.build(result, strict=self.strict)
        if path.suffix == ".csv":
            from quarkctl.diag.report import sheet

            return sheet.build(result)
        return json.dumps({"schema": "quarkctl.diag/2", **result.as_dict()}, indent=1, default=str) + "\n"


def _same_device(a: Evidence, b: Evidence) -> None:
    """Runs of one report are of one device and its builds, which the report names."""
    told = {"source": "", **a.identity()}, {"source": "", **b.identity()}
    for key in sorted(told[0].keys() & told[1].keys() - {"source"}):
        if told[0][key] != told[1][key] and "not reported" not in (told[0][key], told[1][key]):
            raise InputWrong(
                f"{b.source} is of another device or build than {a.source}: {key.replace('_', ' ')} {told[1][key]}, "
                f"not {told[0][key]}",
                hint="repeated runs are of one; compare two with: quarkctl diag compare A.json B.json",
            )


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise HostUnfit(f"cannot write {path}: {error.strerror}") from error


_LIVE = (
    "On a live device this listens for --seconds (10), or leads through what must be done with --guided or --actuator."
)
_command(
    "battery",
    "Judge batteries and swaps: take-over, droop, resistance, charge, balance, authentication, life.",
    _LIVE,
    example=(
        "quarkctl diag battery --recording swap.qrec --report swap.html",
        "quarkctl diag battery swap -d sim:s1 --actuator sim",
    ),
)
_command(
    "thermal", "Judge heat: thermal step response, soak, throttling, skin temperature.", _LIVE,
    example=("quarkctl diag thermal --recording soak.qrec", "quarkctl diag thermal skin -d sim:s1 --seconds 60"),
)  # fmt: skip
_command(
    "sensors",
    "Judge the thermistors: missing, stuck, spiking, late, off, swapped.",
    _LIVE,
    example=("quarkctl diag sensors --recording soak.qrec", "quarkctl diag sensors -d sim:s1 --seconds 30"),
)
_command(
    "link",
    "Judge the way between the chips: latency, loss, wake-up, hand-over.",
    _LIVE,
    example=("quarkctl diag link --recording day.qrec", "quarkctl diag link -d sim:s1 --actuator sim"),
)
_command(
    "all",
    "Judge everything that the evidence supports, and name the rest.",
    _LIVE,
    example=(
        "quarkctl diag all --recording day.qrec --report day.html --report day.xml",
        "quarkctl diag all --json -r day.qrec",
    ),
)


@app.command("list", epilog=examples("quarkctl diag list", "quarkctl diag list --json"))
def list_checks(as_json: Json = False) -> None:
    """List all checks."""
    from quarkctl.diag import checks

    known = checks.CHECKS.values()
    if as_json:
        rows = [
            {"code": c.code, "check": f"{c.area} {c.topic}", "name": c.name, "title": c.title, "why": c.why,
             "measure": c.measure, "unit": c.unit}
            for c in known
        ]  # fmt: skip
        show.document("quarkctl.diag-list/1", {"checks": rows})
        return
    show.table(
        ("code", "command", "check", "why"),
        ((c.code, c.area if c.area == c.topic else f"{c.area} {c.topic}", c.title, c.why) for c in known),
    )


@app.command(epilog=examples("quarkctl diag explain PWR-002", "quarkctl diag explain PWR-004"))
def explain(code: Annotated[str, typer.Argument(metavar="CODE", autocompletion=complete_code)]) -> None:
    """Tell what a finding means, how it is measured, by which source, and how it can fail."""
    from quarkctl.diag import checks
    from quarkctl.diag.reference import entry

    found = checks.CHECKS.get(code.upper())
    if found is None:
        raise UsageWrong(f"there is no finding {code!r}", hint="`quarkctl diag list` names all")
    show.out.print(f"{found.code}  {found.title}: {found.why}.\n")
    for name, text in entry(found):
        show.out.print(f"{name:<8} {text}")


@app.command(
    epilog=examples("quarkctl diag compare golden.json today.json", "quarkctl diag compare 1.0.json 1.1.json --json")
)
def compare(
    old: Annotated[Path, typer.Argument(metavar="A", help="JSON report of the older build or the golden unit.")],
    new: Annotated[Path, typer.Argument(metavar="B", help="JSON report to compare with it.")],
    as_json: Json = False,
) -> int:
    """Compare two reports: what changed, and whether that is more than the uncertainty. Exit code 7: something got worse."""
    from quarkctl.diag import compare as comparing

    (a, from_a), (b, from_b) = comparing.read(str(old), _json(old)), comparing.read(str(new), _json(new))
    lines = comparing.compare(a, b)
    worse = [x for x in lines if x.word == "worse" or (x.new_verdict == "FAIL" and x.old_verdict != "FAIL")]
    if as_json:
        rows = [
            {"code": x.code, "check": x.name, "unit": x.unit, "old_verdict": x.old_verdict, "new_verdict": x.new_verdict,
             "word": x.word, "old": x.change.old if x.change else None, "new": x.change.new if x.change else None,
             "change": x.change.change.value if x.change else None, "uncertainty": x.change.change.u if x.change else None,
             "significant": x.change.significant if x.change else None}
            for x in lines
        ]  # fmt: skip
        show.document("quarkctl.diag-compare/1", {"old": from_a, "new": from_b, "lines": rows, "worse": len(worse)})
    else:
        for name, said in ((old, from_a), (new, from_b)):
            show.out.print(
                f"{name.name}: {said.get('serial', '?')}  rtos {said.get('rtos', '?')}  {said.get('limits', '?')}"
            )
        show.table(
            ("code", "check", "old", "new", "change", "verdicts", ""),
            (
                (x.code, x.name, f"{x.change.old:.4g}" if x.change else "-", f"{x.change.new:.4g}" if x.change else "-",
                 f"{x.change.change.value:+.3g} +-{x.change.change.u:.2g} {x.unit if x.unit != '1' else ''}".rstrip()
                 if x.change else "-", f"{x.old_verdict} -> {x.new_verdict}", x.word)
                for x in lines
            ),
        )  # fmt: skip
        show.out.print(
            f"{len(lines)} compared, {sum(x.word not in ('same',) for x in lines)} differ, {len(worse)} worse"
        )
    return EXIT["FAIL"] if worse else 0


@app.command(epilog=examples("quarkctl diag gauge anna-*.json bert-*.json", "quarkctl diag gauge study/*.json --json"))
def gauge(
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="JSON reports: parts x operators x trials.")
    ],
    as_json: Json = False,
) -> None:
    """Gauge study: how much of the spread is the measurement's own (repeatability and reproducibility, ANOVA)."""
    from quarkctl.diag import compare as comparing

    studies = comparing.gauge_studies([(str(p), _json(p)) for p in reports])
    if as_json:
        rows = [{"measurement": n, "verdict": s.verdict, **vars(s)} for n, s in studies.items()]
        show.document("quarkctl.diag-gauge/1", {"studies": rows})
        return
    show.table(
        ("measurement", "parts", "operators", "trials", "repeat", "reproduce", "part", "GRR", "ndc", ""),
        ((n, s.parts, s.operators, s.trials, f"{s.repeatability:.3g}", f"{s.reproducibility:.3g}", f"{s.part:.3g}",
          f"{s.grr_pct:.1f} %", s.distinct_categories, s.verdict) for n, s in studies.items()),
    )  # fmt: skip


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputWrong(f"cannot read {path}: {error}") from error


# --- the terminal -----------------------------------------------------------------------------------------------------


def _print(result: Result, reports: Sequence[Path], *, asked: bool) -> None:
    from quarkctl.diag.finding import Verdict
    from quarkctl.diag.report import measured

    e, identity = result.evidence, result.provenance.identity
    show.out.print(
        f"{identity.get('serial', '?')}  {identity.get('board', '?')}  rtos {identity.get('rtos', '?')}  "
        f"ar1 {identity.get('ar1', '?')}   "
        f"limits {result.limits.title}   {e.span_s():.1f} s of {e.source}"
    )
    judged = [f for f in result.findings if f.verdict is not Verdict.SKIP]
    left = [f for f in result.findings if f.verdict is Verdict.SKIP]
    if judged:
        show.table(
            ("code", "check", "measured", "limit", "verdict", ""),
            ((f.code, f.name, measured(f), f.limit or "-", show.verdict(f.verdict.value), f.note) for f in judged),
        )
    if left:
        show.out.print(f"{len(left)} left out:")
        show.table(("", "", ""), ((f.code, f.name, f.note) for f in left))
    if len(result.runs) > 1:
        _print_statistics(result)
    if e.ending not in ("complete", "open"):
        show.err.print(f"the recording is {e.ending}: judged up to there", style="yellow")
    bad = sum(f.verdict.value not in ("PASS", "SKIP") for f in result.findings)
    words = f": {len(judged)} judged, {bad} to look at" if judged else ": nothing could be judged"
    if judged and len(result.runs) > 1:
        spoilt = sum(any(f.verdict.value not in ("PASS", "SKIP") for f in run) for run in result.runs)
        words = f": {len(result.runs)} runs, {spoilt} to look at"
    written = f"   report: {', '.join(str(p) for p in reports)}" if reports else ""
    show.out.print(show.verdict(result.verdict.value).append(words + written, "default"))


def _print_statistics(result: Result) -> None:
    rows = []
    for m in result.measurements():
        s, d = m.spread, m.drift
        if s.n:
            drift = f"{d.per_run:+.2g}/run p={d.p:.2f}" if d else "-"
            figures = (f"{s.mean:.4g}", f"{s.sd:.2g}", f"{s.low:.4g}", f"{s.high:.4g}")
            rows.append((m.name, s.n, s.invalid, *figures, m.cpk(), drift, m.first_failure or "-"))
    show.out.print(f"over {len(result.runs)} runs:")
    show.table(("measurement", "n", "invalid", "mean", "sd", "min", "max", "Cpk, 95 %", "drift", "first fault"), rows)
