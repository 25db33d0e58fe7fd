"""Whether files look untouched: by size, times and identity, without reading one. Asked first, so it imports little."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quarkctl.errors import InputWrong

if TYPE_CHECKING:
    from pathlib import Path

Signature = list[int]


def signature(path: str | Path) -> Signature:
    """Size, times and identity of a file: as long as they stay, its content does. Raises InputWrong."""
    try:
        st = os.stat(path)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    return [st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino]


def intact(path: str | Path, known: Signature) -> bool:
    try:
        return signature(path) == known
    except InputWrong:
        return False


def walk(folder: str | Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry below a folder, folders before what is in them, in the order of their names."""
    todo = [("", str(folder))]
    while todo:
        prefix, path = todo.pop()
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda e: e.name)
        for e in entries:
            yield prefix + e.name, e
        todo += [(f"{prefix}{e.name}/", e.path) for e in reversed(entries) if e.is_dir(follow_symlinks=False)]


def folder_signature(folder: str | Path) -> str:
    """One digest over names, kinds, sizes and times of everything below a folder; no file is read."""
    h = hashlib.sha256()
    for name, entry in walk(folder):
        st = entry.stat(follow_symlinks=False)
        h.update(f"{name}\0{st.st_mode}\0{st.st_size}\0{st.st_mtime_ns}\0{st.st_ctime_ns}\0{st.st_ino}\n".encode())
    return h.hexdigest()
