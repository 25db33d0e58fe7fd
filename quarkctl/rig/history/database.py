"""The database of history: SQLite in the state folder, or what a URL names. Brought up to date when it is opened."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarkctl import state
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.rig.history.listing import Ask

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

#: Newest migration (`migrations/versions`); a test holds the two together.
HEAD = "0001"
_CONNECT_TIMEOUT_S = 3
#: Any number; the same in all processes that migrate.
_MIGRATION_LOCK = 0x71756172


def url_of(given: str = "") -> str:
    """QUARKCTL_HISTORY, what rig.toml says, or the file in the state folder."""
    url = os.environ.get("QUARKCTL_HISTORY") or given or f"sqlite:///{state.folder('rig') / 'history.db'}"
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url


@contextmanager
def connect(given: str = "") -> Iterator[Connection]:
    """A connection in a transaction: committed at the end, rolled back after an error.

    Raises HostUnfit when the extra is not installed or the database cannot be reached, read or written; InputWrong for a
    URL that is none.
    """
    url = url_of(given)
    engine = _engine(url)
    from sqlalchemy.exc import DBAPIError

    try:
        with engine.begin() as connection:
            _bring_up_to_date(connection)
            yield connection
    except DBAPIError as error:
        words = str(error.orig).strip().splitlines()
        raise _broken(engine.url.render_as_string(hide_password=True), words[0] if words else str(error)) from error
    finally:
        engine.dispose()


@contextmanager
def reading(given: str = "") -> Iterator[Ask]:
    """For questions in plain SQL. Raises like `connect`.

    A file of SQLite that is up to date is asked by itself: to import SQLAlchemy takes much longer than to answer.
    """
    file = _ready_file(url_of(given))
    if file is None:
        with connect(given) as connection:
            yield asked(connection)
        return
    try:
        with closing(sqlite3.connect(file, timeout=_CONNECT_TIMEOUT_S)) as plain:
            plain.row_factory = sqlite3.Row
            yield lambda sql, values: [dict(row) for row in plain.execute(sql, values)]
    except sqlite3.Error as error:
        raise _broken(f"sqlite:///{file}", str(error)) from error


def asked(connection: Connection) -> Ask:
    """The same of a connection."""
    from sqlalchemy import text

    def ask(sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    return ask


def _ready_file(url: str) -> Path | None:
    """The file of SQLite behind a URL, if it is there and needs no migration."""
    name = url.removeprefix("sqlite:///")
    if name == url or set(name) & set("?%:") or not Path(name).is_file():
        return None
    try:
        with closing(sqlite3.connect(name, timeout=_CONNECT_TIMEOUT_S)) as plain:
            return (
                Path(name) if plain.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,) else None
            )
    except sqlite3.Error:
        return None


def _broken(shown: str, why: str) -> HostUnfit:
    return HostUnfit(
        f"history {shown} does not work: {why}",
        hint="records wait in the state folder until it does; QUARKCTL_HISTORY or [rig] history names another",
    )


def _engine(url: str) -> Engine:
    try:
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import NullPool
    except ImportError:
        raise HostUnfit("history needs SQLAlchemy and Alembic", hint="pip install 'quarkctl[rig]'") from None
    sqlite = url.startswith("sqlite")
    try:
        engine = create_engine(
            url, poolclass=NullPool, connect_args={"timeout" if sqlite else "connect_timeout": _CONNECT_TIMEOUT_S}
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputWrong(
            "the URL of the history is none of SQLAlchemy", hint="such as postgresql://user@host/name"
        ) from error
    except ImportError as error:
        raise HostUnfit(
            f"the driver of the history is missing: {error.name}", hint="pip install 'quarkctl[rig]'"
        ) from error
    if sqlite:
        # A writer must not shut out the page that reads; and a cut of power must not lose what was committed.
        event.listen(engine, "connect", lambda c, _: c.executescript("PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON"))
    return engine


def _bring_up_to_date(connection: Connection) -> None:
    """Migrate, one process at a time. A database of a newer quarkctl is refused."""
    found = _revision(connection)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise HostUnfit(f"history was written by a newer quarkctl (revision {found})", hint="upgrade this one")
    with _one_at_a_time(connection):
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    """Where Alembic left a mark of it. Not asked of Alembic: to import it takes longer than any question to history."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _one_at_a_time(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        from sqlalchemy import text

        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        yield
        return
    with (state.folder("rig") / "history.lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        # Python's driver begins no transaction before CREATE TABLE: a full disk would leave half of the tables for good.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
