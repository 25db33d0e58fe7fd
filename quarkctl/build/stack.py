"""Worst case of stacks, from GCC's call graphs (``-fcallgraph-info=su``).

The figure is a lower bound where code calls through pointers: those edges are not in the graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_BYTES = re.compile(r"\\n(\d+) bytes \((\w+)")

#: What an interrupt adds on a thread's stack: the processor's frame with floating point, and PendSV's save area.
CONTEXT_BYTES = 104 + 64 + 40


@dataclass
class CallGraph:
    """Frame sizes in bytes and calls of every function."""

    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)

    def worst(self, entry: str) -> int:
        """Bytes along the deepest chain of calls from ``entry``; a cycle is counted once."""
        return self._depth(entry, frozenset(), {})

    def _depth(self, name: str, above: frozenset[str], known: dict[str, int]) -> int:
        if name in known:
            return known[name]
        if name in above:
            return 0
        inside = above | {name}
        below = max((self._depth(c, inside, known) for c in self.calls.get(name, ())), default=0)
        known[name] = self.frames.get(name, 0) + below
        return known[name]


def load(files: Iterable[Path]) -> CallGraph:
    graph = CallGraph()
    for file in files:
        text = file.read_text("utf-8", "replace")
        for title, label in _NODE.findall(text):
            found = _BYTES.search(label)
            if found:
                graph.frames[title] = int(found.group(1))
        for source, target in _EDGE.findall(text):
            graph.calls.setdefault(source, set()).add(target)
    return graph


def report(graph: CallGraph, stacks: Mapping[str, tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """{thread: (worst bytes, stack bytes)} for {thread: (entry function, stack bytes)}."""
    return {t: (graph.worst(entry) + CONTEXT_BYTES, size) for t, (entry, size) in stacks.items()}
