"""Records of runs from the outbox into the database: each once, whole or not at all, now or later."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quarkctl.errors import InputWrong, QuarkError
from quarkctl.rig import runs
from quarkctl.rig.history import database
from quarkctl.rig.outcome import Run, StationResult

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


#: How the evidence says that a chip did not say (`quarkctl.diag.evidence`).
_UNKNOWN = "not reported"


@dataclass(frozen=True)
class Delivery:
    """``waiting`` records could not be delivered, and ``why``."""

    delivered: int = 0
    waiting: int = 0
    why: str = ""

    def __str__(self) -> str:
        return f"{self.waiting} run{' waits' if self.waiting == 1 else 's wait'} for history: {self.why}"


def catch_up(url: str = "") -> Delivery:
    """For whoever reads history: killed runs get their verdict, and what waits is delivered."""
    runs.close_dead()
    return deliver(url)


def deliver(url: str = "") -> Delivery:
    """Everything that waits. Raises nothing that a run should end for: what cannot be delivered waits on."""
    paths = sorted(runs.outbox().glob("*.json"))
    count, damaged = 0, ""
    for path in paths:
        try:
            run = runs.load(path)
        except InputWrong as error:
            if path.exists():  # else another process has delivered it meanwhile
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".damaged"))
                damaged = f"{error.message}; set aside as .damaged"
            continue
        try:
            with database.connect(url) as connection:
                add(connection, run)
        except QuarkError as error:
            if path.exists():
                return Delivery(count, len(list(runs.outbox().glob("*.json"))), error.message)
        path.unlink(missing_ok=True)
        count += 1
    return Delivery(count, int(bool(damaged)), damaged)


def add(connection: Connection, record: Run) -> None:
    """One run; nothing when it is there already."""
    from sqlalchemy import insert, select

    from quarkctl.rig.history import tables as t

    if connection.execute(select(t.run.c.id).where(t.run.c.id == record.id)).first():
        return
    connection.execute(
        insert(t.run),
        _clean({
            "id": record.id, "rig": record.rig, "plan": record.plan, "command": record.command, "host": record.host,
            "version": record.version, "started": record.started, "ended": record.ended, "verdict": record.verdict,
            "station_count": len(record.stations), "passed_count": sum(s.passed for s in record.stations),
        }),
    )  # fmt: skip
    for s in record.stations:
        _add_result(connection, record, s)


def _add_result(connection: Connection, record: Run, s: StationResult) -> None:
    from sqlalchemy import insert

    from quarkctl.rig.history import tables as t

    started = s.started or record.started
    facts: dict[str, Any] = {}
    for step in s.steps:
        facts |= {k: v for k, v in step.facts.items() if v}
    digest, version = _firmware(facts)
    if s.device:
        _keep(
            connection, t.device, "identity", s.device[:200],
            {"board": s.board, "serial": str(facts.get("serial", "")), "first_seen": started, "last_seen": started},
            {"last_seen": started},
        )  # fmt: skip
    if digest:
        body = {"board": s.board, "chip": str(facts.get("chip", "")), "version": version}
        _keep(connection, t.firmware, "digest", digest, body, {})
    result_id = _insert(connection, t.result, {
        "run_id": record.id, "station": s.station, "device": s.device[:200], "board": s.board, "firmware": digest,
        "verdict": s.verdict, "exit_code": s.exit_code, "error": s.error, "started": started, "seconds": s.seconds,
        "waited_s": s.waited_s, "attempts": s.attempts,
    })  # fmt: skip
    for step in s.steps:
        step_id = _insert(connection, t.step, {
            "result_id": result_id, "name": step.step, "kind": step.do, "turn": step.turn, "verdict": step.verdict,
            "exit_code": step.exit_code, "error": step.error, "seconds": step.seconds, "attempts": step.attempts,
        })  # fmt: skip
        rows: dict[Table, list[dict[str, Any]]] = {
            t.measurement: [
                {
                    "station": s.station, "started": started, "name": str(m["name"])[:80], "value": float(m["value"]),
                    "unit": m.get("unit") or "1", "u": m.get("u"), "lsl": m.get("lsl"), "usl": m.get("usl"),
                    "verdict": m.get("verdict") or "",
                }
                for m in step.measurements
            ],
            t.finding: [
                {
                    "code": str(f["code"])[:40], "check_name": f"{f['check']} {f.get('subject') or ''}".rstrip(),
                    "verdict": f["verdict"], "note": f.get("note") or "",
                }
                for f in step.findings
            ],
            t.artifact: [
                {"kind": a["kind"], "path": a["path"], "size_bytes": a["size_bytes"], "sha256": a["sha256"]}
                for a in step.artifacts
            ],
        }  # fmt: skip
        for table, bodies in rows.items():
            if bodies:
                connection.execute(insert(table), [_clean({"step_id": step_id, **b}) for b in bodies])


def _firmware(facts: Mapping[str, Any]) -> tuple[str, str]:
    """What was flashed: its digest and version. Where nothing was: the builds that the glasses say they run."""
    if facts.get("digest"):
        return str(facts["digest"])[:128], str(facts.get("new_version", ""))
    versions = {n: str(facts[n]) for n in ("rtos", "ar1") if facts.get(n, _UNKNOWN) != _UNKNOWN}
    builds = [str(facts.get(f"{n}_build_id", _UNKNOWN)) for n in versions]
    named = [f"{n} {v}" for n, v in versions.items()] if len(versions) > 1 else list(versions.values())
    return "+".join(b for b in builds if b != _UNKNOWN)[:128], ", ".join(named)


def _insert(connection: Connection, table: Table, body: Mapping[str, Any]) -> int:
    from sqlalchemy import insert

    key = connection.execute(insert(table), _clean(body)).inserted_primary_key
    return int(key[0]) if key else 0


def _keep(
    connection: Connection, table: Table, key: str, value: str, body: Mapping[str, Any], news: Mapping[str, Any]
) -> None:
    """Insert the row of this key, or bring it up to date."""
    from sqlalchemy import insert, select, update

    column = table.c[key]
    value = _plain(value)
    if connection.execute(select(column).where(column == value)).first():
        if news:
            connection.execute(update(table).where(column == value), _clean(news))
    else:
        connection.execute(insert(table), _clean({key: value, **body}))


def _clean(body: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, str) else v for k, v in body.items()}


def _plain(text: str) -> str:
    """What a device said may hold what databases do not: NUL and halves of characters."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()
