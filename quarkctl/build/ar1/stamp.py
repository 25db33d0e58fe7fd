"""Whether a build has anything to do: looked up without reading an input and without importing what builds.

The record of the last build (``ar1.json``) holds the signature of every input, output and tool. While all of them look
untouched, the same build would give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from quarkctl import __version__
from quarkctl.build import tools
from quarkctl.build.ar1.untouched import folder_signature, intact

SCHEMA = "quarkctl.ar1-build/1"
RECORD = "ar1.json"
_PROGRAMS = ("mke2fs", "debugfs", "mkfs.erofs", "aarch64-linux-gnu-gcc")


def tool_id() -> str:
    """Changes when quarkctl or a program that it runs is another one."""
    h = hashlib.sha256(__version__.encode())
    package = Path(__file__).resolve().parents[2]
    for folder in ("build", "build/ar1", "build/sign", "formats"):
        for path in sorted((package / folder).glob("*.py")):
            h.update(path.read_bytes())
    for program in _PROGRAMS:
        found = shutil.which(program, path=tools.search_path())
        st = Path(found).stat() if found else None
        h.update(f"{program} {st.st_size if st else 0} {st.st_mtime_ns if st else 0}\n".encode())
    return h.hexdigest()


def load(out: Path) -> dict[str, Any]:
    """The record of the last build; empty when there is none or it is damaged."""
    try:
        raw = json.loads((out / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) and raw.get("schema") == SCHEMA else {}


def unchanged(record: dict[str, Any], request: dict[str, str], spec: Path) -> bool:
    """Whether everything that the record names is as it was."""
    try:
        cache = record["cache"]
        return (
            cache["request"] == request
            and cache["tool"] == tool_id()
            and cache["spec"] == hashlib.sha256(spec.read_bytes()).hexdigest()
            and all(intact(Path(p), sig) for p, (sig, _) in cache["inputs"].items())
            and all(intact(Path(p), sig) for p, sig in cache["outputs"].items())
            and all(folder_signature(Path(p)) == digest for p, digest in cache["folders"].items())
        )
    except (KeyError, TypeError, ValueError, OSError):
        return False
