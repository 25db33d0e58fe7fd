"""quarkctl doctor"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Json, examples

app = typer.Typer(add_completion=False)

UNFIT = 3
UDEV_RULE = """\
# /etc/udev/rules.d/70-quarkctl.rules
# Glasses in fastboot (any vendor: interface ff/42/03), Qualcomm EDL and USB serial bridges: access for the person at
# the seat, and hands off for ModemManager.
SUBSYSTEM=="usb", ATTR{idVendor}=="05c6", ATTR{idProduct}=="9008", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"
SUBSYSTEM=="usb", ATTR{idVendor}=="05c6", ATTR{idProduct}=="900e", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"
SUBSYSTEM=="usb", ENV{ID_USB_INTERFACES}=="*:ff4203:*", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"
SUBSYSTEM=="tty", KERNEL=="ttyUSB*|ttyACM*", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"
"""

#: {program: (what for, {system: how to get it})}
PROGRAMS: dict[str, tuple[str, dict[str, str]]] = {
    "qemu-system-arm": (
        "virtual glasses",
        {"apt": "apt-get install qemu-system-arm", "dnf": "dnf install qemu-system-arm", "brew": "brew install qemu"},
    ),
    "arm-none-eabi-gcc": (
        "building the microcontroller's firmware",
        {
            "apt": "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi",
            "dnf": "dnf install arm-none-eabi-gcc-cs arm-none-eabi-newlib",
            "brew": "brew install --cask gcc-arm-embedded",
        },
    ),
    "cmake": (
        "building firmware",
        {"apt": "apt-get install cmake", "dnf": "dnf install cmake", "brew": "brew install cmake"},
    ),
    "ninja": (
        "building firmware",
        {"apt": "apt-get install ninja-build", "dnf": "dnf install ninja-build", "brew": "brew install ninja"},
    ),
}
_EXT4 = {"apt": "apt-get install e2fsprogs", "dnf": "dnf install e2fsprogs", "brew": "brew install e2fsprogs"}
_DEBIAN = "only on Debian and Ubuntu; elsewhere name your own kernel: [kernel] image in the specification"
#: The same for what only `quarkctl build ar1` needs, and only for some specifications: missing is no failure.
AR1_PROGRAMS: dict[str, tuple[str, dict[str, str]]] = {
    "mke2fs": ("ext4 images of the AR1", _EXT4),
    "debugfs": ("ext4 images of the AR1", _EXT4),
    "mkfs.erofs": (
        "erofs images of the AR1",
        {"apt": "apt-get install erofs-utils", "dnf": "dnf install erofs-utils", "brew": "brew install erofs-utils"},
    ),
    "aarch64-linux-gnu-gcc": (
        "the agent of the virtual AR1",
        {
            "apt": "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
            "dnf": "dnf install gcc-aarch64-linux-gnu",
            "brew": "brew install aarch64-unknown-linux-gnu, and link its gcc under this name",
        },
    ),
    "apt-get": ("fetching Debian's kernel for the virtual AR1", {"apt": _DEBIAN, "dnf": _DEBIAN, "brew": _DEBIAN}),
    "dpkg-deb": (
        "unpacking Debian's kernel for the virtual AR1",
        {"apt": "apt-get install dpkg", "dnf": "dnf install dpkg", "brew": "brew install dpkg"},
    ),
    "qemu-system-aarch64": (
        "booting the images of the virtual AR1",
        {
            "apt": "apt-get install qemu-system-arm",
            "dnf": "dnf install qemu-system-aarch64",
            "brew": "brew install qemu",
        },
    ),
}


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    text: str
    cure: str = ""
    needed: bool = True


@app.command(
    epilog=examples("quarkctl doctor", "quarkctl doctor --udev | sudo tee /etc/udev/rules.d/70-quarkctl.rules")
)
def doctor(
    udev: Annotated[bool, typer.Option("--udev", help="Print the udev rule and nothing else.")] = False,
    as_json: Json = False,
) -> int:
    """Check this computer: tools, permissions, who disturbs. Prints the cure of everything that is wrong."""
    if udev:
        print(UDEV_RULE, end="")
        return 0
    return report([*_programs(), *(c() for c in CHECKS)], "quarkctl.doctor/1", as_json=as_json)


def report(checks: Sequence[Check], schema: str, *, as_json: bool) -> int:
    """Show the checks with the cures of those that are not ok; returns the exit code."""
    if as_json:
        show.document(schema, {"checks": [vars(c) for c in checks]})
    else:
        for c in checks:
            word, style = ("ok", "green") if c.ok else ("missing", "bold red") if c.needed else ("note", "yellow")
            show.out.print(
                show.styled(f"{word:<7}", style).append(f"  {c.name:<21} {c.text}", "default"), soft_wrap=True
            )
            if not c.ok and c.cure:
                show.out.print(f"         cure: {c.cure}", soft_wrap=True)
    return UNFIT if any(not c.ok and c.needed for c in checks) else 0


def _manager() -> str:
    return next(
        (m for m, program in (("apt", "apt-get"), ("dnf", "dnf"), ("brew", "brew")) if shutil.which(program)), "apt"
    )


def _programs() -> list[Check]:
    from quarkctl.build.programs import search_path

    manager, out = _manager(), []
    for programs, needed in ((PROGRAMS, True), (AR1_PROGRAMS, False)):
        for name, (purpose, cures) in programs.items():
            path = shutil.which(name, path=search_path())
            text, cure = path or f"needed for {purpose}", "" if path else cures[manager]
            out.append(Check(name, path is not None, text, cure, needed))
    return out


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, f"{platform.python_version()} at {sys.executable}", "install Python 3.11 or newer")


def _serial_permission() -> Check:
    """Debian gives serial ports to group dialout, Arch and others to uucp."""
    if os.geteuid() == 0:
        return Check("serial permission", True, "root may open every port")
    ports = [p for pattern in ("ttyUSB*", "ttyACM*") for p in Path("/dev").glob(pattern)]
    closed = [p for p in ports if not os.access(p, os.R_OK | os.W_OK)]
    if closed:
        group = closed[0].group()
        return Check(
            "serial permission", False, f"no permission for {', '.join(map(str, closed))}",
            f"sudo usermod -aG {group} $USER, then log in again; or install the rule: quarkctl doctor --udev",
        )  # fmt: skip
    return Check(
        "serial permission", True, "all present ports can be opened" if ports else "no USB serial port present"
    )


def _modem_manager() -> Check:
    """It opens every new serial port and talks to it."""
    running = any(_comm(p) == "ModemManager" for p in Path("/proc").glob("[0-9]*/comm"))
    return Check(
        "ModemManager", not running, "runs and opens new serial ports" if running else "does not run",
        "quarkctl doctor --udev prints the rule that keeps it away from glasses", needed=False,
    )  # fmt: skip


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _state_folder() -> Check:
    from quarkctl.sim import folder

    parent = next(p for p in (folder.root(), *folder.root().parents) if p.exists())
    ok = os.access(parent, os.W_OK)
    return Check("state folder", ok, str(folder.root()), f"make {parent} writable or set QUARKCTL_STATE_DIR")


def _sandbox() -> Check:
    """The sandbox needs seccomp, which every usual Linux kernel has."""
    ok = sys.platform == "linux" and Path("/proc/sys/kernel/seccomp").exists()
    return Check(
        "QEMU sandbox", ok, "seccomp is there" if ok else "virtual glasses need Linux with seccomp", "run on Linux"
    )


CHECKS: tuple[Callable[[], Check], ...] = (_python, _serial_permission, _modem_manager, _state_folder, _sandbox)
