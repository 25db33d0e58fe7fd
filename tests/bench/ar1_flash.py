"""The AR1: emergency download beside the bare transfers, fastboot beside AOSP's, memory, and going on after a cut.

Each client meets the same virtual AR1 in another process. The bare transfers are those of our client once more: the same
bytes, from a file as ours, in the same transfers, and after each the same number of bytes read, through the same USB
backend, without looking at anything. So the device does the same work for both, its digests for the proof included. The
clock runs from the first step on: small images were hashed by then, while the programmer was sent.
"""

from __future__ import annotations

import array
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from quarkctl.errors import QuarkError
from quarkctl.flash import edl, fastboot_session
from quarkctl.flash import run as flash_run
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Ar1Wish, Job, Wish
from quarkctl.link.ar1 import NetworkWay, UsbWay
from quarkctl.link.tcp import TcpLink
from quarkctl.link.usb import READ_BYTES, UsbLink
from quarkctl.link.usbip import Backend
from tests import scratch
from tests.bench.ar1_device import Device
from tests.bench.figure import Figure, save

MIB = 1 << 20
#: A flash of milliseconds needs many more of them than one of seconds.
QUICK_ROUNDS, FASTBOOT_ROUNDS, EDL_ROUNDS = 41, 21, 9
#: What High Speed USB carries, in bytes a second: the medium of the interrupted flash.
HIGH_SPEED = 40e6
SERIAL = "BENCH"


def run() -> None:
    with scratch.folder("qkb-") as name:
        root = Path(name)
        os.environ["QUARKCTL_STATE_DIR"] = str(root / "state")
        figures: list[Figure] = []
        for measure in (edl_figures, fastboot_figures, qdl_figures, large_figures):
            figures += measure(root)
            save("ar1-flash", figures)  # what was measured is kept, whatever becomes of the rest


# --- files ------------------------------------------------------------------------------------------------------------


def noise(path: Path, size_bytes: int) -> Path:
    source = random.Random(1)
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(source.randbytes(MIB))
    return path


def fragmented(path: Path, pairs: int) -> Path:
    """A sparse image of RAW and FILL 0 chunks in turn, one block of 4 KiB each."""
    block = random.Random(2).randbytes(4096)
    with path.open("wb") as file:
        file.write(struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, 4096, 2 * pairs, 2 * pairs, 0))
        raw, fill = struct.pack("<2H2I", 0xCAC1, 0, 1, 4108), struct.pack("<2H2II", 0xCAC2, 0, 1, 16, 0)
        for _ in range(pairs):
            file.write(raw + block + fill)
    return path


def patches(path: Path, count: int) -> Path:
    rows = "".join(
        f'<patch SECTOR_SIZE_IN_BYTES="4096" byte_offset="{4 * (n % 1000)}" filename="DISK" physical_partition_number="0" '
        f'size_in_bytes="4" start_sector="9000" value="{n}" what="x"/>' for n in range(count)
    )  # fmt: skip
    path.write_text(f'<?xml version="1.0" ?><patches>{rows}</patches>')
    return path


# --- emergency download -----------------------------------------------------------------------------------------------


class Recorder:
    """Stands between client and link: what was written, kept in a file, and how much was read after it."""

    def __init__(self, link: UsbLink, kept: Path) -> None:
        #: (bytes written, bytes read after it)
        self.script: list[tuple[int, int]] = []
        self._kept = kept.open("wb")
        self._write, self._read = link.write, link.read
        link.write, link.read = self.write, self.read  # type: ignore[method-assign]

    def write(self, data: bytes | memoryview) -> None:
        self._kept.write(data)
        self.script.append((len(data), 0))
        self._write(data)

    def read(self, timeout_s: float) -> bytes:
        data = self._read(timeout_s)
        if self.script and data:
            sent, got = self.script[-1]
            self.script[-1] = (sent, got + len(data))
        return data

    def close(self) -> None:
        self._kept.close()


def edl_session(device: Device, *sources: str | Path) -> tuple[edl.Session, Journal]:
    device.tell(enter="edl")
    way = UsbWay(f"usb:{SERIAL}", "1-1", lambda: Backend("127.0.0.1", device.ports["usbip"]))
    journal = Journal(way.identity)
    wish = Wish(force=True, ar1=Ar1Wish(programmer=str(device.programmer), restart=False))
    return edl.prepare([str(s) for s in sources])(Job(way, journal, lambda _: None, "", wish)), journal


