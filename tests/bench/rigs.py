"""A rig: how well stations run side by side, what quarkctl costs beside them, how fast history and page are."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quarkctl.build import rtos
from quarkctl.formats.mcuboot_image import Version
from quarkctl.rig.history import database, listing
from quarkctl.rig.history.deliver import add
from quarkctl.rig.outcome import Run, StationResult, StepResult
from quarkctl.sim import control, folder
from tests import scratch
from tests.bench.figure import Figure, cpu_s, save
from tests.conftest import BUILD, Quarkctl
from tests.rig.terminals import Terminals, image

VIRTUAL, PROTOCOL_ONLY, RUNS, LISTEN_S = 16, 64, 10_000, 10.0


def run() -> None:
    figures = []
    for part in (protocol_only, virtual, history, page):
        with state() as work:
            figures += part(work)
    save("rigs", figures)


@contextmanager
def state() -> Iterator[Path]:
    """A state folder of its own for one measurement."""
    with scratch.folder("qkb-") as work:
        os.environ["QUARKCTL_STATE_DIR"] = work
        os.environ.pop("QUARKCTL_HISTORY", None)
        yield Path(work)


def protocol_only(work: Path) -> list[Figure]:
    """Stations without QEMU: every event that a station numbered must be there."""
    with Terminals(PROTOCOL_ONLY) as terminals:
        terminals.write_rig(work)
        (work / "new.bin").write_bytes(image("1.1.0", 200_000))
        began = time.monotonic()
        done = Quarkctl(work)("rig", "flash", "new.bin", "--all", "--events=e.jsonl", "--json", timeout=600)
        took = time.monotonic() - began
        good = sum(d.version == "1.1.0" for d in terminals.devices)
    lines = [json.loads(line) for line in (work / "e.jsonl").read_text().splitlines()]
    lost = 0
    for i in range(PROTOCOL_ONLY):
        mine = [e["seq"] for e in lines if e["station"] == f"p{i}"]
        lost += max(mine, default=1) - len(mine)
    assert done.code == 0, done.err
    return [
        Figure(f"events lost over {PROTOCOL_ONLY} protocol-only stations", lost, "", 0, "<=",
               f"{len(lines)} events in {took:.1f} s, {good} stations flashed"),
    ]  # fmt: skip


def virtual(work: Path) -> list[Figure]:
    """Virtual glasses side by side: wall time beside all CPU work of the run and its glasses divided by the cores, of which
    is taken off what other programs used meanwhile; then what the run costs while its stations only listen."""
    built = [
        rtos.build(rtos.Request("s1-virtual", Version.parse(v), out=BUILD / "s1-virtual")) for v in ("1.0.0", "1.1.0")
    ]
    names = [f"b{i}" for i in range(VIRTUAL)]
    try:
        for name in names:
            control.start(name, "s1-virtual", control.Firmware(built[0].boot_elf, built[0].image), load="sleep")
        (work / "rig.toml").write_text("".join(f'[station.{n}]\nsim = "{n}"\n' for n in names))
        pids = [p for i in folder.running() for p in (i.pid, i.qemu_pid)]
        busy = sum(cpu_s(p) for p in pids)
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy_all, began = busy_s(), time.monotonic()
        done = Quarkctl(work)("rig", "flash", built[1].image, "--all", "--json", timeout=900)
        wall = time.monotonic() - began
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        host = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
        work_s = sum(cpu_s(p) for p in pids) - busy + host
        others_s = max(busy_s() - busy_all - work_s, 0.0)
        assert done.code == 0, done.out
        share, memory, heard = listening(work)
    finally:
        for i in folder.running():
            control.stop(i.name)
    cores = os.cpu_count() or 1
    return [
        Figure(f"{VIRTUAL} virtual stations flashed, wall / (CPU work / cores)", (wall * cores - others_s) / work_s, "x",
               1.3, "<=", f"{wall:.1f} s wall, {work_s:.1f} s CPU on {cores} cores, of it quarkctl {host:.1f} s; other "
               f"programs {others_s:.1f} s"),
        Figure("memory of quarkctl per idle station (PSS)", memory, "MiB", 40, "<=", f"{heard} stations recording"),
        Figure("CPU of quarkctl per idle station", 100 * share, "% core", 3, "<=", f"{heard} stations recording"),
    ]  # fmt: skip


def busy_s() -> float:
    """CPU time of everything on this machine since it started."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def listening(work: Path) -> tuple[float, float, int]:
    """Share of a core, and proportional set size in MiB, per station, of the run and its workers while glasses sleep and
    telemetry is recorded: more than doing nothing. And the count of workers."""
    (work / "plan.toml").write_text('[[step]]\ndo = "soak"\nseconds = 3600\n')
    process = Quarkctl(work).start("rig", "run", "plan.toml", "--events=l.jsonl")
    events = work / "l.jsonl"
    try:
        while not (events.exists() and events.read_text().count('"listen", "level": "start"') >= VIRTUAL):
            assert process.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pids = [process.pid, *map(int, children)]
        before, began = sum(cpu_s(p) for p in pids), time.monotonic()
        time.sleep(LISTEN_S)
        share = (sum(cpu_s(p) for p in pids) - before) / (time.monotonic() - began) / len(children)
        return share, sum(pss_mib(p) for p in pids) / len(children), len(children)
    finally:
        process.terminate()
        process.communicate()


