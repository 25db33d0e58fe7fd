"""The tables. A change here needs a migration beside the first (`migrations/versions`); a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

#: Names of constraints are fixed, so that a migration can name them on every database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: ``started``, ``ended``: seconds since 1970. ``id`` sorts by time.
run = Table(
    "run", metadata,
    Column("id", String(40), primary_key=True), Column("rig", Text, nullable=False), Column("plan", Text, nullable=False),
    Column("command", Text, nullable=False), Column("host", Text, nullable=False), Column("version", Text, nullable=False),
    Column("started", Double, nullable=False, index=True), Column("ended", Double, nullable=False),
    Column("verdict", String(16), nullable=False, index=True), Column("station_count", Integer, nullable=False),
    Column("passed_count", Integer, nullable=False),
)  # fmt: skip

device = Table(
    "device", metadata,
    Column("identity", String(200), primary_key=True), Column("board", Text, nullable=False),
    Column("serial", Text, nullable=False), Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)  # fmt: skip

firmware = Table(
    "firmware", metadata,
    Column("digest", String(128), primary_key=True), Column("board", Text, nullable=False),
    Column("chip", Text, nullable=False), Column("version", Text, nullable=False),
)  # fmt: skip

#: One station in one run. ``firmware``: digest of what was flashed; where nothing was, the build ids that the chips gave.
result = Table(
    "result", metadata,
    Column("id", Integer, primary_key=True), Column("run_id", ForeignKey("run.id"), nullable=False, index=True),
    Column("station", String(40), nullable=False), Column("device", String(200), nullable=False, index=True),
    Column("board", Text, nullable=False), Column("firmware", String(128), nullable=False, index=True),
    Column("verdict", String(16), nullable=False), Column("exit_code", Integer, nullable=False),
    Column("error", Text, nullable=False), Column("started", Double, nullable=False),
    Column("seconds", Double, nullable=False), Column("waited_s", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Index(None, "station", "started"), Index(None, "verdict", "started"),
)  # fmt: skip

step = Table(
    "step", metadata,
    Column("id", Integer, primary_key=True), Column("result_id", ForeignKey("result.id"), nullable=False, index=True),
    Column("name", Text, nullable=False), Column("kind", Text, nullable=False), Column("turn", Integer, nullable=False),
    Column("verdict", String(16), nullable=False), Column("exit_code", Integer, nullable=False),
    Column("error", Text, nullable=False), Column("seconds", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
)  # fmt: skip

#: ``station`` and ``started`` are those of the result: trends read one index and no join.
measurement = Table(
    "measurement", metadata,
    Column("id", Integer, primary_key=True), Column("step_id", ForeignKey("step.id"), nullable=False, index=True),
    Column("station", String(40), nullable=False), Column("started", Double, nullable=False),
    Column("name", String(80), nullable=False), Column("value", Double, nullable=False),
    Column("unit", Text, nullable=False), Column("u", Double), Column("lsl", Double), Column("usl", Double),
    Column("verdict", String(16), nullable=False), Index(None, "name", "station", "started"),
)  # fmt: skip

finding = Table(
    "finding", metadata,
    Column("id", Integer, primary_key=True), Column("step_id", ForeignKey("step.id"), nullable=False, index=True),
    Column("code", String(40), nullable=False, index=True), Column("check_name", Text, nullable=False),
    Column("verdict", String(16), nullable=False), Column("note", Text, nullable=False),
)  # fmt: skip

artifact = Table(
    "artifact", metadata,
    Column("id", Integer, primary_key=True), Column("step_id", ForeignKey("step.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False), Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False), Column("sha256", String(64), nullable=False, index=True),
)  # fmt: skip
