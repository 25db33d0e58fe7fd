"""The journal: what was under way survives any end of the process, and only one plan at a time goes on with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quarkctl.errors import LinkLost
from quarkctl.events import Event
from quarkctl.flash import run
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Plan, Step


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    return tmp_path


@dataclass
class Scripted:
    """A session whose steps do what the test says."""

    digest: str = "aa"
    fails: dict[str, BaseException] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    where: str = "nowhere"

    def plan(self) -> Plan:
        steps = (Step("upload", size_bytes=10), Step("confirm"))
        return Plan("sim:t", "b", "rtos", "smp", "1.0.0", "1.1.0", 10, self.digest, steps)

    def do(self, step: Step) -> str:
        self.done.append(step.name)
        if step.name in self.fails:
            raise self.fails[step.name]
        return "ok"

    def facts(self) -> dict[str, object]:
        return {}

    def interrupted(self, step: Step) -> str:
        return f"known state after {step.name}"

    def close(self) -> None:
        pass


def flash(session: Scripted) -> tuple[str, list[Event]]:
    """Returns what the result says of an earlier run, and all events."""
    events: list[Event] = []
    journal = Journal("sim:t")
    made = run.preflight(session, journal, events.append)
    return run.carry_out(session, made, journal, events.append).resumed, events


def test_a_flash_that_broke_off_is_gone_on_with_and_told(state: Path) -> None:
    with pytest.raises(LinkLost):
        flash(Scripted(fails={"upload": LinkLost("gone")}))
    left = Journal("sim:t").unfinished
    assert left and (left.step, left.digest, left.what) == ("upload", "aa", "1.1.0")
    resumed, events = flash(Scripted())
    assert resumed.startswith("goes on with the flash of 1.1.0 begun 20") and resumed.endswith("stopped in upload")
    assert resumed in [e.text for e in events]
    assert Journal("sim:t").unfinished is None
    assert flash(Scripted())[0] == ""


def test_another_image_after_a_broken_flash_starts_afresh_and_says_what_was_not_finished() -> None:
    with pytest.raises(LinkLost):
        flash(Scripted(fails={"confirm": LinkLost("gone")}))
    resumed, events = flash(Scripted(digest="bb"))
    assert resumed == ""
    assert any("not finished: flash of 1.1.0" in e.text for e in events)


def test_an_interrupt_brings_the_device_into_a_known_state_and_tells_it() -> None:
    events: list[Event] = []
    journal = Journal("sim:t")
    session = Scripted(fails={"confirm": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run.carry_out(session, session.plan(), journal, events.append)
    assert events[-1].text == "known state after confirm"
    left = Journal("sim:t").unfinished
    assert left and left.step == "confirm"


def test_notes_are_kept_for_the_same_content_only() -> None:
    journal = Journal("sim:t")
    journal.begin("smp", "aa", "x")
    journal.note(raw_phase=True, window=3)
    journal.note(raw_phase=None)
    again = Journal("sim:t")
    again.begin("smp", "aa", "x")
    assert again._entry and again._entry.notes == {"window": 3}
    again.begin("smp", "bb", "x")
    assert again._entry and again._entry.notes == {}


@pytest.mark.parametrize("left", ["", "{", "[]", '{"version": 9}', '{"version": 1, "identity": "sim:other", "notes": {}}',
                                  '{"version": 1, "identity": "sim:t", "notes": {}, "x": 1}'])  # fmt: skip
def test_a_damaged_journal_is_no_journal(state: Path, left: str) -> None:
    Journal("sim:t").begin("smp", "aa", "x")
    (path,) = (state / "journal").iterdir()
    path.write_text(left)
    assert Journal("sim:t").unfinished is None


def test_a_cut_while_the_journal_is_written_leaves_the_last_whole_one(state: Path) -> None:
    journal = Journal("sim:t")
    journal.begin("smp", "aa", "x")
    (path,) = (state / "journal").iterdir()
    path.with_suffix(".new").write_text(json.dumps({"version": 1})[:7])
    left = Journal("sim:t").unfinished
    assert left and left.digest == "aa"
