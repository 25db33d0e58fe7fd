"""Start, find and command virtual glasses from another process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarkctl.errors import DeviceMissing, HostUnfit, InputWrong, LinkError, QuarkError, UsageWrong
from quarkctl.formats import mcuboot_image
from quarkctl.sim import folder, qemu

#: Flash map of the virtual boards (firmware/rtos/boards/*.c): slots and state sectors, as offsets in the memory file.
SLOT_OFFSETS = (0x000000, 0x100000)
SLOT_BYTES = 0x100000
STATE_OFFSET = 0x200000
STATE_BYTES = 0x2000

_ANSWER_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Firmware:
    """What virtual glasses are made of: bootloader and the image that the factory put into slot A."""

    boot_elf: Path
    image: Path


def start(
    name: str, board: str, firmware: Firmware, *, load: str = "idle", seed: int = 1, ar1_version: str = "1.0.0",
    ar1_images: Path | None = None, imu_hz: int = 0,
) -> folder.Instance:  # fmt: skip
    """Start virtual glasses; returns when their firmware's power is on.

    ``ar1_images``: build of the application processor that the factory flashes and that starts with the power; without, it
    is off until somebody switches it on. ``imu_hz``: rate of the inertial sensor, 0 off.

    Raises UsageWrong (name taken), InputWrong (image), HostUnfit (no QEMU).
    """
    qemu.require()
    if ar1_images:
        qemu.require(qemu.AR1_PROGRAM)
        qemu.require(*qemu.OVERLAYS)
    image = _read(firmware.image)
    parsed = mcuboot_image.parse(image)
    if parsed.board != board:
        raise InputWrong(f"{firmware.image} is made for {parsed.board or 'no board'}, not for {board}")
    if len(image) > SLOT_BYTES:
        raise InputWrong(f"{firmware.image} has {len(image)} bytes, a slot holds {SLOT_BYTES}")
    path = folder.folder_of(name)
    folder.running()  # clears up what dead ones left
    try:
        held = folder.create(path)
    except FileExistsError:
        raise UsageWrong(
            f"virtual glasses called {name} run already", hint=f"quarkctl sim stop {name}, or another name"
        ) from None
    try:
        shutil.copyfile(firmware.boot_elf, path / "boot.elf")
        _provision(path / "memory.bin", image)
        settings = {
            "name": name, "board": board, "serial": _serial(board, name), "image": str(firmware.image),
            "load": load, "seed": seed, "ar1_version": ar1_version, "ar1": bool(ar1_images),
            "imu_hz": imu_hz,
        }  # fmt: skip
        if ar1_images:
            from quarkctl.sim.ar1 import factory

            factory.install(path / "ar1", board, ar1_images)
        (path / "settings.json").write_text(json.dumps(settings), "utf-8")
        _launch(path, held.fileno())
    except BaseException:
        folder.clear(path)
        raise
    finally:
        held.close()
    return folder.load(name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error


def _serial(board: str, name: str) -> str:
    """The same name gives the same serial number, like a device that keeps its own."""
    return f"V{board[:2].upper()}-{zlib.crc32(name.encode()) & 0xFFFFFF:06X}"


def _provision(memory: Path, image: bytes) -> None:
    """A new file reads zero where erased flash reads 0xff."""
    with memory.open("wb") as file:
        file.truncate(qemu.MEMORY_BYTES)
        for offset in SLOT_OFFSETS:
            file.seek(offset)
            file.write(b"\xff" * SLOT_BYTES)
        file.seek(STATE_OFFSET)
        file.write(b"\xff" * STATE_BYTES)
        file.seek(SLOT_OFFSETS[0])
        file.write(image)


def _launch(path: Path, lock_fd: int) -> None:
    """Start the supervisor, which inherits the lock, and wait until it is ready."""
    with (path / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "quarkctl.sim.glasses", str(path), str(lock_fd)], pass_fds=(lock_fd,),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"} if _installed() else None,
        )  # fmt: skip
    # The supervisor says one line and closes its output; what waits here is its parent, which ends at once.
    line = process.communicate()[0]
    try:
        said = json.loads(line)
    except ValueError:
        detail = (path / "supervisor.log").read_text("utf-8", "replace").strip().splitlines()
        raise QuarkError(f"the virtual glasses did not start: {detail[-1] if detail else 'no output'}") from None
    if "error" in said:
        raise HostUnfit(said["error"], said.get("hint", ""))


def _installed() -> bool:
    """In a source tree that is not installed, the child finds the package through the current folder."""
    return "site-packages" in str(Path(__file__))


def request(name: str, **fields: Any) -> dict[str, Any]:
    """Send one command to running virtual glasses and return their answer.

    Raises DeviceMissing, LinkError, or what the glasses answered.
    """
    folder.load(name)
    return _tell(name, fields)


def _tell(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    path = folder.folder_of(name) / "control.sock"
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(_ANSWER_TIMEOUT_S)
        try:
            channel.connect(str(path))
            channel.sendall(json.dumps(fields).encode() + b"\n")
            answer = json.loads(channel.makefile("r").readline())
        except (OSError, ValueError) as error:
            raise LinkError(f"virtual glasses {name} do not answer: {error}") from error
    if "error" in answer:
        e = answer["error"]
        raise (
            UsageWrong(e["message"], e["hint"])
            if e["exit_code"] == UsageWrong.exit_code
            else LinkError(e["message"], e["hint"])
        )
    return dict(answer["ok"])


def host_waits(identity: str, since_ns: int) -> list[tuple[int, float, bool]]:
    """(wall clock in ns, ms, whether the AR1 is real) of each second in which processes of these glasses waited for their
    host; none for real ones."""
    if not identity.startswith("sim:"):
        return []
    try:
        rows = request(identity.removeprefix("sim:").removesuffix("/ar1"), command="host", since_ns=since_ns)
    except QuarkError:  # stopped meanwhile
        return []
    return [(int(at), float(ms), bool(ar1)) for at, ms, ar1 in rows["waits"]]


def stop(name: str) -> None:
    """Stop and forget, also those of another version; returns when everything is gone."""
    kill = ""
    with suppress(folder.OtherVersion):
        kill = f"kill -9 {folder.load(name).pid}"
    _tell(name, {"command": "stop"})
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while folder.folder_of(name).exists():
        if time.monotonic() > deadline:
            raise LinkError(
                f"virtual glasses {name} do not stop", hint=kill or "kill the process that holds their lock"
            )
        time.sleep(0.01)


def port(name: str) -> str:
    """Path of the serial port; another one each time the cable is plugged in."""
    instance = folder.load(name)
    if not instance.port:
        raise DeviceMissing(f"the cable of virtual glasses {name} is unplugged", hint="quarkctl sim cable plug")
    return instance.port
