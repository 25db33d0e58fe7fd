"""What a build depends on, by content. A file that looks untouched is not read again."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quarkctl.build import processors
from quarkctl.build.ar1.manifest import Owned
from quarkctl.build.ar1.untouched import Signature, folder_signature, signature
from quarkctl.errors import InputWrong
from quarkctl.files import File


class Inputs:
    """Content ids of files, kept between builds with the signatures of the files."""

    def __init__(self, known: dict[str, tuple[Signature, str]]) -> None:
        self._known = known
        self.used: dict[str, tuple[Signature, str]] = {}
        self.folders: dict[str, str] = {}
        #: What is odd about them and no mistake.
        self.notes: list[str] = []

    def file(self, path: Path) -> str:
        """SHA-256 of a file, read only if it changed."""
        return self.files([path])[0]

    def files(self, paths: Iterable[Path]) -> list[str]:
        wanted = [(p, str(p.absolute()), signature(p)) for p in paths]
        missing = [(p, key, sig) for p, key, sig in wanted if not self._has(key, sig)]
        with ThreadPoolExecutor(processors.count()) as pool:
            for (_, key, sig), digest in zip(missing, pool.map(sha256_of, (p for p, _, _ in missing)), strict=True):
                self._known[key] = (sig, digest)
        out = []
        for _, key, sig in wanted:
            self.used[key] = (sig, self._known[key][1])
            out.append(self._known[key][1])
        return out

    def _has(self, key: str, sig: Signature) -> bool:
        return key in self._known and self._known[key][0] == sig and ":" not in self._known[key][1]

    def image(self, path: Path, read_as: str) -> str:
        """Id of an image that is read only to be built, as `learn` got it; empty when it looks changed or new."""
        key, sig = str(path.absolute()), signature(path)
        for known in (self.used, self._known):
            old, ids = known.get(key, (None, ""))
            found = next((i for i in ids.split() if old == sig and i.startswith(read_as)), "")
            if found:
                self._use(key, sig, found)
                return found
        return ""

    def learn(self, path: Path, sig: Signature, name: str) -> None:
        """Remember what building an image told of its file. Raises InputWrong when it changed meanwhile."""
        if signature(path) != sig:
            raise InputWrong(f"{path} was changed while it was read", hint="build again")
        self._use(str(path.absolute()), sig, name)

    def _use(self, key: str, sig: Signature, name: str) -> None:
        old, ids = self.used.get(key, (sig, ""))
        self.used[key] = (sig, " ".join(sorted({name, *(ids.split() if old == sig else ())})))

    def folder(self, folder: Path, files: list[Owned]) -> str:
        """One digest over names, modes, owners and contents of what goes into an image."""
        self.folders[str(folder.absolute())] = folder_signature(folder)
        regular = [f.path for f in files if stat.S_ISREG(f.mode)]
        digests = dict(zip(regular, self.files(regular), strict=True))
        h = hashlib.sha256()
        for f in files:
            content = digests.get(f.path, "")
            if stat.S_ISLNK(f.mode):
                content = str(f.path.readlink())
            h.update(f"{f.name}\0{f.mode}\0{f.uid}\0{f.gid}\0{content}\n".encode("utf-8", "surrogateescape"))
        return h.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in pieces."""
    h = hashlib.sha256()
    with File(path) as data:
        for at in range(0, len(data), 1 << 20):
            h.update(data[at : at + (1 << 20)])
    return h.hexdigest()
