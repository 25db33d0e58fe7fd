"""Owners and modes of files, from a manifest and never from this computer.

A manifest has one rule a line, the last that fits counts:  MODE UID GID PATTERN  (octal, numbers, shell pattern of the path
without a leading slash; `*` crosses slashes). A path that is not there is a mistake, a pattern that fits nothing is told.
Without a rule a folder is 0755, a file 0755 if its owner may run it, else 0644, and all belong to 0:0.
``node PATH c|b MAJOR MINOR MODE UID GID`` makes a device node in a ramdisk.
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quarkctl.build.ar1.untouched import walk
from quarkctl.errors import InputWrong
from quarkctl.formats.cpio import Entry


@dataclass(frozen=True)
class Owned:
    """A file of a folder with the mode (type and permissions) and owner that it gets in the image."""

    name: str
    path: Path
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Rule:
    """What files of a pattern get. ``place``: file, line and column of the pattern."""

    pattern: str
    mode: int
    uid: int
    gid: int
    place: str = ""

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


@dataclass(frozen=True)
class Manifest:
    rules: tuple[Rule, ...] = ()
    nodes: tuple[Entry, ...] = ()


def load(path: Path | None, *, ramdisk: bool = False) -> Manifest:
    """``ramdisk``: device nodes may stand in it. Raises InputWrong with the line that makes no sense."""
    if path is None:
        return Manifest()
    rules, nodes = [], []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputWrong(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "node" and not ramdisk:
            raise InputWrong(
                f"{path}:{number}:1: device nodes are made in ramdisks, not in file systems",
                hint="a running system has them in /dev, a devtmpfs",
            )
        try:
            if words[0] == "node":
                _, name, kind, major, minor, mode, uid, gid = words
                bits = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind] | _mode(mode)
                nodes.append(Entry(name.strip("/"), bits, b"", int(uid), int(gid), (int(major), int(minor))))
            else:
                mode, uid, gid, pattern = words
                place = f"{path}:{number}:{line.partition('#')[0].rindex(pattern) + 1}"
                rules.append(Rule(pattern.lstrip("/"), _mode(mode), _id(uid), _id(gid), place))
        except (ValueError, KeyError) as error:
            raise InputWrong(
                f"{path}:{number}:1: {line.strip()!r} is no rule",
                hint="node PATH c|b MAJOR MINOR MODE UID GID, such as: node dev/console c 5 1 0600 0 0"
                if words[0] == "node"
                else "MODE UID GID PATTERN, such as: 0755 0 2000 bin/*",
            ) from error
    return Manifest(tuple(rules), tuple(nodes))


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o7777:
        raise ValueError(text)
    return mode


def _id(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**32 - 1:
        raise ValueError(text)
    return number


def owned(folder: Path, manifest: Manifest) -> list[Owned]:
    """All files of a folder with their modes and owners. Raises InputWrong for what an image cannot hold."""
    out = []
    for name, entry in walk(folder):
        st = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(st.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise InputWrong(
                f"{entry.path} is neither file, folder nor link", hint="device nodes of a ramdisk stand in its manifest"
            )
        runnable = kind == stat.S_IFDIR or st.st_mode & 0o100
        mode = 0o777 if kind == stat.S_IFLNK else 0o755 if runnable else 0o644
        uid = gid = 0
        for rule in manifest.rules:
            if rule.fits(name):
                mode, uid, gid = (mode if kind == stat.S_IFLNK else rule.mode), rule.uid, rule.gid
        out.append(Owned(name, Path(entry.path), kind | mode, uid, gid))
    return out


def check(folder: Path, files: Sequence[Owned], manifest: Manifest) -> list[str]:
    """Raises InputWrong for a rule for one path that is not there; returns what is to be said of patterns without a file."""
    names = [f.name for f in files]
    notes = []
    for rule in manifest.rules:
        if any(map(rule.fits, names)):
            continue
        told = f"{rule.place}: {rule.pattern!r} fits nothing in {folder}"
        if not set(rule.pattern) & set("*?["):
            near = difflib.get_close_matches(rule.pattern, names, 1)
            raise InputWrong(
                told, hint=f"{near[0]}?" if near else "take the rule out, or write a pattern (*) if it may be missing"
            )
        notes.append(told)
    return notes
