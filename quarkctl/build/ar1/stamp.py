"""Whether a build has anything to do: looked up without reading an input and without importing what builds.

The record of a build (``ar1.json``) holds the signature of every input, output and tool. While all of them look
untouched, the same build would give the same bytes. Outputs are named as seen from the folder that holds them.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from quarkctl import __version__
from quarkctl.build.ar1.untouched import folder_signature, intact
from quarkctl.build.programs import find

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "quarkctl.ar1-build/2"
RECORD = "ar1.json"
_PROGRAMS = ("mke2fs", "debugfs", "mkfs.erofs", "aarch64-linux-gnu-gcc")


def asked(spec: str | Path, version: str, key: str) -> dict[str, str]:
    """What was asked for, as the record keeps it."""
    return {
        "spec": os.path.abspath(spec), "version": version, "key": key,
        "epoch": os.environ.get("SOURCE_DATE_EPOCH", "0"),
    }  # fmt: skip


@cache
def tool_id() -> str:
    """Changes when quarkctl or a program that it runs is another one."""
    h = hashlib.sha256(__version__.encode())
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for folder in ("build", "build/ar1", "build/sign", "formats"):
        for name in sorted(os.listdir(os.path.join(package, folder))):
            if name.endswith(".py"):
                with open(os.path.join(package, folder, name), "rb") as source:
                    h.update(source.read())
    for program in _PROGRAMS:
        found = find(program)
        st = os.stat(found) if found else None
        h.update(f"{program} {st.st_size if st else 0} {st.st_mtime_ns if st else 0}\n".encode())
    return h.hexdigest()


def build_id(request: dict[str, str]) -> str:
    """Names what was asked for: the request, the text of the specification, and the tool."""
    return digest([request, _spec_digest(request), tool_id()])[:32]


def digest(what: object) -> str:
    """SHA-256 of what JSON can tell."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _spec_digest(request: dict[str, str]) -> str:
    try:
        with open(request["spec"], "rb") as spec:
            return hashlib.sha256(spec.read()).hexdigest()
    except OSError:
        return ""


def load(folder: str | Path) -> dict[str, Any]:
    """The record of a build; empty when there is none, it is damaged, or somebody else wrote into it."""
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or raw.pop("seal", "") != digest(raw):
        return {}
    return raw


def save(folder: str | Path, record: dict[str, Any], indent: int | None = 1) -> None:
    """Write a record, whole or not at all; without an indent in a tenth of the time."""
    path = os.path.join(folder, RECORD)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(json.dumps({**record, "seal": digest(record)}, indent=indent, sort_keys=True) + "\n")
    os.replace(f"{path}.new", path)


def unchanged(record: dict[str, Any], request: dict[str, str], folder: str | Path) -> bool:
    """Whether everything that the record names is as it was, with outputs in ``folder``."""
    try:
        cache = record["cache"]
        if cache["request"] != request or cache["tool"] != tool_id() or cache["spec"] != _spec_digest(request):
            return False
        return (
            all(intact(p, sig) for p, (sig, _) in cache["inputs"].items())
            and all(intact(os.path.join(folder, p), sig) for p, sig in cache["outputs"].items())
            and all(folder_signature(p) == digest for p, digest in cache["folders"].items())
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return False


def told(record: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """What a build of nothing tells: the fields of `quarkctl.build.ar1.request.Built`."""
    names = ("product", "version", "files", "partitions", "signatures", "kernel", "development_key", "kept")
    return {**{n: record[n] for n in names}, "out": str(out), "made": []}
