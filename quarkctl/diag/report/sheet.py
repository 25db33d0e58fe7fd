"""CSV: one row a measurement and run, for spreadsheets and databases."""

from __future__ import annotations

import csv
import io

from quarkctl.diag.result import Result

COLUMNS = (
    "run", "serial", "board", "rtos", "rtos_build_id", "ar1", "ar1_build_id", "code", "check", "subject", "verdict", "value",
    "uncertainty", "unit", "lsl", "usl", "guard", "limit_label", "limit_source", "override", "note", "boot", "first_us",
    "last_us", "samples", "limits", "limits_sha256", "recording_sha256", "layout", "tool", "made_at", "operator", "fixture",
)  # fmt: skip

_IDENTITY = ("serial", "board", "rtos", "rtos_build_id", "ar1", "ar1_build_id", "layout")


def build(result: Result) -> str:
    p = result.provenance
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for number, run in enumerate(result.runs, 1):
        for f in run:
            limit, span = f.limit, f.span
            writer.writerow({
                "run": number, **{k: _cell(p.identity.get(k, "")) for k in _IDENTITY},
                "code": f.code, "check": f.check, "subject": f.subject, "verdict": f.verdict.value,
                "value": "" if f.value is None else repr(f.value), "uncertainty": "" if f.u is None else repr(f.u),
                "unit": f.unit, "lsl": limit.lsl if limit and limit.lsl is not None else "",
                "usl": limit.usl if limit and limit.usl is not None else "", "guard": limit.guard if limit else "",
                "limit_label": limit.label if limit else "", "limit_source": limit.source if limit else "",
                "override": limit.override if limit else "", "note": _cell(f.note), "boot": span.boot if span else "",
                "first_us": span.first_us if span else "", "last_us": span.last_us if span else "",
                "samples": span.count if span else "", "limits": p.limits_title, "limits_sha256": p.limits_sha256,
                "recording_sha256": p.recording_sha256, "tool": p.tool, "made_at": p.made_at,
                "operator": _cell(p.operator), "fixture": _cell(p.fixture),
            })  # fmt: skip
    return out.getvalue()


def _cell(text: str) -> str:
    """A text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
