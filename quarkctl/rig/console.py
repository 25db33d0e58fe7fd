"""The text on a line that telemetry and SMP share. Pure.

Frames have a NUL at both ends, so what stands between two NULs is either a frame or text (`quarkctl.formats.frame`).
"""

from __future__ import annotations

import re

from quarkctl.formats.frame import RUN_MAX, SMP_FIRST, SMP_NEXT

_SMP = (SMP_FIRST, SMP_NEXT)
_CONTROLS = frozenset("\t\r\n\b\a\x1b")
#: Sequences of a terminal (ECMA-48): a device may colour its words, but not command the terminal of who reads them.
_SEQUENCES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]*[0-~])")


class Text:
    """Bytes in, what a person may read out, as soon as it is sure to be text."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> str:
        """Everything up to the last end of a line."""
        *ended, self._rest = (self._rest + data).split(b"\0")
        out = []
        for part in ended:
            lines, rest = _lines(part)
            out += [lines, _shown(rest)]
        lines, self._rest = _lines(self._rest)
        if len(self._rest) > RUN_MAX:
            self._rest = b""
        return "".join([*out, lines])

    def idle(self) -> str:
        """The line is quiet: a prompt has no end of a line."""
        if _readable(self._rest) is None:
            return ""
        out, self._rest = _shown(self._rest), b""
        return out


def _lines(part: bytes) -> tuple[str, bytes]:
    """Whole lines of text, without those of commands; and what is left from the first byte on that may be of a frame."""
    out = []
    while (end := part.find(b"\n") + 1) and (part[:2] in _SMP or _readable(part[:end]) is not None):
        if part[:2] not in _SMP:
            out.append(_shown(part[:end]))
        part = part[end:]
    return "".join(out), part


def _readable(part: bytes) -> str | None:
    try:
        text = part.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in _CONTROLS for c in text) else None


def _shown(part: bytes) -> str:
    text = _SEQUENCES.sub("", _readable(part) or "")
    return text.replace("\x1b", "").replace("\a", "").replace("\r\n", "\n")
