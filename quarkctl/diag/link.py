"""The way between the two chips: latency, loss, wake-up and hand-over."""

from __future__ import annotations

from quarkctl.diag.check import Case, Check
from quarkctl.diag.evidence import span
from quarkctl.diag.finding import Finding

_FIELDS = ("sent_count", "lost_count", "latency_us_max", "wake_us_max", "hand_over_us_max")


def _worst(case: Case, field: str, idle: str) -> list[Finding]:
    e = case.evidence
    if not e.has("ar1_link", *_FIELDS):
        return [case.invalid("the firmware sends no ar1_link messages")]
    t = e.of("ar1_link")
    k = int(t[field].argmax())
    if not t[field][k]:
        return [case.absent(idle)]
    return [
        case.judged(
            float(t[field][k]) / 1000, f"highest of {len(t)} reports", span=span("ar1_link", t, k, k), floor=0.0
        )
    ]


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
    return [case.judged(100 * lost / sent, f"{lost} of {sent} requests", span=span("ar1_link", t), floor=0.0)]


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
