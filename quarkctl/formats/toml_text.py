"""TOML files that people write: values are taken out one by one, and a mistake is told with line and column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats.toml_places import Path, place

#: Nobody writes more by hand.
TEXT_MAX = 1 << 20


@dataclass(frozen=True)
class Table:
    """A table of the file, and the way to it: ``("station", "bench-1")``; elements of an array count from 0.

    Getters return the default where the key is missing and raise InputWrong where it is of another kind; without a
    default the key is needed.
    """

    file: str
    source: str
    path: Path
    raw: Mapping[str, Any]

    def wrong(self, key: str | int | None, what: str, hint: str = "") -> InputWrong:
        """The error for a key of this table, or for the table (None)."""
        path = self.path if key is None else (*self.path, key)
        line, column = place(self.source, path)
        name = ".".join(f"{p + 1}" if isinstance(p, int) else p for p in path)
        return InputWrong(f"{self.file} line {line}, column {column}: {name + ' ' if name else ''}{what}", hint)

    def only(self, keys: Iterable[str]) -> None:
        """Raises for the first key that is not among these: a slip of the pen must not be silent."""
        known = list(keys)
        for key in self.raw:
            if key not in known:
                raise self.wrong(key, "is not known here", hint=f"there are {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._get(key, str, "text", default))

    def flag(self, key: str, default: bool | None = None) -> bool:
        return bool(self._get(key, bool, "true or false", default))

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        value = int(self._get(key, int, "a whole number", default))
        if value < least:
            raise self.wrong(key, f"is {value}, the least is {least}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        value = float(self._get(key, (int, float), "a number", default))
        if not least <= value < float("inf"):
            raise self.wrong(key, f"is {value:g}, the least is {least:g}")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._get(key, (list, tuple), "a list of texts", default)
        if not all(isinstance(v, str) for v in value):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)

    def table(self, key: str) -> Table:
        """The table of that name; an empty one where it is missing."""
        return Table(self.file, self.source, (*self.path, key), self._get(key, dict, "a table", {}))

    def tables(self, key: str) -> list[Table]:
        """The tables of an array ``[[key]]``."""
        value = self._get(key, list, f"tables: [[{key}]]", [])
        if not all(isinstance(v, dict) for v in value):
            raise self.wrong(key, f"must be tables: [[{key}]]")
        return [Table(self.file, self.source, (*self.path, key, i), v) for i, v in enumerate(value)]

    def _get(self, key: str, kind: type | tuple[type, ...], words: str, default: Any) -> Any:
        if key not in self.raw:
            if default is None:
                raise self.wrong(None, f"needs {key}, {words}")
            return default
        value = self.raw[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {words}")
        return value


def parse(file: str, text: str) -> Table:
    """The whole file. Raises InputWrong with line and column for text that is no TOML."""
    if len(text) > TEXT_MAX:
        raise InputWrong(f"{file} has more than {TEXT_MAX >> 20} MiB")
    try:
        return Table(file, text, (), tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)", words)
        end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
        line, column = (int(found[1]), int(found[2])) if found else end
        what = re.sub(r" \(at .*\)", "", words)
        raise InputWrong(f"{file} line {line}, column {column}: {what[:1].lower()}{what[1:]}") from error
    except RecursionError as error:
        raise InputWrong(f"{file}: nested too deep") from error
