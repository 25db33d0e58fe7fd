"""One HTML page that needs nothing else: verdicts, evidence, plots that can be zoomed; light, dark and on paper."""

from __future__ import annotations

import json
from html import escape
from importlib import resources

from quarkctl.diag.columns import WANTED_AR1
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.report import measured
from quarkctl.diag.report.plots import plots, starts_of
from quarkctl.diag.result import Result


def build(result: Result) -> str:
    p = result.provenance
    title = f"{p.identity.get('serial', 'unknown device')}: {result.verdict.value}"
    drawn = plots(result.evidence, {n: (x.lsl, x.usl) for n, x in result.limits.limits.items()})
    # "</script>" in a text of a hostile device must not end the element
    data = json.dumps([d.as_dict() for d in drawn]).replace("<", "\\u003c")
    here = resources.files("quarkctl.diag.report")
    style, script = (here / "page.css").read_text("utf-8"), (here / "page.js").read_text("utf-8")
    began = starts_of(result.evidence)
    judged = [f for f in result.findings if f.verdict is not Verdict.SKIP]
    left = [f for f in result.findings if f.verdict is Verdict.SKIP]
    figures = "".join(
        f'<h3>{escape(d.title)}</h3><figure data-plot="{k}"></figure>' for k, d in enumerate(drawn)
    )  # fmt: skip
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{escape(title)}</title><style>{style}</style></head><body>
<header><p class="dim">quarkctl diag</p><h1>{escape(p.identity.get("serial", "unknown device"))}
<span class="over {result.verdict.value}">{result.verdict.value}</span></h1>
<p>{escape(_summary(result))}</p></header>
<h2>Verdicts</h2><div class="wide"><table><thead><tr><th>code</th><th>check</th><th>measured</th><th>limit</th><th>verdict</th><th>note</th>
</tr></thead><tbody>{"".join(_row(f, began) for f in judged)}</tbody></table></div>
{_left_out(left)}{_statistics(result)}
<h2>Evidence</h2><table><tbody>{"".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _evidence(result))}</tbody></table>
<h2>Limits and their sources</h2><div class="wide"><table><thead><tr><th>code</th><th>limit</th><th>guard band</th><th>source</th></tr></thead><tbody>
{"".join(_source(f) for f in {(f.code, f.limit.name): f for f in judged if f.limit}.values())}</tbody></table></div>
<h2>Plots</h2><p class="dim screen">Drag to zoom, double-click or 0 for all, Shift and wheel or + and - to zoom, arrows to move.</p>
<noscript><p>The plots need JavaScript; the verdicts do not.</p></noscript>
{figures or "<p>Nothing to draw.</p>"}
<script type="application/json" id="plots">{data}</script><script>{script}</script></body></html>
"""


def _summary(result: Result) -> str:
    e = result.evidence
    counts = {v: sum(f.verdict is v for f in result.findings) for v in Verdict}
    said = ", ".join(f"{n} {v.value}" for v, n in counts.items() if n)
    return f"{said}; {e.span_s():.1f} s of {e.source}" + (
        f"; the recording is {e.ending}" if e.ending not in ("complete", "open") else ""
    )


def _row(f: Finding, began: list[float]) -> str:
    """``began``: where each start lies on the plots; the times beside a verdict are the plots'."""
    override = " (overridden)" if f.limit and f.limit.override else ""
    where = ""
    if f.span:
        of_ar1 = f.span.message in WANTED_AR1
        at = began[f.span.boot] if f.span.boot < len(began) and not of_ar1 else 0.0
        first, last = f.span.first_us / 1e6 + at, f.span.last_us / 1e6 + at
        when = f"{first:.3f} s" if first == last else f"{first:.3f} to {last:.3f} s"
        rows = f"{f.span.count} {f.span.message} sample{'s' * (f.span.count != 1)}" if f.span.message else "no sample"
        where = f"{when}{' of its own clock' if of_ar1 else ''}, {rows}"
    note = escape(f.note) + (f'<div class="dim">{escape(where)}</div>' if where else "")
    return (
        f'<tr><td class="code">{f.code}</td><td>{escape(f.name)}</td><td class="n">{escape(measured(f))}</td>'
        f'<td class="n">{escape(str(f.limit or "-") + override)}</td>'
        f'<td class="verdict {f.verdict.value}">{f.verdict.value}</td><td>{note}</td></tr>'
    )


def _left_out(left: list[Finding]) -> str:
    if not left:
        return ""
    rows = "".join(
        f'<tr><td class="code">{f.code}</td><td>{escape(f.name)}</td><td>{escape(f.note)}</td></tr>' for f in left
    )
    return f"<details><summary>{len(left)} left out, and why</summary><table><tbody>{rows}</tbody></table></details>"


def _source(f: Finding) -> str:
    assert f.limit  # noqa: S101 - filtered by the caller
    unverified = " <strong>limit not verified</strong>" if f.limit.label == "U" else ""
    guard = {"none": "none", "ilac-g8": "w = U (ILAC-G8:09/2019)", "fixed": f"{f.limit.w:g} {f.limit.unit}"}[
        f.limit.guard
    ]
    override = f"; overridden: {f.limit.override}" if f.limit.override else ""
    return (
        f'<tr><td class="code">{f.code}</td><td class="n">{escape(str(f.limit))}</td><td>{escape(guard)}</td>'
        f"<td>{escape(f.limit.source + override)} [{f.limit.label}]{unverified}</td></tr>"
    )


def _evidence(result: Result) -> list[tuple[str, str]]:
    counts = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in result.evidence.counts.as_dict().items() if v)
    return [*result.provenance.rows(), ("frames", counts or "none")]


def _statistics(result: Result) -> str:
    if len(result.runs) < 2:
        return ""
    rows = []
    for m in result.measurements():
        s, d = m.spread, m.drift
        if not s.n:
            continue
        drift = f"{d.per_run:+.3g} a run (p {d.p:.2f})" if d else "-"
        cells = (m.name, str(s.n), str(s.invalid), f"{s.mean:.4g}", f"{s.sd:.3g}", f"{s.low:.4g}", f"{s.high:.4g}", m.cpk(), drift,
                 str(m.first_failure or "-"))  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    head = "".join(
        f"<th>{h}</th>"
        for h in ("measurement", "n", "invalid", "mean", "sd", "min", "max", "Cpk, 95 %", "drift", "first failure")
    )
    return f'<h2>{len(result.runs)} runs</h2><div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
