"""The way between the two chips: latency, loss, wake-up and hand-over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quarkctl.diag.check import Case, Check
from quarkctl.diag.evidence import span
from quarkctl.diag.finding import Finding, Verdict

if TYPE_CHECKING:
    from quarkctl.diag.evidence import Table

#: A request may have begun so long before the report that tells of it, and counts as lost after it.
_ANSWER_NS = 500_000_000
_FIELDS = ("sent_count", "lost_count", "latency_us_max", "wake_us_max", "hand_over_us_max")


def _worst(case: Case, field: str, idle: str) -> list[Finding]:
    e = case.evidence
    if not e.has("ar1_link", *_FIELDS):
        return [case.invalid("the firmware sends no ar1_link messages")]
    t = e.of("ar1_link")
    k = int(t[field].argmax())
    if not t[field][k]:
        return [case.absent(idle)]
    found = case.judged(
        float(t[field][k]) / 1000, f"highest of {len(t)} reports", span=span("ar1_link", t, k, k), floor=0.0
    )
    arrived = t["host_ns"]
    return [case.unless_host(found, int(arrived[max(k - 1, 0)]) - _ANSWER_NS, int(arrived[k]), link=True)]


def latency(case: Case) -> list[Finding]:
    return _worst(case, "latency_us_max", "no request was answered: is the AR1 awake?")


def wake_up(case: Case) -> list[Finding]:
    return _worst(case, "wake_us_max", "the AR1 was not woken: switch from sleep to a load that needs it")


def hand_over(case: Case) -> list[Finding]:
    return _worst(
        case, "hand_over_us_max", "nothing was handed over: wake the AR1, or let it sleep, while this records"
    )


def loss(case: Case) -> list[Finding]:
    e = case.evidence
    if not e.has("ar1_link", *_FIELDS):
        return [case.invalid("the firmware sends no ar1_link messages")]
    t = e.steady("ar1_link")
    sent = int(t["sent_count"][-1]) - int(t["sent_count"][0])
    lost = int(t["lost_count"][-1]) - int(t["lost_count"][0])
    if sent < 10:
        return [case.absent(f"only {sent} requests were sent: record longer with the AR1 awake")]
    found = case.judged(100 * lost / sent, f"{lost} of {sent} requests", span=span("ar1_link", t), floor=0.0)
    return [found if found.verdict is not Verdict.FAIL else _of_glasses(case, found, t, sent)]


def _of_glasses(case: Case, found: Finding, t: Table, sent: int) -> Finding:
    """Without the requests that virtual glasses may have lost since they did not run: the fault, or INVALID."""
    e = case.evidence
    arrived, lost = t["host_ns"].tolist(), t["lost_count"].tolist()
    theirs = sum(
        lost[k] - lost[k - 1]
        for k in range(1, len(t))
        if e.host_wait_ms(arrived[k - 1] - _ANSWER_NS, arrived[k], link=True) < _ANSWER_NS / 1e6
    )
    if found.limit is None or found.limit.usl is None or 100 * theirs / sent > found.limit.usl:
        return found
    note = f"{found.note}, {theirs} of them while these virtual glasses need not wait for their host's processors"
    return replace(found, verdict=Verdict.INVALID, note=f"{note}: run them on a computer with less to do")


CHECKS = (
    Check(
        "LNK-001", "link", "link", "latency", "link latency", "a slow answer of the AR1 is a slow pair of glasses",
        "Longest time from a request of the microcontroller to the AR1's answer, held between reports.",
        "project", "Requests that were never answered are counted by LNK-002.",
        latency, "link_latency_ms", "ms",
    ),
    Check(
        "LNK-002", "link", "link", "loss", "link loss", "a lost request is a touch that did nothing",
        "Requests without an answer within their time-out, of all that were sent in the record.",
        "project", "Fewer than ten requests tell nothing.",
        loss, "link_loss_pct", "%",
    ),
    Check(
        "LNK-003", "link", "link", "wake_up", "AR1 wake-up", "the wearer waits for it",
        "Longest time from the wake line to the AR1's first answer, held between reports.",
        "project", "Only if the AR1 was woken while this recorded.",
        wake_up, "wake_up_ms", "ms", "let the glasses sleep, then use them",
    ),
    Check(
        "LNK-004", "link", "link", "hand_over", "hand-over", "while neither chip has the job the wearer sees nothing",
        "Longest time between one chip's release of a job and the other's first act on it, held between reports.",
        "project", "Only if something was handed over while this recorded.",
        hand_over, "hand_over_ms", "ms", "let the glasses sleep, then use them",
    ),
)  # fmt: skip
