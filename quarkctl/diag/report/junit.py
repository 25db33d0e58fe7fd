"""JUnit XML, as CI servers read it. FAIL is a failure, INVALID an error, SKIP skipped, MARGINAL passes with its text.

Format: the schema that Jenkins' xUnit plugin publishes and refuses files by (junit-10.xsd).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.report import measured
from quarkctl.diag.result import Result

#: XML 1.0 cannot carry these, not even escaped; a device may send them.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def build(result: Result, *, strict: bool = False) -> str:
    """``strict``: MARGINAL is a failure too."""
    suites = Xml.Element("testsuites", name="quarkctl diag")
    for number, run in enumerate(result.runs, 1):
        suite = Xml.SubElement(
            suites, "testsuite", name=_clean(f"{result.provenance.identity.get('serial', '?')} run {number}")
        )
        properties = Xml.SubElement(suite, "properties")
        for name, value in result.provenance.rows():
            Xml.SubElement(properties, "property", name=_clean(name), value=_clean(value))
        failures = errors = skipped = 0
        for f in run:
            case = Xml.SubElement(
                suite, "testcase", classname=f"quarkctl.diag.{f.code}", name=_clean(f"{f.code} {f.name}")
            )
            text = _clean(
                " ".join(x for x in (f"measured {measured(f)}", f"limit {f.limit}" if f.limit else "", f.note) if x)
            )
            if f.verdict is Verdict.FAIL or (strict and f.verdict is Verdict.MARGINAL):
                failures += 1
                Xml.SubElement(case, "failure", message=text, type=f.verdict.value)
            elif f.verdict is Verdict.INVALID:
                errors += 1
                Xml.SubElement(case, "error", message=text, type="INVALID")
            elif f.verdict is Verdict.SKIP:
                skipped += 1
                Xml.SubElement(case, "skipped", message=text)
            Xml.SubElement(case, "system-out").text = f"{f.verdict.value}: {text}{_numbers(f)}"
        for key, count in (("tests", len(run)), ("failures", failures), ("errors", errors), ("skipped", skipped)):
            suite.set(key, str(count))
    Xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suites, encoding="unicode") + "\n"


def _numbers(f: Finding) -> str:
    """Lines of what a program may want; the schema has no properties of a case."""
    told = (("value", f.value), ("unit", f.unit), ("uncertainty", f.u))
    return _clean("".join(f"\n{name}: {value}" for name, value in told if value not in (None, "")))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
