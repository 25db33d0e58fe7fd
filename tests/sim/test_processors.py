"""Which processor virtual glasses get."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from quarkctl.sim import qemu


def test_virtual_glasses_spread_over_the_processors_whatever_their_process_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: dict[int, set[int]] = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: pinned[pid])
    monkeypatch.setattr(
        qemu.known, "running", lambda: [SimpleNamespace(qemu_pid=p) for p in (*pinned, 0)] if pinned else []
    )
    for pid in range(10, 42, 2):
        pinned[pid] = {qemu._least_taken({0, 1, 5})}
    taken = [next(iter(p)) for p in pinned.values()]
    assert sorted(taken.count(p) for p in (0, 1, 5)) == [5, 5, 6]
