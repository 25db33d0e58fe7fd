"""What to build and what was built. A build that has nothing to do ends here, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quarkctl.build.ar1 import cache, stamp
from quarkctl.events import Progress, silent


@dataclass(frozen=True)
class Request:
    """What to build. ``key`` names a signer that takes the place of every key of the specification."""

    spec: Path
    out: Path
    version: str = ""
    key: str = ""


@dataclass(frozen=True)
class Built:
    """What a build left in ``out``. ``files``: {name: {"bytes": ..., "sha256": ... or None}}. ``kept``: how many builds
    are in the cache, what they need on the disk beside this one, and the limits of both. ``restored``: it comes from there.
    """

    product: str
    version: str
    out: Path
    files: Mapping[str, Mapping[str, Any]]
    partitions: Mapping[str, Mapping[str, Any]]
    signatures: list[dict[str, str]]
    kernel: Mapping[str, str]
    development_key: bool
    kept: Mapping[str, int]
    made: list[str] = field(default_factory=list)
    restored: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    @staticmethod
    def of(record: Mapping[str, Any], out: Path, made: list[str], *, restored: bool = False) -> Built:
        """From the record of a build."""
        return Built(**{**stamp.told(dict(record), out), "out": out, "made": made, "restored": restored})


def build(request: Request, progress: Progress = silent) -> Built:
    """Build what changed. Outputs appear together, or none of them.

    Raises InputWrong (specification, inputs, keys), HostUnfit (tools), BuildFailed, SignaturesWanted, VerificationFailed.
    """
    asked = stamp.asked(request.spec, request.version, request.key)
    record = stamp.load(request.out)
    if stamp.unchanged(record, asked, request.out):
        return Built.of(record, request.out, [])
    if kept := cache.restore(str(request.out), asked):
        return Built.of(kept, request.out, [], restored=True)
    from quarkctl.build.ar1 import pipeline

    return pipeline.build(request, asked, record, progress)
