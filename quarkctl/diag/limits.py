"""Limits files: versioned TOML, units mandatory, every limit with its source."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quarkctl.errors import InputWrong, UsageWrong

GUARDS = ("none", "ilac-g8", "fixed")
LABELS = {"S": "sourced", "C": "convention", "P": "set by the project", "U": "unverified"}
_KEYS = {"unit", "lsl", "usl", "u", "guard", "w", "source", "label"}
_BOUNDS = ("lsl", "usl", "u", "w")


@dataclass(frozen=True)
class Limit:
    """Lower and upper limit (either may be None) in ``unit``; ``u`` is the expanded uncertainty (k = 2) of the instrument
    in the same unit. ``override`` is what the command line changed."""

    name: str
    unit: str
    lsl: float | None
    usl: float | None
    u: float
    guard: str
    w: float
    source: str
    label: str
    override: str = ""

    def guard_band(self, u: float) -> float:
        """Of a measurement with the expanded uncertainty ``u``."""
        return {"none": 0.0, "ilac-g8": u, "fixed": self.w}[self.guard]

    @property
    def is_set(self) -> bool:
        return self.lsl is not None or self.usl is not None

    def as_dict(self) -> dict[str, object]:
        body: dict[str, object] = {
            "name": self.name, "unit": self.unit, "lsl": self.lsl, "usl": self.usl, "guard": self.guard,
            "source": self.source, "label": self.label, "verified": self.label != "U",
        }  # fmt: skip
        return body | ({"override": self.override} if self.override else {})

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
    """Of one product (``sku``) and board revision, as read from ``file_name``."""

    sku: str
    revision: str
    version: int
    limits: Mapping[str, Limit]
    file_name: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        changed = f" with {len(self.overrides)} override{'s' * (len(self.overrides) > 1)}" if self.overrides else ""
        return f"{self.sku} rev {self.revision} v{self.version}{changed}"

    def get(self, name: str, unit: str) -> Limit | None:
        """The limit of a measurement, None if the file has none. Raises InputWrong when its unit is another."""
        limit = self.limits.get(name)
        if limit and limit.unit != unit:
            raise InputWrong(
                f"{self.file_name or 'limits'}: limit {name} is in {limit.unit!r}, the measurement in {unit!r}",
                hint=f"write the limit in {unit!r}",
            )
        return limit

    def override(self, text: str) -> Limits:
        """With one bound changed: ``NAME.BOUND=VALUE UNIT``. Raises UsageWrong; the unit must be the limit's own."""
        m = re.fullmatch(r"([a-z0-9_]+)\.([a-z]+)\s*=\s*([-+.\deE]+)\s*(\S.*)?", text.strip())
        if not m:
            raise UsageWrong(f"cannot read the limit {text!r}", hint="write it like --limit 'bus_mv_min.lsl=3000 mV'")
        name, bound, number, unit = m.groups()
        limit = self.limits.get(name)
        if limit is None:
            raise UsageWrong(f"{self.title} has no limit {name!r}", hint=f"it has {', '.join(self.limits)}")
        if bound not in _BOUNDS:
            raise UsageWrong(f"a limit has no {bound!r}", hint=f"there are {', '.join(_BOUNDS)}")
        if (unit or "1").strip() != limit.unit:
            given = f"in {unit!r}" if unit else "without a unit"
            raise UsageWrong(f"limit {name} is in {limit.unit!r}, {number} is {given}")
        try:
            value = float(number)
        except ValueError:
            raise UsageWrong(f"{number!r} is no number") from None
        if not math.isfinite(value):
            raise UsageWrong(f"{number!r} is no finite number")
        changed = replace(limit, **{bound: value}, override=text.strip())  # type: ignore[arg-type]
        if changed.lsl is not None and changed.usl is not None and changed.lsl > changed.usl:
            raise UsageWrong(f"limit {name}: lsl {changed.lsl:g} would be above usl {changed.usl:g}")
        return replace(self, limits={**self.limits, name: changed}, overrides=(*self.overrides, text.strip()))


