"""The microcontroller: Debian's QEMU, machine mps3-an547, with the board's DDR as a file that plays flash and mailbox."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from quarkctl.errors import HostUnfit, LinkError
from quarkctl.sim import folder as known

PROGRAM = "qemu-system-arm"
#: Of the application processor (`sim/ar1/system.py`).
AR1_PROGRAM = "qemu-system-aarch64"
#: What applies its device tree overlays, and the package.
OVERLAYS = ("fdtoverlay", "device-tree-compiler")
#: The machine insists on exactly this size; the file is sparse.
MEMORY_BYTES = 2 << 30
#: Guests are untrusted: no new processes, no privileges. Semihosting would give them a shell on the host: never.
SANDBOX = "on,spawn=deny,elevateprivileges=deny,obsolete=deny,resourcecontrol=deny"
#: The UART to the application processor, in the folder of the glasses.
AR1_SOCKET = "ar1.sock"
_START_TIMEOUT_S = 10.0


def command(icount: bool = False) -> list[str]:
    """Arguments for a machine whose files lie in the current folder."""
    return [
        PROGRAM, "-M", "mps3-an547,memory-backend=ddr", "-nodefaults", "-display", "none", "-monitor", "none",
        "-object", f"memory-backend-file,id=ddr,mem-path=memory.bin,size={MEMORY_BYTES >> 20}M,share=on",
        "-kernel", "boot.elf",
        # The terminal comes last: when its name is printed, the sockets exist.
        "-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-chardev", "socket,id=doorbell,path=doorbell.sock,server=on,wait=off",
        # The application processor's QEMU is the client: either may restart without the other.
        "-chardev", f"socket,id=ar1,path={AR1_SOCKET},server=on,wait=off",
        "-chardev", "file,id=log,path=firmware.log,append=on",
        "-chardev", "pty,id=link",
        "-serial", "chardev:link", "-serial", "chardev:doorbell", "-serial", "chardev:ar1", "-serial", "chardev:log",
        "-sandbox", SANDBOX,
        *(["-icount", "shift=5,sleep=off"] if icount else []),
    ]  # fmt: skip


def require(program: str = PROGRAM, package: str = "qemu-system-arm") -> str:
    """Path of the program; HostUnfit tells how to get it. The package of that name brings both QEMUs."""
    path = shutil.which(program)
    if path is None:
        raise HostUnfit(f"{program} is not installed", hint=f"on Debian or Ubuntu: apt-get install {package}")
    return path


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: QEMU must not outlive a supervisor that was killed. Its parent is the thread that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def _pin(pid: int) -> None:
    """Keep QEMU's threads on one processor. Each byte on the serial line is handed from one thread to the other, and a
    wake-up across processors costs more than the work: 16 kB/s unpinned, 45 kB/s pinned on a 2-core virtual machine."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {_least_taken(os.sched_getaffinity(0))})


def _least_taken(processors: set[int]) -> int:
    """The one with the fewest virtual glasses; by process number all of a rig could be on one."""
    taken = dict.fromkeys(processors, 0)
    for other in known.running():
        with suppress(OSError):
            pinned = os.sched_getaffinity(other.qemu_pid) if other.qemu_pid else set()
            for one in pinned & processors if len(pinned) == 1 else ():
                taken[one] += 1
    return min(sorted(processors), key=taken.__getitem__)


class Qemu:
    """One running machine. Sockets are addressed relative to the folder: their paths must stay short."""

    def __init__(self, folder: Path, icount: bool = False) -> None:
        require()
        for name in ("doorbell.sock", "qmp.sock", AR1_SOCKET):
            (folder / name).unlink(missing_ok=True)
        self._folder = folder
        self._process = subprocess.Popen(
            command(icount), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        _pin(self._process.pid)
        try:
            self.port = self._read_port()
            self._doorbell = socket.socket(socket.AF_UNIX)
            self._doorbell.connect(str(folder / "doorbell.sock"))
            self._doorbell.setblocking(False)
        except BaseException:
            self.kill()
            raise

    def _read_port(self) -> str:
        """QEMU says on its first lines which pseudo-terminal it made."""
        said = []
        for raw in self._process.stdout or ():
            line = raw.decode("utf-8", "replace").strip()
            said.append(line)
            match = re.search(r"redirected to (\S+) \(label link\)", line)
            if match:
                return match.group(1)
        raise HostUnfit(f"{PROGRAM} did not start: {said[-1] if said else 'no output'}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ring(self) -> None:
        """Doorbell of the power path: something happened now."""
        try:
            self._doorbell.send(b"!")
        except (BlockingIOError, OSError):  # full or gone: the firmware looks by itself within 40 ms
            return

    def qmp(self, execute: str) -> None:
        """One command of the QEMU machine protocol, without an answer worth having."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(_START_TIMEOUT_S)
            try:
                channel.connect(str(self._folder / "qmp.sock"))
                file = channel.makefile("rw")
                file.readline()
                for name in ("qmp_capabilities", execute):
                    file.write(json.dumps({"execute": name}) + "\n")
                    file.flush()
                    while "return" not in (answer := json.loads(file.readline() or "{}")):
                        if "error" in answer or not answer:
                            raise LinkError(f"QEMU refused {name}: {answer.get('error', {}).get('desc', 'no answer')}")
            except (OSError, json.JSONDecodeError) as error:
                raise LinkError(f"QEMU does not answer: {error}") from error

    def kill(self) -> None:
        """Power cut: no goodbye."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        if hasattr(self, "_doorbell"):
            self._doorbell.close()
