"""docs/benchmarks.md from the last figures, as measured, missed goals included."""

from __future__ import annotations

import json

from tests.bench.figure import FOLDER, Figure
from tests.conftest import BUILD, ROOT

HEAD = """# Benchmarks

Made by `make bench` (all areas) or `make bench-AREA` followed by `make docs`; do not edit. Ratios are taken side by side
in one run, medians of several rounds; only they are goals. Absolute figures belong to the machine.
"""


def run() -> None:
    out = [HEAD]
    machine = FOLDER / "machine.txt"
    out.append(f"Machine: {machine.read_text().strip() if machine.exists() else 'unknown'}\n")
    for path in sorted(FOLDER.glob("*.json")):
        out.append(f"## {path.stem}\n\n| figure | value | goal | met | beside |\n|---|---|---|---|---|")
        for raw in json.loads(path.read_text()):
            f = Figure(**raw)
            out.append(
                f"| {f.name} | {f.value:.3g} {f.unit} | {f.op} {f.goal:g} | {'yes' if f.met else '**no**'} | {f.peer} |"
            )
        out.append("")
    out.append(_sizes())
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(out).rstrip() + "\n")


def _sizes() -> str:
    """Flash, RAM and the deepest stack of the firmware, from the last test build."""
    path = BUILD / "s1-virtual" / "rtos-1.0.0.json"
    if not path.exists():
        return ""
    built = json.loads(path.read_text())
    rows = [
        "## Firmware of s1-virtual\n",
        "| program | flash, bytes | RAM, bytes |\n|---|---|---|",
        *(f"| {name} | {s['flash']} | {s['ram']} |" for name, s in built["sizes"].items()),
        "\nDeepest known chain of calls, with the frame of one interrupt (calls through pointers are not in it):\n",
        "| thread | worst, bytes | stack, bytes |\n|---|---|---|",
        *(f"| {name} | {s['worst_bytes']} | {s['stack_bytes']} |" for name, s in built["stacks"].items()),
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    run()
