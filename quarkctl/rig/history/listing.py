"""The list of runs: the question that is asked most, in SQL that every database understands, and answered before SQLAlchemy
could be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: (SQL with ``:name`` where a value belongs, the values) -> rows by column. `database.reading` has them.
Ask = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]

_OF_RESULTS = ("station", "device", "board", "verdict")


@dataclass(frozen=True)
class Filter:
    """Empty means any. ``firmware``: version or the beginning of a digest. ``since``: seconds since 1970."""

    station: str = ""
    device: str = ""
    board: str = ""
    verdict: str = ""
    plan: str = ""
    firmware: str = ""
    since: float = 0.0


def runs(ask: Ask, wanted: Filter, limit: int = 20) -> list[dict[str, Any]]:
    """Newest first. With a condition on stations: the runs in which one fits."""
    values: dict[str, Any] = {"limit": limit}
    of_runs, of_results = [], []
    for name in _OF_RESULTS:
        if value := getattr(wanted, name):
            of_results.append(f"{name} = :{name}")
            values[name] = value
    if wanted.firmware:
        digests = "SELECT digest FROM firmware WHERE version = :firmware"
        of_results.append(f"(firmware IN ({digests}) OR firmware LIKE :beginning ESCAPE '/')")
        values |= {"firmware": wanted.firmware, "beginning": f"{_escaped(wanted.firmware)}%"}
    if wanted.plan:
        of_runs.append("plan = :plan")
        values["plan"] = wanted.plan
    if wanted.since:
        of_runs.append("started >= :since")
        values["since"] = wanted.since
        if of_results:
            of_results.append("started >= :since")
    if of_results:  # asked once, and not again for each run
        of_runs.append(f"id IN (SELECT run_id FROM result WHERE {' AND '.join(of_results)})")  # noqa: S608 - own words
    where = f" WHERE {' AND '.join(of_runs)}" if of_runs else ""
    return ask(f"SELECT * FROM run{where} ORDER BY started DESC, id DESC LIMIT :limit", values)  # noqa: S608 - own words


def _escaped(text: str) -> str:
    for special in "/%_":
        text = text.replace(special, f"/{special}")
    return text
