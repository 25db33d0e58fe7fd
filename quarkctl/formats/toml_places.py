"""Where keys stand in a TOML file: ``tomllib`` gives values without places.

Source: the TOML 1.0 grammar. The text is valid, `tomllib` has read it; so this only follows brackets, quotes and commas.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

#: Keys from the top; elements of an array count from 0.
Path = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t]|\r?\n|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')[ \t]*""")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?!")|'{3}.*?'{3}(?!')|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''', re.DOTALL,
)  # fmt: skip
_PLAIN = re.compile(r"[^,\]}#\n]*")


def place(text: str, path: Path) -> tuple[int, int]:
    """Line and column, from 1, of the key, table or element at ``path``, or of the nearest that stands in the text."""
    found = _Scan(text).found
    depth = next(n for n in range(len(path), -1, -1) if path[:n] in found)
    at = found[path[:depth]]
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    line = bisect_right(starts, at)
    return line, at - starts[line - 1] + 1


class _Scan:
    """``found``: the offset of everything that has a path."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._last: dict[Path, int] = {}  # of arrays of tables: the element that headers mean
        self.found: dict[Path, int] = {(): 0}
        table: Path = ()
        self._space()
        while self._at < len(text):
            if text[self._at] == "[":
                table = self._header()
            elif not self._pair(table):
                return
            self._space()

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _next(self, sign: str) -> bool:
        """Step over a sign, if it comes next."""
        self._space()
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True

    def _key(self) -> tuple[int, list[str]]:
        """Offset and parts of a dotted key. All of them stand where it begins."""
        self._space()
        begin, parts = self._at, []
        while part := _KEY_PART.match(self._text, self._at):
            parts.append(_name(part[1]))
            self._at = part.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return begin, parts

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        path: Path = ()
        at, parts = self._key()
        for n, name in enumerate(parts, 1):
            path = (*path, name)
            self.found.setdefault(path, at)
            if array and n == len(parts):
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                path = (*path, self._last[path])
                if n == len(parts):
                    self.found[path] = at
        self._at += 2 if array else 1
        return path

    def _pair(self, table: Path) -> bool:
        path = table
        at, parts = self._key()
        for name in parts:
            path = (*path, name)
            self.found.setdefault(path, at)
        if path == table or not self._next("="):
            return False
        self._value(path)
        return True

    def _value(self, path: Path) -> None:
        self._space()
        if self._next("["):
            n = 0
            while not self._next("]") and self._at < len(self._text):
                self.found[*path, n] = self._at
                self._value((*path, n))
                self._next(",")
                n += 1
        elif self._next("{"):
            while not self._next("}") and self._pair(path):
                self._next(",")
        else:
            end = _STRING.match(self._text, self._at) or _PLAIN.match(self._text, self._at)
            self._at = end.end() if end else len(self._text)


def _name(part: str) -> str:
    return str(tomllib.loads(f"k = {part}")["k"]) if part[0] in "\"'" else part
