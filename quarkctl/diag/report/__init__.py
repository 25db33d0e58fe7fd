"""Reports of one `Result`: text in, text out; the command line writes them."""

from __future__ import annotations

from quarkctl.diag.finding import Finding

#: Kinds of reports by the ending of their file.
KINDS = {".html": "one self-contained page", ".xml": "JUnit", ".json": "all of it", ".csv": "one row a measurement"}


def measured(f: Finding) -> str:
    """Value with unit and uncertainty, as all reports show it."""
    if f.value is None:
        return "-"
    unit = "" if f.unit in ("", "1") else f" {f.unit}"
    u = f" +-{f.u:.2g}" if f.u else ""
    return f"{f.value:.4g}{u}{unit}"
