"""Reports of a result: whole, self-contained, safe against hostile texts; the page as a browser draws it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from quarkctl.diag import checks, compare
from quarkctl.diag.report import junit, page, plots, sheet
from quarkctl.diag.result import Provenance, Result
from quarkctl.errors import InputWrong
from tests.diag import page as reference_page
from tests.diag.virtual import profile, swap_run

HOSTILE = "</script><b>x</b>\x01=cmd|'"


def result(seed: int = 3, fault: str = "late_switchover", size: float = 300, **identity: str) -> Result:
    e = swap_run(seed, fault, size).evidence()
    limits = profile("s1-virtual")[1]
    found = checks.run(e, limits, checks.select("all", []))
    p = Provenance(
        "quarkctl 0", "2026-11-21", limits.title, "ab" * 32, (), {**e.identity(), **identity}, "cd" * 32, "anna"
    )
    return Result([found], e, p, limits)


def test_every_report_names_what_a_signature_needs() -> None:
    r = result()
    texts = [page.build(r), junit.build(r), sheet.build(r), json.dumps(r.as_dict())]
    for text in texts:
        for needed in (
            "V000003",
            "s1-virtual rev a v3",
            "ab" * 32,
            "cd" * 32,
            "quarkctl 0",
            "anna",
            "PWR-001",
            "FAIL",
            "0x",
        ):
            assert needed in text


def test_texts_of_a_hostile_device_stay_texts() -> None:
    r = result(serial=HOSTILE)
    html = page.build(r)
    assert "<b>x</b>" not in html and html.count("</script>") == 2
    ElementTree.fromstring(junit.build(r))
    row = next(csv.DictReader(io.StringIO(sheet.build(replace(r, provenance=replace(r.provenance, operator="=1+1"))))))
    assert row["operator"] == "'=1+1"


def test_junit_counts_what_ci_counts() -> None:
    r = result()
    suite = ElementTree.fromstring(junit.build(r))[0]
    verdicts = [f.verdict.value for f in r.findings]
    assert int(suite.get("failures") or 0) == verdicts.count("FAIL") > 0
    assert int(suite.get("skipped") or 0) == verdicts.count("SKIP") > 0
    assert int(suite.get("errors") or 0) == verdicts.count("INVALID")


def test_plots_keep_extremes_and_show_every_event() -> None:
    r = result()
    drawn = plots.plots(r.evidence, {})
    lows = [v for p in drawn if p.title == "bus" for _, v in p.series["held minimum"] if v is not None]
    assert min(lows) == r.evidence.tables["power"]["bus_mv_min"].min()
    assert sum("left out at" in p.title for p in drawn) == 2


def test_the_times_beside_a_verdict_are_those_of_the_plots() -> None:
    r = result()
    mark = next(at for at, name in plots.plots(r.evidence, {})[0].marks if name == "left out")
    shift = replace(r.evidence, tables={n: _later(t) for n, t in r.evidence.tables.items()})
    found = checks.run(shift, r.limits, checks.select("battery", ["takeover"]))
    html = page.build(replace(r, runs=[found], evidence=shift))
    assert f"{mark:.3f} s, 1 pack_removed sample<" in html


def _later(table: Any) -> Any:
    """As if the record had begun an hour after the start of the device."""
    moved = table.copy()
    moved["time_us"] += 3_600_000_000
    return moved


#: Element -> (elements inside, attributes that must be there, others), of the schema that Jenkins' xUnit plugin publishes
#: (junit-10.xsd), as far as it concerns what is written here.
JUNIT = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": ({"properties", "testcase", "system-out", "system-err"}, {"name", "tests", "failures", "errors"},
                  {"skipped", "time", "timestamp", "hostname", "id", "package", "file", "log", "url", "group"}),
    "testcase": ({"skipped", "error", "failure", "system-out", "system-err"}, {"name"}, {"time", "classname", "group"}),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    **{tag: (set(), set(), {"type", "message"}) for tag in ("failure", "error", "skipped")},
    "system-out": (set(), set(), set()),
}  # fmt: skip


def test_junit_reports_are_valid_by_the_schema_that_jenkins_goes_by() -> None:
    root = ElementTree.fromstring(junit.build(result(3, "high_resistance", 200.0)))
    assert root.tag == "testsuites"
    for element in root.iter():
        inside, must, may = JUNIT[element.tag]
        assert {child.tag for child in element} <= inside, element.tag
        assert must <= set(element.keys()) <= must | may, element.tag
    (suite,) = root
    counts = {"failure": suite.get("failures"), "error": suite.get("errors"), "skipped": suite.get("skipped")}
    assert {k: str(len(suite.findall(f"testcase/{k}"))) for k in counts} == counts and int(counts["failure"] or 0) > 0
    bad = next(c for c in suite.iter("testcase") if c.find("failure") is not None)
    assert "unit: mohm" in (bad.findtext("system-out") or "") and "uncertainty: " in (bad.findtext("system-out") or "")


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "setup.sh test installs chromium"
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_the_page_alone(tmp_path: Path, dark: bool) -> None:
    (tmp_path / "r.html").write_text(page.build(result()), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=4000", "--host-resolver-rules=MAP * ~NOTFOUND"]  # fmt: skip
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    url = (tmp_path / "r.html").as_uri()
    done = subprocess.run(
        [chromium(), *options, *scheme, "--dump-dom", url], capture_output=True, text=True, timeout=120
    )
    assert 'data-ready="yes"' in done.stdout, done.stderr[-2000:]
    assert done.stdout.count("<path") >= 10 and done.stdout.count('class="mark"') >= 8
    if dark:
        paper = tmp_path / "r.pdf"
        subprocess.run(
            [chromium(), *options, f"--print-to-pdf={paper}", url], capture_output=True, timeout=120, check=True
        )
        assert paper.read_bytes()[:5] == b"%PDF-" and paper.stat().st_size > 20_000


def test_a_comparison_tells_what_got_worse_and_what_only_scattered() -> None:
    def saved(r: Result) -> Any:
        return compare.read("x.json", {"schema": "quarkctl.diag/2", **json.loads(json.dumps(r.as_dict()))})[0]

    good, bad = saved(result(3, "high_resistance", 1.0)), saved(result(3, "high_resistance", 200.0))
    words = {(x.code, x.name): x.word for x in compare.compare(good, bad)}
    assert words["PWR-006", "left pack DCIR"] == "worse" and words["PWR-006", "right pack DCIR"] == "same"
    back = {(x.code, x.name): x.word for x in compare.compare(bad, good)}
    assert back["PWR-006", "left pack DCIR"] == "better"


@pytest.mark.parametrize("body", [{}, [], {"schema": "quarkctl.diag/2"}, {"schema": "x", "findings": []}, None, 3])
def test_what_is_no_report_is_refused_by_name(body: Any) -> None:
    with pytest.raises(InputWrong, match=r"x\.json is not a JSON report"):
        compare.read("x.json", body)


def test_the_reference_page_is_that_of_the_checks() -> None:
    text = reference_page.PATH.read_text("utf-8")
    part = text[text.index(reference_page.REFERENCE) :]
    assert part.strip() == reference_page.build(text)[-len(part.strip()) - 1 :].strip(), "make docs"
