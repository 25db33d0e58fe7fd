"""What is recorded while something is done to glasses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quarkctl.errors import DeviceMissing, HostUnfit
from quarkctl.events import Event
from quarkctl.rig import listening
from quarkctl.telemetry.store import Recording


@dataclass
class Line:
    """A way and its link in one. ``ready`` is waited for before it says anything."""

    identity: str = "sim:x"
    ready: threading.Event = field(default_factory=threading.Event)
    resolve: Callable[[], str] = str
    closed: bool = False

    @property
    def name(self) -> str:
        return self.identity

    def hold(self) -> Any: ...

    def open(self) -> Line:
        return self

    def read(self, timeout_s: float) -> bytes:
        return b"\0text\0" if self.ready.wait(timeout_s) else b""

    def write(self, data: bytes | memoryview) -> None: ...

    def close(self) -> None:
        self.closed = True


class Gone(Line):
    def open(self) -> Line:
        raise DeviceMissing("its system does not run")


def test_what_the_host_did_is_noted_and_the_ar1s_line_is_no_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarkctl.sim.control.host_waits", lambda identity, since_ns: [(since_ns, 70.0, True)])
    line, events = Line(), list[Event]()
    line.ready.set()
    listening.record([line], Gone("sim:x/ar1"), tmp_path / "a.qrec", 0.1, (), events.append)
    recording = Recording(tmp_path / "a.qrec")
    assert all(recording.pieces()) and recording.ending == "complete" and recording.lines == ["sim:x"]
    assert [n["waits"][0][1:] for n in recording.notes if n["note"] == "host"] == [[70.0, True]]
    assert any("judged without the AR1's own line: its system does not run" in e.text for e in events)
    assert line.closed


def test_glasses_that_fall_silent_get_their_pack_back_at_its_time(tmp_path: Path) -> None:
    line, done = Line(), list[str]()
    acts = [(0.0, lambda: done.append("out"), "left pack out"), (0.01, line.ready.set, "left pack in")]
    listening.record([line], None, tmp_path / "a.qrec", 0.2, acts, lambda e: None)
    assert done == ["out"] and line.ready.is_set()


def test_an_act_that_fails_ends_it_and_no_pack_stays_out(tmp_path: Path) -> None:
    line, done = Line(), list[str]()
    line.ready.set()

    def broken() -> None:
        raise HostUnfit("there is no program swapper")

    acts = [(0.0, broken, "left pack out"), (3600.0, lambda: done.append("in"), "left pack in")]
    with pytest.raises(HostUnfit, match="swapper"):
        listening.record([line], None, tmp_path / "a.qrec", 3600.0, acts, lambda e: None)
    assert done == ["in"]