def ours(device: Device, *sources: str | Path, kept: Path | None = None) -> tuple[float, list[tuple[int, int]]]:
    """Seconds of the steps of a flash; with ``kept``, what goes over the wire is put there and told."""
    session, journal = edl_session(device, *sources)
    try:
        plan = session.plan()
        assert session._device
        recorder = Recorder(session._device.link, kept) if kept else None
        began = time.perf_counter()
        flash_run.carry_out(session, plan, journal, lambda _: None)
        took = time.perf_counter() - began
        if recorder:
            recorder.close()
        return took, recorder.script if recorder else []
    finally:
        session.close()


def bare(device: Device, script: list[tuple[int, int]], kept: Path, *sources: str | Path) -> float:
    """The same transfers, by nobody who looks at them."""
    session, _ = edl_session(device, *sources)
    try:
        session.plan()
        assert session._device
        usb, into = session._device.link._device, array.array("B", bytes(READ_BYTES))
        data = {size: array.array("B", bytes(size)) for size, _ in script}
        with kept.open("rb", buffering=0) as file:
            began = time.perf_counter()
            for sent, expected in script:
                assert file.readinto(data[sent]) == sent
                assert usb.write(1, data[sent], 60_000) == sent
                got = 0
                while got < expected:
                    got += usb.read(0x81, into, 60_000)
            return time.perf_counter() - began
    finally:
        session.close()


def edl_figures(root: Path) -> list[Figure]:
    device = Device(root / "edl", serial=SERIAL, lun_bytes=[1024 * MIB], layout={0: [("super", 900 * MIB)]})
    cases = {
        "220 patches": [patches(root / "patch0.xml", 220)],
        "sparse image of 600 chunks": [f"{fragmented(root / 's600.simg', 300)}@0:64"],
        "sparse image of 65,536 chunks": [f"{fragmented(root / 's65536.simg', 32768)}@0:64"],
        "512 MiB raw": [f"{noise(root / 'raw.img', 512 * MIB)}@0:64"],
    }
    figures = []
    try:
        for name, sources in cases.items():
            kept = root / "wire"
            _, script = ours(device, *sources, kept=kept)
            rounds = QUICK_ROUNDS if sum(sent for sent, _ in script) < 16 * MIB else EDL_ROUNDS
            pairs = [(ours(device, *sources)[0], bare(device, script, kept, *sources)) for _ in range(rounds)]
            mine, theirs = (statistics.median(c) for c in zip(*pairs, strict=True))
            goal = 1.2 if "raw" in name else 1.5
            low, ratio, high = statistics.quantiles((a / b for a, b in pairs), n=4)
            figures.append(Figure(
                f"EDL, {name} / bare transfers", ratio, "x", goal, "<=",
                f"ours {mine:.4f} s, bare {theirs:.4f} s; half of {rounds} rounds between {low:.2f} and {high:.2f}",
            ))  # fmt: skip
    finally:
        device.close()
    return figures


def qdl_figures(root: Path) -> list[Figure]:
    """Whole commands over emulated USB, only to be told: qdl (QUARKCTL_QDL names another one than Debian's) and ours."""
    qdl = os.environ.get("QUARKCTL_QDL", "") or shutil.which("qdl")
    if not qdl:
        print("qdl is not there: its ratio is left out")
        return []
    device = Device(root / "qdl", serial=SERIAL, lun_bytes=[64 * MIB], layout={0: [("super", 32 * MIB)]}, preload=True)
    xml = patches(root / "patch_qdl.xml", 220)
    program = root / "rawprogram_qdl.xml"
    noise(root / "small.bin", MIB)
    program.write_text(
        '<?xml version="1.0" ?><data><program SECTOR_SIZE_IN_BYTES="4096" file_sector_offset="0" filename="small.bin" '
        'label="small" num_partition_sectors="256" physical_partition_number="0" start_sector="9100"/></data>'
    )
    env = {**os.environ, **device.ports["environment"]}
    ours = [
        sys.executable,
        "-m",
        "quarkctl.cli.main",
        "flash",
        str(program),
        str(xml),
        "--programmer",
        str(device.programmer),
    ]
    theirs = [qdl, "--storage", "ufs", str(device.programmer), str(program), str(xml)]
    took = []
    try:
        for command in (ours, theirs):
            device.tell(enter="off")
            device.tell(enter="edl")
            began = time.perf_counter()
            subprocess.run(command, env=env, cwd=root, check=True, capture_output=True, timeout=300)
            took.append(time.perf_counter() - began)
    finally:
        device.close()
    return [Figure("EDL, 220 patches, whole command: qdl / ours", took[1] / took[0], "x", 0, ">=",
                   f"{qdl}: {took[1]:.2f} s, ours {took[0]:.2f} s")]  # fmt: skip


# --- fastboot ---------------------------------------------------------------------------------------------------------


