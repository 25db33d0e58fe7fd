"""From decoded samples to the columns that checks read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from quarkctl.diag.evidence import Evidence, Loss, dtype
from quarkctl.formats.schema import Schema
from quarkctl.formats.stream import Counts, Gap, Sample

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Table
    from quarkctl.diag.product import Product


def tables(schema: Schema, samples: Iterable[Sample]) -> dict[str, Table]:
    """One structured array a message, rows in the order of device time within each start."""
    import numpy as np

    rows: dict[str, list[Sample]] = {}
    for s in samples:
        rows.setdefault(s.message.name, []).append(s)
    out = {}
    for name, found in rows.items():
        kind = dtype(schema, name)
        table = np.zeros(len(found), kind)
        table["boot"] = [s.boot for s in found]
        table["seq"] = [s.seq for s in found]
        table["time_us"] = [s.time_us for s in found]
        table["host_ns"] = [s.host_ns for s in found]
        for field in kind.names[4:]:
            table[field] = [s.values[field] for s in found]
        out[name] = table[np.lexsort((table["time_us"], table["boot"]))]
    return out


def losses(gaps: Sequence[Gap], found: Mapping[str, Table]) -> list[Loss]:
    """Gaps as intervals: from the last row before each to the row that showed it."""
    import numpy as np

    out = []
    for gap in gaps:
        times = [t["time_us"][(t["boot"] == gap.boot) & (t["time_us"] < gap.time_us)] for t in found.values()]
        before = max((int(np.max(t)) for t in times if len(t)), default=0)
        out.append(Loss(gap.boot, before, gap.time_us, gap.count))
    return out


def evidence(
    schema: Schema, samples: Sequence[Sample], counts: Counts, gaps: Sequence[Gap], product: Product,
    source: str = "", sha256: str = "", ending: str = "complete",
) -> Evidence:  # fmt: skip
    found = tables(schema, samples)
    hellos = [s for s in samples if s.message.name == "hello"]
    return Evidence(
        schema, found, counts, losses(gaps, found), product, source, sha256, ending, hellos[-1].values if hellos else {}
    )
