"""The virtual microcontroller: how fast it starts, what it costs idle, how fast it is flashed beside smpclient."""

from __future__ import annotations

import asyncio
import os
import statistics
import time

from quarkctl import schemas
from quarkctl.build import rtos
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import upload
from quarkctl.formats import smp
from quarkctl.formats.mcuboot_image import Version
from quarkctl.formats.stream import Decoder
from quarkctl.link.serial_port import open_serial
from quarkctl.sim import control, folder
from tests import scratch
from tests.bench.figure import Figure, cpu_s, save
from tests.conftest import BUILD

ROUNDS = 5
IDLE_S = 10.0
#: Both are bound by the emulated line and differ by some percent: ratios pair by pair, since the machine drifts by more.
UPLOAD_PAIRS = 15


def run() -> None:
    with scratch.folder("qkb-") as state:
        os.environ["QUARKCTL_STATE_DIR"] = state
        built = [
            rtos.build(rtos.Request("s1-virtual", Version.parse(v), out=BUILD / "s1-virtual"))
            for v in ("1.0.0", "1.1.0")
        ]
        firmware = control.Firmware(built[0].boot_elf, built[0].image)
        first = statistics.median(first_telemetry(firmware) for _ in range(ROUNDS))
        instance = control.start("bench", "s1-virtual", firmware, load="sleep")
        try:
            idle = idle_share(instance)
            image = built[1].image.read_bytes()
            pairs = [(our_upload(image), their_upload(image)) for _ in range(UPLOAD_PAIRS)]
        finally:
            control.stop("bench")
    kb = len(image) / 1000
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(t / o for o, t in pairs)
    save(
        "rtos-flash",
        [
            Figure("exec of QEMU to first telemetry", first, "s", 1.0, "<="),
            Figure("idle virtual glasses, QEMU and plant", 100 * idle, "% core", 5.0, "<="),
            Figure("SMP upload, ours / smpclient", ratio, "x", 1.0, ">=",
                   f"ours {kb / ours:.1f} kB/s, smpclient {kb / theirs:.1f} kB/s"),
        ],
    )  # fmt: skip


def first_telemetry(firmware: control.Firmware) -> float:
    """From the start of QEMU's process to the first whole frame at the host."""
    instance = control.start("first", "s1-virtual", firmware)
    link = open_serial(instance.port, 1_000_000)
    try:
        control.request("first", command="power", action="cut")
        decoder = Decoder(schemas.telemetry())
        while link.read(0.2):  # what was under way
            continue
        began = time.perf_counter()
        control.request("first", command="power", action="on")
        while not decoder.feed(link.read(1.0)):
            continue
        return time.perf_counter() - began
    finally:
        link.close()
        control.stop("first")


def idle_share(instance: folder.Instance) -> float:
    """Share of one core that QEMU and the supervisor take while nobody talks to them."""
    pids = (instance.pid, instance.qemu_pid)
    time.sleep(2.0)
    began, before = time.perf_counter(), sum(map(cpu_s, pids))
    time.sleep(IDLE_S)
    return (sum(map(cpu_s, pids)) - before) / (time.perf_counter() - began)


def _erase() -> None:
    """Both uploads start from nothing: else the device says that it has the file already."""
    link = open_serial(control.port("bench"), 1_000_000)
    client = Client(link)
    client.write(smp.Group.IMAGE, smp.ImageCommand.ERASE, {}, timeout_s=10)
    link.close()


def our_upload(image: bytes) -> float:
    _erase()
    link = open_serial(control.port("bench"), 1_000_000)
    client = Client(link)
    client.negotiate()
    began = time.perf_counter()
    upload(client, image, lambda done, eta: None)
    took = time.perf_counter() - began
    link.close()
    return took


def their_upload(image: bytes) -> float:
    from smpclient import SMPClient
    from smpclient.transport.serial import SMPSerialTransport

    _erase()

    async def go() -> float:
        async with SMPClient(SMPSerialTransport(), control.port("bench")) as client:
            began = time.perf_counter()
            async for _ in client.upload(image, slot=0):
                pass
            return time.perf_counter() - began

    return asyncio.run(go())
