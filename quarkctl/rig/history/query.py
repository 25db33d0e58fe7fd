"""Questions to history besides the list of runs (`listing`). All are bounded; times are seconds since 1970."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from quarkctl.rig.history import tables as t
from quarkctl.rig.history.listing import Filter

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

ROWS_MAX = 100_000


def _of_results(wanted: Filter) -> list[ColumnElement[bool]]:
    """Conditions on `result`."""
    r = t.result.c
    out: list[ColumnElement[bool]] = [
        c == v
        for c, v in (
            (r.station, wanted.station),
            (r.device, wanted.device),
            (r.board, wanted.board),
            (r.verdict, wanted.verdict),
        )
        if v
    ]
    if wanted.since:
        out.append(r.started >= wanted.since)
    if wanted.firmware:
        digests = select(t.firmware.c.digest).where(t.firmware.c.version == wanted.firmware)
        out.append(r.firmware.in_(digests) | r.firmware.startswith(wanted.firmware, autoescape=True))
    return out


def results(connection: Connection, run_id: str) -> list[dict[str, Any]]:
    """The stations of a run with their firmware's version, their steps, and of these all that is known."""
    found = (
        select(t.result, func.coalesce(t.firmware.c.version, "").label("firmware_version"))
        .join_from(t.result, t.firmware, t.firmware.c.digest == t.result.c.firmware, isouter=True)
        .where(t.result.c.run_id == run_id).order_by(t.result.c.id)
    )  # fmt: skip
    rows = [dict(r) for r in connection.execute(found).mappings()]
    for row in rows:
        steps = select(t.step).where(t.step.c.result_id == row["id"]).order_by(t.step.c.id)
        row["steps"] = [dict(s) for s in connection.execute(steps).mappings()]
        for step in row["steps"]:
            for name, table in (("measurements", t.measurement), ("findings", t.finding), ("artifacts", t.artifact)):
                query = select(table).where(table.c.step_id == step["id"]).order_by(table.c.id)
                step[name] = [dict(r) for r in connection.execute(query).mappings()]
    return rows


def yields(connection: Connection, wanted: Filter) -> list[dict[str, Any]]:
    """Per station, worst first: runs, passed, yield (passed / runs), faults of the place, retries, mean seconds."""
    r = t.result.c
    query = (
        select(
            r.station, func.count().label("runs"), _count(r.verdict == "passed").label("passed"),
            _count(r.verdict.in_(("error", "timeout", "missing", "lost"))).label("faults"),
            func.sum(r.attempts).label("attempts"), func.avg(r.seconds).label("seconds_mean"),
        )
        .where(r.verdict.not_in(("quarantined", "busy", "interrupted")), *_of_results(wanted))
        .group_by(r.station)
    )  # fmt: skip
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        row["yield"] = row["passed"] / row["runs"]
        row["seconds_mean"] = round(row["seconds_mean"], 3)
    return sorted(rows, key=lambda row: (row["yield"], -row["faults"], row["station"]))


def _count(condition: ColumnElement[bool]) -> Any:
    from sqlalchemy import case

    return func.sum(case((condition, 1), else_=0))


