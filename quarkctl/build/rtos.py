"""Build the microcontroller's firmware: bootloader, application, signed image."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from quarkctl import boards
from quarkctl.build import monocypher, sign, source, stack, tools
from quarkctl.build.alone import LOCK, in_turn
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.events import Event, Level, Progress, silent
from quarkctl.formats import elf, mcuboot_image
from quarkctl.formats.mcuboot_image import Version

#: What the tools said, in the folder where the firmware is compiled.
LOG = "build.log"
#: Faults that can be built into a test image (firmware/rtos/app/sabotage.c).
SABOTAGE = ("hang", "masked", "stalled", "fault", "stack", "selftest")


@dataclass(frozen=True)
class Request:
    """What to build. ``key`` names a signer, None means the development key; ``out`` None means build/<board>; ``ar1_min``
    is the AR1's version that it needs."""

    board: str
    version: Version
    key: str | Path | None = None
    out: Path | None = None
    security_counter: int = 1
    ar1_min: Version | None = None
    sabotage: str = ""


@dataclass(frozen=True)
class Sizes:
    """Bytes of one program: flash (code and constants), RAM (data, zeroed data, stacks)."""

    flash: int
    ram: int


@dataclass(frozen=True)
class Built:
    """``boot_elf`` is the bootloader that trusts the image's key; None where ours cannot verify its signature."""

    image: Path
    app_elf: Path
    boot_elf: Path | None
    version: Version
    sha256: str
    build_id: str
    development_key: bool
    sizes: dict[str, Sizes]
    stacks: dict[str, tuple[int, int]]

    def as_dict(self) -> dict[str, object]:
        return {
            "image": str(self.image),
            "app_elf": str(self.app_elf),
            "boot_elf": str(self.boot_elf) if self.boot_elf else None,
            "version": str(self.version),
            "sha256": self.sha256,
            "build_id": self.build_id,
            "development_key": self.development_key,
            "sizes": {k: vars(v) for k, v in self.sizes.items()},
            "stacks": {k: {"worst_bytes": w, "stack_bytes": s} for k, (w, s) in self.stacks.items()},
        }


def build(request: Request, progress: Progress = silent) -> Built:
    """Configure, compile, link, sign. Outputs appear whole or not at all.

    Raises HostUnfit (tools), InputWrong (board, key), BuildFailed (sources).
    """
    board = boards.load(request.board)
    if not board.virtual:
        raise UsageWrong(
            f"there is no firmware for {board.name}", hint=f"boards with firmware: {', '.join(buildable())}"
        )
    if request.sabotage and request.sabotage not in SABOTAGE:
        raise UsageWrong(f"no sabotage {request.sabotage!r}", hint=f"there are {', '.join(SABOTAGE)}")
    tools.require(tools.RTOS_TOOLS)
    rtos = source.rtos()
    signer = sign.load(request.key or source.development_key())
    public_key = signer.public_key
    # Our bootloader verifies Ed25519. An image with another signature is for MCUboot, and needs no bootloader of ours.
    trusted = public_key if public_key.kind == "ed25519" else sign.load(source.development_key()).public_key
    out = request.out or Path("build") / board.name
    work = out / f".work-{board.name}"
    work.mkdir(parents=True, exist_ok=True)

    def tell(step: str, level: Level, text: str = "") -> None:
        progress(Event(board.name, step, level, text))

    tell("configure", Level.START)
    with in_turn(str(work), lambda: tell("configure", Level.NOTE, f"another build uses {work}: waiting for it")):
        if _configure(request, board.name, rtos, work, trusted.raw.hex()):
            tell("configure", Level.NOTE, f"{work} was made elsewhere or by other tools: made anew")
        tell("configure", Level.DONE)
        tell("compile", Level.START)
        tools.run(["ninja", "-C", work], work / LOG)
        tell("compile", Level.DONE)
        tell("sign", Level.START)
        payload = (work / "app.payload").read_bytes()
        image = mcuboot_image.build(
            payload, version=request.version, load_address=board.need("rtos.load_address"),
            header_bytes=board.need("rtos.header_bytes"), board=board.name,
            security_counter=request.security_counter, ar1_min=request.ar1_min, public_key=public_key,
            sign=lambda message: signer.sign(message, f"rtos-{request.version}"),
        )  # fmt: skip
        signer.finish()
        if len(image) > board.need("rtos.slot_bytes"):
            raise InputWrong(
                f"the image has {len(image)} bytes, a slot of {board.name} {board.need('rtos.slot_bytes')}"
            )
        built = _finish(request, out, work, image, bootable=trusted == public_key)
    tell("sign", Level.DONE, built.sha256[:12])
    return built


