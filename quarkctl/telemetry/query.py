"""SQL over recordings, by DuckDB: a view for every message, one row a sample."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl.errors import UsageWrong
from quarkctl.telemetry.arrow import needed
from quarkctl.telemetry.export import export
from quarkctl.telemetry.mcap import notices
from quarkctl.telemetry.timeline import Timeline

_NOTICES = """CREATE TABLE notices
(time TIMESTAMPTZ, kind VARCHAR, source INT, chip INT, boot INT, count BIGINT, text VARCHAR)"""


@dataclass(frozen=True)
class Answer:
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def query(timeline: Timeline, sql: str) -> Answer:
    """Views: one a message, with ``<field>_name`` beside every enum, and ``notices`` (starts and losses).

    The samples pass through Parquet files in a temporary folder, so memory is bounded. Raises UsageWrong with DuckDB's
    words.
    """
    duckdb = needed("duckdb")
    with tempfile.TemporaryDirectory(prefix="quarkctl-query-") as folder:
        tables = Path(folder) / "tables"
        export(timeline, "parquet", tables)
        with duckdb.connect() as db:
            db.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            try:
                for path in sorted(tables.glob("*.parquet")):
                    more = _names(timeline, path.stem)  # names are lower case letters, digits and underscores only
                    db.execute(f"CREATE VIEW \"{path.stem}\" AS SELECT *{more} FROM read_parquet('{path}')")  # noqa: S608
                taken = (tables / "notices.parquet").exists()  # a message of that name comes first
                db.execute("SELECT 1" if taken else _NOTICES)
                for n in () if taken else notices(timeline):
                    values = [n["time_ns"] // 1000, n["kind"], n["source"], n["chip"], n["boot"], n["count"], n["text"]]
                    db.execute("INSERT INTO notices VALUES (make_timestamptz(?), ?, ?, ?, ?, ?, ?)", values)
                result = db.execute(sql)
                if result is None:
                    raise UsageWrong("there is no question", hint="such as: select time, bus_mv from power")
                columns = [d[0] for d in result.description or ()]
                return Answer(columns, result.fetchall())
            except duckdb.Error as error:
                there = ", ".join(
                    r[0] for r in db.execute("SELECT table_name FROM information_schema.tables").fetchall()
                )
                raise UsageWrong(f"DuckDB: {str(error).splitlines()[0]}", hint=f"there are {there}") from error


def _names(timeline: Timeline, view: str) -> str:
    """Enum values by name, as columns of their own."""
    for parts in timeline.sessions:
        message = parts[0].schema.messages.get(view)
        if message:
            enums = parts[0].schema.enums
            return "".join(
                f', CASE {f.name} {" ".join(f"WHEN {v} THEN {k!r}" for k, v in enums[f.enum].items())} END AS {f.name}_name'
                for f in message.fields if f.enum and not f.count and not f.samples
            )  # fmt: skip
    return ""
