"""quarkctl rig history, artifacts"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Json, examples
from quarkctl.cli.rig_run import LIKE, RigFile
from quarkctl.errors import InputWrong, UsageWrong

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from quarkctl.rig.history.listing import Filter


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "quarkctl rig history --verdict failed --since 7d", "quarkctl rig history --trends --station bench-1"
        )
    )(history)
    app.command(epilog=examples("quarkctl rig artifacts last", "quarkctl rig artifacts 20261121-12 --out found"))(
        artifacts
    )


def history(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="One run; its first characters will do.")] = "",
    trends: Annotated[bool, typer.Option("--trends", help="Measurements per station, with spread and Cpk.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="Stations by yield, the worst first.")] = False,
    flaky: Annotated[bool, typer.Option("--flaky", help="Same device and firmware, different verdicts.")] = False,
    station: Annotated[str, typer.Option("--station", metavar="NAME")] = "",
    device: Annotated[str, typer.Option("--device", "-d", metavar="ID", help="Identity, as the list shows it.")] = "",
    board: Annotated[str, typer.Option("--board", "-b", metavar="NAME")] = "",
    firmware: Annotated[str, typer.Option("--firmware", metavar="V", help="Version, or beginning of a digest.")] = "",
    verdict: Annotated[str, typer.Option("--verdict", metavar="WORD", help="Of a station: passed, failed, ...")] = "",
    plan: Annotated[str, typer.Option("--plan", metavar="NAME")] = "",
    measurement: Annotated[str, typer.Option("--measurement", metavar="NAME", help="Only this, with --trends.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="A date, or 12h, 7d, 4w ago.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=100_000)] = 20,
    rig: RigFile = None,
    as_json: Json = False,
) -> None:
    """Show what runs have come to: a list, one run, trends, worst stations, flaky steps."""
    from quarkctl.link import names
    from quarkctl.rig.history import database, listing
    from quarkctl.rig.history.ages import since_of
    from quarkctl.rig.history.deliver import catch_up
    from quarkctl.rig.history.listing import Filter

    if trends + worst + flaky + bool(run) > 1:
        raise UsageWrong(
            "one question at a time: a run, --trends, --worst or --flaky", hint="quarkctl rig history --help"
        )
    if verdict:
        from quarkctl.rig.outcome import Verdict

        if verdict not in [v.value for v in Verdict]:
            raise UsageWrong(
                f"there is no verdict {verdict!r}", hint=f"there are {', '.join(v.value for v in Verdict)}"
            )
    asked_since = since_of(since)
    url = names.load_rig(rig).history
    late = catch_up(url)
    if late.waiting:
        show.err.print(f"note: {late}", style="yellow", soft_wrap=True)
    wanted = Filter(station, device, board, verdict, plan, firmware, asked_since)
    if not (run or trends or worst or flaky):
        with database.reading(url) as ask:
            rows = listing.runs(ask, wanted, limit)
        _list(rows, as_json=as_json)
        return
    with database.connect(url) as connection:
        if run:
            _one(connection, run, as_json=as_json)
        elif trends:
            _trends(connection, wanted, measurement, as_json=as_json)
        elif worst:
            _worst(connection, wanted, as_json=as_json)
        else:
            _flaky(connection, wanted, as_json=as_json)


def _list(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show.document("quarkctl.rig-history/1", {"runs": rows})
    elif not rows:
        show.out.print("no run fits")
    else:
        show.table(
            ("run", "plan", "verdict", "passed", "took", "host", "command"),
            (
                (r["id"], r["plan"], _verdict(r["verdict"]), f"{r['passed_count']}/{r['station_count']}",
                 f"{r['ended'] - r['started']:.0f} s", r["host"], r["command"])
                for r in rows
            ),
        )  # fmt: skip


def _one(connection: Connection, run: str, *, as_json: bool) -> None:
    from sqlalchemy import select

    from quarkctl.rig.history import database, listing, query
    from quarkctl.rig.history import tables as t

    if run == "last":
        found = listing.runs(database.asked(connection), listing.Filter(), 1)
    else:
        fits = select(t.run).where(t.run.c.id.startswith(run, autoescape=True)).limit(2)
        found = [dict(r) for r in connection.execute(fits).mappings()]
    if len(found) != 1:
        raise InputWrong(
            f"{'several' if found else 'no'} runs are called {run}", hint="quarkctl rig history lists them"
        )
    head, rows = found[0], query.results(connection, found[0]["id"])
    if as_json:
        show.document("quarkctl.rig-history-run/1", {**head, "stations": rows})
        return
    show.out.print(f"{head['id']}  {head['plan']}  {head['verdict']}  {head['command']}", soft_wrap=True)
    show.table(
        ("station", "device", "firmware", "verdict", "steps", "took", "tries", ""),
        (
            (r["station"], r["device"] or "-", r["firmware_version"] or r["firmware"][:12] or "-", _verdict(r["verdict"]),
             " ".join(s["name"] for s in r["steps"]) or "-",
             f"{r['seconds']:.1f} s", r["attempts"], r["error"])
            for r in rows
        ),
    )  # fmt: skip


def _trends(connection: Connection, wanted: Filter, name: str, *, as_json: bool) -> None:
    from quarkctl.rig.history import query

    rows = query.trends(connection, wanted, name)
    if as_json:
        show.document("quarkctl.rig-trends/1", {"measurements": rows})
        return
    show.table(
        ("measurement", "station", "n", "mean", "sd", "min", "max", "last", "limits", "Cpk"),
        (
            (r["name"], r["station"], r["n"], _mean(r), _number(r["sd"]), _number(r["min"]),
             _number(r["max"]), _number(r["last"]), _limits(r), _number(r["cpk"], 3))
            for r in rows
        ),
    )  # fmt: skip


def _mean(row: dict[str, Any]) -> str:
    """A count has the unit 1, which nobody writes."""
    return f"{row['mean']:.4g} {row['unit']}" if row["unit"] != "1" else f"{row['mean']:.4g}"


def _limits(row: dict[str, Any]) -> str:
    parts = [
        f">= {row['lsl']:g}" if row["lsl"] is not None else "",
        f"<= {row['usl']:g}" if row["usl"] is not None else "",
    ]
    return " ".join(p for p in parts if p) or "-"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _worst(connection: Connection, wanted: Filter, *, as_json: bool) -> None:
    from quarkctl.rig.history import query

    rows = query.yields(connection, wanted)
    if as_json:
        show.document("quarkctl.rig-worst/1", {"stations": rows})
        return
    show.table(
        ("station", "yield", "runs", "passed", "faults", "tries", "mean time"),
        (
            (r["station"], f"{100 * r['yield']:.1f} %", r["runs"], r["passed"], r["faults"], r["attempts"],
             f"{r['seconds_mean']:.1f} s")
            for r in rows
        ),
    )  # fmt: skip


def _flaky(connection: Connection, wanted: Filter, *, as_json: bool) -> None:
    from quarkctl.rig.history import query

    rows = query.flaky(connection, wanted)
    if as_json:
        show.document("quarkctl.rig-flaky/1", {"steps": rows})
    elif not rows:
        show.out.print("nothing came out differently on the same device with the same firmware")
    else:
        show.table(
            ("station", "step", "device", "firmware", "n", "flips", "rate", "retried"),
            (
                (r["station"], r["step"], r["device"], r["firmware"][:12] or "-", r["n"], r["flips"],
                 f"{100 * r['rate']:.0f} %", r["retried"])
                for r in rows
            ),
        )  # fmt: skip


def _verdict(word: str) -> Any:
    return show.styled(word, show.VERDICT_STYLE.get(LIKE.get(word, ""), "default"))


def artifacts(
    run: Annotated[str, typer.Argument(metavar="RUN", help="First characters, or last.")] = "last",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Copy them into this new folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what a run left on disk: record, events, JUnit XML, logs, recordings; or copy it out."""
    from quarkctl.rig import runs

    folder = runs.folder_of(run)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "lock"]
    if out:
        runs.copy_out(folder, out)
    rows = [{"path": str(p.relative_to(folder)), "size_bytes": p.stat().st_size} for p in files]
    if as_json:
        show.document("quarkctl.rig-artifacts/1", {"run": folder.name, "folder": str(out or folder), "files": rows})
        return
    show.table(("file", "bytes"), ((r["path"], r["size_bytes"]) for r in rows))
    show.out.print(str(out or folder), soft_wrap=True)
