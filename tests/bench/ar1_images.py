"""Images of the application processor: hash trees, codes, sparse files and whole builds beside the tools that make them.

Every figure runs whole processes in turn with its peer and takes medians: CPU seconds are user and system time of the
process and its children. avbtool and fec, the reference pair for trees and codes, are in no package; with paths in
QUARKCTL_AVBTOOL and QUARKCTL_FEC they are measured too, otherwise veritysetup (C, in Debian) stands in their place.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figure import Figure, program, save
from tests.conftest import BUILD, ROOT

ROUNDS = 5
SPARSE_ROUNDS = 15
SIZE = 1 << 30
SALT = "aabbccddeeff00112233445566778899" * 2


@dataclass(frozen=True)
class Taken:
    """What a process and its children took: seconds of wall and processors; ``rss_mib``: what it says of its memory."""

    wall_s: float
    cpu_s: float
    rss_mib: float = 0.0


def measure(command: list[str | Path], folder: Path) -> Taken:
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, told.decode()
    said = re.findall(rb"peak (\d+) KiB", told)
    return Taken(time.perf_counter() - began, used.ru_utime + used.ru_stime, sum(map(int, said)) / 1024)


def median(rounds: int, *what: Callable[[], Taken]) -> list[Taken]:
    """Medians of several measures taken in turn, field by field."""
    taken: list[list[Taken]] = [[] for _ in what]
    for _ in range(rounds):
        for values, one in zip(taken, what, strict=True):
            values.append(one())
    return [
        Taken(*(statistics.median(getattr(t, field) for t in values) for field in ("wall_s", "cpu_s", "rss_mib")))
        for values in taken
    ]


def image(path: Path) -> Path:
    """1 GiB of 4 KiB blocks: half zeros, 1/16 patterns, the rest noise, in extents of 1 to 1023 blocks."""
    import numpy as np

    if path.exists() and path.stat().st_size == SIZE:
        return path
    rng = np.random.default_rng(42)
    blocks = SIZE // 4096
    left = {"zero": blocks // 2, "fill": blocks // 16, "noise": blocks - blocks // 2 - blocks // 16}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        while sum(left.values()):
            weights = np.array(list(left.values()), float)
            kind = list(left)[int(rng.choice(3, p=weights / weights.sum()))]
            count = min(int(rng.integers(1, 1024)), left[kind])
            left[kind] -= count
            if kind == "zero":
                out.write(bytes(count * 4096))
            elif kind == "fill":
                out.write(int(rng.choice([0xDEADBEEF, 0xFFFFFFFF, 0x11223344])).to_bytes(4, "little") * (count * 1024))
            else:
                out.write(rng.bytes(count * 4096))
    return path


def noise(path: Path) -> Path:
    """1 GiB of noise: no block can be left out."""
    if not path.exists() or path.stat().st_size != SIZE:
        import numpy as np

        rng = np.random.default_rng(7)
        with path.open("wb") as out:
            for _ in range(64):
                out.write(rng.bytes(SIZE // 64))
    return path


OURS = """
    import sys
    from pathlib import Path
    from quarkctl.build.processors import Processors
    from quarkctl.files import File
    from quarkctl.formats import verity
    salt = bytes.fromhex(sys.argv[2])
    with File(Path(sys.argv[1])) as data, Processors() as processors:
        {what}
        # of this process and its helpers; what wait4 tells counts the memory of the process before exec too
        for pid in ["self", *(h._process.pid for h in processors._running)]:
            with open(f"/proc/{{pid}}/status") as status:
                print("peak", next(line.split()[1] for line in status if line.startswith("VmHWM")), "KiB", file=sys.stderr)
"""
SPARSE = """
    import sys
    from pathlib import Path
    from quarkctl.files import File, write_at
    from quarkctl.formats import sparse
    with File(Path(sys.argv[1])) as data:
        write_at(Path("ours"), sparse.stream(data))
"""
EVERY_BLOCK = """
    import hashlib, sys
    salt = bytes.fromhex(sys.argv[2])
    with open(sys.argv[1], "rb", buffering=0) as data:
        while window := data.read(1 << 20):
            view = memoryview(window)
            for at in range(0, len(view), 4096):
                h = hashlib.sha256(salt)
                h.update(view[at:at + 4096])
                h.digest()
