"""TOML whose errors name line and column."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats import toml_places
from quarkctl.formats.toml_places import Path as Keys

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Table:
    """A table that is read key by key; what nobody asked for is an error in the end (`done`)."""

    def __init__(self, document: Document, raw: dict[str, Any], path: Keys = ()) -> None:
        self._document = document
        self._raw = raw
        self._asked: set[str] = set()
        self.path = path

    def wrong(self, key: str, told: str, hint: str = "", *, element: int | None = None) -> InputWrong:
        """The error for a key, or one element of its list; for the table where the key is empty."""
        path = (*self.path, key) if key else self.path
        return self._document.wrong(path if element is None else (*path, element), told, hint)

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def keys(self) -> Sequence[str]:
        return list(self._raw)

    def _get(self, key: str, kinds: type | tuple[type, ...], name: str, default: Any) -> Any:
        self._asked.add(key)
        if key not in self._raw:
            if default is _NEEDED:
                near = difflib.get_close_matches(key, [k for k in self._raw if k not in self._asked], 1)
                if near:
                    raise self.wrong(near[0], "is not known here", hint=f"{key}?")
                raise self.wrong("", f"{key} is missing", hint=f"{key} = {name}")
            return default
        value = self._raw[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            raise self.wrong(key, f"must be {name}, not {value!r}")
        return value

    def text(self, key: str, default: Any = ..., *, among: Sequence[str] = ()) -> str:
        value = self._get(key, str, "a text", _default(default))
        if among and key in self._raw and value not in among:
            raise self.wrong(key, f"is {value!r}", hint=f"one of {', '.join(among)}")
        return str(value)

    def integer(self, key: str, default: Any = ..., *, low: int = 0, high: int = (1 << 64) - 1) -> int:
        value = int(self._get(key, int, "a number", _default(default)))
        if not low <= value <= high:
            raise self.wrong(key, f"is {value}, it must be from {low} to {high}")
        return value

    def flag(self, key: str, default: Any = ...) -> bool:
        return bool(self._get(key, bool, "true or false", _default(default)))

    def size(self, key: str, default: Any = ..., *, multiple: int = 1, low: int = 0) -> int:
        """Bytes: a number, or a text such as ``"64 MiB"``."""
        value = self._get(key, (int, str), 'a size, such as "64 MiB"', _default(default))
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            if not found:
                raise self.wrong(
                    key, f"is {value!r}, not a size", hint='such as "64 MiB", "512 KiB" or a number of bytes'
                )
            value = int(found.group(1)) * _UNITS[found.group(2)]
        if not low <= value < 1 << 62:
            raise self.wrong(key, f"is {value} bytes; it must be from {low} bytes to 4 EiB", hint='such as "64 MiB"')
        if value % multiple:
            up = -(-value // multiple) * multiple
            raise self.wrong(key, f"is {value} bytes, not a multiple of {multiple}", hint=f"{key} = {up}")
        return int(value)

    def is_text(self, key: str) -> bool:
        return isinstance(self._raw.get(key), str)

    def says(self, key: str, word: str) -> bool:
        """Whether a value is just this word, where another kind of value is usual."""
        if self._raw.get(key) != word:
            return False
        self._asked.add(key)
        return True

    def texts(self, key: str, default: Any = ()) -> tuple[str, ...]:
        value = self._get(key, list, "a list of texts", default)
        for n, v in enumerate(value):
            if not isinstance(v, str):
                raise self.wrong(key, f"must be a list of texts, {v!r} is none", element=n)
        return tuple(value)

    def words(self, key: str) -> dict[str, str]:
        """A table of texts."""
        value = self._get(key, dict, "a table of texts", {})
        for k, v in value.items():
            if not isinstance(v, str):
                raise self._document.wrong((*self.path, key, k), f"must be a text, not {v!r}")
        return dict(value)

    def table(self, key: str, default: Any = ...) -> Table:
        return Table(self._document, self._get(key, dict, "a table", _default(default)), (*self.path, key))

    def tables(self, key: str, default: Any = ()) -> list[Table]:
        value = self._get(key, list, "a list of tables", default)
        for n, v in enumerate(value):
            if not isinstance(v, dict):
                raise self.wrong(key, f"must be a list of tables, {v!r} is none", element=n)
        return [Table(self._document, v, (*self.path, key, n)) for n, v in enumerate(value)]

    def named(self, key: str) -> list[tuple[str, Table]]:
        """A table of tables, such as ``[image.NAME]``."""
        value = self._get(key, dict, "a table of tables", {})
        for k, v in value.items():
            if not isinstance(v, dict):
                raise self._document.wrong((*self.path, key, k), "must be a table")
        return [(k, Table(self._document, v, (*self.path, key, k))) for k, v in value.items()]

    def done(self) -> None:
        """Raises InputWrong for the first key that was never asked for."""
        for key in self._raw:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                raise self.wrong(
                    key,
                    "is not known here",
                    hint=f"{near[0]}?" if near else f"known are {', '.join(sorted(self._asked))}",
                )


_NEEDED = object()


def _default(value: Any) -> Any:
    return _NEEDED if value is ... else value


class Document(Table):
    """A whole file."""

    def __init__(self, file: Path) -> None:
        """Raises InputWrong when the file cannot be read or is no TOML."""
        self.file = file
        try:
            self.text_of_file = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputWrong(f"cannot read {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
        try:
            raw = tomllib.loads(self.text_of_file)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
            told = str(error).partition(" (at ")[0]
            if twice := re.fullmatch(r"Cannot declare \((.*)\) twice", told):
                name = ".".join(re.findall(r"'([^']*)'", twice.group(1)))
                told = f"[{name}] stands here for the second time"
            line, column = (
                (place.group(1), place.group(2)) if place and place.group(1) else (self.text_of_file.count("\n") + 1, 1)
            )
            raise InputWrong(f"{file}:{line}:{column}: {told[:1].lower()}{told[1:]}") from error
        self._document = self
        super().__init__(self, raw)

    def wrong(self, path: Any, told: str, hint: str = "", *, element: int | None = None) -> InputWrong:
        parts: Keys = (path,) if isinstance(path, str) and path else tuple(path or ())
        parts += () if element is None else (element,)
        line, column = toml_places.place(self.text_of_file, parts)
        dotted = ".".join(str(p) for p in parts if not isinstance(p, int))
        return InputWrong(f"{self.file}:{line}:{column}: {dotted + ' ' if dotted else ''}{told}", hint)
