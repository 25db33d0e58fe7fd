"""The agent of the virtual AR1: one static arm64 program from ``firmware/ar1/agent``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quarkctl.build import source, tools

TOOLS = {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"}
FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-Os", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-fno-ident",
    "-Wl,--build-id=sha1", "-Wl,-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections",
)  # fmt: skip


def sources() -> list[Path]:
    """Everything that the program is made of, in a fixed order."""
    folder = source.root() / "firmware" / "ar1" / "agent"
    core = source.rtos() / "core"
    return [
        *sorted(folder.glob("*.c")), *(core / f"{n}.c" for n in ("frame", "crc", "sha2")), *sorted(folder.glob("*.h")),
        *(core / f"qk_{n}.h" for n in ("frame", "crc", "sha2")), source.rtos() / "wire" / "qk_telemetry.h",
    ]  # fmt: skip


def content_id(product: str, version: str) -> str:
    """Changes when the program would. The compiler's version is part of it."""
    h = hashlib.sha256(" ".join((product, version, *FLAGS)).encode())
    h.update(tools.output("aarch64-linux-gnu-gcc", "-dumpfullversion", "-dumpmachine").encode())
    for path in sources():
        h.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return h.hexdigest()


def build(work: Path, product: str, version: str) -> bytes:
    """The program. Raises HostUnfit without the cross compiler, BuildFailed for sources that do not build."""
    tools.require(TOOLS)
    root = source.root()
    target, log = work / "agent", work / "agent.log"
    log.unlink(missing_ok=True)
    major, minor, revision = ([*version.partition("+")[0].split("."), "0", "0"])[:3]
    tools.run(
        [
            "aarch64-linux-gnu-gcc", *FLAGS, f'-DQK_BOARD="{product}"', f"-DQK_VERSION_MAJOR={major}",
            f"-DQK_VERSION_MINOR={minor}", f"-DQK_VERSION_REVISION={revision}",
            f"-ffile-prefix-map={root}=.", f"-I{root / 'firmware/ar1/agent'}", f"-I{root / 'firmware/rtos/core'}",
            f"-I{root / 'firmware/rtos/wire'}", "-o", target, *(p for p in sources() if p.suffix == ".c"),
        ], log,
    )  # fmt: skip
    return target.read_bytes()