"""
ONCE = """
    import hashlib, os, sys
    h = hashlib.sha256()
    with open(sys.argv[1], "rb", buffering=0) as data, open("written", "wb", buffering=0) as out:
        while window := data.read(1 << 20):
            h.update(window)
            out.write(window)
"""
SPEC = """
schema = "quarkctl.ar1/1"
product = "bench"
version = "1.0.0"
[keys.main]
signer = "{key}"
[kernel]
image = "Image"
[image.boot]
kind = "boot"
kernel = "kernel"
avb = {{ footer = "hash", partition_size = "64 MiB" }}
[image.system]
kind = "raw"
file = "{system}"
avb = {{ footer = "hashtree", partition_size = "1088 MiB" }}
[image.vbmeta]
kind = "vbmeta"
key = "main"
include = ["boot", "system"]
[storage]
[[storage.lun]]
number = 0
size = "2 GiB"
partition = [{{ name = "system", size = "1088 MiB", image = "system" }},
             {{ name = "boot", size = "64 MiB", image = "boot" }},
             {{ name = "vbmeta", size = "64 KiB", image = "vbmeta" }}]
"""


def python(code: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def ours(what: str, path: Path) -> list[str | Path]:
    return python(OURS.format(what=what), path, SALT)


def run() -> None:
    store = BUILD.parent / "bench-images"
    system, noisy = image(store / "sys1g.img"), noise(store / "noise1g.img")
    with tempfile.TemporaryDirectory(dir=store) as temporary:
        work = Path(temporary)
        figures = [*trees(system, noisy, work), *sparse_files(system, work), *builds(system, work)]
    save("ar1-images", figures)


def trees(system: Path, noisy: Path, work: Path) -> list[Figure]:
    def veritysetup() -> Taken:
        for name in ("tree", "fec"):
            (work / name).unlink(missing_ok=True)
        return measure(
            ["veritysetup", "format", "--no-superblock", "--hash", "sha256", "--salt", SALT, system, "tree",
             "--fec-device", "fec", "--fec-roots", "2"], work,
        )  # fmt: skip

    both, peer = median(
        3, lambda: measure(ours("verity.protect(data, salt, 2, run=processors.map)", system), work), veritysetup
    )
    plain, tree = median(
        ROUNDS, lambda: measure(python(EVERY_BLOCK, noisy, SALT), work),
        lambda: measure(ours("verity.tree(data, salt, run=processors.map)", noisy), work),
    )  # fmt: skip
    figures = [
        Figure("tree + FEC of 1 GiB, CPU: veritysetup / ours", peer.cpu_s / both.cpu_s, "x", 10, ">=",
               f"veritysetup {peer.cpu_s:.1f} s, ours {both.cpu_s:.2f} s"),
        Figure("tree + FEC of 1 GiB, wall: veritysetup / ours", peer.wall_s / both.wall_s, "x", 10, ">=",
               f"veritysetup {peer.wall_s:.1f} s, ours {both.wall_s:.2f} s"),
        Figure("tree + FEC of 1 GiB, memory", both.rss_mib, "MiB", 200, "<=",
               f"of {min(os.cpu_count() or 1, 8)} processes together"),
        Figure("tree of 1 GiB of noise, wall: ours / every block on one thread", tree.wall_s / plain.wall_s, "x",
               0.8, "<=", f"every block {plain.wall_s:.2f} s, ours {tree.wall_s:.2f} s, {os.cpu_count()} processors"),
        Figure("the same, CPU", tree.cpu_s / plain.cpu_s, "x", 1.3, "<=",
               f"every block {plain.cpu_s:.2f} s, ours {tree.cpu_s:.2f} s"),
    ]  # fmt: skip
    return [*figures, *_reference_pair(system, work, both)]


def _reference_pair(system: Path, work: Path, both: Taken) -> list[Figure]:
    avbtool, fec = os.environ.get("QUARKCTL_AVBTOOL"), os.environ.get("QUARKCTL_FEC")
    if not avbtool or not fec:
        return []
    subprocess.run(["openssl", "genrsa", "-out", work / "avb.pem", "4096"], check=True, capture_output=True)
    (work / "bin").mkdir()
    (work / "bin/fec").symlink_to(fec)
    copy = work / "system.img"
    shutil.copy(system, copy)
    taken = measure(
        ["env", f"PATH={work / 'bin'}:{os.environ['PATH']}", avbtool, "add_hashtree_footer", "--image", copy,
         "--partition_size", str(1088 << 20), "--partition_name", "system", "--hash_algorithm", "sha256", "--salt",
         SALT, "--algorithm", "SHA256_RSA4096", "--key", work / "avb.pem"], work,
    )  # fmt: skip
    copy.unlink()
    return [
        Figure("tree + FEC of 1 GiB, CPU: avbtool and fec / ours", taken.cpu_s / both.cpu_s, "x", 10, ">=",
               f"avbtool and fec {taken.cpu_s:.1f} s"),
    ]  # fmt: skip


def sparse_files(system: Path, work: Path) -> list[Figure]:
    """Both read the same cached file and write a new one into the same folder, in turn; who is first changes each round."""

    def fresh(command: list[str | Path], name: str) -> Taken:
        (work / name).unlink(missing_ok=True)
        return measure(command, work)

    commands = {"ours": python(SPARSE, system), "img2simg": ["img2simg", system, "img2simg"]}
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    for n in range(SPARSE_ROUNDS + 1):
        for name in sorted(commands, reverse=bool(n % 2)):
            one = fresh(commands[name], name)
            if n:  # the first round only brings the file and the programs into memory
                taken[name].append(one)
    assert filecmp.cmp(work / "ours", work / "img2simg", shallow=False)
    rounds = list(zip(taken["img2simg"], taken["ours"], strict=True))
    return [
        _compared("sparse file of 1 GiB, CPU: img2simg / ours", [(p.cpu_s, t.cpu_s) for p, t in rounds]),
        _compared("sparse file of 1 GiB, wall: img2simg / ours", [(p.wall_s, t.wall_s) for p, t in rounds]),
    ]


def _compared(name: str, pairs: list[tuple[float, float]]) -> Figure:
    """The median of the ratios of all rounds, with how far they lie apart."""
    ratios = sorted(peer / mine for peer, mine in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    peer, mine = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Figure(
        name, middle, "x", 1, ">=",
        f"{len(ratios)} rounds, half of them from {low:.2f} to {high:.2f}, all from {ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"img2simg {peer:.2f} s, ours {mine:.2f} s with the start of Python",
    )  # fmt: skip


def builds(system: Path, work: Path) -> list[Figure]:
    key = ROOT / "firmware/ar1/keys/development.pem"
    (work / "Image").write_bytes(os.urandom(24 << 20))
    (work / "spec.toml").write_text(SPEC.format(key=key, system=system))
    command: list[str | Path] = [program("quarkctl"), "build", "ar1", "--spec", "spec.toml", "--out", "out", "--json"]

    def full() -> Taken:
        shutil.rmtree(work / "out", ignore_errors=True)
        return measure(command, work)

    def once() -> Taken:
        (work / "written").unlink(missing_ok=True)
        return measure(python(ONCE, system), work)

    def back() -> Taken:
        measure([*command, "--version", "1.0.1"], work)
        return measure(command, work)

    build, limit, again, returned = median(3, full, once, lambda: measure(command, work), back)
    return [
        Figure("build ar1 with a system of 1 GiB, wall: ours / hashing and writing it once", build.wall_s / limit.wall_s,
               "x", 2.5, "<=", f"once {limit.wall_s:.2f} s, build {build.wall_s:.2f} s"),
        Figure("the same, CPU", build.cpu_s / limit.cpu_s, "x", 2.5, "<=",
               f"once {limit.cpu_s:.2f} s, build {build.cpu_s:.2f} s"),
        Figure("unchanged build / full build, wall", 100 * again.wall_s / build.wall_s, "%", 3, "<=",
               f"unchanged {again.wall_s * 1000:.0f} ms"),
        Figure("back to a build before the last / full build, wall", 100 * returned.wall_s / build.wall_s, "%", 3, "<=",
               f"back {returned.wall_s * 1000:.0f} ms"),
    ]  # fmt: skip
