"""The whole way: fault in the plant, firmware, wire, recording, verdict, exit code."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Glasses, Quarkctl
from tests.telemetry.test_live import agent, uart

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


def record_swap(quarkctl: Quarkctl, g: Glasses, path: Path) -> None:
    """Record, and swap the left pack while it records; the end is by SIGTERM, when everything has been seen."""
    recorder = quarkctl.start("telemetry", "record", path, "-d", g.device, "--events")

    def while_it_records() -> None:
        """Events tell once a second what it has (lines for people every ten): some seconds of them, with frames."""
        counts: list[int] = []
        while len(counts) < 3 or counts[-1] < counts[0] + 20:
            found = re.search(r"(\d+) frames", recorder.stdout.readline() if recorder.stdout else "")
            if found:
                counts.append(int(found.group(1)))
            assert recorder.poll() is None, recorder.stderr and recorder.stderr.read()

    while_it_records()
    g.tell("battery", action="eject", side="left")
    while_it_records()
    g.tell("battery", action="insert", side="left")
    while_it_records()
    recorder.terminate()
    _, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err


def test_a_swap_on_healthy_glasses_passes(quarkctl: Quarkctl, glasses: Start) -> None:
    path = quarkctl.folder / "swap.qrec"
    record_swap(quarkctl, glasses(), path)
    done = quarkctl("diag", "battery", "--recording", path, "--json")
    assert done.code == 0, done.out
    body = done.json
    assert body["verdict"] == "PASS" and body["evidence"]["board"] == "s1-virtual"
    assert len(body["evidence"]["recording_sha256"]) == len(body["evidence"]["limits_sha256"]) == 64
    table = quarkctl("diag", "battery", "--recording", path)
    assert table.code == 0 and "PWR-002" in table.out and "0 to look at" in table.out and "left out:" in table.out
    one = quarkctl("diag", "battery", "bus_minimum", "--recording", path, "--json")
    assert [f["code"] for f in one.json["findings"]] == ["PWR-002"]
    # Any cut of the file still gives a verdict or a clear error, never a traceback.
    data = path.read_bytes()
    for size in (0, 100, len(data) // 2, len(data) - 1):
        cut = quarkctl.folder / "cut.qrec"
        cut.write_bytes(data[:size])
        assert quarkctl("diag", "battery", "--recording", cut).code in (0, 6, 7, 8)


@pytest.mark.parametrize(
    ("fault", "size", "code", "verdict"),
    [("late_switchover", 900, "PWR-004", "FAIL"), ("counterfeit_pack", None, "PWR-003", "FAIL"),
     ("reset_on_swap", None, "PWR-004", "FAIL"), ("late_switchover", 360, "PWR-001", "FAIL"),
     ("hard_insertion", None, "PWR-012", "FAIL"), ("long_inrush", None, "PWR-021", "FAIL"),
     ("camera_glitch", None, "CAM-001", "FAIL"), ("cross_charging", None, "PWR-016", "FAIL"),
     ("weak_cell", None, "PWR-019", "FAIL"), ("display_glitch", None, "DSP-001", "FAIL"),
     ("open_thermistor", None, "SEN-002", "FAIL"), ("lost_telemetry", 20, "PWR-005", "FAIL"),
     ("lossy_link", 20, "LNK-002", "FAIL"), ("slow_link", None, "LNK-001", "FAIL")],
    ids=["brown-out", "fake", "reset", "late", "inrush", "long", "film", "back",
         "worn", "display", "open", "lost", "lossy", "slow"],
)  # fmt: skip
def test_a_fault_is_found_and_named(
    quarkctl: Quarkctl, glasses: Start, fault: str, size: float | None, code: str, verdict: str
) -> None:
    # a switch that leaks shows while one pack rests: the fuller one feeds a small load alone
    g = glasses(load="idle" if fault == "cross_charging" else "camera")
    g.tell("fault", fault=fault, on=True, size=size)
    path = quarkctl.folder / "swap.qrec"
    record_swap(quarkctl, g, path)
    done = quarkctl("diag", "all", "--recording", path, "--json")
    assert done.code == 7, done.out
    assert verdict in {f["verdict"] for f in done.json["findings"] if f["code"] == code}, done.out


@pytest.mark.parametrize("load", ["sleep", "idle", "display", "camera"])
def test_a_live_device_is_judged_by_the_same_checks(quarkctl: Quarkctl, glasses: Start, load: str) -> None:
    g = glasses(load=load)
    done = quarkctl("diag", "battery", "-d", g.device, "--seconds", "3", "--json")
    assert done.code == 0, done.out
    verdicts = {f["code"]: f["verdict"] for f in done.json["findings"]}
    assert verdicts["PWR-001"] == "SKIP"  # nobody swapped a pack: left out, and named
    assert {verdicts[f"PWR-{k:03}"] for k in (2, 3, 4, 5, 11, 19)} == {"PASS"}


def test_the_other_chips_line_is_listened_to_beside_it(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    with uart() as (end, port):
        ar1 = agent(end)
        done = quarkctl("diag", "all", "-d", g.device, "--also", port, "--seconds", "3", "--json")
        ar1.communicate(timeout=30)
    identity = done.json["evidence"]
    assert identity["ar1"] == "1.2.3" and identity["ar1_build_id"] != "not reported", identity
    assert {f["verdict"] for f in done.json["findings"] if (f["code"], f["subject"]) == ("PWR-004", "ar1")} == {"PASS"}
    alone = quarkctl("diag", "all", "-d", g.device, "--also", g.device)
    assert alone.code == 2 and "cannot be listened to twice" in alone.err


def test_a_second_line_that_ends_costs_no_verdict(quarkctl: Quarkctl, glasses: Start) -> None:
    with uart() as (end, port):
        ar1 = agent(end)
        ar1.kill()  # it never says anything
        ar1.communicate(timeout=30)
        done = quarkctl("diag", "battery", "-d", glasses().device, "--also", port, "--seconds", "4", "--json")
    assert done.code == 0 and done.json["evidence"]["ar1_build_id"] == "not reported", done.err


def test_asked_for_by_name_a_check_without_an_occasion_is_no_pass(quarkctl: Quarkctl, glasses: Start) -> None:
    done = quarkctl("diag", "battery", "takeover", "-d", glasses().device, "--seconds", "2", "--json")
    assert done.code == 8 and done.json["findings"][0]["verdict"] == "INVALID"


def test_a_rig_is_led_through_swaps_and_reports_say_everything(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    reports = [arg for kind in ("html", "xml", "json", "csv") for arg in ("--report", f"r.{kind}")]
    done = quarkctl("diag", "battery", "swap", "-d", g.device, "--actuator", "sim", "--limit", "droop_mv.usl=450 mV",
                    "--operator", "anna", *reports)  # fmt: skip
    assert done.code == 0, done.out + done.err
    assert "remove the LEFT battery now" in done.err and "PWR-001 takeover" in done.err
    body = json.loads((quarkctl.folder / "r.json").read_text())
    verdicts = {f["code"]: f["verdict"] for f in body["findings"]}
    assert verdicts["PWR-001"] == verdicts["PWR-010"] == verdicts["PWR-012"] == "PASS"
    evidence = body["evidence"]
    assert evidence["limit_overrides"] == ["droop_mv.usl=450 mV"] and evidence["operator"] == "anna"
    assert (
        len(evidence["limits_sha256"]) == 64 and evidence["rtos_build_id"] and evidence["tool"].startswith("quarkctl")
    )
    page = (quarkctl.folder / "r.html").read_text()
    assert (
        evidence["limits_sha256"] in page
        and "left out" in page
        and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    )
    suite = ElementTree.parse(quarkctl.folder / "r.xml").getroot()[0]
    assert suite.get("failures") == "0" and int(suite.get("tests") or 0) == len(body["findings"])
    rows = list(csv.DictReader((quarkctl.folder / "r.csv").read_text().splitlines()))
    assert {r["code"] for r in rows} == set(verdicts) and rows[0]["limits_sha256"] == evidence["limits_sha256"]
    same = quarkctl("diag", "compare", "r.json", "r.json", "--json")
    assert same.code == 0 and {x["word"] for x in same.json["lines"]} == {"same"}


def test_an_actuator_that_fails_is_named(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    done = quarkctl(
        "diag", "battery", "swap", "-d", g.device, "--actuator", "sh -c 'echo relay stuck >&2; exit 4' relay"
    )
    assert done.code == 3 and "failed with 4" in done.err and "relay stuck" in done.err
    gone = quarkctl("diag", "battery", "swap", "-d", g.device, "--actuator", "/nowhere/relay")
    assert gone.code == 3 and "cannot run the actuator" in gone.err


def test_a_step_that_nobody_does_ends_by_its_time_out(quarkctl: Quarkctl, glasses: Start) -> None:
    done = quarkctl(
        "diag", "battery", "takeover", "-d", glasses().device, "--guided", "--step-timeout", "0.3", "--json"
    )
    assert done.code == 8 and "pull one" in done.json["findings"][0]["note"]


def test_several_recordings_are_runs_of_one_device(quarkctl: Quarkctl, glasses: Start) -> None:
    g, other = glasses(), glasses(name="elsewhere")
    for name, device in (("a", g), ("b", g), ("c", other)):
        assert quarkctl("telemetry", "record", f"{name}.qrec", "-d", device.device, "--seconds", "2").code == 0
    done = quarkctl("diag", "battery", "-r", "a.qrec", "-r", "b.qrec", "--report", "r.html", "--json")
    hashes = done.json["evidence"]["recording_sha256"].split()
    assert done.code == 0 and len(set(hashes)) == 2 and done.json["evidence"]["source"] == "a.qrec, b.qrec"
    assert all(h in (quarkctl.folder / "r.html").read_text() for h in hashes)
    twice = quarkctl("diag", "battery", "-r", "a.qrec", "-r", "a.qrec")
    assert twice.code == 2 and "given twice" in twice.err
    mixed = quarkctl("diag", "battery", "-r", "a.qrec", "-r", "c.qrec")
    assert mixed.code == 6 and "another device" in mixed.err
    assert quarkctl("diag", "battery", "-r", "a.qrec", "--seconds", "3").code == 2


def test_repeated_runs_give_statistics(quarkctl: Quarkctl, glasses: Start) -> None:
    done = quarkctl("diag", "link", "LNK-001", "-d", glasses().device, "--seconds", "2", "--repeat", "3", "--json")
    assert done.code == 0, done.out
    row = done.json["statistics"][0]
    assert (row["n"], row["code"], row["first_failure"]) == (3, "LNK-001", None) and len(done.json["runs"]) == 3


def test_long_listening_tells_its_progress_as_json_lines(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    listened = quarkctl("diag", "battery", "-d", g.device, "--seconds", "2", "--events")
    recorded = quarkctl("telemetry", "record", "a.qrec", "-d", g.device, "--seconds", "2", "--events=lines.jsonl")
    assert recorded.code == 0 and "a.qrec" in recorded.out
    for text, step in ((listened.out, "listen"), ((quarkctl.folder / "lines.jsonl").read_text(), "record")):
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [line for line in lines if line["step"] != "judge"]
        assert {(line["device"], line["step"]) for line in lines} == {(g.device, step)}
        left = [line["eta_s"] for line in lines if line["level"] == "progress"]
        assert left == sorted(left, reverse=True) and left


def test_what_is_no_recording_is_refused(quarkctl: Quarkctl) -> None:
    text = quarkctl.folder / "text.qrec"
    text.write_text("hello")
    done = quarkctl("diag", "battery", "--recording", text)
    assert done.code == 6 and "not a recording" in done.err
    assert quarkctl("diag", "battery", "--recording", "nowhere.qrec").code == 6
    assert quarkctl("diag", "battery", "nonsense").code == 2


def test_wrong_words_and_files_are_refused_by_name(quarkctl: Quarkctl) -> None:
    text = quarkctl.folder / "limits.toml"
    text.write_text('version = 1\nsku = "s1-virtual"\nrevision = "a"\n[limit.droop_mv]\nunit = "V"\nusl = 1\nu = 0\n'
                    'guard = "none"\nsource = "me"\nlabel = "P"\n')  # fmt: skip
    swap = quarkctl.folder / "x.qrec"
    swap.write_bytes(b"QREC")
    for args, code, told in (
        (("battery", "-r", swap, "--report", "x.pdf"), 2, "what report x.pdf is"),
        (("battery", "-r", swap, "--repeat", "2"), 2, "a recording is judged as it is"),
        (("battery", "-r", swap, "--limits", "gone.toml"), 6, "no such file"),
        (("compare", swap, swap), 6, "cannot read"),
        (("compare", "a.json", "b.json"), 6, "a.json"),
        (("gauge", text), 6, "cannot read"),
        (("link", "--guided", "PWR-001"), 2, "no check 'PWR-001'"),
    ):
        done = quarkctl("diag", *args)
        assert done.code == code and told in done.err, done.err


def test_list_and_explain_name_every_code(quarkctl: Quarkctl) -> None:
    codes = [c["code"] for c in quarkctl("diag", "list", "--json").json["checks"]]
    assert len(codes) == len(set(codes)) >= 36
    assert "held" in quarkctl("diag", "explain", "pwr-002").out
    assert quarkctl("diag", "explain", "PWR-999").code == 2
