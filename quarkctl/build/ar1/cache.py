"""Builds made before, so that going back to one of them costs no more than an unchanged build.

Each is a folder of hard links below ``.work/cache`` of the output folder, with the record of its build: nothing is copied,
and a file that builds share is there once. A link changes the times of its file, so whoever links first makes sure that
all that is kept is as it was written (`Cache`), and afterwards signs it anew (`Cache.sign`).
Asked before anything heavy is imported, so it imports little.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from quarkctl.build.alone import only_one
from quarkctl.build.ar1 import stamp
from quarkctl.build.ar1.untouched import intact, signature
from quarkctl.errors import InputWrong

WORK = ".work"
BUILDS_MAX = 8
#: Beside what the newest build holds: a link to that costs nothing.
BYTES_MAX = 8 << 30
_NOTHING: dict[str, Any] = {"cache": {"outputs": {}}}


def restore(out: str, asked: dict[str, str]) -> dict[str, Any]:
    """Put the build that ``asked`` names back in its place. Returns its record; empty when it is not there, not whole,
    or made of inputs that changed since. Raises HostUnfit."""
    wanted = stamp.build_id(asked)
    if not any(name.startswith(wanted) for name in _listed(os.path.join(out, WORK, "cache"))):
        return {}
    with only_one(out):
        cache = Cache(out)
        for name, record in cache.builds.items():
            if name.startswith(wanted) and stamp.unchanged(record, asked, cache.folder(name)):
                break
        else:
            return {}
        staged = os.path.join(out, WORK, "new")
        _remove(staged)
        for file in own(record):
            if not _same(os.path.join(cache.folder(name), file), os.path.join(out, file)):
                link(os.path.join(cache.folder(name), file), os.path.join(staged, file))
        publish(out, record)
        return cache.sign(name, record)


class Cache:
    """What is kept. ``builds``: {id: record}, those that are as they were written. ``damaged``: ids of the others."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.builds: dict[str, dict[str, Any]] = {}
        self.damaged: list[str] = []
        for name in _listed(os.path.join(out, WORK, "cache")):
            record = stamp.load(self.folder(name))
            if record and all(intact(os.path.join(self.folder(name), f), sig) for f, sig in own(record).items()):
                self.builds[name] = record
            else:
                self.damaged.append(name)

    def folder(self, name: str) -> str:
        return os.path.join(self.out, WORK, "cache", name)

    def clean(self) -> None:
        """Remove what is damaged."""
        for name in self.damaged:
            _remove(self.folder(name))

    def keep(self, record: dict[str, Any]) -> str:
        """Keep the build that ``out`` holds, where the file system has links. Returns its id."""
        made = [step["key"] for step in record["cache"]["steps"].values()]
        name = f"{stamp.build_id(record['cache']['request'])}-{stamp.digest(made)[:16]}"
        folder, new = self.folder(name), self.folder(f".{name}")
        _remove(new)
        try:
            for file in own(record):
                link(os.path.join(self.out, file), os.path.join(new, file))
        except OSError:
            _remove(new)
            return name
        _remove(folder)
        os.rename(new, folder)
        self.builds[name] = record
        return name

    def sign(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """After links were made or removed: forget the oldest, and write new signatures into every record and into
        ``record`` of the build ``name``, which ``out`` holds. Returns that."""
        if name in self.builds:
            self.builds[name]["used"] = 1 + max(r.get("used", 0) for r in self.builds.values())
        known = {n: dict(own(r)) for n, r in self.builds.items()}
        for other in [n for n in self.builds if not _sign(self.builds[n], self.folder(n))]:
            self._forget(other)
        self._trim(name)
        for other, r in self.builds.items():  # what was forgotten had links too
            _sign(r, self.folder(other))
            if other == name or own(r) != known.get(other):
                stamp.save(self.folder(other), r, indent=None)
        kept = {
            "builds": len(self.builds),
            "bytes": self._bytes(name),
            "builds_max": BUILDS_MAX,
            "bytes_max": BYTES_MAX,
        }
        _sign(record, self.out)
        record = {**record, "kept": kept}
        stamp.save(self.out, record)
        with suppress(OSError):
            os.unlink(os.path.join(self.out, WORK, stamp.RECORD))
        return record

    def _forget(self, name: str) -> None:
        _remove(self.folder(name))
        del self.builds[name]

    def _trim(self, newest: str) -> None:
        oldest = sorted(self.builds, key=lambda n: (n == newest, self.builds[n].get("used", 0)))
        while len(oldest) > 1 and (len(oldest) > BUILDS_MAX or self._bytes(newest) > BYTES_MAX):
            self._forget(oldest.pop(0))

    def _bytes(self, newest: str) -> int:
        """What older builds hold on the disk that the newest does not."""
        used: dict[int, int] = {}
        shared = set()
        for name, record in self.builds.items():
            for file in own(record):
                st = os.stat(os.path.join(self.folder(name), file))
                used[st.st_ino] = st.st_blocks * 512
                if name == newest:
                    shared.add(st.st_ino)
        return sum(size for inode, size in used.items() if inode not in shared)


def own(record: dict[str, Any]) -> dict[str, list[int]]:
    """The files of a build with their signatures, without inputs that it uses where they are."""
    return {name: sig for name, sig in record["cache"]["outputs"].items() if not os.path.isabs(name)}


def publish(out: str, record: dict[str, Any]) -> None:
    """Put what is staged for ``record`` into its place, and take away what only builds before had. In the meantime there is
    no record, so nothing counts as built; a note in ``.work`` tells the next build what lies about if this one is killed.
    """
    work = os.path.join(out, WORK)
    before = {n: sig for folder in (work, out) for n, sig in own(stamp.load(folder) or _NOTHING).items()}
    os.makedirs(work, exist_ok=True)
    stamp.save(work, {"schema": stamp.SCHEMA, "cache": {"outputs": {**before, **own(record)}}})
    if os.path.exists(os.path.join(out, stamp.RECORD)):
        os.unlink(os.path.join(out, stamp.RECORD))
    for name, sig in before.items():
        if name not in own(record) and _like(os.path.join(out, name), sig):
            os.unlink(os.path.join(out, name))
    staged = os.path.join(work, "new")
    for name in own(record):
        if os.path.lexists(os.path.join(staged, name)):
            os.makedirs(os.path.dirname(os.path.join(out, name)), exist_ok=True)
            os.replace(os.path.join(staged, name), os.path.join(out, name))
    _remove(staged)


def _remove(folder: str) -> None:
    """A folder of ours with all that is in it. (shutil takes longer to import than this to run.)"""
    for path, folders, names in os.walk(folder, topdown=False):
        for name in names:
            with suppress(OSError):
                os.unlink(os.path.join(path, name))
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(path, name))
    with suppress(OSError):
        os.rmdir(folder)


def link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.link(source, target)


def _sign(record: dict[str, Any], folder: str) -> bool:
    """Take the signatures anew. False when more changed than what a link changes."""
    cache = record["cache"]
    for name, old in own(record).items():
        if not _like(os.path.join(folder, name), old):
            return False
        cache["outputs"][name] = signature(os.path.join(folder, name))
    for step in cache["steps"].values():
        step["files"] = [[f, cache["outputs"].get(f, sig)] for f, sig in step["files"]]
    return True


def _like(path: str, old: list[int]) -> bool:
    """Whether a file is as it was, but for the time that links and renaming change."""
    try:
        now = signature(path)
    except InputWrong:
        return False
    return (now[0], now[1], now[3]) == (old[0], old[1], old[3])


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
