"""The virtual AR1: power, modes, and what it shows on its USB port and on the network in each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from quarkctl.errors import HostUnfit
from quarkctl.formats.firehose import EDL_USB_ID
from quarkctl.formats.sahara import Region
from quarkctl.sim.ar1 import partitions
from quarkctl.sim.ar1.boot_rom import BootRom, Restart
from quarkctl.sim.ar1.bootloader import Bootloader, Merge, NoStart, Start
from quarkctl.sim.ar1.fastboot import Buffers, Fastboot, Wire
from quarkctl.sim.ar1.programmer import Programmer
from quarkctl.sim.ar1.settings import STARTING, Remembered, Settings
from quarkctl.sim.ar1.storage import MediaError, PowerLost, Storage
from quarkctl.sim.ar1.wires import TcpServer, UdpServer, UsbWire
from quarkctl.sim.fault_points import Points
from quarkctl.sim.usb_device import Descriptor, Unplugged, UsbDevice
from quarkctl.sim.usb_host import Port

#: What can be on the port: nothing, the boot loader, fastbootd, emergency download, a memory dump, the running system.
MODES = ("off", "fastboot", "fastbootd", "edl", "dump", "system", "recovery")
FASTBOOT_MODES = ("fastboot", "fastbootd")
_DUMP_USB_ID = (EDL_USB_ID[0], 0x900E)
_FASTBOOT_USB_ID = (0x18D1, 0x4EE0)
_SLOW_BYTES_PER_S = 1 << 20
_BAD_EVERY = 61


class Running(Protocol):
    """A started system."""

    def wait(self) -> str:
        """Until it ends: ``reset``, ``panic``, ``hung``, ``off`` or ``died``."""
        ...

    def kill(self) -> None: ...


#: Start what the boot loader took. Raises HostUnfit.
Launch = Callable[["VirtualAr1", Start], Running]
#: {how a system ended: reset_reason of the next start}
_REASONS = {"reset": "software", "panic": "fault", "hung": "watchdog"}


class VirtualAr1:
    """One device. ``launch`` starts systems; without it the boot loader is left out, and mode ``system`` is an empty bus.
    ``merge`` is what the boot loader makes a device tree with.

    ``points`` counts transfers and messages: tests cut there. ``changed`` is called after every change of mode.
    """

    def __init__(
        self, folder: Path, settings: Settings, launch: Launch | None = None, merge: Merge | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.settings = settings
        self.points = Points()
        self.port = Port()
        self.port.renew = self._device
        self.mode = "off"
        self.changed: Callable[[str], None] | None = None
        #: What a crash left in memory, for a dump.
        self.memory: Sequence[tuple[Region, bytes]] = ()
        #: The slot that runs, empty while none does.
        self.slot = ""
        #: Why the last restart happened (a reset_reason), and why it led to fastboot instead of a system.
        self.reset_reason = "power_on"
        self.boot_failure = ""
        #: A downloaded boot image that the next start takes instead of the slot's.
        self.boot_once = b""
        self._launch, self._merge = launch, merge
        self._running: Running | None = None
        self._starts = 0
        self._remembered_path = folder / "remembered.json"
        self.remembered = Remembered.load(self._remembered_path)
        fresh = not (folder / "lun0.img").exists()
        self.storage = Storage(folder, settings.sector_bytes, settings.lun_bytes)
        if fresh:
            for lun, layout in settings.layout.items():
                partitions.make(self.storage, lun, layout)
        self.storage.discard = settings.discard
        if not settings.discard:
            self.storage.pace, self.storage.worn = self._pace, self._worn
        self._programmer: Programmer | None = None
        self._buffers = Buffers()
        self._hello_said = False
        self._datagrams = 0
        self._state = threading.Condition(threading.RLock())
        self._log = folder / "bootloader.log"
        self._tcp = TcpServer(self.points)
        self._udp = UdpServer(self.points, self._loses)
        self.tcp_port, self.udp_port = self._tcp.port, self._udp.port

    def remember(self) -> None:
        self.remembered.save(self._remembered_path)

    def _loses(self) -> bool:
        """Every third packet, where the network is bad."""
        self._datagrams += 1
        return "lost_datagrams" in self.settings.quirks and self._datagrams % 3 == 0

    def _pace(self, size_bytes: int) -> None:
        if "slow_media" in self.settings.quirks:
            time.sleep(size_bytes / _SLOW_BYTES_PER_S)

    def _worn(self, _lun: int, sector: int) -> bool:
        return "bad_blocks" in self.settings.quirks and sector % _BAD_EVERY == _BAD_EVERY - 1

    # --- modes --------------------------------------------------------------------------------------------------------

    def enter(self, mode: str, reason: str = "", failure: str = "") -> None:
        """Go to a mode, through a restart: what ran before is gone, and the device is found anew on the bus.

        ``reason`` is a reset_reason; ``failure`` why the boot loader stays in fastboot. With a system to start, mode
        ``system`` is reached later: `wait_for` it."""
        with self._state:
            if mode not in MODES:
                raise ValueError(mode)
            off = self.mode == "off"
            self._stop()
            if mode not in FASTBOOT_MODES:
                self._buffers = Buffers()  # gives the memory back
            self.reset_reason = reason or (self.reset_reason if off else "software")
            self.boot_failure = failure
            starts = mode == "system" and self._launch is not None
            if starts:
                mode = STARTING
                what = (self._starts, self.boot_once)
                threading.Thread(target=self._start, args=what, name="ar1 system", daemon=True).start()
            self.boot_once = b""
            self._show(mode)
        if self.changed:
            self.changed(mode)

    def _stop(self) -> None:
        """Everything that runs, at once."""
        self._starts += 1
        running, self._running, self.slot = self._running, None, ""
        if running:
            running.kill()
        self._tcp.detach()
        self._udp.detach()
        self._programmer = None
        self._buffers = self._buffers.restarted()
        self._hello_said = False
        self.port.plug(None)

    def _show(self, mode: str) -> None:
        self.mode = mode
        if mode in FASTBOOT_MODES:
            self._tcp.attach(self._serve_network)
            self._udp.attach(self._serve_network)
        device = self._device()
        if device:
            self.port.plug(device)
        self._state.notify_all()

    def say(self, text: str) -> None:
        """A line of the boot loader's log."""
        with self._log.open("a") as file:
            file.write(text + "\n")

    def _start(self, start: int, boot_once: bytes) -> None:
        """The boot loader, and the system for as long as it runs; in a thread of its own. ``start`` tells whether it is
        still the one that was meant."""
        boot = Bootloader(self.settings, self.remembered, self.storage, self.remember, self.say, self._merge)
        mode: str = ""
        chosen: Start | NoStart | None = None
        try:
            mode = boot.asked_mode()
            if not mode:
                chosen = boot.choose(self.reset_reason, boot_once)
        except PowerLost:
            return
        except (MediaError, OSError) as error:
            mode, chosen = "", NoStart(f"the storage failed: {error}")
        except HostUnfit as error:
            mode, chosen = "", NoStart(f"{error.message} ({error.hint})" if error.hint else error.message)
        if not isinstance(chosen, Start):
            failure = chosen.reason if isinstance(chosen, NoStart) else ""
            if failure:
                self.say(f"fastboot: {failure}")
            self._go_on(start, mode or "fastboot", "", failure)
            return
        with self._state:
            if start != self._starts or self._launch is None:
                return
            try:
                running = self._running = self._launch(self, chosen)
            except HostUnfit as error:
                self.say(f"fastboot: {error.message}")
                running, failure = None, error.message
            else:
                self.slot = chosen.slot
                self._show("system")
        if running is None:
            self._go_on(start, "fastboot", "", failure)
            return
        if self.changed:
            self.changed("system")
        ended = running.wait()
        if ended in _REASONS:
            self.say(f"restart: {_REASONS[ended]}")
            self._go_on(start, "system", _REASONS[ended])
        else:
            with self._state:
                if start == self._starts:
                    self.say("the system switched the device off" if ended == "off" else "the power was cut")
                    self.power_cut()

    def _go_on(self, start: int, mode: str, reason: str, failure: str = "") -> None:
        with self._state:
            if start != self._starts:
                return
            if mode != "system":
                reason = reason or self.reset_reason
            self.enter(mode, reason, failure)

    def wait_for(self, *modes: str, timeout_s: float = 30.0) -> bool:
        """Until one of the modes is there; False when it does not come."""
        with self._state:
            return self._state.wait_for(lambda: self.mode in modes, timeout_s)

    def power_cut(self, reason: str = "power_on") -> None:
        """No goodbye. ``enter`` brings it back; ``reason`` is what the next start says of it (power_on, brownout)."""
        with self._state:
            self._stop()
            self.reset_reason, self.boot_failure = reason, ""
            self._show("off")
        if self.changed:
            self.changed("off")

    def unplug(self) -> None:
        """Only the cable: what runs on the device goes on."""
        self.port.plug(None)
        self._tcp.detach()
        self._udp.detach()

    def replug(self) -> None:
        """The cable is back, in whatever mode the device is."""
        with self._state:
            if self.mode in FASTBOOT_MODES:
                self._tcp.attach(self._serve_network)
                self._udp.attach(self._serve_network)
            device = self._device()
            if device:
                self.port.plug(device)

    def close(self) -> None:
        self.power_cut()
        self._tcp.close()
        self._udp.close()
        self.storage.close()

    # --- what is on the bus -------------------------------------------------------------------------------------------

    def _device(self) -> UsbDevice | None:
        s = self.settings
        if self.mode in FASTBOOT_MODES:
            about = Descriptor(
                *_FASTBOOT_USB_ID, (0xFF, 0x42, 0x03), "Quark", "Virtual AR1", s.serial, s.packet_bytes
            )  # fmt: skip
            return self._plugged(about, self._serve_fastboot)
        product = f"QUSB_BULK_CID:0000_SN:{s.chip_serial:08X}"
        if self.mode == "edl":
            about = Descriptor(*EDL_USB_ID, (0xFF, 0xFF, 0xFF), "Qualcomm", product, "", s.packet_bytes)
            return self._plugged(about, self._serve_edl)
        if self.mode == "dump":
            about = Descriptor(*_DUMP_USB_ID, (0xFF, 0xFF, 0xFF), "Qualcomm", product, "", s.packet_bytes)
            return self._plugged(about, self._serve_dump)
        return None

    def _plugged(self, about: Descriptor, firmware: Callable[[UsbDevice], None]) -> UsbDevice:
        stall_after = self.settings.stall_after_bytes if "stalls" in self.settings.quirks else 0
        return UsbDevice(about, firmware, self.points, stall_after, partial(self.settings.quirks.discard, "stalls"))

    def _serve_fastboot(self, usb: UsbDevice) -> None:
        self._serve(UsbWire(usb))

    def _serve_network(self, wire: Wire) -> None:
        self._serve(wire)

    def _serve(self, wire: Wire) -> None:
        """A session of one wire. It ends in another mode, or with the wire."""
        fastboot = Fastboot(self, self._buffers, userspace=self.mode == "fastbootd")
        try:
            leads_to = fastboot.serve(wire)
        except (PowerLost, Unplugged):
            return
        except ConnectionResetError:
            if "reboots_away" in self.settings.quirks:
                self.enter("system")
            return
        self.enter(leads_to)

    def _serve_edl(self, usb: UsbDevice) -> None:
        try:
            while self._programmer is None:
                if self._hello_said and "hello_once" in self.settings.quirks:
                    usb.incoming.read(4096)  # waits for what never comes
                    continue
                self._hello_said = True
                with suppress(Restart):
                    BootRom(self.settings, usb).load()
                    self._programmer = Programmer(self.settings, self.remembered, self.storage, self.remember)
            mode = self._programmer.serve(usb)
        except (PowerLost, Unplugged):
            return
        except ConnectionResetError:
            usb.incoming.halt()
            return
        self.enter(mode)

    def _serve_dump(self, usb: UsbDevice) -> None:
        with suppress(Restart):
            while True:
                BootRom(self.settings, usb).dump(self.memory)
        self.enter("system")
