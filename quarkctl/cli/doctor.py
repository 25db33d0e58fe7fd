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
    "fdtoverlay": (
        "device tree overlays of the virtual AR1",
        {"apt": "apt-get install device-tree-compiler", "dnf": "dnf install dtc", "brew": "brew install dtc"},
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
    kept_away = running and _udev().ok
    words = "runs, and the udev rule keeps it away from glasses" if kept_away else "runs and opens new serial ports"
    return Check(
        "ModemManager", kept_away or not running, words if running else "does not run",
        "quarkctl doctor --udev prints the rule that keeps it away from glasses", needed=False,
    )  # fmt: skip


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


#: Where udev looks for rules, the first before the others (udev(7)).
UDEV_FOLDERS = tuple(Path(p) for p in ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d",
                                       "/usr/lib/udev/rules.d", "/lib/udev/rules.d"))  # fmt: skip
_UDEV_CURE = (
    "quarkctl doctor --udev | sudo tee /etc/udev/rules.d/70-quarkctl.rules, then sudo udevadm control --reload "
    "and sudo udevadm trigger"
)


def _udev() -> Check:
    """Without the rule, ports belong to root or a group, and ModemManager talks to glasses."""
    wanted = _rules(UDEV_RULE)
    files = [f for folder in UDEV_FOLDERS for f in sorted(folder.glob("*.rules"))]
    whole = [f for f in files if wanted <= _rules(_text(f))]
    if whole:
        return Check("udev rule", True, str(whole[0]), needed=False)
    part = [f for f in files if wanted & _rules(_text(f))]
    words = f"{part[0]} is of another version" if part else "not installed"
    if not Path("/run/udev/control").exists():
        words += "; udev does not run here (a container?): it belongs on the host"
    return Check("udev rule", False, words, _UDEV_CURE, needed=False)


def _rules(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _usb_permission() -> Check:
    """Glasses in fastboot or EDL are no serial port: their USB device itself is opened."""
    if os.geteuid() == 0:
        return Check("USB permission", True, "root may open every device")
    found = [d for d in Path("/sys/bus/usb/devices").glob("*-*") if _is_glasses(d)]
    nodes = [Path(f"/dev/bus/usb/{int(_text(d / 'busnum')):03d}/{int(_text(d / 'devnum')):03d}") for d in found]
    closed = [str(n) for n in nodes if not os.access(n, os.R_OK | os.W_OK)]
    if closed:
        return Check("USB permission", False, f"no permission for {', '.join(closed)}", _UDEV_CURE)
    words = "all present glasses can be opened" if nodes else "no glasses in fastboot or EDL present"
    return Check("USB permission", True, words)


def _is_glasses(entry: Path) -> bool:
    """By Qualcomm's ids of EDL and memory dump, or the interface of fastboot."""
    if _text(entry / "idVendor").strip() == "05c6" and _text(entry / "idProduct").strip() in ("9008", "900e"):
        return True
    names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    return any([_text(i / n).strip() for n in names] == ["ff", "42", "03"] for i in entry.glob(f"{entry.name}:*"))


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


CHECKS: tuple[Callable[[], Check], ...] = (
    _python, _serial_permission, _usb_permission, _udev, _modem_manager, _state_folder, _sandbox,
)  # fmt: skip
