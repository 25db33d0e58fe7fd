"""Packs that answer challenges: honest ones, and replays."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from quarkctl.diag import checks
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Verdict
from tests.diag.virtual import profile, swap_run


def answering(answers: list[int]) -> Verdict:
    """What is said of a left pack that answers so to challenges that never repeat."""
    e: Evidence = swap_run(1).evidence()
    t = np.repeat(e.of("pack_auth")[:1], len(answers))
    t["time_us"], t["pack"], t["accepted"] = 5_000_000 * np.arange(1, len(answers) + 1), 0, 1
    t["challenge"], t["response"] = np.arange(len(answers)) * 7 + 1, answers
    e = replace(e, tables={**e.tables, "pack_auth": t})
    found = checks.run(e, profile("s1-virtual")[1], checks.select("battery", ["auth"]))
    return next(f.verdict for f in found if f.subject == "left")


def test_equal_answers_that_chance_explains_are_no_replay() -> None:
    r = random.Random(1)
    assert answering([r.getrandbits(31) for _ in range(20_000)]) is Verdict.PASS  # a day: some are equal
    hour = [r.getrandbits(31) for _ in range(700)]
    assert answering([*hour, hour[0]]) is Verdict.PASS


def test_equal_answers_that_chance_does_not_explain_are_a_replay() -> None:
    r = random.Random(2)
    honest = [r.getrandbits(31) for _ in range(5000)]
    assert answering([7, 7]) is Verdict.FAIL
    assert answering([*honest[:40], honest[3]]) is Verdict.FAIL
    assert answering([*honest, *honest[:5]]) is Verdict.FAIL
    assert answering([honest[0]] * 3 + honest[1:700]) is Verdict.FAIL