def fastboot_ours(device: Device, source: str | Path) -> float:
    """From the first look at the file to the last answer."""
    port = device.ports["tcp"]
    device.tell(enter="fastboot")
    way = NetworkWay(f"tcp:127.0.0.1:{port}", lambda: TcpLink("127.0.0.1", port))
    journal = Journal(way.identity)
    began = time.perf_counter()
    wish = Wish(force=True, ar1=Ar1Wish(restart=False, verify=False))
    session = fastboot_session.prepare([str(source)])(Job(way, journal, lambda _: None, "", wish))
    try:
        flash_run.carry_out(session, session.plan(), journal, lambda _: None)
    finally:
        session.close()
    return time.perf_counter() - began


def fastboot_aosp(device: Device, path: Path) -> float:
    """Its own total: process start not counted."""
    device.tell(enter="fastboot")
    done = subprocess.run(
        ["fastboot", "-s", f"tcp:127.0.0.1:{device.ports['tcp']}", "flash", "super", str(path)], capture_output=True,
        text=True, check=True, timeout=120,
    )  # fmt: skip
    return float(re.findall(r"Total time: ([0-9.]+)s", done.stderr)[-1])


def fastboot_figures(root: Path) -> list[Figure]:
    figures = []
    cases = (
        ("512 MiB raw", root / "raw.img", 512 * MIB, 0.9),
        ("fragmented sparse image, cut anew", root / "s65536.simg", 128 * MIB, 5.0),
    )
    for name, path, limit, goal in cases:
        device = Device(root / f"fb{limit}", serial=SERIAL, lun_bytes=[1024 * MIB], max_download_bytes=limit,
                        layout={0: [("super", 900 * MIB)]}, discard=True)  # fmt: skip
        try:
            fastboot_aosp(device, path)  # from now on the device has the memory that it downloads into, as real ones do
            pairs = []
            for turn in range(FASTBOOT_ROUNDS):  # who comes first changes
                theirs = fastboot_aosp(device, path) if turn % 2 else 0.0
                mine = fastboot_ours(device, f"{path}@super")
                pairs.append((mine, theirs or fastboot_aosp(device, path)))
        finally:
            device.close()
        mine, theirs = (statistics.median(c) for c in zip(*pairs, strict=True))
        low, ratio, high = statistics.quantiles((b / a for a, b in pairs), n=4)
        figures.append(Figure(
            f"fastboot TCP, {name}: speed / AOSP fastboot", ratio, "x", goal, ">=",
            f"ours {mine:.3f} s, AOSP {theirs:.3f} s; half of {len(pairs)} rounds between {low:.2f} and {high:.2f}",
        ))  # fmt: skip
    return figures


# --- large images -----------------------------------------------------------------------------------------------------


def peak_mib(*command: str) -> float:
    """Largest resident set of a whole command."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "quarkctl.cli.main", *command], dict(os.environ))
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, f"{command}: {status}"
    return usage.ru_maxrss / 1024


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def large_figures(root: Path) -> list[Figure]:
    image = noise(root / "large.img", 1024 * MIB)
    device = Device(root / "large", serial=SERIAL, lun_bytes=[1200 * MIB], layout={0: [("super", 1100 * MIB)]})
    where = f"usbip:127.0.0.1:{device.ports['usbip']}"
    command = [
        "flash",
        f"{image}@0:64",
        "--via",
        "edl",
        "--programmer",
        str(device.programmer),
        "-d",
        where,
        "--no-restart",
    ]
    try:
        device.tell(enter="fastboot")
        tcp = f"tcp:127.0.0.1:{device.ports['tcp']}"
        memory_fastboot = peak_mib("flash", f"{image}@super", "-d", tcp, "--no-restart", "--via", "fastboot")
        device.tell(rate=HIGH_SPEED, enter="edl")
        memory = 0.0

        def whole() -> None:
            nonlocal memory
            memory = peak_mib(*command, "--force")

        full = seconds(whole)
        device.tell(enter="edl", cut_after=int(0.95 * image.stat().st_size))
        with suppress(QuarkError, AssertionError):
            peak_mib(*command, "--force")
        device.tell(enter="edl")
        rest = seconds(lambda: peak_mib(*command))
    finally:
        device.close()
    return [
        Figure("peak memory, 1 GiB over EDL", memory, "MiB", 150, "<="),
        Figure("peak memory, 1 GiB over fastboot TCP", memory_fastboot, "MiB", 150, "<="),
        Figure("rest of a 1 GiB flash of which 95 % is there / whole, at 40 MB/s", rest / full, "x", 0.1, "<=",
               f"whole {full:.1f} s, rest {rest:.1f} s"),
    ]  # fmt: skip
