"""Limits files: versioned TOML, units mandatory, every limit with its source."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from quarkctl.errors import InputWrong

GUARDS = ("none", "ilac-g8", "fixed")
LABELS = {"S": "sourced", "C": "convention", "P": "set by the project", "U": "unverified"}
_KEYS = {"unit", "lsl", "usl", "u", "guard", "w", "source", "label"}


@dataclass(frozen=True)
class Limit:
    """Lower and upper limit (either may be None) in ``unit``; ``u`` is the expanded uncertainty (k = 2) of the
    measurement in the same unit."""

    name: str
    unit: str
    lsl: float | None
    usl: float | None
    u: float
    guard: str
    w: float
    source: str
    label: str

    @property
    def guard_band(self) -> float:
        return {"none": 0.0, "ilac-g8": self.u, "fixed": self.w}[self.guard]

    def as_dict(self) -> dict[str, object]:
        return {"lsl": self.lsl, "usl": self.usl, "guard": self.guard, "source": self.source, "label": self.label}

    def __str__(self) -> str:
        parts = []
        if self.lsl is not None:
            parts.append(f">= {self.lsl:g}")
        if self.usl is not None:
            parts.append(f"<= {self.usl:g}")
        unit = "" if self.unit == "1" else f" {self.unit}"
        return " and ".join(parts) + unit


@dataclass(frozen=True)
class Limits:
    sku: str
    version: int
    limits: Mapping[str, Limit]

    def get(self, name: str, unit: str) -> Limit | None:
        """The limit of a measurement, None if the file has none. Raises InputWrong when its unit is another."""
        limit = self.limits.get(name)
        if limit and limit.unit != unit:
            raise InputWrong(
                f"limit {name} is in {limit.unit!r}, the measurement in {unit!r}", hint="write the limit in that unit"
            )
        return limit


def parse(file_name: str, text: str) -> Limits:
    """Raises InputWrong naming file, limit and key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputWrong(f"{file_name}: {error}") from error
    version, sku = raw.get("version"), raw.get("sku")
    if not isinstance(version, int) or not isinstance(sku, str):
        raise InputWrong(f"{file_name}: needs an integer version and a text sku")
    table = raw.get("limit", {})
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise InputWrong(f"{file_name}: limits are tables: [limit.NAME]")
    return Limits(
        sku, version, {name: _limit(f"{file_name}: limit {name}", name, entry) for name, entry in table.items()}
    )


def _limit(at: str, name: str, raw: Mapping[str, object]) -> Limit:
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise InputWrong(f"{at}: unknown key {unknown[0]!r}", hint=f"known are {', '.join(sorted(_KEYS))}")
    for key in ("unit", "source", "label", "guard"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise InputWrong(f"{at}: {key} is missing")
    lsl, usl, u, w = (_number(at, raw, key) for key in ("lsl", "usl", "u", "w"))
    if lsl is None and usl is None:
        raise InputWrong(f"{at}: needs lsl or usl")
    if lsl is not None and usl is not None and lsl > usl:
        raise InputWrong(f"{at}: lsl {lsl:g} is above usl {usl:g}")
    guard, label = str(raw["guard"]), str(raw["label"])
    if guard not in GUARDS:
        raise InputWrong(f"{at}: guard {guard!r} is none of {', '.join(GUARDS)}")
    if label not in LABELS:
        raise InputWrong(f"{at}: label {label!r} is none of {', '.join(LABELS)}")
    if u is None or u < 0:
        raise InputWrong(f"{at}: u, the expanded uncertainty, is missing or negative")
    if guard == "fixed" and (w is None or w < 0):
        raise InputWrong(f"{at}: guard fixed needs w")
    return Limit(name, str(raw["unit"]), lsl, usl, u, guard, w or 0.0, str(raw["source"]), label)


def _number(at: str, raw: Mapping[str, object], key: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputWrong(f"{at}: {key} must be a finite number")
    return float(value)
