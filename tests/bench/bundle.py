"""Release bundles: what making one costs beside the least that it must, and what verifying costs beside sending."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quarkctl.build import bundle, sign
from quarkctl.build.bundle import Request
from quarkctl.flash.bundle import Incoming
from tests.bench.figure import Figure, interleaved, program, save
from tests.bundles import DEVELOPMENT, rtos_image

SIZE_BYTES = 1 << 30
BLOCK_BYTES = 8 << 20
ROUNDS = 3
#: The most that USB 2.0 gives to bulk transfers (USB 2.0, table 5-10: 13 packets of 512 bytes in 125 us).
HIGH_SPEED_BYTES_S = 13 * 512 * 8000


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="qkb-", dir="/var/tmp") as name:
        os.environ["QUARKCTL_STATE_DIR"] = name
        folder = Path(name)
        _fill(folder)
        request = Request(folder / "release.toml", folder, folder / "release.qfw", [sign.load(DEVELOPMENT)])
        ours, least = interleaved(ROUNDS, lambda: _timed(lambda: bundle.build(request)), lambda: _least(folder))
        first = _digest(request.out)
        bundle.build(request)
        same = float(first == _digest(request.out))
        verified, hashed = interleaved(
            ROUNDS, lambda: _timed(lambda: _verify(request.out)), lambda: _timed(lambda: _digest(request.out))
        )
        memory = _memory(request.out)
        rate = SIZE_BYTES / verified
        save(
            "bundle",
            [
                Figure("build bundle of 1 GiB / hash it once and write it once", ours / least, "x", 1.2, "<=",
                       f"{least:.2f} s for hashing and writing"),
                Figure("two builds byte-identical", same, "", 1.0, ">="),
                Figure("read and verify 1 GiB / hash it once", verified / hashed, "x", 1.2, "<=", f"{hashed:.2f} s"),
                Figure("verifying, share of the time that the same bytes take over high-speed USB",
                       100 * HIGH_SPEED_BYTES_S / rate, "%", 5.0, "<=", f"{rate / 1e6:.0f} MB/s verified"),
                Figure("bundle verify of 1 GiB, peak memory", memory, "MiB", 128.0, "<="),
            ],
        )  # fmt: skip


def _fill(folder: Path) -> None:
    (folder / "rtos.bin").write_bytes(rtos_image())
    block = os.urandom(BLOCK_BYTES)
    with (folder / "system.img").open("wb") as file:
        for _ in range(SIZE_BYTES // BLOCK_BYTES):
            file.write(block)
    (folder / "release.toml").write_text(
        'product = "s1-virtual"\nversion = "1"\n[rtos]\nimage = "rtos.bin"\n'
        '[ar1]\nversion = "1.0.0"\n[[ar1.image]]\ntarget = "system"\nfile = "system.img"\n'
    )


def _timed(work: object) -> float:
    assert callable(work)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _least(folder: Path) -> float:
    """Hash it once, then write it once: what no bundler can do without."""
    began = time.perf_counter()
    _digest(folder / "system.img")
    with (folder / "system.img").open("rb", buffering=0) as source, (folder / "copy").open("wb", buffering=0) as copy:
        while data := source.read(BLOCK_BYTES):
            copy.write(data)
    took = time.perf_counter() - began
    (folder / "copy").unlink()
    return took


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(BLOCK_BYTES):
            total.update(data)
    return total.hexdigest()


def _verify(path: Path) -> None:
    incoming = Incoming(str(path))
    incoming.pour({})
    incoming.close()


def _memory(path: Path) -> float:
    """Peak resident memory of a whole process that verifies the bundle."""
    command = [str(program("quarkctl")), "bundle", "verify", str(path)]
    code = (
        f"import resource, subprocess; subprocess.run({command!r}, capture_output=True, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
