"""Compiles the firmware's C for this computer, with sanitizers."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from quarkctl.build import monocypher
from tests.conftest import BUILD, RTOS

FLAGS = [
    "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
]  # fmt: skip
FOLDERS = ["core", "boot", "smp", "kernel", "drivers", "port", "port/host", "boards", "app", "wire", "tests"]
BOOT = ["boot/image.c", "boot/state.c", "boot/decide.c", "boot/ed25519.c", "core/crc.c", "core/sha2.c"]
SMP = ["smp/cbor.c", "smp/line.c", "smp/raw.c", "smp/server.c", "smp/image_group.c"]
KERNEL = [f"kernel/{n}.c" for n in ("scheduler", "semaphore", "mutex", "message_queue", "event_flags", "timer")]

#: {program: sources besides tests/<program>.c}
PROGRAMS = {
    "test_core": ["core/power.c", "core/thermal.c"],
    "test_kernel": [*KERNEL, "port/host/kernel_port.c"],
    "test_link": [*KERNEL, "port/host/kernel_port.c", "app/link.c", "app/stream.c", "core/frame.c", "core/crc.c"],
    "test_power_cut": [*BOOT, *SMP, "port/host/flash.c"],
    "host_tool": [*BOOT, *SMP, "core/frame.c", "port/host/flash.c"],
}

#: {program: functions that it stands before}
WRAPPED = {"test_power_cut": ["qk_ed25519_verify"]}


def compile_program(name: str, *, fast: bool = False) -> Path:
    """Path of the program, compiled anew; ``fast``: optimised and without sanitizers, for very many rounds."""
    out = BUILD / "host"
    out.mkdir(parents=True, exist_ok=True)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Werror"] if fast else FLAGS
    with (out / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = monocypher.folder(RTOS / "monocypher.txt")
        sources = [f"tests/{name}.c", *PROGRAMS[name]]
        if "boot/ed25519.c" in sources:
            sources.append(str(library / "monocypher.c"))
        target = out / (f"{name}-fast" if fast else name)
        newest = max(p.stat().st_mtime for p in RTOS.rglob("*.[ch]"))
        if not target.exists() or target.stat().st_mtime < newest:
            includes = [f"-I{RTOS / f}" for f in FOLDERS] + [f"-I{library}"]
            fresh = target.with_suffix(".new")
            wraps = [f"-Wl,--wrap={f}" for f in WRAPPED.get(name, ())]
            subprocess.run(["gcc", *flags, *includes, *sources, *wraps, "-o", str(fresh)], cwd=RTOS, check=True)
            fresh.replace(target)
        return target


def run(name: str, *args: str | Path, fast: bool = False) -> str:
    """Output of a test program; its failure is ours."""
    done = subprocess.run(
        [compile_program(name, fast=fast), *args], capture_output=True, text=True, check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compile_agent_tool() -> Path:
    """The pure code of the AR1's agent behind a pipe (firmware/ar1/tests/host_tool.c)."""
    out = BUILD / "host"
    out.mkdir(parents=True, exist_ok=True)
    agent = RTOS.parent / "ar1"
    sources = [agent / "tests/host_tool.c", agent / "agent/slots.c", agent / "agent/vbmeta.c"]
    sources += [RTOS / "core" / f"{n}.c" for n in ("crc", "sha2")]
    target = out / "ar1_host_tool"
    with (out / "ar1_host_tool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(p.stat().st_mtime for p in [*sources, *agent.rglob("*.h")])
        if not target.exists() or target.stat().st_mtime < newest:
            fresh = target.with_suffix(".new")
            includes = [f"-I{agent / 'agent'}", f"-I{RTOS / 'core'}"]
            subprocess.run(["gcc", *FLAGS, *includes, *sources, "-o", str(fresh)], check=True)
            fresh.replace(target)
    return target


class HostTool:
    """The firmware's pure code behind a pipe (firmware/rtos/tests/host_tool.c)."""

    FRAME_BUILD, FRAME_PARSE, LINE_FEED, LINE_BUILD, SMP_HANDLE, SHA256, SHA512, ED25519, IMAGE_PARSE, RAW_FEED = range(
        1, 11
    )

    def __init__(self, program: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [program or compile_program("host_tool")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, op: int, body: bytes) -> bytes:
        p = self._process
        assert p.stdin and p.stdout and p.stderr
        p.stdin.write(struct.pack("<BI", op, len(body)) + body)
        p.stdin.flush()
        head = p.stdout.read(4)
        if len(head) < 4:
            raise AssertionError(p.stderr.read().decode())
        return p.stdout.read(int.from_bytes(head, "little"))

    def close(self) -> None:
        _, told = self._process.communicate()
        assert self._process.returncode == 0, told.decode()
