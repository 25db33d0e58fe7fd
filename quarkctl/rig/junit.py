"""A run as JUnit XML, as Jenkins, GitLab and GitHub read it: a suite a station, a case a step.

Format: the schema that Jenkins' xUnit plugin publishes (testsuites, testsuite, testcase; failure, error, skipped).
"""

from __future__ import annotations

import re
import time
from html import escape

from quarkctl.rig.outcome import Run, StationResult, StepResult, Verdict

_FAILURES = (Verdict.FAILED.value, Verdict.INVALID.value)
_SKIPPED = (Verdict.QUARANTINED.value,)
#: XML 1.0 knows no control characters but tab, line feed and carriage return.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPACES = {ord(c): f"&#{ord(c)};" for c in "\t\n\r"}


def build(run: Run) -> str:
    suites = [_suite(s) for s in run.stations]
    totals = [sum(column) for column in zip(*(t for t, _ in suites), strict=True)] if suites else [0, 0, 0, 0]
    head = f"<testsuites name={_quoted(run.plan)} {_totals(totals)} time={_quoted(f'{run.ended - run.started:.3f}')}>"
    body = "\n".join(text for _, text in suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}\n{body}\n</testsuites>\n'


def _suite(s: StationResult) -> tuple[list[int], str]:
    cases = [(step.verdict, _case(s.station, f"{step.step} [{step.turn}]", step)) for step in s.steps]
    told = any(not step.passed and step.verdict not in _SKIPPED for step in s.steps)
    if not s.steps or (not s.passed and not told):
        whole = StepResult("station", "", 1, s.verdict, s.exit_code, s.error, s.hint, s.seconds)
        cases.append((s.verdict, _case(s.station, "station", whole)))
    verdicts = [v for v, _ in cases]
    failures = sum(v in _FAILURES for v in verdicts)
    skipped = sum(v in _SKIPPED for v in verdicts)
    errors = sum(v not in (*_FAILURES, *_SKIPPED, Verdict.PASSED.value) for v in verdicts)
    totals = [len(cases), failures, errors, skipped]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(s.started))
    lines = "\n".join(text for _, text in cases)
    head = f"<testsuite name={_quoted(s.station)} {_totals(totals)} time={_quoted(f'{s.seconds:.3f}')}"
    return totals, f"{head} timestamp={_quoted(stamp)} hostname={_quoted(s.device)}>\n{lines}\n</testsuite>"


def _totals(t: list[int]) -> str:
    return f'tests="{t[0]}" failures="{t[1]}" errors="{t[2]}" skipped="{t[3]}"'


def _case(station: str, name: str, step: StepResult) -> str:
    head = f"<testcase classname={_quoted(station)} name={_quoted(name)} time={_quoted(f'{step.seconds:.3f}')}"
    if step.passed:
        return f"{head}/>"
    tag = "failure" if step.verdict in _FAILURES else "skipped" if step.verdict in _SKIPPED else "error"
    text = _clean(f"{step.error}\n{step.hint}".strip())
    return f"{head}><{tag} type={_quoted(step.verdict)} message={_quoted(step.error)}>{escape(text)}</{tag}></testcase>"


def _quoted(text: str) -> str:
    """An attribute: ends of lines in it stay what they are."""
    return f'"{escape(_clean(text)).translate(_SPACES)}"'


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
