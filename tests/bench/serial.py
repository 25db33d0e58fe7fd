"""Serial flashing on a line of 1 Mbaud: beside smpclient and smpmgr, with slow flash, lost bytes, raw framing.

One modelled device (tests/flash/smp_server.py) behind a pseudo-terminal, in real time, is the other side of all of them;
it takes the time from the first chunk to the last answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from quarkctl.build import sign
from quarkctl.build.source import development_key
from quarkctl.events import silent
from quarkctl.flash import rtos
from quarkctl.flash import run as run_plan
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Job
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import chunk_bytes, upload
from quarkctl.formats import mcuboot_image, smp
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link.serial_port import SerialOpener, open_serial
from quarkctl.sim.esp import Speed, VirtualEsp
from tests import scratch
from tests.bench.figure import Figure, program, save
from tests.conftest import ROOT
from tests.flash.smp_server import Clock, Model, Settings, VirtualLine

SIGNER = sign.load(development_key())
IMAGE = mcuboot_image.build(
    random.Random(1).randbytes(256 * 1024), version=Version(1, 1, 0), load_address=0x0100_0000, header_bytes=0x400,
    board="s1-virtual",
    security_counter=1, public_key=SIGNER.public_key, sign=lambda message: SIGNER.sign(message, "bench"),
)  # fmt: skip
BYTE_RATE = 100_000.0
SLOW_FLASH = {"erase_s": 0.030, "page_s": 0.0004}
WINDOW = {"buffers": 8}
ROUNDS = 3

Send = Callable[[str], None]


def run() -> None:
    logging.getLogger("smpclient").setLevel(logging.CRITICAL)  # it fails on purpose
    clean = rate(ours, **WINDOW)
    ceiling = framing_ceiling(1024)
    slow, slow_smpclient = beside(ours, smpclient, **WINDOW, **SLOW_FLASH)
    default, smpmgr_default = beside(ours, smpmgr, **WINDOW)
    noisy = [rate(ours, error_rate=1e-5, seed=seed, **WINDOW) for seed in (1, 2, 3)]
    single = [modelled(error_rate=1e-5, seed=seed) for seed in (1, 2, 3)]
    clean_single = modelled()
    aborts = sum(not completes(smpclient, error_rate=1e-5, seed=seed, **WINDOW) for seed in (1, 2, 3))
    worst = rate(ours, error_rate=1e-4, **WINDOW)
    raw = rate(ours_raw, raw=True, buffers=8, buf_size=2048)
    esp_full, esp_sector, esp_unchanged = esp32()
    smp_full, smp_unchanged = update()
    save(
        "serial",
        [
            Figure("SMP upload, window-capable server / framing ceiling", clean / ceiling, "x", 0.95, ">=",
                   f"{clean / 1000:.1f} of {ceiling / 1000:.1f} kB/s, buf_size 1024"),
            Figure("SMP upload, one buffer / framing ceiling, in modelled time", clean_single / ceiling, "x", 0.95, ">=",
                   f"{clean_single / 1000:.1f} kB/s"),
            Figure("SMP upload with flash latency, ours / smpclient", slow / slow_smpclient, "x", 1.5, ">=",
                   f"ours {slow / 1000:.1f} kB/s, smpclient {slow_smpclient / 1000:.1f} kB/s"),
            Figure("SMP upload, ours / smpmgr with its defaults", default / smpmgr_default, "x", 2.5, ">=",
                   f"ours {default / 1000:.1f} kB/s, smpmgr {smpmgr_default / 1000:.1f} kB/s"),
            Figure("byte error rate 1e-5 / clean, worst of three", min(noisy) / clean, "x", 0.85, ">=",
                   f"smpclient aborts {aborts} of 3 times"),
            Figure("byte error rate 1e-5, one buffer / clean, in modelled time", min(single) / clean_single,
                   "x", 0.85, ">="),
            Figure("byte error rate 1e-4 / clean: completes", worst / clean, "x", 0.01, ">=", f"{worst / 1000:.1f} kB/s"),
            Figure("raw framing / line rate", raw / BYTE_RATE, "x", 0.97, ">=", f"{raw / 1000:.1f} kB/s"),
            Figure("esptool: one sector of 4 MiB differs / first flash", esp_sector / esp_full, "x", 0.15, "<=",
                   f"{esp_sector:.1f} s of {esp_full:.1f} s at 921600 baud"),
            Figure("esptool: unchanged / first flash", esp_unchanged / esp_full, "x", 0.05, "<=",
                   f"{esp_unchanged:.1f} s of {esp_full:.1f} s"),
            Figure("SMP: unchanged / first flash", smp_unchanged / smp_full, "x", 0.05, "<=",
                   f"{smp_unchanged * 1000:.0f} ms of {smp_full:.2f} s, slow flash"),
        ],
    )  # fmt: skip


def framing_ceiling(buf_size: int) -> float:
    """Bytes of image per second when the line is never idle: what base64, line marks and headers leave."""
    chunk = chunk_bytes(buf_size, {"off": len(IMAGE)})
    empty = smp.build_message(
        smp.Op.WRITE, smp.Group.IMAGE, smp.ImageCommand.UPLOAD, 0, {"off": len(IMAGE), "data": b""}
    )
    return BYTE_RATE * chunk / smp.wire_bytes(len(empty) + 2 + chunk)


@contextmanager
def device(**settings: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.flash.smp_server", json.dumps({"rate": BYTE_RATE, **settings})], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def rate(send: Send, **settings: object) -> float:
    """Bytes of image per second, median of some rounds."""
    return statistics.median(once(send, **settings) for _ in range(ROUNDS if "error_rate" not in settings else 1))


def beside(mine: Send, theirs: Send, **settings: object) -> tuple[float, float]:
    pairs = [(once(mine, **settings), once(theirs, **settings)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def once(send: Send, **settings: object) -> float:
    with device(**settings) as (port, process):
        send(port)
        assert process.stdout
        account = json.loads(process.stdout.readline())
    assert account["crc"] == zlib.crc32(IMAGE), "what arrived is not what was sent"
    return len(IMAGE) / float(account["seconds"])


def modelled(**settings: float) -> float:
    """Bytes of image per second in virtual time: where every answer is waited for, real time would measure how busy this
    machine is."""
    clock = Clock()
    model = Model(Settings(**settings))
    with patch("time.monotonic", clock.monotonic):
        client = Client(VirtualLine(model, clock))
        client.negotiate()
        upload(client, IMAGE, lambda done, eta: None)
    assert bytes(model.stored) == IMAGE
    return len(IMAGE) / (model.last_at - model.first_at)


def completes(send: Send, **settings: object) -> bool:
    try:
        once(send, **settings)
    except (TimeoutError, OSError, ValueError, AssertionError):
        return False
    return True


def ours(port: str, framing: str = "console") -> None:
    link = open_serial(port, 1_000_000)
    try:
        client = Client(link, framing)
        client.negotiate()
        upload(client, IMAGE, lambda done, eta: None)
    finally:
        link.close()


def ours_raw(port: str) -> None:
    ours(port, "raw")


def smpclient(port: str) -> None:
    from smpclient import SMPClient
    from smpclient.transport.serial import SMPSerialTransport

    async def go() -> None:
        async with SMPClient(SMPSerialTransport(), port) as client:
            async for _ in client.upload(IMAGE, slot=0):
                pass

    asyncio.run(go())


def smpmgr(port: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.bin"
        file.write_bytes(IMAGE)
        subprocess.run([program("smpmgr"), "--port", port, "image", "upload", file], check=True, capture_output=True)


def command(*words: str | Path) -> float:
    """Wall time of a whole command."""
    began = time.perf_counter()
    subprocess.run([program("quarkctl"), *map(str, words)], check=True, capture_output=True)
    return time.perf_counter() - began


def esp32() -> tuple[float, float, float]:
    """Seconds to flash 4 MiB that do not compress: the first time, with one sector changed, and unchanged. Real esptool; the
    virtual device takes the times of its line and its flash."""
    data = bytearray(random.Random(4).randbytes((4 << 20) - 0x10000))
    with scratch.folder("qkb-") as folder, VirtualEsp(speed=Speed()) as esp:
        os.environ["QUARKCTL_STATE_DIR"] = folder
        file = Path(folder) / "image.bin"
        file.write_bytes(data)
        full = command("flash", f"{file}@0x10000", "-d", esp.url)
        data[1_000_000] ^= 1
        file.write_bytes(data)
        sector = command("flash", f"{file}@0x10000", "-d", esp.url)
        return full, sector, command("flash", f"{file}@0x10000", "-d", esp.url)


def update() -> tuple[float, float]:
    """Seconds of a whole update over the same line with slow flash, and of the same order again: upload, verify, restart,
    confirm, as the device has no self-test."""
    with scratch.folder("qkb-") as folder:
        os.environ["QUARKCTL_STATE_DIR"] = folder
        file = Path(folder) / "image.bin"
        file.write_bytes(IMAGE)
        with device(forever=True, **WINDOW, **SLOW_FLASH) as (port, _):
            return flash(port, file), flash(port, file)


def flash(port: str, file: Path) -> float:
    """From the first question to the last answer."""
    opener = SerialOpener(port, lambda: port, 1_000_000)
    journal = Journal(port)
    session = rtos.prepare([str(file)])(Job(opener, journal, silent))
    began = time.perf_counter()
    try:
        run_plan.carry_out(session, run_plan.preflight(session, journal, silent), journal, silent)
    finally:
        session.close()
    return time.perf_counter() - began