def parse(file_name: str, text: str, units: Mapping[str, str] | None = None) -> Limits:
    """``units``: the unit of every measurement there is; a limit that none of them uses is a mistake, like a wrong unit.

    Raises InputWrong naming file, line, limit and key.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputWrong(f"{file_name}: {error}") from error
    lines = text.splitlines()
    version, sku, revision = raw.get("version"), raw.get("sku"), raw.get("revision")
    if not isinstance(version, int) or isinstance(version, bool) or not isinstance(sku, str):
        raise InputWrong(f"{file_name}: needs an integer version and a text sku")
    if not isinstance(revision, str) or not revision:
        raise InputWrong(f"{file_name}: needs the revision of the board as text")
    unknown = sorted(set(raw) - {"version", "sku", "revision", "limit"})
    if unknown:
        raise InputWrong(f"{file_name}:{_line(lines, '', unknown[0])}: unknown key {unknown[0]!r}")
    table = raw.get("limit", {})
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise InputWrong(f"{file_name}: limits are tables: [limit.NAME]")
    limits = {}
    for name, entry in table.items():
        limits[name] = _limit(file_name, lines, name, entry)
        if units is None:
            continue
        at = f"{file_name}:{_line(lines, name, 'unit')}: limit {name}"
        if name not in units:
            raise InputWrong(f"{at}: nothing measures that", hint=f"there are {', '.join(units)}")
        if limits[name].unit != units[name]:
            raise InputWrong(f"{at}: is in {limits[name].unit!r}, the measurement in {units[name]!r}")
    return Limits(sku, revision, version, limits, file_name)


def _line(lines: Sequence[str], name: str, key: str = "") -> int:
    """Number of the line where a key of a limit stands; of its header where it has none."""
    header, inside = 1, not name
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = re.fullmatch(rf"\[limit\.\"?{re.escape(name)}\"?\].*", stripped) is not None
            header = number if inside else header
        elif inside and key and re.match(rf"\"?{re.escape(key)}\"?\s*=", stripped):
            return number
    return header


def _limit(file_name: str, lines: Sequence[str], name: str, raw: Mapping[str, object]) -> Limit:
    def at(key: str = "") -> str:
        return f"{file_name}:{_line(lines, name, key)}: limit {name}"

    def number(key: str) -> float | None:
        value = raw.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputWrong(f"{at(key)}: {key} must be a finite number")
        return float(value)

    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise InputWrong(f"{at(unknown[0])}: unknown key {unknown[0]!r}", hint=f"known are {', '.join(sorted(_KEYS))}")
    for key in ("unit", "source", "label", "guard"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise InputWrong(f"{at()}: {key} is missing")
    lsl, usl, u, w = (number(key) for key in _BOUNDS)
    guard, label = str(raw["guard"]), str(raw["label"])
    if guard not in GUARDS:
        raise InputWrong(f"{at('guard')}: guard {guard!r} is none of {', '.join(GUARDS)}")
    if label not in LABELS:
        raise InputWrong(f"{at('label')}: label {label!r} is none of {', '.join(LABELS)}")
    if lsl is None and usl is None and label != "P":
        raise InputWrong(f"{at()}: needs lsl or usl", hint="only a limit with label P may wait for its project")
    if lsl is not None and usl is not None and lsl > usl:
        raise InputWrong(f"{at('lsl')}: lsl {lsl:g} is above usl {usl:g}")
    if u is None or u < 0:
        raise InputWrong(f"{at('u')}: u, the expanded uncertainty, is missing or negative")
    if guard == "fixed" and (w is None or w < 0):
        raise InputWrong(f"{at('guard')}: guard fixed needs w")
    return Limit(name, str(raw["unit"]), lsl, usl, u, guard, w or 0.0, str(raw["source"]), label)
