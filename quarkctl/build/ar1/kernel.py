"""Debian's kernels for virtual machines, fetched without touching this system's packages: the arm64 cloud kernel of the
virtual glasses, and others by the name of their package.

``python -m quarkctl.build.ar1.kernel`` fetches it (``make kernel``). apt works with lists and caches of its own in a folder
of ours, checks Debian's signatures as always, and installs nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quarkctl.build import tools
from quarkctl.errors import HostUnfit

PACKAGE = "linux-image-cloud-arm64"
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package. ``sha256`` is that of the package file."""

    folder: Path
    package: str
    version: str
    sha256: str

    @property
    def image(self) -> Path:
        return self.folder / "Image"

    def module(self, name: str) -> Path:
        """A module's file by its name. Raises HostUnfit when the kernel has none of that name."""
        index = json.loads((self.folder / "modules.json").read_text("utf-8"))
        if name not in index:
            raise HostUnfit(f"the kernel {self.version} has no module {name}", hint="remove it from kernel.modules")
        return self.folder / str(index[name])


def default_folder(package: str = PACKAGE) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("quarkctl") / "kernel" / package


def find(folder: Path | None = None) -> Kernel | None:
    """The kernel that was fetched before, None when there is none."""
    folder = folder or default_folder()
    try:
        told = json.loads((folder / "kernel.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return Kernel(folder, told["package"], told["version"], told["sha256"])


def fetch(folder: Path | None = None, package: str = PACKAGE) -> Kernel:
    """The kernel in ``folder``, fetched once. ``package`` ends in its architecture. Raises HostUnfit when apt or the
    network are missing."""
    folder = folder or default_folder(package)
    found = find(folder)
    if found:
        return found
    tools.require({"apt-get": "apt", "dpkg-deb": "dpkg"})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder.parent) as temporary:
        work = Path(temporary)
        file = _download(work, package)
        fresh = work / "kernel"
        _unpack(file, work, fresh)
        try:
            fresh.replace(folder)
        except OSError as error:  # somebody else was faster
            if find(folder) is None:
                raise HostUnfit(
                    f"cannot put the kernel into {folder}: {error.strerror}", hint=f"remove {folder}"
                ) from error
    done = find(folder)
    if done is None:
        raise HostUnfit(f"the kernel in {folder} is not whole", hint=f"remove {folder} and try again")
    return done


def _download(work: Path, package: str) -> Path:
    architecture = package.rpartition("-")[2]
    for name in ("lists/partial", "cache/archives/partial", "deb"):
        (work / name).mkdir(parents=True)
    options = [
        "-qq", f"-oAPT::Architecture={architecture}", f"-oAPT::Architectures={architecture}",
        f"-oDir::State::Lists={work / 'lists'}", f"-oDir::Cache={work / 'cache'}",
        "-oAPT::Sandbox::User=", "-oDpkg::Use-Pty=0",
    ]  # fmt: skip
    _apt([*options, "update"], work, package)
    shown = _query(["apt-cache", *options[1:], "depends", package])
    real = next((w.split()[-1] for w in shown.splitlines() if w.strip().startswith("Depends: linux-image-")), "")
    if not real:
        raise HostUnfit(f"Debian's lists have no {package}", hint="name an arm64 Image of your own: kernel.image")
    _apt([*options, "download", real], work / "deb", package)
    found = list((work / "deb").glob("*.deb"))
    if len(found) != 1:
        raise HostUnfit(f"apt-get gave no package for {real}")
    return found[0]


def _apt(arguments: list[str], folder: Path, package: str) -> None:
    try:
        done = subprocess.run(
            ["apt-get", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise HostUnfit(f"apt-get was not done within {_TIMEOUT_S} s") from error
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise HostUnfit(
            f"cannot fetch {package}: {told[0] if told else 'apt-get failed'}",
            hint="Debian's mirror must be reachable once; or name an arm64 Image of your own: kernel.image",
        )


def _query(command: list[str]) -> str:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def _unpack(package: Path, work: Path, fresh: Path) -> None:
    tree = work / "tree"
    subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True, capture_output=True)
    fresh.mkdir()
    image = next(tree.glob("boot/vmlinuz-*"))
    shutil.move(str(image), fresh / "Image")
    modules: dict[str, str] = {}
    source = next((tree / "lib/modules").iterdir()) / "kernel"
    for file in sorted(source.rglob("*.ko*")):
        target = Path("modules") / file.relative_to(source)
        (fresh / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(str(file), fresh / target)
        modules[file.name.partition(".ko")[0].replace("-", "_")] = str(target)
    (fresh / "modules.json").write_text(json.dumps(modules, indent=1, sort_keys=True) + "\n", "utf-8")
    version = image.name.removeprefix("vmlinuz-")
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    told = {"package": package.name, "version": version, "sha256": sha256}
    (fresh / "kernel.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    got = fetch()
    print(f"{got.version}  {got.image}  package sha256 {got.sha256[:16]}..")  # noqa: T201 - what `make kernel` tells
