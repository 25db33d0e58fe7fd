"""JUnit XML of a run: whatever a device said, the file can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from quarkctl.rig import junit
from quarkctl.rig.outcome import Run, StationResult, StepResult, Verdict

WORDS = st.text(max_size=30)
STEPS = st.builds(
    StepResult, WORDS, WORDS, st.integers(1, 3), st.sampled_from([v.value for v in Verdict]), st.integers(0, 130), WORDS,
    WORDS,
)  # fmt: skip
STATIONS = st.builds(
    StationResult, WORDS, WORDS, WORDS, st.sampled_from([v.value for v in Verdict]), st.integers(0, 10), WORDS, WORDS,
    steps=st.lists(STEPS, max_size=3),
)  # fmt: skip


@given(st.lists(STATIONS, max_size=4), WORDS)
def test_any_run_makes_xml_whose_counts_are_those_of_its_cases(stations: list[StationResult], plan: str) -> None:
    run = Run("id", "rig", plan, "command", "host", "1", 0.0, 1.0, "failed", 1, stations)
    top = ET.fromstring(junit.build(run).encode())
    for element in (top, *top.findall("testsuite")):
        cases = element.findall(".//testcase")
        assert len(cases) == int(element.get("tests", ""))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert len([c for c in cases if c.find(tag) is not None]) == int(element.get(attribute, ""))
    for station, suite in zip(stations, top.findall("testsuite"), strict=True):
        good = all(c.find("failure") is None and c.find("error") is None for c in suite.findall("testcase"))
        verdicts = {station.verdict, *(s.verdict for s in station.steps)}
        assert good == (verdicts <= {"passed", "quarantined"})


@given(st.lists(STATIONS, max_size=3))
def test_a_record_survives_as_json(stations: list[StationResult]) -> None:
    run = Run("id", "rig", "plan", "command", "host", "1", 0.0, 1.0, "failed", 1, stations)
    assert Run.from_dict(run.as_dict()) == run
