"""What runs inside the guest: programs that see the virtual AR1 through Linux's own USB stack. Started by init.c.

Each step is told to the host as one line of JSON on the serial console; the host answers requests by a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import usb.core  # noqa: F401 - ours forks find it loaded

from quarkctl.cli import main
from quarkctl.flash import edl, fastboot_session  # noqa: F401 - the same

CONSOLE = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)


def tell(**words: object) -> None:
    os.write(CONSOLE, b"\n@@" + json.dumps(words).encode() + b"\n")


def ask(**words: object) -> str:
    """The host does something to the virtual device, and says when it is done."""
    tell(**words)
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(CONSOLE, 1)
    return line.decode().strip()


def step(name: str, *command: str | Path) -> None:
    began = time.monotonic()
    try:
        done = subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = -1, "timed out"
    tell(step=name, code=code, said=said[-2000:], seconds=round(time.monotonic() - began, 1))


def ours(name: str, *arguments: str | Path) -> None:
    """quarkctl in a process of its own, forked from this one: importing it anew each time would take most of the time."""
    began = time.monotonic()
    log = Path("/run/ours.log")
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 1
        try:
            code = main.run([str(a) for a in arguments])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    tell(step=name, code=os.waitstatus_to_exitcode(status), said=log.read_text()[-2000:],
         seconds=round(time.monotonic() - began, 1))  # fmt: skip


def wait_for(found: str, other_than: str = "") -> str:
    """Until the kernel has enumerated a device with this vendor and product id, at another address than the last one.
    Returns the address."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for device in Path("/sys/bus/usb/devices").glob("*-*"):
            try:
                vendor, product, address = (
                    (device / name).read_text().strip() for name in ("idVendor", "idProduct", "devnum")
                )
            except OSError:  # an interface, or it goes just now
                continue
            if f"{vendor}:{product}" == found and address != other_than:
                return address
        time.sleep(0.05)
    tell(step=f"{found} on the bus", code=1, said="not found", seconds=30)
    return ""


def run(folder: Path) -> None:
    image, programmer, xml = folder / "boot.img", folder / "prog_firehose.elf", folder / "rawprogram0.xml"
    options = ["--programmer", programmer, "-d", "1-1"]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    wait_for("18d1:4ee0")
    step("fastboot devices", "fastboot", "devices")
    step("fastboot flash", "fastboot", "flash", "boot_b", image)
    step("fastboot stage", "fastboot", "stage", image)
    step("fastboot get_staged", "fastboot", "get_staged", "/run/fastboot.bin")
    step("fastboot compare", "cmp", image, "/run/fastboot.bin")
    ours("our devices", "devices")
    fastboot = ["--via", "fastboot", "--slot", "active", "-y", "--no-restart"]
    ours("our flash", "flash", f"{image}@boot_a", *fastboot)
    ours("our stage", "ar1", "stage", image)
    ours("our get-staged", "ar1", "get-staged", "/run/ours.bin")
    step("our compare", "cmp", image, "/run/ours.bin")
    ours("our reboot", "ar1", "reboot", "edl")
    ours("our EDL", "flash", xml, "--no-restart", *options)
    ours("our EDL, read", "ar1", "backup", "1", "/run/lun1.img", *options)
    step("our EDL, digest", "sha256sum", "/run/lun1.img")
    ours("our EDL, compare", "flash", xml, "--verify-only", *options)
    ask(do="cut")
    ours("our EDL, cut", "flash", xml, "--force", "--no-restart", *options)
    ask(do="replug")
    address = wait_for("05c6:9008")
    ours("our EDL, again", "flash", xml, "--force", "--no-restart", *options)
    ask(do="fresh")
    wait_for("05c6:9008", address)
    os.chdir(folder)  # where qdl looks for the files that XML names
    step("qdl", "qdl", "--storage", "ufs", programmer, xml)


if __name__ == "__main__":
    tell(boot=round(time.monotonic(), 1))
    run(Path(Path("/proc/cmdline").read_text().partition("folder=")[2].split()[0]))
    tell(end=True)
