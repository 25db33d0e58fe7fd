"""Whether a build has anything to do: looked up without reading an input and without importing what builds.

The record of the last build (``ar1.json``) holds the signature of every input, output and tool. While all of them look
untouched, the same build would give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from quarkctl import __version__
from quarkctl.build.ar1.untouched import folder_signature, intact
from quarkctl.build.programs import find

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "quarkctl.ar1-build/1"
RECORD = "ar1.json"
_PROGRAMS = ("mke2fs", "debugfs", "mkfs.erofs", "aarch64-linux-gnu-gcc")


def asked(spec: str | Path, version: str, key: str) -> dict[str, str]:
    """What was asked for, as the record keeps it."""
    return {
        "spec": os.path.abspath(spec), "version": version, "key": key,
        "epoch": os.environ.get("SOURCE_DATE_EPOCH", "0"),
    }  # fmt: skip


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


def load(out: str | Path) -> dict[str, Any]:
    """The record of the last build; empty when there is none or it is damaged."""
    try:
        with open(os.path.join(out, RECORD), encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) and raw.get("schema") == SCHEMA else {}


def unchanged(record: dict[str, Any], request: dict[str, str]) -> bool:
    """Whether everything that the record names is as it was."""
    try:
        cache = record["cache"]
        if cache["request"] != request or cache["tool"] != tool_id():
            return False
        with open(request["spec"], "rb") as spec:
            if cache["spec"] != hashlib.sha256(spec.read()).hexdigest():
                return False
        return (
            all(intact(p, sig) for p, (sig, _) in cache["inputs"].items())
            and all(intact(p, sig) for p, sig in cache["outputs"].items())
            and all(folder_signature(p) == digest for p, digest in cache["folders"].items())
        )
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return False


def told(record: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """What a build of nothing tells: the fields of `quarkctl.build.ar1.request.Built`."""
    names = ("product", "version", "files", "partitions", "signatures", "kernel", "development_key")
    return {**{n: record[n] for n in names}, "out": str(out), "made": []}
