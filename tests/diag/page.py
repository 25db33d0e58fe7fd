"""Writes docs/diagnostics.md: ``python -m tests.diag.page`` (`make docs`). The reference comes from the checks themselves,
the table from the last `make bench-diag`; without one, the table that is there stays."""

from __future__ import annotations

from quarkctl.diag.reference import markdown
from tests.bench.diag import load_matrix
from tests.conftest import ROOT

PATH = ROOT / "docs" / "diagnostics.md"
TABLE = "## What is found"
REFERENCE = "## Reference"


def build(old: str) -> str:
    guide = old[: old.index(TABLE)]
    table = load_matrix() or old[old.index(TABLE) + len(TABLE) : old.index(REFERENCE)].strip() + "\n"
    made = "Made from the checks' own texts; `quarkctl diag explain CODE` prints the same."
    return f"{guide}{TABLE}\n\n{table}\n{REFERENCE}\n\n{made}\n\n{markdown()}"


if __name__ == "__main__":
    PATH.write_text(build(PATH.read_text("utf-8")).rstrip() + "\n", "utf-8")
