"""The running system: what the boot loader took from the storage, in `qemu-system-aarch64`, with the LUNs as its disks."""

from __future__ import annotations

import json
import re
import resource
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from quarkctl.errors import HostUnfit
from quarkctl.sim import qemu
from quarkctl.sim.ar1 import device_tree
from quarkctl.sim.ar1.bootloader import Start
from quarkctl.sim.ar1.host_port import HostPort
from quarkctl.sim.ar1.watchdog import Watchdog

_MEMORY_MIB = 256
#: A system that says nothing on its port for so much of its own time hangs: the watchdog resets it.
WATCHDOG_S = 60.0
_WATCH_EVERY_S = 1.0
_START_TIMEOUT_S = 10.0
#: The guest's log is no way to fill the host's disk. LUNs must stay below it.
FILE_BYTES_MAX = 1 << 30
_CONSOLE_TAIL = 64 << 10


#: What the kernel runs on, but for disks and ports.
MACHINE = (qemu.AR1_PROGRAM, "-M", "virt", "-cpu", "cortex-a53", "-m", str(_MEMORY_MIB))


def merge(folder: Path, blobs: Sequence[bytes]) -> bytes:
    """The machine's device tree with these overlays. Raises `device_tree.Unfit`, HostUnfit."""
    return device_tree.merged(folder, MACHINE, blobs)


def command(start: Start, luns: Sequence[Path], sector_bytes: int, link: str) -> list[str]:
    """Arguments for a machine whose files lie in the current folder. ``link``: the socket of the microcontroller's UART,
    empty for none. The order on the PCI bus is that of the kernel's names: vda and so on, ttyS0 host, ttyS1 link."""
    other_end = f"socket,id=link,path={link},reconnect=1" if link else "null,id=link"
    drives: list[str] = []
    for n, lun in enumerate(luns):
        drives += ["-drive", f"if=none,id=d{n},file={lun.name},format=raw,cache=unsafe"]
        block = f"logical_block_size={sector_bytes},physical_block_size={sector_bytes}"
        drives += ["-device", f"virtio-blk-pci,drive=d{n},addr={4 + n:#x},{block}"]
    return [
        *MACHINE, "-accel", "tcg,tb-size=64", "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot",
        "-kernel", "kernel", "-initrd", "ramdisk", "-append", start.cmdline, *(["-dtb", "tree.dtb"] if start.tree else []),
        *drives,
        # The terminal comes last: when its name is printed, the socket exists.
        "-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-chardev", "file,id=console,path=console.log", "-serial", "chardev:console",
        "-chardev", other_end, "-chardev", "pty,id=host",
        "-device", "pci-serial,chardev=host,addr=0x10", "-device", "pci-serial,chardev=link,addr=0x11",
        "-sandbox", qemu.SANDBOX,
    ]  # fmt: skip


def _prepare() -> None:
    qemu.die_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))


class QemuSystem:
    """One run of the kernel. The thread that makes it must also wait for it."""

    def __init__(
        self, folder: Path, start: Start, luns: Sequence[Path], sector_bytes: int, port: HostPort, link: str = "",
        watchdog_s: float = WATCHDOG_S,
    ) -> None:  # fmt: skip
        """Raises HostUnfit when QEMU is missing or does not start."""
        qemu.require(qemu.AR1_PROGRAM)
        self._folder, self._port = folder, port
        self._killed, self._attached = False, 0
        (folder / "qmp.sock").unlink(missing_ok=True)
        (folder / "kernel").write_bytes(start.images.kernel)
        (folder / "ramdisk").write_bytes(start.images.ramdisk)
        (folder / "tree.dtb").write_bytes(start.tree)
        self._process = subprocess.Popen(
            command(start, luns, sector_bytes, link), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=_prepare,
        )  # fmt: skip
        try:
            self._attached = port.attach(self._terminal())
            self._watchdog = Watchdog(self.pid, watchdog_s)
            self._events = socket.socket(socket.AF_UNIX)
            self._events.settimeout(_START_TIMEOUT_S)
            self._events.connect(str(folder / "qmp.sock"))
            self._events.sendall(b'{"execute": "qmp_capabilities"}\n')
        except (OSError, HostUnfit) as error:
            self.kill()
            raise HostUnfit(
                f"{qemu.AR1_PROGRAM} did not start: {error}", hint=f"see {folder / 'console.log'}"
            ) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def _terminal(self) -> str:
        said = "no output"
        for raw in self._process.stdout or ():
            said = raw.decode("utf-8", "replace").strip()
            match = re.search(r"redirected to (\S+) \(label host\)", said)
            if match:
                return match.group(1)
        raise HostUnfit(said)

    def wait(self) -> str:
        """Until it ends: ``reset``, ``panic``, ``hung``, ``off``, or ``died`` (QEMU was killed)."""
        self._events.settimeout(_WATCH_EVERY_S)
        reason, rest = "", b""
        while True:
            try:
                data = self._events.recv(65536)
            except TimeoutError:
                if self._watchdog.look(self._port.heard_s) and not self._killed:
                    reason = "hung"
                    self._process.kill()
                continue
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            reason = next(filter(None, map(_shutdown, lines)), reason)
        self._close()
        if reason == "guest-reset":
            return "panic" if b"Kernel panic" in self._console_tail() else "reset"
        return {"guest-shutdown": "off", "hung": "hung"}.get(reason, "died")

    def _console_tail(self) -> bytes:
        with suppress(OSError), (self._folder / "console.log").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _CONSOLE_TAIL, 0))
            return file.read()
        return b""

    def kill(self) -> None:
        """Power cut: no goodbye. What the guest had written is on the storage."""
        self._killed = True
        self._process.kill()
        self._process.wait()
        self._port.detach(self._attached)

    def _close(self) -> None:
        self._process.wait()
        self._port.detach(self._attached)
        self._events.close()
        if self._process.stdout:
            self._process.stdout.close()


def _shutdown(line: bytes) -> str:
    """The reason in a SHUTDOWN event of QEMU's machine protocol."""
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    if isinstance(said, dict) and said.get("event") == "SHUTDOWN":
        return str(said.get("data", {}).get("reason", ""))
    return ""
