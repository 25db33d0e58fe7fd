"""The page: read by anybody on this computer, changed by who brings the token, up to date in a real browser."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from quarkctl.rig.page import html, plot
from tests.conftest import Quarkctl
from tests.rig.terminals import Terminals

TOKEN = "t" * 32


@pytest.fixture
def serve(quarkctl: Quarkctl) -> Iterator[Callable[..., str]]:
    """``serve(...)`` starts `quarkctl rig serve` on a free port and returns its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> str:
        process = quarkctl.start("rig", "serve", "--port", "0", *args)
        started.append(process)
        assert process.stdout
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.terminate()
        _, err = process.communicate(timeout=15)
        assert process.returncode in (0, -15) and "Traceback" not in err, err


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_everything_is_shown_and_nothing_can_be_changed_without_a_token(
    three: Terminals, quarkctl: Quarkctl, serve: Callable[..., str]
) -> None:
    run = quarkctl("rig", "flash", "new.bin", "--all", "--json").json["id"]
    url = serve()
    assert url.startswith("http://127.0.0.1:")
    stations = json.loads(ask(f"{url}api/stations")[1])["stations"]
    assert [(s["station"], s["state"], s["run"]) for s in stations] == [(f"p{i}", "passed", run) for i in range(3)]
    assert run in ask(url)[1] and run in ask(f"{url}runs?station=p1&since=1d")[1]
    assert run not in ask(f"{url}runs?station=nobody")[1]
    assert "flash.total_s" in ask(f"{url}runs/{run}")[1] and "<svg" in ask(f"{url}trends")[1]
    assert "preflight" in ask(f"{url}files/{run}/logs/p0.log")[1]
    assert [r["id"] for r in json.loads(ask(f"{url}api/runs")[1])["runs"]] == [run]
    for path, code in (
        (f"files/{run}/../../stations.json", 404), (f"files/{run}/%2e%2e/%2e%2e/stations.json", 404),
        ("files/../stations.json/x", 404), (f"files/{run}/lock", 200), ("runs/none", 404), ("runs?since=x", 400),
        ("static/../app.py", 404), (f"files/{run}/%00", 400), ("runs?station=%00", 400), (f"files/{run}/{'a' * 300}", 404),
    ):  # fmt: skip
        assert ask(url + path)[0] == code, path
    assert ask(f"{url}api/stations/p0/quarantine", "POST")[0] == 403
    assert ask(f"{url}api/stations/p0/quarantine", "POST", Authorization=f"Bearer {TOKEN}")[0] == 403
    assert ask(url, Host="evil.example")[0] == 400  # a name that another site may point at this computer


def test_with_the_token_stations_can_be_changed_and_with_a_wrong_one_not(
    three: Terminals, quarkctl: Quarkctl, serve: Callable[..., str]
) -> None:
    quarkctl.env["QUARKCTL_RIG_TOKEN"] = TOKEN
    url = serve()
    right = f"Bearer {TOKEN}"
    for wrong in ("", "Bearer ", f"Bearer {TOKEN}x", f"Basic {base64.b64encode(f'x:{TOKEN}'.encode()).decode()}"):
        assert ask(f"{url}api/stations/p0/quarantine", "POST", Authorization=wrong)[0] == 401
    assert quarkctl("rig", "quarantine", "--json").json["stations"] == []
    assert ask(f"{url}api/stations/p0/quarantine", "POST", Authorization=right)[0] == 200
    assert quarkctl("rig", "quarantine", "--json").json["stations"][0]["station"] == "p0"
    assert ask(f"{url}api/stations/p0/release", "POST", Authorization=right)[0] == 200
    assert ask(f"{url}api/stations/p9/release", "POST", Authorization=right)[0] == 404
    assert ask(f"{url}api/stations/p0/explode", "POST", Authorization=right)[0] == 404
    code, said = ask(f"{url}api/stations/p0/power-cycle", "POST", Authorization=right)
    assert code == 400 and "no power control" in said


