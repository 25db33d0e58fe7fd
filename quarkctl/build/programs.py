"""Where programs are. Asked before anything else, so it imports nothing that takes long."""

from __future__ import annotations

import os


def search_path() -> str:
    """PATH, and the folders of file system tools, which are not in everybody's."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find(program: str) -> str:
    """The file of a program; empty when it is not installed."""
    for folder in search_path().split(os.pathsep):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""
