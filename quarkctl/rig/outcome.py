"""What came of a run: verdicts of steps, stations and the whole, as values that survive as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any


class Verdict(Enum):
    PASSED = "passed"
    FAILED = "failed"
    """The device or what was to be written on it is at fault."""
    INVALID = "invalid"
    """The evidence cannot support a verdict."""
    ERROR = "error"
    """The station is at fault: the link, its power, or this computer."""
    TIMEOUT = "timeout"
    MISSING = "missing"
    BUSY = "busy"
    """Somebody else held the device for longer than this run wanted to wait."""
    QUARANTINED = "quarantined"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """The process that ran it is gone, and left no verdict."""


#: Exit codes of a run over several stations.
SOME_FAILED = 9
NONE_PASSED = 10
INTERRUPTED = 130


@dataclass
class StepResult:
    """``measurements``: name, value, unit and, where known, u, lsl, usl, verdict. ``findings`` as `quarkctl diag --json`
    has them. ``artifacts``: kind, path (in the run's folder), size_bytes, sha256."""

    step: str
    do: str
    turn: int = 1
    verdict: str = Verdict.PASSED.value
    exit_code: int = 0
    error: str = ""
    hint: str = ""
    seconds: float = 0.0
    attempts: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.verdict == Verdict.PASSED.value


@dataclass
class StationResult:
    """``device`` is the identity; times are seconds since 1970 and seconds."""

    station: str
    device: str = ""
    board: str = ""
    verdict: str = Verdict.PASSED.value
    exit_code: int = 0
    error: str = ""
    hint: str = ""
    started: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    attempts: int = 0
    steps: list[StepResult] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.verdict == Verdict.PASSED.value


@dataclass
class Run:
    """``verdict``: passed, failed (some or all did not pass), interrupted, lost; running until then."""

    id: str
    rig: str
    plan: str
    command: str
    host: str
    version: str
    started: float
    ended: float = 0.0
    verdict: str = "running"
    pid: int = 0
    stations: list[StationResult] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all passed; 9 some did not; 10 none passed; 130 interrupted. A station in quarantine was not asked."""
        if self.verdict == Verdict.INTERRUPTED.value:
            return INTERRUPTED
        asked = [s for s in self.stations if s.verdict != Verdict.QUARANTINED.value]
        if asked and all(s.passed for s in asked):
            return 0
        return SOME_FAILED if any(s.passed for s in asked) else NONE_PASSED

    def counts(self) -> dict[str, int]:
        """{verdict: stations}"""
        out: dict[str, int] = {}
        for s in self.stations:
            out[s.verdict] = out.get(s.verdict, 0) + 1
        return out

    def brief(self) -> Run:
        """Without evidence: verdicts of run, stations and steps, and why."""
        stations = [
            replace(s, steps=[replace(p, facts={}, measurements=[], findings=[], artifacts=[]) for p in s.steps])
            for s in self.stations
        ]
        return replace(self, stations=stations)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Run:
        """The inverse of `as_dict`. Raises ValueError for anything else."""
        try:
            stations = [
                StationResult(**{**s, "steps": [StepResult(**step) for step in s["steps"]]}) for s in raw["stations"]
            ]
            return cls(**{**raw, "stations": stations})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no record of a run: {error!r}") from error


def verdict_of(exit_code: int) -> Verdict:
    """What an error of that code means for a station."""
    return {0: Verdict.PASSED, 5: Verdict.FAILED, 6: Verdict.FAILED, 7: Verdict.FAILED, 8: Verdict.INVALID}.get(
        exit_code, Verdict.ERROR
    )


def worth_a_retry(result: StepResult) -> bool:
    """Another attempt may help: the link, a hang, a worker that died; not a refusal, a fault, or a wrong file."""
    return result.verdict == Verdict.TIMEOUT.value or result.exit_code in (1, 4)


def is_fault_of_station(result: StationResult) -> bool:
    """Counts towards quarantine: what is bad about the place, not about the firmware or the sample in it."""
    return result.verdict in (Verdict.TIMEOUT.value, Verdict.MISSING.value) or (
        result.verdict == Verdict.ERROR.value and result.exit_code in (1, 4)
    )
