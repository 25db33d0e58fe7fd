"""History: the same questions, the same answers, on SQLite and on PostgreSQL; nothing is lost while it is away."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, func, select, text

from quarkctl.cli import main
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong
from quarkctl.rig import runs
from quarkctl.rig.history import database, listing, query, tables
from quarkctl.rig.history.ages import since_of
from quarkctl.rig.history.deliver import add, deliver
from quarkctl.rig.history.listing import Filter
from quarkctl.rig.outcome import Run, StationResult, StepResult
from tests.conftest import Quarkctl
from tests.rig.postgres import Postgres
from tests.rig.terminals import Terminals


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty history, in a state folder of its own."""
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("QUARKCTL_HISTORY", raising=False)
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.db"
    server: Postgres = request.getfixturevalue("postgres")
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return server.url


@pytest.fixture
def history(url: str) -> Iterator[Connection]:
    with database.connect(url) as connection:
        yield connection


def record(number: int, **stations: Any) -> Run:
    """Run ``number`` at that many seconds; stations as name=(verdict, value) or name=StationResult."""
    results = []
    for name, given in stations.items():
        if isinstance(given, StationResult):
            results.append(given)
            continue
        verdict, value = given
        step = StepResult(
            "flash", "flash", verdict=verdict, facts={"digest": "d1", "chip": "rtos", "new_version": "1.1.0"},
            measurements=[{"name": "flash.total_s", "value": value, "unit": "s", "lsl": None, "usl": 10.0}],
            findings=[{"code": "PWR-001", "check": "takeover", "verdict": "PASS", "note": ""}],
            artifacts=[{"kind": "recording", "path": "a.qrec", "size_bytes": 5_000_000_000, "sha256": "00"}],
        )  # fmt: skip
        results.append(StationResult(name, f"usb:{name}", "s1", verdict, started=float(number), seconds=value, attempts=1,
                                     steps=[step]))  # fmt: skip
    good = all(s.passed for s in results)
    return Run(f"r{number:04d}", "lab", "nightly", "quarkctl rig run", "host", "1", float(number), number + 5.0,
               "passed" if good else "failed", 1, results)  # fmt: skip


def test_what_is_put_in_comes_out(history: Connection) -> None:
    add(history, record(1, a=("passed", 4.0), b=("failed", 9.0)))
    add(history, record(1, a=("passed", 4.0), b=("failed", 9.0)))  # again is nothing
    (row,) = listing.runs(database.asked(history), Filter())
    assert (row["id"], row["verdict"], row["passed_count"], row["station_count"]) == ("r0001", "failed", 1, 2)
    a, b = query.results(history, "r0001")
    assert (a["station"], b["verdict"], a["firmware"]) == ("a", "failed", "d1")
    (step,) = a["steps"]
    assert step["measurements"][0]["usl"] == 10.0 and step["findings"][0]["code"] == "PWR-001"
    assert step["artifacts"][0]["size_bytes"] == 5_000_000_000
    counts = {
        t.name: history.execute(select(func.count()).select_from(t)).scalar_one() for t in tables.metadata.sorted_tables
    }
    assert counts == {"run": 1, "device": 2, "firmware": 1, "result": 2, "step": 2, "measurement": 2, "finding": 2,
                      "artifact": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), ["r0003", "r0002", "r0001"]),
        (Filter(station="b"), ["r0003", "r0001"]),
        (Filter(station="b", verdict="failed"), ["r0001"]),
        (Filter(device="usb:c"), ["r0002"]),
        (Filter(since=2.0), ["r0003", "r0002"]),
        (Filter(firmware="1.1.0"), ["r0003", "r0002", "r0001"]),
        (Filter(firmware="d"), ["r0003", "r0002", "r0001"]),
        (Filter(firmware="%"), []),
        (Filter(plan="other"), []),
        (Filter(board="s1", verdict="timeout"), []),
    ],
)
def test_runs_are_filtered(history: Connection, wanted: Filter, ids: list[str]) -> None:
    add(history, record(1, a=("passed", 4.0), b=("failed", 9.0)))
    add(history, record(2, c=("passed", 4.0)))
    add(history, record(3, a=("passed", 4.0), b=("passed", 5.0)))
    assert [r["id"] for r in listing.runs(database.asked(history), wanted)] == ids
    assert [r["id"] for r in listing.runs(database.asked(history), wanted, limit=1)] == ids[:1]