def trends(connection: Connection, wanted: Filter, name: str = "") -> list[dict[str, Any]]:
    """Per measurement and station: n, mean, standard deviation (n - 1), min, max, limits, Cpk.

    Cpk = min(USL - mean, mean - LSL) / (3 s), over the limits of the newest measurement (AIAG SPC, 2nd edition); None
    without limits, with fewer than two values or without any spread.
    """
    m = t.measurement.c
    where = [*([m.name == name] if name else []), *_of_measurements(wanted)]
    mean = (
        select(m.name, m.station, m.unit, func.count().label("n"), func.avg(m.value).label("mean"),
               func.min(m.value).label("min"), func.max(m.value).label("max"), func.max(m.id).label("newest"))
        .where(*where).group_by(m.name, m.station, m.unit).subquery()
    )  # fmt: skip
    square = (m.value - mean.c.mean) * (m.value - mean.c.mean)
    same = (m.name == mean.c.name) & (m.station == mean.c.station) & (m.unit == mean.c.unit)
    spread = (
        select(mean.c.name, mean.c.station, mean.c.unit, func.sum(square).label("squares"))
        .select_from(mean.join(t.measurement, same)).where(*where)
        .group_by(mean.c.name, mean.c.station, mean.c.unit).subquery()
    )  # fmt: skip
    both = (mean.c.name == spread.c.name) & (mean.c.station == spread.c.station) & (mean.c.unit == spread.c.unit)
    last = t.measurement.alias("last")
    query = (
        select(mean, spread.c.squares, last.c.lsl, last.c.usl, last.c.value.label("last"))
        .select_from(mean.join(spread, both).join(last, last.c.id == mean.c.newest))
        .order_by(mean.c.name, mean.c.station).limit(ROWS_MAX)
    )  # fmt: skip
    out = []
    for row in connection.execute(query).mappings():
        n, squares = row["n"], max(row["squares"] or 0.0, 0.0)
        sd = math.sqrt(squares / (n - 1)) if n > 1 else None
        out.append({
            **{k: row[k] for k in ("name", "station", "unit", "n", "mean", "min", "max", "last", "lsl", "usl")},
            "sd": sd, "cpk": cpk(row["mean"], sd, row["lsl"], row["usl"]),
        })  # fmt: skip
    return out


def cpk(mean: float, sd: float | None, lsl: float | None, usl: float | None) -> float | None:
    room = [
        d for d in (usl - mean if usl is not None else None, mean - lsl if lsl is not None else None) if d is not None
    ]
    return min(room) / (3 * sd) if room and sd else None


def _of_measurements(wanted: Filter) -> list[ColumnElement[bool]]:
    m = t.measurement.c
    out: list[ColumnElement[bool]] = []
    if wanted.station:
        out.append(m.station == wanted.station)
    if wanted.since:
        out.append(m.started >= wanted.since)
    rest = _of_results(Filter(**{**vars(wanted), "station": "", "since": 0.0, "plan": ""}))
    if rest:
        steps = select(t.step.c.id).join(t.result, t.result.c.id == t.step.c.result_id).where(*rest)
        out.append(m.step_id.in_(steps))
    return out


def series(connection: Connection, name: str, wanted: Filter, limit: int = 500) -> list[dict[str, Any]]:
    """The newest values of one measurement, oldest first: started, station, value, unit, lsl, usl."""
    m = t.measurement.c
    query = (
        select(m.started, m.station, m.value, m.unit, m.lsl, m.usl)
        .where(m.name == name, *_of_measurements(wanted)).order_by(m.started.desc()).limit(limit)
    )  # fmt: skip
    return [dict(row) for row in connection.execute(query).mappings()][::-1]


def flaky(connection: Connection, wanted: Filter, least: int = 3) -> list[dict[str, Any]]:
    """Steps that came out differently on the same device with the same firmware, most changeable first.

    ``flips``: how often a verdict differs from the one before; ``rate``: flips / (n - 1); ``retried``: passed only after
    another attempt. Fewer than ``least`` results say nothing.
    """
    r, s = t.result.c, t.step.c
    query = (
        select(r.station, r.device, r.firmware, s.name, s.verdict, s.attempts)
        .join_from(t.step, t.result, r.id == s.result_id)
        .where(r.verdict.not_in(("interrupted", "busy", "quarantined")), *_of_results(wanted))
        .order_by(r.started.desc(), s.id.desc()).limit(ROWS_MAX)
    )  # fmt: skip
    groups: dict[tuple[str, ...], list[tuple[bool, int]]] = {}
    for station, device, digest, name, verdict, attempts in connection.execute(query):
        groups.setdefault((station, device, digest, name), []).append((verdict == "passed", attempts))
    rows = []
    for (station, device, digest, name), seen in groups.items():
        flips = _flips(passed for passed, _ in seen)
        retried = sum(passed and attempts > 1 for passed, attempts in seen)
        if len(seen) >= least and (flips or retried):
            rows.append({
                "station": station, "device": device, "firmware": digest, "step": name, "n": len(seen), "flips": flips,
                "rate": flips / (len(seen) - 1), "retried": retried,
            })  # fmt: skip
    return sorted(rows, key=lambda row: (-row["rate"], -row["retried"], row["station"], row["step"]))


def _flips(values: Iterable[bool]) -> int:
    return sum(a != b for a, b in itertools.pairwise(values))
