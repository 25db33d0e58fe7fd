"""The one object that every report is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quarkctl.diag import checks, statistics
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.limits import Limits

SCHEMA = "quarkctl.diag/2"


@dataclass(frozen=True)
class Provenance:
    """Everything that a signature needs: who was judged, by what, against what, from which bytes. ``recording_sha256``: of
    each recording, with a space between; empty for a live device."""

    tool: str
    made_at: str
    limits_title: str
    limits_sha256: str
    overrides: tuple[str, ...]
    identity: Mapping[str, str]
    recording_sha256: str
    operator: str = ""
    fixture: str = ""

    def rows(self) -> list[tuple[str, str]]:
        out = [("device", f"{self.identity.get('serial', '?')}, {self.identity.get('board', 'board unknown')}")]
        out += [(k.replace("_", " "), v) for k, v in self.identity.items() if k not in ("serial", "board")]
        hashes = self.recording_sha256.split() or ["live, not recorded"]
        out += [
            *(("recording sha256", h) for h in hashes),
            ("limits", self.limits_title),
            ("limits sha256", self.limits_sha256),
        ]
        out += [("limit override", o) for o in self.overrides]
        out += [(k, v) for k, v in (("operator", self.operator), ("fixture", self.fixture)) if v]
        return [*out, ("made by", self.tool), ("made at", self.made_at)]


@dataclass(frozen=True)
class Result:
    """``runs``: findings of each repetition, one without ``--repeat``. ``evidence`` is that of the last run."""

    runs: Sequence[Sequence[Finding]]
    evidence: Evidence
    provenance: Provenance
    limits: Limits
    left_out: Sequence[Finding] = field(default_factory=tuple)

    @property
    def findings(self) -> Sequence[Finding]:
        """Of the last run."""
        return self.runs[-1]

    @property
    def verdict(self) -> Verdict:
        """Over all runs: a fault in one of them is a fault."""
        return checks.verdict([f for run in self.runs for f in run])

    def measurements(self) -> list[Measurement]:
        """One row a measured quantity over all runs."""
        keys = list(dict.fromkeys((f.code, f.subject) for run in self.runs for f in run))
        out = []
        for code, subject in keys:
            found = [f for run in self.runs for f in run if (f.code, f.subject) == (code, subject)]
            values = [
                f.value for f in found if f.value is not None and f.verdict not in (Verdict.INVALID, Verdict.SKIP)
            ]
            out.append(Measurement(found, values))
        return out

    def as_dict(self) -> dict[str, object]:
        e, p = self.evidence, self.provenance
        body: dict[str, object] = {
            "verdict": self.verdict.value,
            "evidence": {
                **p.identity, "limits": p.limits_title, "limits_sha256": p.limits_sha256,
                "limit_overrides": list(p.overrides), "recording_sha256": p.recording_sha256, "tool": p.tool,
                "made_at": p.made_at, "operator": p.operator, "fixture": p.fixture, "ending": e.ending,
            },
            "counts": e.counts.as_dict(),
            "span_s": round(e.span_s(), 3),
            "findings": [f.as_dict() for f in self.findings],
        }  # fmt: skip
        if len(self.runs) > 1:
            body["runs"] = [[f.as_dict() for f in run] for run in self.runs]
            body["statistics"] = [m.as_dict() for m in self.measurements()]
        return body


@dataclass(frozen=True)
class Measurement:
    """One quantity over the runs. ``values``: of the runs whose evidence could carry a verdict."""

    findings: Sequence[Finding]
    values: Sequence[float]

    @property
    def name(self) -> str:
        return f"{self.findings[0].code} {self.findings[0].name}"

    @property
    def spread(self) -> statistics.Spread:
        return statistics.spread(self.values, sum(f.verdict is Verdict.INVALID for f in self.findings))

    def cpk(self) -> str:
        """The index with its interval; below 30 runs only the interval."""
        limit = self.findings[0].limit
        found = statistics.cpk(self.values, limit.lsl, limit.usl) if limit else None
        if found is None:
            return "-"
        interval = f"{found.value - found.u:.2f} to {found.value + found.u:.2f}"
        return interval if found.n < statistics.CPK_COUNT_MIN else f"{found.value:.2f} ({interval})"

    @property
    def drift(self) -> statistics.Drift | None:
        return statistics.drift(self.values)

    @property
    def first_failure(self) -> int | None:
        return statistics.first_failure([f.verdict.value for f in self.findings])

    def as_dict(self) -> dict[str, object]:
        f, s, d = self.findings[0], self.spread, self.drift
        number = {k: None if math.isnan(v) else v for k, v in vars(s).items()}
        return {
            "code": f.code, "check": f.check, "subject": f.subject, "unit": f.unit or None, **number, "cpk": self.cpk(),
            "drift_per_run": d.per_run if d else None, "drift_p": d.p if d else None,
            "first_failure": self.first_failure,
        }  # fmt: skip
