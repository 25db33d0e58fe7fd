"""A virtual AR1 for tests, and ways to flash it as a program would."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quarkctl.events import Event
from quarkctl.flash import edl, fastboot_session, run
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Ar1Wish, Job, Plan, Result, Wish
from quarkctl.link.ar1 import NetworkWay, UsbWay
from quarkctl.link.tcp import TcpLink
from quarkctl.link.udp import UdpLink
from quarkctl.link.usbip import Backend
from quarkctl.sim.ar1 import boot_rom
from quarkctl.sim.ar1.machine import VirtualAr1
from quarkctl.sim.ar1.settings import MIB, Settings
from quarkctl.sim.usb_ip import UsbIpServer

#: Small partitions: most tests care for steps, not for bytes.
LAYOUT = {
    0: [("boot_a", MIB), ("boot_b", MIB), ("system_a", 4 * MIB), ("system_b", 4 * MIB), ("super", 8 * MIB),
        ("userdata", 4 * MIB), ("persist", MIB)],
    1: [("xbl_a", MIB)],
}  # fmt: skip


_NUMBERS = itertools.count()


@dataclass
class Bench:
    """A virtual AR1 with a USB/IP server, and what was told while it was flashed."""

    folder: Path
    ar1: VirtualAr1
    usbip: UsbIpServer
    events: list[Event] = field(default_factory=list)

    def way(self, wire: str) -> Any:
        host = "127.0.0.1"
        if wire == "tcp":
            return NetworkWay(f"tcp:{host}:{self.ar1.tcp_port}", lambda: TcpLink(host, self.ar1.tcp_port))
        if wire == "udp":
            return NetworkWay(f"udp:{host}:{self.ar1.udp_port}", lambda: UdpLink(host, self.ar1.udp_port))
        return UsbWay(f"usb:{self.ar1.settings.serial}", "1-1", lambda: Backend(*self.usbip.address))

    def session(self, method: Any, wire: str, sources: Sequence[str | Path], wish: Wish) -> tuple[Any, Journal]:
        way = self.way(wire)
        journal = Journal(way.identity)
        prepared = method.prepare([str(s) for s in sources])
        return prepared(Job(way, journal, self.events.append, "", wish)), journal

    def plan(self, method: Any, *sources: str | Path, wire: str = "usb", **wish: Any) -> Plan:
        session, journal = self.session(method, wire, sources, _wish(wish))
        try:
            return run.preflight(session, journal, self.events.append)
        finally:
            session.close()

    def flash(self, method: Any, *sources: str | Path, wire: str = "usb", **wish: Any) -> Result:
        """Plan and carry out, as the command line does."""
        session, journal = self.session(method, wire, sources, _wish(wish))
        try:
            made = run.preflight(session, journal, self.events.append)
            return run.carry_out(session, made, journal, self.events.append)
        finally:
            session.close()

    def fastboot(self, *sources: str | Path, wire: str = "usb", **wish: Any) -> Result:
        return self.flash(fastboot_session, *sources, wire=wire, **wish)

    def edl(self, *sources: str | Path, **wish: Any) -> Result:
        return self.flash(edl, *sources, programmer=str(self.programmer), **wish)

    @property
    def programmer(self) -> Path:
        path = self.folder / "prog_firehose.elf"
        if not path.exists():
            path.write_bytes(boot_rom.programmer(20_000))
        return path

    def told(self) -> str:
        return "\n".join(e.text for e in self.events)

    def stored(self, name: str, size_bytes: int) -> bytes:
        """The beginning of a partition, as it is on the storage."""
        from quarkctl.sim.ar1.partitions import Disk

        place = Disk(self.ar1.storage).partitions[name]
        return self.ar1.storage.read(place.lun, place.offset, size_bytes)


def _wish(values: dict[str, Any]) -> Wish:
    common = {k: values.pop(k) for k in ("force", "verify_only", "allow_downgrade") if k in values}
    return Wish(**common, ar1=Ar1Wish(**values))


def make(folder: Path, mode: str, quirks: Sequence[str] = (), **settings: Any) -> Bench:
    serial = f"VAR1-{os.getpid()}-{next(_NUMBERS)}"  # another device in every test: journals outlive devices
    ar1 = VirtualAr1(
        folder / "ar1", Settings(**{"serial": serial, "layout": LAYOUT, **settings, "quirks": set(quirks)})
    )
    server = UsbIpServer([ar1.port])
    ar1.enter(mode)
    return Bench(folder, ar1, server)


def noise(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def rawprogram(folder: Path, rows: Sequence[dict[str, object]], name: str = "rawprogram0.xml") -> Path:
    """A file as other tools write it."""
    default = {
        "SECTOR_SIZE_IN_BYTES": 4096, "file_sector_offset": 0, "num_partition_sectors": 256, "partofsingleimage": "false",
        "physical_partition_number": 0, "readbackverify": "false", "size_in_KB": "1024.0", "sparse": "false",
        "start_byte_hex": "0x0", "start_sector": 6,
    }  # fmt: skip
    lines = "\n".join(
        "  <program " + " ".join(f'{k}="{v}"' for k, v in {**default, **row}.items()) + "/>" for row in rows
    )
    return file(folder, name, f'<?xml version="1.0" ?>\n<data>\n{lines}\n</data>\n'.encode())


Maker = Callable[..., Bench]
