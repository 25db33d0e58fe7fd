"""The whole way: fault in the plant, firmware, wire, recording, verdict, exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Glasses, Quarkctl

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


def record_swap(quarkctl: Quarkctl, g: Glasses, path: Path) -> None:
    """Record, and swap the left pack while it records; the end is by SIGTERM, when everything has been seen."""
    recorder = quarkctl.start("telemetry", "record", path, "-d", g.device)
    assert recorder.stderr

    def until_frames(count: int) -> None:
        """The recorder tells once a second what it has."""
        for line in recorder.stderr or ():
            found = re.search(r"(\d+) frames", line)
            if found and int(found.group(1)) >= count:
                return

    until_frames(20)
    g.tell("battery", action="eject", side="left")
    until_frames(40)
    g.tell("battery", action="insert", side="left")
    until_frames(60)
    recorder.terminate()
    out, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err
    assert path.name in out


def test_a_swap_on_healthy_glasses_passes(quarkctl: Quarkctl, glasses: Start) -> None:
    path = quarkctl.folder / "swap.qrec"
    record_swap(quarkctl, glasses(), path)
    done = quarkctl("diag", "battery", "--recording", path, "--json")
    assert done.code == 0, done.out
    body = done.json
    assert body["verdict"] == "PASS" and body["evidence"]["board"] == "s1-virtual"
    assert len(body["evidence"]["recording_sha256"]) == len(body["evidence"]["limits_sha256"]) == 64
    table = quarkctl("diag", "battery", "--recording", path)
    assert table.code == 0 and "PWR-002" in table.out and "PASS: 5 checks" in table.out
    one = quarkctl("diag", "battery", "bus_minimum", "--recording", path, "--json")
    assert [f["code"] for f in one.json["findings"]] == ["PWR-002"]
    # Any cut of the file still gives a verdict or a clear error, never a traceback.
    data = path.read_bytes()
    for size in (0, 100, len(data) // 3, len(data) // 2, len(data) - 1):
        cut = quarkctl.folder / "cut.qrec"
        cut.write_bytes(data[:size])
        assert quarkctl("diag", "battery", "--recording", cut).code in (0, 6, 7, 8)


@pytest.mark.parametrize(
    ("fault", "size", "code", "verdict"),
    [("late_switchover", 900, "PWR-004", "FAIL"), ("counterfeit_pack", None, "PWR-003", "FAIL"),
     ("reset_on_swap", None, "PWR-004", "FAIL"), ("late_switchover", 360, "PWR-002", "FAIL")],
    ids=["brown-out", "counterfeit", "reset", "deep dip"],
)  # fmt: skip
def test_a_fault_is_found_and_named(
    quarkctl: Quarkctl, glasses: Start, fault: str, size: float | None, code: str, verdict: str
) -> None:
    g = glasses()
    g.tell("fault", fault=fault, on=True, size=size)
    path = quarkctl.folder / "swap.qrec"
    record_swap(quarkctl, g, path)
    done = quarkctl("diag", "battery", "--recording", path, "--json")
    assert done.code == 7, done.out
    assert {f["code"]: f["verdict"] for f in done.json["findings"]}[code] == verdict, done.out


@pytest.mark.parametrize("load", ["sleep", "idle", "display", "camera"])
def test_a_live_device_is_judged_by_the_same_checks(quarkctl: Quarkctl, glasses: Start, load: str) -> None:
    g = glasses(load=load)
    done = quarkctl("diag", "battery", "-d", g.device, "--seconds", "3", "--json")
    assert done.code == 8  # nobody swapped a pack: no verdict on the takeover
    verdicts = {f["code"]: f["verdict"] for f in done.json["findings"]}
    assert verdicts == {
        "PWR-001": "INVALID",
        "PWR-002": "PASS",
        "PWR-003": "PASS",
        "PWR-004": "PASS",
        "PWR-005": "PASS",
    }


def test_long_listening_tells_its_progress_as_json_lines(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    listened = quarkctl("diag", "battery", "-d", g.device, "--seconds", "2", "--events")
    recorded = quarkctl("telemetry", "record", "a.qrec", "-d", g.device, "--seconds", "2", "--events=lines.jsonl")
    assert recorded.code == 0 and "a.qrec" in recorded.out
    for text, step in ((listened.out, "listen"), ((quarkctl.folder / "lines.jsonl").read_text(), "record")):
        lines = [json.loads(line) for line in text.splitlines()]
        assert {(line["device"], line["step"]) for line in lines} == {(g.device, step)}
        left = [line["eta_s"] for line in lines if line["level"] == "progress"]
        assert left == sorted(left, reverse=True) and len(left) > 5


def test_what_is_no_recording_is_refused(quarkctl: Quarkctl) -> None:
    text = quarkctl.folder / "text.qrec"
    text.write_text("hello")
    done = quarkctl("diag", "battery", "--recording", text)
    assert done.code == 6 and "not a recording" in done.err
    assert quarkctl("diag", "battery", "--recording", "nowhere.qrec").code == 6
    assert quarkctl("diag", "battery", "nonsense").code == 2


def test_list_and_explain_name_every_code(quarkctl: Quarkctl) -> None:
    codes = [c["code"] for c in quarkctl("diag", "list", "--json").json["checks"]]
    assert codes == sorted(codes)
    assert "held" in quarkctl("diag", "explain", "pwr-002").out
    assert quarkctl("diag", "explain", "PWR-999").code == 2