def test_a_disk_that_fills_up_while_the_tables_are_made_leaves_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))

    def small(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 8")

    event.listen(Engine, "connect", small)
    try:
        with pytest.raises(HostUnfit, match="full"), database.connect() as connection:
            add(connection, record(1, a=("passed", 4.0)))
    finally:
        event.remove(Engine, "connect", small)
    with database.connect() as connection:
        add(connection, record(1, a=("passed", 4.0)))


def test_runs_are_listed_before_sqlalchemy_could_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    with database.connect() as connection:
        add(connection, record(1, a=("passed", 4.0)))
    code = (
        "import sys; from quarkctl.cli.main import run; run(['rig', 'history', '--firmware', '1.1.0']); "
        "sys.exit('sqlalchemy' in sys.modules or 'urllib.request' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "r0001" in done.stdout, done.stderr


def test_trends_are_mean_spread_and_cpk_of_each_station(history: Connection) -> None:
    values = [4.0, 4.5, 5.0, 4.2]
    for i, value in enumerate(values):
        add(history, record(i, a=("passed", value), b=("passed", 3.0)))
    a, b = query.trends(history, Filter(), "flash.total_s")
    assert (a["station"], a["n"], a["min"], a["max"], a["last"]) == ("a", 4, 4.0, 5.0, 4.2)
    mean, sd = statistics.mean(values), statistics.stdev(values)
    assert a["mean"] == pytest.approx(mean) and a["sd"] == pytest.approx(sd)
    assert a["cpk"] == pytest.approx((10.0 - mean) / (3 * sd))
    assert (b["sd"], b["cpk"]) == (0.0, None)
    assert [p["value"] for p in query.series(history, "flash.total_s", Filter(station="a"))] == values
    assert query.trends(history, Filter(board="g1")) == []


def test_the_worst_station_comes_first_and_what_was_not_its_fault_does_not_count(history: Connection) -> None:
    add(history, record(1, a=("passed", 4.0), b=("failed", 9.0), c=("timeout", 9.0)))
    add(history, record(2, a=("passed", 4.0), b=("passed", 9.0), c=("passed", 9.0), d=("quarantined", 0.0)))
    rows = query.yields(history, Filter())
    assert [(r["station"], r["yield"], r["faults"]) for r in rows] == [("c", 0.5, 1), ("b", 0.5, 0), ("a", 1.0, 0)]


def test_flaky_is_what_changes_its_verdict_with_the_same_firmware(history: Connection) -> None:
    for i, verdict in enumerate(["passed", "failed", "passed", "passed"]):
        add(history, record(i, wobbly=(verdict, 4.0), broken=("failed", 4.0), fine=("passed", 4.0)))
    (row,) = query.flaky(history, Filter())
    assert (row["station"], row["n"], row["flips"], row["rate"]) == ("wobbly", 4, 2, pytest.approx(2 / 3))


def test_what_a_device_says_cannot_break_the_database(history: Connection) -> None:
    evil = "\0 \ud800 '; DROP TABLE run; -- \N{SNOWMAN}"
    step = StepResult(evil, evil, error=evil, hint=evil, facts={"digest": evil, "serial": evil})
    station = StationResult("a", evil, evil, "failed", error=evil, steps=[step])
    add(history, record(1, a=station))
    assert "DROP TABLE" in query.results(history, "r0001")[0]["error"]


def test_the_migrations_make_the_tables_of_the_code(history: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(history), tables.metadata) == []
    folder = Path(database.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [database.HEAD]


def test_a_history_of_a_newer_quarkctl_is_left_alone(url: str) -> None:
    with database.connect(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(HostUnfit, match="written by a newer quarkctl"):
        with database.connect(url):
            pass


def test_records_wait_until_they_can_be_delivered_and_then_come_once(url: str, tmp_path: Path) -> None:
    for i in (1, 2):
        runs.post(record(i, a=("passed", 4.0)))
    away = deliver(f"sqlite:///{tmp_path}/no/such/folder/history.db")
    assert (away.delivered, away.waiting) == (0, 2) and "unable to open database file" in away.why
    assert deliver(url).delivered == 2
    assert deliver(url).delivered == 0
    with database.connect(url) as connection:
        assert [r["id"] for r in listing.runs(database.asked(connection), Filter())] == ["r0002", "r0001"]


def test_a_damaged_record_is_set_aside_and_holds_up_nobody(url: str) -> None:
    runs.post(record(2, a=("passed", 4.0)))
    (runs.outbox() / "r0001.json").write_text('{"id": 5}')
    done = deliver(url)
    assert done.delivered == 1 and "damaged" in done.why
    assert [p.name for p in runs.outbox().iterdir()] == ["r0001.damaged"]


def test_a_postgresql_that_goes_away_in_a_run_gets_the_run_later(three: Terminals, quarkctl: Quarkctl) -> None:
    server = Postgres()
    try:
        server.start()
        quarkctl.env["QUARKCTL_HISTORY"] = server.url
        assert quarkctl("rig", "history", "--json").json["runs"] == []
        three.devices[0].silent = lambda _: bool(server.stop())  # in mid-run, once
        done = quarkctl("rig", "flash", "new.bin", "--all", "--json")
        three.devices[0].silent = lambda _: False
        assert done.code == 0
        assert "1 run waits for history" in done.err
        refused = quarkctl("rig", "history")
        assert refused.code == 3 and "does not work" in refused.err
        server.start()
        assert [r["id"] for r in quarkctl("rig", "history", "--json").json["runs"]] == [done.json["id"]]
        assert "wait" not in quarkctl("rig", "flash", "new.bin", "--all").err
    finally:
        server.remove()


def test_a_history_that_cannot_be_written_costs_no_verdict(three: Terminals, quarkctl: Quarkctl) -> None:
    quarkctl.env["QUARKCTL_HISTORY"] = "sqlite:////proc/history.db"
    done = quarkctl("rig", "flash", "new.bin", "--all")
    assert done.code == 0 and "1 run waits for history" in done.err
    quarkctl.env["QUARKCTL_HISTORY"] = "nonsense"
    assert quarkctl("rig", "history").code == 6


def test_a_password_is_never_shown(quarkctl: Quarkctl, state_of_its_own: Path) -> None:
    quarkctl.env["QUARKCTL_HISTORY"] = f"postgresql://ci:hunter2@/rig?host={quarkctl.folder}"
    done = quarkctl("rig", "history")
    assert done.code == 3 and "hunter2" not in done.err + done.out


def test_the_command_line_answers(
    three: Terminals, quarkctl: Quarkctl, state_of_its_own: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    quarkctl("rig", "flash", "new.bin", "--all")
    quarkctl("rig", "flash", "new.bin", "--where", "p0")
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(state_of_its_own))
    monkeypatch.chdir(quarkctl.folder)

    def rig(*args: str, code: int = 0) -> Any:
        assert main.run(["rig", *args]) == code
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in args else out

    assert [r["station_count"] for r in rig("history", "--json")["runs"]] == [1, 3]
    assert [s["station"] for s in rig("history", "last", "--json")["stations"]] == ["p0"]
    trends = rig("history", "--trends", "--measurement", "flash.total_s", "--json")["measurements"]
    assert [(t["station"], t["n"]) for t in trends] == [("p0", 1), ("p1", 1), ("p2", 1)]
    assert rig("history", "--worst", "--json")["stations"][0]["yield"] == 1.0
    for args in (
        ("history",),
        ("history", "last"),
        ("history", "--trends"),
        ("history", "--worst"),
        ("history", "--flaky"),
    ):
        assert rig(*args)
    files = {f["path"] for f in rig("artifacts", "last", "--out", "copy", "--json")["files"]}
    assert {"run.json", "events.jsonl", "junit.xml", "logs/p0.log"} <= files
    assert (quarkctl.folder / "copy" / "junit.xml").exists()
    rig("artifacts", "last", "--out", "copy", code=6)
    rig("history", "nonsense", code=6)
    rig("history", "--verdict", "nice", code=2)
    rig("history", "--worst", "--flaky", code=2)


def test_times_are_ages_or_dates() -> None:
    assert since_of("", 0.0) == 0.0
    assert since_of("2d", 1e6) == 1e6 - 2 * 86400
    assert since_of("1970-01-03") > 0
    with pytest.raises(UsageWrong, match="is no time"):
        since_of("tomorrow")


def test_a_run_that_nobody_knows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    with pytest.raises(InputWrong, match="no runs are called x"):
        runs.folder_of("x")
