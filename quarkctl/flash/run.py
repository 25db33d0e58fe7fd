"""Carry a plan out: step by step, written into the journal first, told as events, timed."""

from __future__ import annotations

import time

from quarkctl.errors import QuarkError
from quarkctl.events import Event, Level, Progress
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Plan, Result, Session, Step


def preflight(session: Session, journal: Journal, progress: Progress) -> Plan:
    """Make the plan. Nothing is written."""
    identity = journal.identity
    progress(Event(identity, "preflight", Level.START))
    try:
        made = session.plan()
    except QuarkError as error:
        progress(Event(identity, "preflight", Level.FAILED, error.message))
        raise
    progress(Event(identity, "preflight", Level.DONE, made.seen))
    if journal.unfinished and made.steps:
        progress(
            Event(identity, "journal", Level.NOTE, resumes(made, journal) or f"not finished: {journal.unfinished}")
        )
    return made


def resumes(made: Plan, journal: Journal) -> str:
    """Words for the earlier run that this plan goes on with; empty when there is none."""
    before = journal.unfinished
    if before is None or (before.method, before.digest) != (made.method, made.digest):
        return ""
    return f"goes on with the {before}"


def carry_out(session: Session, made: Plan, journal: Journal, progress: Progress) -> Result:
    """All steps of a plan. Raises what a step raises; the journal then tells the next run where this one ended.

    KeyboardInterrupt goes on upwards after the session has brought the device into a known state and said which.
    """
    outcome = "verified" if made.step_names == ("compare",) else "done" if made.steps else "unchanged"
    result = Result(made, outcome, resumed=resumes(made, journal))
    writes = outcome == "done"
    if writes:
        journal.begin(made.method, made.digest, made.new_version or f"{made.size_bytes} bytes", made.steps[0].name)
    step: Step | None = None
    try:
        for step in made.steps:
            if writes:
                journal.step(step.name)
            progress(Event(made.device, step.name, Level.START, total_bytes=step.size_bytes))
            began = time.monotonic()
            text = session.do(step)
            result.seconds[step.name] = time.monotonic() - began
            progress(Event(made.device, step.name, Level.DONE, text))
    except QuarkError as error:
        progress(Event(made.device, step.name if step else "", Level.FAILED, error.message))
        raise
    except KeyboardInterrupt:
        if step:
            progress(Event(made.device, step.name, Level.FAILED, "interrupted"))
            progress(Event(made.device, "interrupt", Level.NOTE, session.interrupted(step)))
        raise
    journal.end()
    result.facts = session.facts()
    return result