def _configure(request: Request, board: str, rtos: Path, work: Path, trusted_hex: str) -> bool:
    """Let CMake prepare ``work``. True: what lay there had to go first. CMake refuses a folder that was copied or moved from
    another clone, and one whose compiler or generator is gone; nothing in it is worth an error."""
    log = work / LOG
    log.unlink(missing_ok=True)
    v = request.version
    command: list[str | Path] = [
        "cmake", "-G", "Ninja", "-S", rtos, "-B", work,
        f"-DCMAKE_TOOLCHAIN_FILE={rtos / 'toolchain-arm-none-eabi.cmake'}",
        f"-DQK_BOARD={board}", f"-DQK_VERSION={v.major}.{v.minor}.{v.revision}.{v.build}",
        f"-DQK_PUBLIC_KEY_HEX={trusted_hex}", f"-DQK_MONOCYPHER_DIR={monocypher.folder(rtos / 'monocypher.txt')}",
        f"-DQK_SABOTAGE={request.sabotage.upper()}",
    ]  # fmt: skip
    used = (work / "CMakeCache.txt").exists()
    try:
        tools.run(command, log)
    except tools.BuildFailed:
        if not used:
            raise
        _empty(work)
        tools.run(command, log)
        return True
    return False


def _empty(work: Path) -> None:
    """The lock stays: it is held."""
    for entry in work.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def boot_name(key_hash: bytes) -> str:
    """A bootloader trusts one key: builds with several keys lie side by side."""
    return f"boot-{key_hash.hex()[:8]}.elf"


def buildable() -> list[str]:
    """Boards with firmware in the source tree."""
    return [n for n in boards.names() if (source.rtos() / "boards" / f"{n}.c").is_file()]


def _finish(request: Request, out: Path, work: Path, image: bytes, *, bootable: bool) -> Built:
    stem = f"rtos-{request.version}" + (f"-{request.sabotage}" if request.sabotage else "")
    image_path, elf_path = out / f"{stem}.bin", out / f"{stem}.elf"
    boot_path = out / boot_name(mcuboot_image.parse(image).key_hash) if bootable else None
    _publish(image_path, image)
    _publish(elf_path, (work / "app.elf").read_bytes())
    if boot_path:
        _publish(boot_path, (work / "boot.elf").read_bytes())
    objects = work / "CMakeFiles"
    boot_graph = stack.load(
        f for d in ("boot.dir", "common.dir", "monocypher.dir") for f in (objects / d).rglob("*.ci")
    )
    app_graph = stack.load(f for d in ("app.dir", "common.dir", "monocypher.dir") for f in (objects / d).rglob("*.ci"))
    built = Built(
        image_path, elf_path, boot_path, request.version, hashlib.sha256(image).hexdigest(),
        elf.build_id((work / "app.payload").read_bytes()).hex(), request.key is None,
        {"bootloader": _sizes(work / "boot.elf"), "application": _sizes(work / "app.elf")},
        {**stack.report(boot_graph, {"bootloader": ("main", MAIN_STACK_BYTES)}),
         **stack.report(app_graph, _stacks(source.rtos()))},
    )  # fmt: skip
    _publish(out / f"{stem}.json", json.dumps(built.as_dict(), indent=1, sort_keys=True).encode() + b"\n")
    return built


def _publish(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


def _sizes(elf: Path) -> Sizes:
    """text + data is what flash holds, data + bss what RAM holds."""
    text, data, bss = (int(n) for n in tools.output("arm-none-eabi-size", elf).splitlines()[1].split()[:3])
    return Sizes(text + data, data + bss)


#: port/mps3/sections.ld
MAIN_STACK_BYTES = 8192

_THREAD = re.compile(r"static uint64_t stack\[(\d+) / 8\]")
_ENTRY = re.compile(r"osThreadNew\((\w+), NULL, &\w+\)")
_NAME = re.compile(r'\.name = "(\w+)",')


def _stacks(rtos: Path) -> dict[str, tuple[str, int]]:
    """{thread: (entry as GCC's call graph names it, stack bytes)}, read from the threads' own definitions."""
    out = {}
    for file in sorted((rtos / "app").glob("*.c")):
        text = file.read_text("utf-8")
        size, entry, name = _THREAD.search(text), _ENTRY.search(text), _NAME.search(text)
        if size and entry and name and name.group(1) != "sabotage":
            out[name.group(1)] = (f"{file}:{entry.group(1)}", int(size.group(1)))
    return out
