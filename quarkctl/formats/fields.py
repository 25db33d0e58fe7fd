"""Typed access to the objects of a JSON document that somebody else may have written."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from quarkctl.errors import InputWrong

TEXT_CHARS_MAX = 4096


class Fields:
    """One object. Every field is asked for once; what is left over at `end` is refused. All methods raise InputWrong."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise InputWrong(f"{where} is no object")
        self._raw: dict[str, Any] = dict(raw)
        self.where = where

    def _take(self, key: str, kind: type, default: Any) -> Any:
        value = self._raw.pop(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            wrong = "is missing" if value is None else f"is no {kind.__name__}"
            raise InputWrong(f"{self.where}: {key} {wrong}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = str(self._take(key, str, default))
        if len(value) > TEXT_CHARS_MAX or not value.isprintable():
            raise InputWrong(f"{self.where}: {key} is no text of one line")
        return value

    def number(self, key: str, least: int = 0, most: int = (1 << 53) - 1, default: int | None = None) -> int:
        value = int(self._take(key, int, default))
        if not least <= value <= most:
            raise InputWrong(f"{self.where}: {key} is {value}, not {least} to {most}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        return bool(self._take(key, bool, default))

    def hexes(self, key: str, size_bytes: int) -> bytes:
        text = self.text(key)
        try:
            value = bytes.fromhex(text)
        except ValueError:
            value = b""
        if len(value) != size_bytes or value.hex() != text:
            raise InputWrong(f"{self.where}: {key} is no number of {size_bytes} bytes in hex")
        return value

    def base64(self, key: str) -> bytes:
        try:
            return base64.b64decode(self._take(key, str, None), validate=True)
        except binascii.Error as error:
            raise InputWrong(f"{self.where}: {key} is no base64") from error

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; an absent one is empty."""
        value = self._take(key, list, [])
        if not all(isinstance(v, str) and v.isprintable() and len(v) <= TEXT_CHARS_MAX for v in value):
            raise InputWrong(f"{self.where}: {key} is no list of texts")
        return tuple(value)

    def objects(self, key: str) -> Iterator[Fields]:
        """A list of objects; an absent one is empty."""
        for k, value in enumerate(self._take(key, list, [])):
            yield Fields(value, f"{self.where}: {key}[{k}]")

    def object(self, key: str) -> Fields:
        """An object; an absent one is empty."""
        return Fields(self._take(key, dict, {}), f"{self.where}: {key}")

    def table(self, key: str) -> Mapping[str, str]:
        """An object of texts; an absent one is empty."""
        value = self._take(key, dict, {})
        if not all(isinstance(v, str) and v.isprintable() for v in value.values()):
            raise InputWrong(f"{self.where}: {key} is no table of texts")
        return dict(value)

    def names(self) -> tuple[str, ...]:
        """Of the fields that were not asked for yet."""
        return tuple(self._raw)

    def end(self) -> None:
        if self._raw:
            raise InputWrong(f"{self.where} has fields that are not known: {', '.join(sorted(self._raw))}"[:300])