def pss_mib(pid: int) -> float:
    """Pages that several processes share count for each by its part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("\nPss:")[1].split()[0]) / 1024


def history(_: Path) -> list[Figure]:
    with database.connect() as connection:
        for number in range(RUNS):
            add(connection, a_run(number))
    questions = {
        "listed": listing.Filter(),
        "filtered by station and verdict": listing.Filter(station="s3", verdict="failed"),
        "filtered by firmware since a day": listing.Filter(firmware="1.1.7", since=float(RUNS - 1000)),
        "filtered for what never happened": listing.Filter(verdict="timeout"),
    }
    with database.reading() as ask:
        took = {name: median_s(lambda w=wanted: listing.runs(ask, w)) for name, wanted in questions.items()}  # type: ignore[misc]
    slowest = max(took, key=lambda k: took[k])
    command = Quarkctl(Path("/tmp"))
    given = {"listed": [], "filtered by firmware since a day": ["--firmware", "1.1.7", "--since", "1970-01-01 02:30"]}
    whole = {name: median_s(lambda a=args: command("rig", "history", *a), 5) for name, args in given.items()}  # type: ignore[misc]
    longest = max(whole, key=lambda k: whole[k])
    return [
        Figure(f"{RUNS} runs in history {slowest}, the question", 1000 * took[slowest], "ms", 200, "<="),
        Figure(f"{RUNS} runs in history {longest}, the whole command", 1000 * whole[longest], "ms", 200, "<="),
    ]


def median_s(action: object, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def a_run(number: int) -> Run:
    stations = []
    for s in (number % 8, (number + 3) % 8):
        verdict = "failed" if (number + s) % 11 == 0 else "passed"
        step = StepResult(
            "flash", "flash", verdict=verdict, facts={"digest": f"d{number % 20}", "new_version": f"1.1.{number % 20}"},
            measurements=[{"name": n, "value": 5.0 + number % 7, "unit": "s"} for n in ("flash.total_s", "flash.upload_s")],
        )  # fmt: skip
        stations.append(StationResult(f"s{s}", f"usb:{s}", "s1", verdict, started=float(number), seconds=5.0, attempts=1,
                                      steps=[step]))  # fmt: skip
    return Run(f"r{number:06d}", "lab", "nightly", "quarkctl rig run", "host", "1", float(number), number + 9.0, "passed", 1,
               stations)  # fmt: skip


def page(work: Path) -> list[Figure]:
    """From a change on disk to the event at a browser."""
    (work / "rig.toml").write_text('[station.a]\nsim = "a"\n')
    run_folder = work / "rig" / "runs" / "r1"
    run_folder.mkdir(parents=True)
    (run_folder / "run.json").write_text(json.dumps(Run("r1", "", "", "", "", "", 0.0).as_dict()))
    server = Quarkctl(work).start("rig", "serve", "--port", "0")
    assert server.stdout
    url = server.stdout.readline().strip()
    heard: dict[str, float] = {}
    news = threading.Event()

    def listen() -> None:
        with urllib.request.urlopen(f"{url}events") as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    row = json.loads(line[6:])["stations"][0]
                    heard[row["text"]] = time.monotonic()
                    news.set()
                    if row["text"] == "end":
                        return

    delays = []
    with (run_folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=listen)
        thread.start()
        for text in [*(f"step {i}" for i in range(20)), "end"]:
            row = {
                "station": "a",
                "state": "working",
                "step": "",
                "text": text,
                "pct": None,
                "device": "",
                "attempt": 1,
            }
            new = run_folder / "live.json.new"
            new.write_text(json.dumps({"time": 0, "stations": [row]}))
            new.replace(run_folder / "live.json")
            changed = time.monotonic()
            while text not in heard:
                news.wait(10)
                news.clear()
            delays.append(heard[text] - changed)
        thread.join()
    server.terminate()
    subprocess.Popen.communicate(server)
    return [
        Figure("from a change to the page, slowest of 21", max(delays), "s", 1.0, "<=",
               f"median {statistics.median(delays):.2f} s; a run writes its state every 0.25 s"),
    ]  # fmt: skip
