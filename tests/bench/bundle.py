"""Release bundles: what making one costs beside the least that it must, and what verifying costs beside sending."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from quarkctl.boards import trust
from quarkctl.build import bundle, sign
from quarkctl.build.bundle import Request
from quarkctl.flash.background import ahead
from quarkctl.flash.bundle import CHUNKS_AHEAD, Incoming
from quarkctl.flash.fastboot import Client
from quarkctl.formats.bundle import CHUNK_BYTES
from quarkctl.formats.bundle_reader import Reader
from quarkctl.link.ar1 import UsbWay
from quarkctl.link.usbip import Backend
from tests import scratch
from tests.bench.ar1_device import Device
from tests.bench.figure import Figure, interleaved, program, save
from tests.bundles import DEVELOPMENT, rtos_image

SIZE_BYTES = 1 << 30
BLOCK_BYTES = 8 << 20
ROUNDS = 3
#: Sent over the emulated USB, in downloads of so much.
USB_BYTES, DOWNLOAD_BYTES = 128 << 20, 32 << 20
#: What USB carries in practice, in bytes a second: High Speed (480 Mbit/s) and SuperSpeed (5 Gbit/s on the wire, 4 of data).
HIGH_SPEED, SUPER_SPEED = 40e6, 400e6


def run() -> None:
    with scratch.folder("qkb-", Path("/var/tmp")) as name:
        os.environ["QUARKCTL_STATE_DIR"] = name
        folder = Path(name)
        _fill(folder)
        request = Request(folder / "release.toml", folder, folder / "release.qfw", [sign.load(DEVELOPMENT)])
        ours, least = interleaved(ROUNDS, lambda: _built(request), lambda: _least(folder))
        first = _digest(request.out)
        bundle.build(request)
        same = float(first == _digest(request.out))
        verified, hashed = interleaved(
            ROUNDS, lambda: _timed(lambda: _verify(request.out)), lambda: _timed(lambda: _digest(request.out))
        )
        memory = _memory(request.out)
        # "Over USB emulation": with the packets and the speed of a USB. The last line has no wire at all.
        high, high_checked = _over_usb(folder / "hs", request.out, USB_BYTES // 4, ROUNDS, rate=HIGH_SPEED)
        super_, super_checked = _over_usb(folder / "ss", request.out, USB_BYTES, 2 * ROUNDS + 1, wire=SUPER_SPEED)
        plain, checked = _over_usb(folder / "usb", request.out, USB_BYTES, 2 * ROUNDS + 1)
        save(
            "bundle",
            [
                Figure("build bundle of 1 GiB / hash it once and write it once", ours / least, "x", 1.2, "<=",
                       f"{least:.2f} s for hashing and writing"),
                Figure("two builds byte-identical", same, "", 1.0, ">="),
                Figure("read and verify 1 GiB / hash it once", verified / hashed, "x", 1.2, "<=", f"{hashed:.2f} s"),
                Figure("fastboot over emulated SuperSpeed USB, each chunk verified / not verified",
                       super_checked / super_, "x", 1.05, "<=", f"{USB_BYTES / super_ / 1e6:.0f} MB/s not verified"),
                Figure("the same into storage as fast as High Speed USB", high_checked / high, "x", 1.05, "<=",
                       f"{USB_BYTES / 4 / high / 1e6:.0f} MB/s not verified"),
                Figure("the same without a wire, as fast as two processors copy", checked / plain, "x", 1.05, "<=",
                       f"{USB_BYTES / plain / 1e6:.0f} MB/s not verified, host and device on the same processors"),
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


def _built(request: Request) -> float:
    request.out.unlink(missing_ok=True)  # what is replaced is freed: a gigabyte of it is no part of bundling
    return _timed(lambda: bundle.build(request))


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


def _over_usb(
    folder: Path, path: Path, size_bytes: int, rounds: int, *, rate: float = 0, wire: float = 0
) -> tuple[float, float]:
    """Seconds to flash the beginning of the image without and with verifying, on a virtual AR1 behind USB/IP.

    The device is a process of its own. ``rate`` of its storage and ``wire`` of the cable in bytes a second; 0: as fast as
    the processor copies. The transfers are the same in both, and so is how the file is read.
    """
    device = Device(folder, layout={0: [("userdata", DOWNLOAD_BYTES)]})
    device.tell(enter="fastboot", rate=rate, wire=wire)
    try:
        link = UsbWay("usb:BENCH", "1-1", lambda: Backend("127.0.0.1", device.ports["usbip"])).open()
        client = Client(link)

        def flash(chunks: Iterator[bytes]) -> float:
            began = time.perf_counter()
            for _ in range(size_bytes // DOWNLOAD_BYTES):
                client.download(islice(chunks, DOWNLOAD_BYTES // CHUNK_BYTES), DOWNLOAD_BYTES)
                client.flash("userdata", DOWNLOAD_BYTES)
            return time.perf_counter() - began

        plain, checked = interleaved(
            rounds, lambda: flash(_plain(path)), lambda: flash(ahead(_checked(path), CHUNKS_AHEAD))
        )
        link.close()
    finally:
        device.close()
    return plain, checked


def _checked(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        reader = Reader(file.read)
        manifest, _, _ = trust.open_bundle(reader.head())
        reader.begin(manifest)
        for member in manifest.members:
            if member.size_bytes >= USB_BYTES:
                yield from reader.chunks(member)
            reader.skip(member)


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            yield data


def _memory(path: Path) -> float:
    """Peak resident memory of a whole process that verifies the bundle."""
    command = [str(program("quarkctl")), "bundle", "verify", str(path)]
    code = (
        f"import resource, subprocess; subprocess.run({command!r}, capture_output=True, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
