"""Where virtual glasses live on disk: one private folder each, with everything in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from quarkctl import state
from quarkctl.errors import DeviceMissing, HostUnfit, UsageWrong

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,15}\Z")
#: A unix socket's path has at most 107 bytes on Linux.
_SOCKET_PATH_MAX = 107
#: Of `Instance`, of the supervisor's commands and its status, and of the AR1's: counts up whenever one of them changes.
#: Virtual glasses live as long as nobody stops them, and quarkctl may be another version by then.
CONTRACT = 2


def root() -> Path:
    """Parent of all instances."""
    return state.root() / "sim"


def folder_of(name: str) -> Path:
    if not _NAME.match(name):
        raise UsageWrong(f"{name!r} cannot be a name", hint="up to 16 lower case letters, digits and dashes")
    path = root() / name
    if len(str(path / "ar1" / "control.sock")) > _SOCKET_PATH_MAX:
        raise HostUnfit(f"{path} is too long for a socket", hint="set QUARKCTL_STATE_DIR to a shorter folder")
    return path


@dataclass(frozen=True)
class Instance:
    """What is known of running virtual glasses.

    ``port`` is empty while the cable is unplugged; ``qemu_pid`` is 0 while power is cut."""

    name: str
    board: str
    serial: str
    pid: int
    qemu_pid: int
    port: str
    image: str

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


class OtherVersion(DeviceMissing):
    """They run, but what started them speaks differently."""


def publish(folder: Path, instance: Instance) -> None:
    """Write the state whole or not at all."""
    temporary = folder / "state.json.new"
    temporary.write_text(json.dumps({"contract": CONTRACT, **instance.as_dict()}), "utf-8")
    temporary.replace(folder / "state.json")


def create(folder: Path) -> IO[str]:
    """Make the folder of a new instance, locked from the first moment: nobody may take it for the rest of a dead one.

    Returns the lock, which the supervisor inherits. Raises FileExistsError when the name is taken.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _gate(folder.parent, fcntl.LOCK_EX):
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        held = lock(fresh)
        if held is None:  # nobody else can have it
            raise HostUnfit(f"cannot lock {fresh}: does this file system know flock?")
        try:
            fresh.rename(folder)
        except OSError as error:
            clear(fresh)
            held.close()
            raise FileExistsError(folder) from error
        return held


@contextlib.contextmanager
def _gate(parent: Path, how: int) -> Iterator[bool]:
    """Between making a folder and locking it nobody may judge it. Yields whether the gate is ours."""
    with (parent / ".gate").open("a") as file:
        try:
            fcntl.flock(file, how)
        except OSError:
            yield False
        else:
            yield True


def lock(folder: Path) -> IO[str] | None:
    """The supervisor's lock: free again as soon as it is gone, however it went. None when it is taken, or when there is
    nothing to lock any more."""
    try:
        file = (folder / "lock").open("a")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def load(name: str) -> Instance:
    """A running instance. Raises DeviceMissing, OtherVersion."""
    folder = folder_of(name)
    missing = DeviceMissing(
        f"no virtual glasses called {name} are running", hint=f"start them: quarkctl sim start {name}"
    )
    if not folder.is_dir():
        raise missing
    held = lock(folder)
    if held:  # nobody holds it: the supervisor died; clear up after it
        with held:
            clear(folder)
        raise missing
    try:
        said = dict(json.loads((folder / "state.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        raise missing from None
    if said.pop("contract", 1) == CONTRACT:
        with contextlib.suppress(TypeError):
            return Instance(**said)
    raise OtherVersion(
        f"virtual glasses {name} were started by another version of quarkctl", hint=f"quarkctl sim stop {name}"
    )


def running() -> list[Instance]:
    """All running instances by name, but for those of other versions; leftovers of dead ones are removed on the way."""
    return [found for _, found in everything() if found]


def everything() -> list[tuple[str, Instance | None]]:
    """All that run, by name: None for those of another version. Leftovers of dead ones are removed on the way."""
    out: list[tuple[str, Instance | None]] = []
    if not root().is_dir():
        return out
    with _gate(root(), fcntl.LOCK_EX | fcntl.LOCK_NB) as ours:
        for entry in root().glob(".new-*") if ours else ():
            held = lock(entry)
            if held:  # its maker died before it had a name
                held.close()
                clear(entry)
    for entry in sorted(root().iterdir()):
        try:
            out.append((entry.name, load(entry.name)))
        except OtherVersion:
            out.append((entry.name, None))
        except (DeviceMissing, UsageWrong):
            continue
    return out


def clear(folder: Path) -> None:
    """Remove a folder whose supervisor is gone. QEMU went with it (it is told to die with its parent)."""
    shutil.rmtree(folder, ignore_errors=True)
