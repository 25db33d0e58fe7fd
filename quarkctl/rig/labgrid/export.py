"""labgrid's exporter with our resource known to it: it finds no plug-ins by itself."""

from __future__ import annotations

import sys
from pathlib import Path

from labgrid.remote import exporter

from quarkctl.rig.labgrid.resources import QuarkBenchExport


def main(file: Path, coordinator: str, name: str, hostname: str) -> None:
    """Does not return until the coordinator goes away or a signal comes."""
    exporter.exports["QuarkBench"] = QuarkBenchExport
    sys.argv = [
        "labgrid-exporter",
        "-c",
        coordinator,
        "--hostname",
        hostname,
        *(["-n", name] if name else []),
        str(file),
    ]
    exporter.main()
