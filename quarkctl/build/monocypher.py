"""The one foreign source of the bootloader: Monocypher, from a source package pinned by its hash."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from quarkctl.errors import HostUnfit

_FILES = ("monocypher.c", "monocypher.h")


def folder(pin: Path) -> Path:
    """Folder with the sources; fetched once through pip, which checks the hash in ``pin`` (firmware/rtos/monocypher.txt).

    Raises HostUnfit when the package index cannot be reached.
    """
    from platformdirs import user_cache_path

    name = next(line.split()[0] for line in pin.read_text("utf-8").splitlines() if "==" in line)
    target = user_cache_path("quarkctl") / name.replace("==", "-")
    if _whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        archive = _download(pin, Path(temporary))
        fresh = Path(temporary) / "sources"
        fresh.mkdir()
        with tarfile.open(archive) as tar:
            for file in _FILES:
                member = next((m for m in tar.getmembers() if m.isfile() and Path(m.name).name == file), None)
                source = tar.extractfile(member) if member else None
                if source is None:
                    raise HostUnfit(f"{archive.name} has no {file}")
                (fresh / file).write_bytes(source.read())
        try:
            fresh.replace(target)
        except OSError as error:  # somebody else was faster, or an old half lies in the way
            if not _whole(target):
                raise HostUnfit(
                    f"cannot put Monocypher into {target}: {error.strerror}", hint=f"remove {target}"
                ) from error
    return target


def _whole(target: Path) -> bool:
    return all((target / f).is_file() for f in _FILES)


def _download(pin: Path, where: Path) -> Path:
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
            "--no-binary", "pymonocypher", "--require-hashes", "--requirement", str(pin), "--dest", str(where),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = list(where.glob("*.tar.gz"))
    if "No module named pip" in done.stderr:
        raise HostUnfit(
            "cannot fetch Monocypher: this Python has no pip",
            hint=f"{sys.executable} -m ensurepip, or use build/venv of a clone",
        )
    if done.returncode or len(found) != 1:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise HostUnfit(
            f"cannot fetch Monocypher: {told[-1] if told else 'pip gave no file'}",
            hint="the package index must be reachable once; the sources are kept in the cache after that",
        )
    return found[0]
