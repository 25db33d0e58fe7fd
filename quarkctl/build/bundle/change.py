"""Bundles that exist: verify, sign, take files out, compare."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from quarkctl import files
from quarkctl.boards import trust
from quarkctl.build.bundle import seal, write
from quarkctl.build.bundle.seal import Seal
from quarkctl.build.sign import Signer
from quarkctl.errors import InputWrong
from quarkctl.events import Event, Level, Progress, silent
from quarkctl.formats import archive, bundle
from quarkctl.formats.bundle import Manifest, Member
from quarkctl.formats.bundle_reader import Head, Reader
from quarkctl.formats.trust import Trust, TrustedKey, Untrusted


@dataclass
class Opened:
    """A bundle whose head was read. ``trusted`` is None where nobody that is trusted has signed; ``why`` then says so."""

    path: Path
    size_bytes: int
    head: Head
    manifest: Manifest
    trusted: Trust | None
    signed: tuple[TrustedKey, ...]
    why: str
    reader: Reader


@contextlib.contextmanager
def opened(path: Path, *, trusted_only: bool = True) -> Iterator[Opened]:
    """Read and check everything in front of the images. Raises Untrusted (unless told otherwise), InputWrong."""
    try:
        file: IO[bytes] = path.open("rb", buffering=0)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            reader = Reader(_reading(path, file))
            head = reader.head()
            why = ""
            try:
                manifest, trusted, signed = trust.open_bundle(head)
            except Untrusted as error:
                if trusted_only:
                    raise
                manifest, trusted, signed, why = bundle.parse(head.envelope.payload), None, (), error.message
            reader.begin(manifest)
            yield Opened(path, path.stat().st_size, head, manifest, trusted, signed, why, reader)
        except InputWrong as error:
            if not error.message.startswith(str(path)):
                error.message = f"{path}: {error.message}"
            raise


def _reading(path: Path, file: IO[bytes]) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        try:
            return file.read(size)
        except OSError as error:
            raise InputWrong(f"cannot read {path}: {error.strerror}") from error

    return read


def verify(one: Opened, progress: Progress = silent) -> None:
    """Read all that follows and compare it with what was signed. Raises InputWrong."""
    progress(Event(one.path.name, "verify", Level.START, "", 0, one.size_bytes))
    for member in one.manifest.members:
        for _ in one.reader.chunks(member):
            progress(Event(one.path.name, "verify", Level.PROGRESS, "", one.reader.done_bytes, one.size_bytes))
    one.reader.finish()
    progress(Event(one.path.name, "verify", Level.DONE, f"{one.size_bytes / 1e6:.1f} MB"))


def sign(path: Path, out: Path, signers: Sequence[Signer], progress: Progress = silent) -> Manifest:
    """Write the bundle again with more signatures. Everything is verified on the way, except that nobody trusted need
    have signed before. Raises InputWrong, SignaturesWanted; then there is no output."""
    with opened(path, trusted_only=False) as one, write.output(out) as output:
        for signer in signers:
            if trust.is_production(one.manifest.product):
                seal.refuse_development(signer, one.manifest.product)
        what = f"{one.manifest.product}-{one.manifest.version}"
        sealed = Seal(one.head.envelope, one.head.provenance).signed(signers, what)
        for signer in signers:
            signer.finish()
        front, entries = write.head(sealed.parts())
        output.put(0, front)
        at = len(front)
        progress(Event(path.name, "copy", Level.START, "", 0, one.size_bytes))
        for member in one.manifest.members:
            header = archive.local_header(member.entry)
            output.put(at, header)
            at += len(header)
            for chunk in one.reader.chunks(member):
                output.put(at, chunk)
                at += len(chunk)
                progress(Event(path.name, "copy", Level.PROGRESS, "", at, one.size_bytes))
        one.reader.finish()
        tail = archive.directory([*entries, *(m.entry for m in one.manifest.members)])
        output.put(at, tail)
        output.end(at + len(tail))
        progress(Event(path.name, "copy", Level.DONE))
        return one.manifest


def extract(one: Opened, folder: Path, names: Sequence[str] = (), progress: Progress = silent) -> list[Path]:
    """Write members (all, or those named) into a folder, each only when it is whole and verified.

    Raises InputWrong, also for a name that is not there and for a file that exists already.
    """
    sealed = dict(Seal(one.head.envelope, one.head.provenance).parts())
    listed = {m.name for m in one.manifest.members}
    wanted = set(names) or {*sealed, *listed}
    unknown = wanted - listed - set(sealed)
    if unknown:
        raise InputWrong(f"there is no member {sorted(unknown)[0]}", hint="`quarkctl bundle show` lists them")
    for name in sorted(wanted):
        if (folder / name).exists():
            raise InputWrong(f"{folder / name} exists already", hint="give an empty folder: --out DIR")
    written = []
    for name, data in sealed.items():
        if name in wanted:
            with files.replacing(folder / name, durable=False) as temporary:
                temporary.write_bytes(data)
            written.append(folder / name)
    progress(Event(one.path.name, "extract", Level.START, "", 0, one.size_bytes))
    for member in one.manifest.members:
        if member.name not in wanted:
            one.reader.skip(member)
            continue
        with files.replacing(folder / member.name, durable=False) as temporary, temporary.open("wb") as file:
            for chunk in one.reader.chunks(member):
                file.write(chunk)
                progress(Event(one.path.name, "extract", Level.PROGRESS, "", one.reader.done_bytes, one.size_bytes))
        written.append(folder / member.name)
    one.reader.finish()
    progress(Event(one.path.name, "extract", Level.DONE, f"{len(written)} files"))
    return written


def differences(old: Manifest, new: Manifest) -> list[tuple[str, str, str]]:
    """What changed, as (what, before, after); empty texts for what is not there."""
    rows = [(f, str(getattr(old, f)), str(getattr(new, f))) for f in ("product", "version", "tool_version")]
    rows.append(("hardware", ", ".join(old.hardware) or "all", ", ".join(new.hardware) or "all"))
    for chip in sorted({*old.chips, *new.chips}):
        a, b = old.chips.get(chip), new.chips.get(chip)
        rows.append((f"{chip} version", str(a.version) if a else "", str(b.version) if b else ""))
        rows.append((f"{chip} rollback index", str(a.rollback_index) if a else "", str(b.rollback_index) if b else ""))
        for other in sorted({*(a.needs if a else ()), *(b.needs if b else ())}):
            had, has = (str(c.needs[other]) if c and other in c.needs else "" for c in (a, b))
            rows.append((f"{chip} needs {other}", had, has))
    before = {m.name: m for m in old.members}
    after = {m.name: m for m in new.members}
    for name in dict.fromkeys([*before, *after]):
        rows.append((name, _brief(before.get(name)), _brief(after.get(name))))
    return [row for row in rows if row[1] != row[2]]


def _brief(member: Member | None) -> str:
    return f"{member.size_bytes} bytes {member.sha256.hex()[:16]}" if member else ""
