"""The pages as text. Everything that comes from a device or a file is escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from quarkctl.rig.page import plot

Row = dict[str, Any]
_FLAKY_SHOWN = 50


def page(title: str, body: str, here: str = "") -> str:
    links = "".join(
        f'<a href="{href}"{" class=here" if href == here else ""}>{text}</a>'
        for href, text in (("/", "stations"), ("/runs", "runs"), ("/trends", "trends"))
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/page.css">'
        f"</head><body><nav><b>quarkctl rig</b>{links}</nav><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def stations(now: Row) -> str:
    """The first picture comes from here; then page.js keeps it up to date."""
    table = _table(
        ("station", "device", "board", "tags", "state", "step", "", "run"),
        (
            (
                escape(s["station"]), escape(s["device"] or "-"), escape(s["board"] or "-"), escape(", ".join(s["tags"])),
                _state(s["state"]), escape(s["step"]), escape(s["text"]), _run_link(s["run"]),
            )
            for s in now["stations"]
        ),
        name="stations", words=True,
    )  # fmt: skip
    title = f"Stations of {now['rig']}" if now["rig"] else "Stations"
    status = '<p id="status" class="quiet" role="status">connecting</p>'
    return page(title, f'{status}{table}<script src="/static/page.js"></script>', "/")


def runs(rows: Sequence[Row], wanted: dict[str, str], shown: int) -> str:
    """``shown``: rows that are asked for at most."""
    form = "".join(
        f'<label>{name} <input name="{name}" value="{escape(wanted.get(name, ""), quote=True)}"></label>'
        for name in ("station", "verdict", "plan", "firmware", "since")
    )
    table = _table(
        ("run", "plan", "verdict", "passed", "began", "took", "host"),
        (
            (
                _run_link(r["id"]), escape(r["plan"]), _state(r["verdict"]), f"{r['passed_count']}/{r['station_count']}",
                _when(r["started"]), f"{r['ended'] - r['started']:.0f} s", escape(r["host"]),
            )
            for r in rows
        ),
        words=True,
    )  # fmt: skip
    more = f'<p class="quiet">the newest {len(rows)} that fit</p>' if len(rows) == shown else ""
    body = f'<form method="get" action="/runs">{form}<button>show</button></form>{table}{more}'
    return page("Runs", body + ("" if rows else '<p class="quiet">no run fits</p>'), "/runs")


def run(head: Row, stations: Sequence[Row], files: Sequence[str]) -> str:
    parts = [
        f"<p>{_state(head['verdict'])} {head['passed_count']} of {head['station_count']} passed, "
        f"{_when(head['started'])}, {head['ended'] - head['started']:.1f} s on {escape(head['host'])}</p>"
        f"<p><code>{escape(head['command'])}</code></p>"
    ]
    for s in stations:
        tries = "1 attempt" if s["attempts"] == 1 else f"{s['attempts']} attempts"
        parts.append(
            f'<section><h2 id="{quote(s["station"])}">{escape(s["station"])} {_state(s["verdict"])}</h2>'
            f'<p class="quiet">{escape(s["device"] or "no device")}, {escape(_firmware(s))}{s["seconds"]:.1f} s, {tries}'
            f"{', waited ' + format(s['waited_s'], '.0f') + ' s' if s['waited_s'] > 1 else ''}</p>"
        )
        if s["error"]:
            parts.append(f'<p class="error">{escape(s["error"])}</p>')
        for step in s["steps"]:
            parts.append(f"<h3>{escape(step['name'])} {_state(step['verdict'])} {step['seconds']:.1f} s</h3>")
            if step["findings"]:
                parts.append(_table(
                    ("code", "check", "verdict", "note"),
                    ((escape(f["code"]), escape(f["check_name"]), _state(f["verdict"]), escape(f["note"]))
                     for f in step["findings"]),
                    words=True,
                ))  # fmt: skip
            if step["measurements"]:
                parts.append(_table(
                    ("measurement", "value", "limits"),
                    ((f'<a href="/trends?{urlencode({"name": m["name"]})}">{escape(m["name"])}</a>',
                      _with_unit(f"{m['value']:.5g}", m["unit"]), _limits(m)) for m in step["measurements"]),
                ))  # fmt: skip
        parts.append("</section>")
    if files:
        links = "".join(f'<li><a href="/files/{quote(head["id"])}/{quote(f)}">{escape(f)}</a></li>' for f in files)
        parts.append(f"<h2>Files</h2><ul>{links}</ul>")
    return page(f"Run {head['id']}", "".join(parts), "/runs")


def trends(names: Sequence[str], name: str, rows: Sequence[Row], points: Sequence[Row], worst: Sequence[Row],
           flaky: Sequence[Row]) -> str:  # fmt: skip
    parts = ["<h2>Yield</h2>", _table(
        ("station", "yield", "runs", "passed", "faults", "mean time"),
        ((escape(w["station"]), f"{100 * w['yield']:.1f} %", w["runs"], w["passed"], w["faults"],
          f"{w['seconds_mean']:.1f} s") for w in worst),
    )]  # fmt: skip
    options = "".join(
        f'<a href="/trends?{urlencode({"name": n})}"{" class=here" if n == name else ""}>{escape(n)}</a>' for n in names
    )
    parts.append(f'<h2>Measurements</h2><p class="choices">{options}</p>')
    if name:
        unit = _with_unit("", points[-1]["unit"]) if points else ""
        parts += [f"<h3>{escape(name)}</h3>", plot.svg(points, unit), _table(
            ("station", "n", "mean", "sd", "min", "max", "limits", "Cpk"),
            ((escape(r["station"]), r["n"], _with_unit(f"{r['mean']:.4g}", r["unit"]), _number(r["sd"]), _number(r["min"]),
              _number(r["max"]), _limits(r), _number(r["cpk"])) for r in rows),
        )]  # fmt: skip
    parts.append("<h2>Flaky</h2>")
    parts.append(_table(
        ("station", "step", "device", "firmware", "n", "flips", "retried"),
        ((escape(f["station"]), escape(f["step"]), escape(f["device"]), escape(f["firmware"][:12]), f["n"], f["flips"],
          f["retried"]) for f in flaky[:_FLAKY_SHOWN]),
    ) if flaky else '<p class="quiet">no step came out differently on the same device and firmware</p>')  # fmt: skip
    if len(flaky) > _FLAKY_SHOWN:
        parts.append(
            f'<p class="quiet">and {len(flaky) - _FLAKY_SHOWN} more: <code>quarkctl rig history --flaky</code></p>'
        )
    return page("Trends", "".join(parts), "/trends")


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, name: str = "", words: bool = False) -> str:
    """``words``: its rows may become paragraphs on a small screen; other tables are of numbers, and keep their columns."""
    head = "".join(f"<th>{c}</th>" for c in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    begin = f"<table{f' id={name}' if name else ''}{' class=rows' if words else ''}>"
    table = f"{begin}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table if words else f'<div class="scroll">{table}</div>'


def _state(word: str) -> str:
    return f'<span class="state {escape(word.lower(), quote=True)}">{escape(word)}</span>'


def _run_link(run_id: str) -> str:
    return f'<a href="/runs/{quote(run_id)}">{escape(run_id)}</a>' if run_id else ""


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _with_unit(value: str, unit: str) -> str:
    """A count has the unit 1, which nobody writes."""
    return f"{value} {escape(unit)}".strip() if unit != "1" else value


def _firmware(s: Row) -> str:
    """As far as it is known: version, and the beginning of the digest or of the build ids."""
    short = "+".join(part[:8] for part in s["firmware"].split("+"))
    return f"{s['firmware_version']} ({short}), ".lstrip() if s["firmware"] else ""


def _limits(row: Row) -> str:
    parts = [
        f"≥ {row['lsl']:g}" if row["lsl"] is not None else "",
        f"≤ {row['usl']:g}" if row["usl"] is not None else "",
    ]
    return " ".join(p for p in parts if p)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
