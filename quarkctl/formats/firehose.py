"""Firehose: XML commands to a programmer that runs on the device, and its answers.

Source: the protocol as implemented by linux-msm/qdl (BSD-3-Clause). Each command is one XML document; the device answers
with a byte stream of documents that hold any number of ``<log>`` and one ``<response>``, mixed with raw data where a
response said ``rawmode="true"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, unescape

from quarkctl.errors import ProtocolError

#: USB ids of the boot ROM waiting for a programmer, and of a crashed system offering its memory.
EDL_USB_ID = (0x05C6, 0x9008)
DUMP_USB_IDS = frozenset({(0x05C6, 0x900E), (0x05C6, 0x901D), (0x05C6, 0x90DB)})
#: Longest document that programmers take.
DOCUMENT_MAX = 4096
#: Longest document that is believed to be one.
ANSWER_MAX = 1 << 20
#: A document whose length is a multiple of this gets one newline more: the end of its transfer must be visible, at any
#: speed of the bus.
_PACKET = 512
_QUOTES = {'"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

MEMORY_KINDS = ("ufs", "emmc", "nand", "nvme", "spinor")


def _reference(character: re.Match[str]) -> str:
    """As libxml2 writes it into a document without an encoding."""
    return f"&#x{ord(character[0]):X};"


def _escaped(text: str) -> str:
    return text if text.isalnum() else escape(text, _QUOTES)  # nearly all values are numbers or words


def _unescaped(text: str) -> str:
    return unescape(text, _ENTITIES) if "&" in text else text


def build(tag: str, attributes: Mapping[str, object], *, pad: bool = True) -> bytes:
    """One command. The bytes are a pure function of tag, attributes and their order: digest tables depend on them.

    ``pad`` ends documents of a multiple of 512 bytes visibly; with digest tables a zero-length packet does that instead.
    """
    words = "".join([f' {name}="{_escaped(str(value))}"' for name, value in attributes.items()])
    document = _NOT_ASCII.sub(_reference, f'<?xml version="1.0"?>\n<data><{tag}{words}/></data>\n').encode()
    return document + b"\n" if pad and len(document) % _PACKET == 0 else document


@dataclass(frozen=True)
class Element:
    """``log`` or ``response``, with its attributes."""

    tag: str
    attributes: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return self.attributes.get("value", "").upper() == "ACK"

    @property
    def raw_follows(self) -> bool:
        return self.attributes.get("rawmode", "false").lower() == "true"

    @property
    def text(self) -> str:
        return self.attributes.get("value", "")


_END = b"</data>"
_ELEMENT = re.compile(r"<\s*([A-Za-z][\w.-]*)((?:\s+[\w.:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(/?)>")
_ATTRIBUTE = re.compile(r"([\w.:-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_LOG = re.compile(r"<\s*log\s+value\s*=\s*\"(.*?)\"\s*/\s*>", re.DOTALL)
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#10;": "\n", "&#9;": "\t"}


class Documents:
    """Cuts the device's byte stream at ``</data>``; what follows stays, as raw data or as the next document.

    Holds at most ANSWER_MAX bytes that are no whole document.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> None:
        self._pending += data

    def next(self) -> list[Element] | None:
        """Elements of the next document; None while it is not whole. Raises ProtocolError for an endless one."""
        end = self._pending.find(_END)
        if end < 0:
            if len(self._pending) > ANSWER_MAX:
                raise ProtocolError(f"the device sent {len(self._pending)} bytes without the end of a document")
            return None
        document = bytes(self._pending[: end + len(_END)])
        del self._pending[: end + len(_END)]
        return parse(document)

    def take_raw(self, size_bytes: int) -> bytes:
        """Raw bytes that came in the same read as the document before them. A line end alone is no data."""
        if len(self._pending) <= len("\r\n") and not self._pending.strip(b"\r\n"):
            self._pending.clear()
        taken = bytes(self._pending[:size_bytes])
        del self._pending[:size_bytes]
        return taken


def parse(document: bytes) -> list[Element]:
    """Elements of one document. Tolerates what programmers really send: unescaped text in logs, several roots, junk.

    Markup declarations are never interpreted, so entities cannot grow.
    """
    text = document.decode("utf-8", "replace")
    found: list[Element] = []
    at = 0
    # Logs are taken out first: their text may hold anything, "<" and quotes included.
    for log in _LOG.finditer(text):
        found += _elements(text[at : log.start()])
        found.append(Element("log", {"value": _unescaped(log[1])}))
        at = log.end()
    return found + _elements(text[at:])


def _elements(text: str) -> list[Element]:
    return [
        Element(m[1], {a[1]: _unescaped(a[2] if a[2] is not None else a[3]) for a in _ATTRIBUTE.finditer(m[2])})
        for m in _ELEMENT.finditer(text)
        if m[1] != "data"
    ]


@dataclass(frozen=True)
class StorageInfo:
    """Geometry of one LUN. ``sector_count`` and ``sector_bytes`` are 0 where the device did not say."""

    sector_count: int = 0
    sector_bytes: int = 0
    lun_count: int = 0
    memory: str = ""
    product: str = ""


def parse_storage_info(logs: list[str]) -> StorageInfo | None:
    """The JSON text that ``getstorageinfo`` puts into a log line; None when there is none."""
    for line in logs:
        start = line.find("{")
        if start < 0 or "storage_info" not in line:
            continue
        try:
            info = json.loads(line[start:])["storage_info"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(info, Mapping):
            return StorageInfo(
                _number(info.get("total_blocks")), _number(info.get("block_size")), _number(info.get("num_physical")),
                str(info.get("mem_type", "")).lower(), str(info.get("prod_name", "")).strip(),
            )  # fmt: skip
    return None


def _number(value: Any) -> int:
    """Numbers come as numbers or as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(value, 0)
    try:
        return max(int(str(value), 0), 0)
    except ValueError:
        return 0


_BYTE = re.compile(r"\b0x([0-9a-fA-F]{1,2})\b")


def parse_memory(logs: list[str]) -> bytes:
    """Bytes that ``peek`` answers in log lines that hold nothing but them: ``0x12 0x34``."""
    lines = (line.removeprefix("INFO: ") for line in logs)
    return bytes(int(m[1], 16) for line in lines if not _BYTE.sub("", line).strip(" ,") for m in _BYTE.finditer(line))


_DIGEST = re.compile(r"\b([0-9a-fA-F]{64})\b")


def parse_digest(logs: list[str], response: Mapping[str, str]) -> bytes | None:
    """The SHA-256 that ``getsha256digest`` answers, in a log line or as an attribute; None when there is none."""
    for text in (response.get("Digest", ""), response.get("SHA256", ""), *logs):
        match = _DIGEST.search(text)
        if match:
            return bytes.fromhex(match[1])
    return None