def test_on_another_address_the_token_is_wanted_for_everything(
    three: Terminals, quarkctl: Quarkctl, serve: Callable[..., str]
) -> None:
    refused = quarkctl("rig", "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == 2 and "needs a token" in refused.err
    (quarkctl.folder / "short").write_text("abc")
    assert quarkctl("rig", "serve", "--token-file", "short").code == 6
    (quarkctl.folder / "token").write_text(TOKEN + "\n")
    url = serve("--host", "0.0.0.0", "--token-file", "token").replace("0.0.0.0", "127.0.0.1")
    assert ask(url)[0] == ask(f"{url}api/stations")[0] == ask(f"{url}static/page.js")[0] == 401
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert ask(url, Authorization=f"Basic {basic}")[0] == 200
    assert ask(url, Authorization="Basic !!!")[0] == 401


def test_a_port_in_use_is_told(quarkctl: Quarkctl, state_of_its_own: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = quarkctl("rig", "serve", "--port", str(other.getsockname()[1]))
    assert done.code == 3 and "cannot listen on 127.0.0.1" in done.err


def test_systemd_hears_that_the_page_is_ready_lives_and_stops(
    quarkctl: Quarkctl, state_of_its_own: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        quarkctl.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        process = quarkctl.start("rig", "serve", "--port", "0")
        assert [channel.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.terminate()
        while channel.recv(64) != b"STOPPING=1":
            pass
        process.communicate(timeout=15)


@pytest.fixture
def page() -> Iterator[Page]:
    """A tab of Debian's Chromium; what it complains about fails the test."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        yield page
        browser.close()
        assert complaints == []


def test_a_browser_sees_a_run_begin_and_end_without_reloading(
    three: Terminals, quarkctl: Quarkctl, serve: Callable[..., str], page: Page, tmp_path: Path
) -> None:
    three.devices[2].silent = lambda d: len(d.model.stored) > 2000
    url = serve()
    states = page.locator("#stations tbody td:nth-child(5)")
    page.goto(url)
    page.get_by_text("live", exact=True).wait_for()
    expect(states).to_have_text(["idle", "idle", "idle"], timeout=30_000)
    process = quarkctl.start("rig", "flash", "new.bin", "--all")
    expect(states).to_have_text(["passed", "passed", "working"], timeout=30_000)
    page.screenshot(path=tmp_path / "stations.png")
    page.locator("#stations tbody a").first.click()  # under way: back to the stations
    expect(states).to_have_text(["passed", "passed", "working"], timeout=30_000)
    three.devices[2].silent = lambda _: False
    expect(states).to_have_text(["passed", "passed", "passed"], timeout=30_000)
    process.communicate(timeout=60)
    page.locator("#stations tbody a").first.click()
    page.get_by_role("heading", name="Run 2").wait_for()
    assert page.locator("section").count() == 3
    page.screenshot(path=tmp_path / "run.png")
    page.goto(f"{url}trends")
    assert page.locator("svg.plot circle").count() == 3
    page.screenshot(path=tmp_path / "trends.png")
    page.goto(f"{url}runs")
    assert page.locator("tbody tr").count() == 1
    page.set_viewport_size({"width": 390, "height": 844})
    run = page.locator("tbody a").first.get_attribute("href")
    for path in ("", "runs", str(run).removeprefix("/"), "trends"):
        page.goto(f"{url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_what_a_device_says_is_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script>\"'&"
    row = {"station": evil, "device": evil, "board": evil, "tags": [evil], "state": evil, "step": evil, "text": evil,
           "run": evil}  # fmt: skip
    point = {"started": 0.0, "station": evil, "value": 1.0, "unit": evil, "lsl": None, "usl": 2.0}
    trend = {"station": evil, "n": 1, "mean": 1.0, "unit": evil, "sd": None, "min": 1.0, "max": 1.0, "lsl": None,
             "usl": 2.0, "cpk": None}  # fmt: skip
    pages = [
        html.stations({"rig": evil, "stations": [row]}),
        html.runs([], {"station": evil}, 100),
        html.trends([evil], evil, [trend], [point], [], []),
    ]
    for text in pages:
        assert "<script>alert" not in text


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [float("nan")], [1e300, -1e300], [5e-324]])
def test_a_plot_is_drawn_from_any_values(values: list[float]) -> None:
    points = [{"started": 0.0, "station": "a", "value": v, "unit": "s", "lsl": None, "usl": None} for v in values]
    assert plot.svg(points, "s")
