"""ESP32-family rigs through esptool: compare in windows of 64 KiB, write what differs, let the device prove it.

esptool is run as a program and never imported: its licence is GPL-2.0-or-later. What it prints becomes events; how it
fails becomes our errors. The device's own MD5 of each window decides what is written, so a broken flash goes on where it
ended, and one that changes little writes little.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from quarkctl import boards
from quarkctl.boards import Board
from quarkctl.errors import InputWrong, ProtocolError, UsageWrong, VerificationFailed
from quarkctl.events import Event, Level
from quarkctl.flash import port_memory
from quarkctl.flash.esptool import Esptool, LineFailed, Seen
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.formats import esp_image
from quarkctl.formats.esp_image import EspImage

WINDOW_BYTES = 0x10000
SECTOR_BYTES = 0x1000
#: What comes before the application in flash decides whether anything starts: written last.
_BOOT_END = 0x10000
#: Files of one call of esptool: command lines have an end.
_FILES_MAX = 256
_FILE_MAX = 128 << 20
_ROM_BAUD = 115_200
BAUDS = (921_600, 460_800, 230_400, 115_200)
RETRIES_MAX = 4


@dataclass(frozen=True)
class Region:
    """One file at one address."""

    offset: int
    data: bytes
    name: str


@dataclass(frozen=True)
class Window:
    """Part of a region that lies in one window of flash."""

    offset: int
    data: bytes


def accepts(sources: Sequence[str]) -> bool:
    """``FILE@ADDRESS``, or ESP-IDF's ``flasher_args.json``, or the build folder that has one."""
    return all("@" in s for s in sources) or (len(sources) == 1 and _arguments_file(sources[0]) is not None)


def prepare(sources: Sequence[str]) -> Callable[[Job], Session]:
    """Raises InputWrong, UsageWrong: unreadable, overlapping, not on a sector, for different chips."""
    chip, regions = _from_sources(sources)
    regions = sorted(regions, key=lambda r: r.offset)
    for r in regions:
        if r.offset % SECTOR_BYTES:
            raise InputWrong(f"{r.name}: address {r.offset:#x} is not on a sector of 4 KiB")
        if not r.data:
            raise InputWrong(f"{r.name} is empty")
    for a, b in pairwise(regions):
        if a.offset + len(a.data) > b.offset:
            raise InputWrong(
                f"{a.name} at {a.offset:#x} ends at {a.offset + len(a.data):#x}, in {b.name} at {b.offset:#x}"
            )
    for r in regions:
        image = esp_image.parse(r.data)
        if image and image.chip:
            if chip and image.chip != chip:
                raise InputWrong(f"{r.name} is made for {image.chip}, the rest for {chip}")
            chip = image.chip
    return lambda job: Session(job, chip, regions)


def windows(regions: Sequence[Region]) -> list[Window]:
    """All regions cut at multiples of 64 KiB, in order of address."""
    out = []
    for r in regions:
        at = 0
        while at < len(r.data):
            size = WINDOW_BYTES - (r.offset + at) % WINDOW_BYTES
            out.append(Window(r.offset + at, r.data[at : at + size]))
            at += size
    return out


def runs(differing: Sequence[Window]) -> list[Window]:
    """Neighbours joined, applications first, what is needed to boot last."""
    joined: list[Window] = []
    for w in sorted(differing, key=lambda w: w.offset):
        last = joined[-1] if joined else None
        if last and last.offset + len(last.data) == w.offset and (last.offset < _BOOT_END) == (w.offset < _BOOT_END):
            joined[-1] = Window(last.offset, last.data + w.data)
        else:
            joined.append(w)
    return sorted(joined, key=lambda w: (w.offset < _BOOT_END, w.offset))


class Session:
    """One device behind esptool. Every call of esptool connects anew: nothing is assumed to stay between two."""

    def __init__(self, job: Job, chip: str, regions: Sequence[Region]) -> None:
        self._job = job
        self._chip = chip
        self._regions = regions
        self._board = _board(job.board, chip)
        self._port = ""
        self._differing: list[Window] = []
        self._seen = Seen()
        self._memory = port_memory.load(job.opener.identity)
        ladder = [int(b) for b in self._board.get("esptool.bauds", BAUDS)]
        self._bauds = [b for b in ladder if b <= self._memory.baud] or ladder[-1:] if self._memory.baud else ladder
        self._retries = 0

    @property
    def where(self) -> str:
        return f"serial {self._port}"

    def close(self) -> None:
        """Nothing is open between two calls."""

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        board_chip = str(self._board.need("rtos.processor"))
        if self._chip and self._chip != board_chip:
            raise InputWrong(
                f"the image is made for {self._chip}, {self._board.name} has an {board_chip}",
                hint="choose another --board, or build for this chip",
            )
        limit = int(self._board.get("rtos.flash_bytes", 0))
        end = max(r.offset + len(r.data) for r in self._regions)
        if limit and end > limit:
            raise InputWrong(f"the files end at {end:#x}, the flash of {self._board.name} at {limit:#x}")
        everything = windows(self._regions)
        self._differing = self._compare(everything)
        total = sum(len(w.data) for w in everything)
        image = next((i for i in map(esp_image.parse, (r.data for r in self._regions)) if i and i.version), None)
        return self._plan(everything, total, image)

    def _plan(self, everything: list[Window], total: int, image: EspImage | None) -> Plan:
        wish = self._job.wish
        if wish.force:
            self._differing = everything
        differ = sum(len(w.data) for w in self._differing)
        same = f"{len(everything) - len(self._differing)} of {len(everything)} windows are on the device already"
        reasons, steps = [same], ["write"]
        if wish.verify_only:
            reasons, steps = [], ["compare"]
        elif not self._differing:
            reasons, steps = ["every window is on the device already"], []
        questions = []
        if steps == ["write"] and self._memory.mac and self._seen.mac and self._memory.mac != self._seen.mac:
            questions.append(
                f"the device at {self._job.opener.identity} was {self._memory.mac} and is {self._seen.mac} now: is it meant?"
            )
        text = {"write": f"write {differ} bytes in {len(runs(self._differing))} pieces", "compare": "write nothing"}
        facts = {
            "mac": self._seen.mac, "processor": self._seen.chip, "windows": len(everything),
            "windows_differing": len(self._differing), "transactional": False,
        }  # fmt: skip
        return Plan(
            self._job.opener.identity, self._board.name, "rtos", "esptool", "", image.version if image else "", total,
            _digest(self._regions),
            tuple(Step(s, text[s], differ if s == "write" else 0) for s in steps), tuple(reasons), tuple(questions), facts,
            f"{self._seen.chip} {self._seen.mac}, {len(self._differing)} of {len(everything)} windows differ",
        )  # fmt: skip

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        if step.name == "compare":
            if self._differing:
                places = ", ".join(f"{w.offset:#x}" for w in self._differing[:5])
                raise VerificationFailed(
                    f"{len(self._differing)} windows differ from the files: {places}", hint="flash them"
                )
            return "every window is the same, by the device's MD5"
        return self._write(step.size_bytes)

    def _write(self, total: int) -> str:
        """Down the baud ladder until everything is there; what is finished stays finished."""
        options = ["--force"] if self._job.wish.force else []
        while True:
            before = total - sum(len(w.data) for w in self._differing)
            try:
                self._call("write-flash", runs(self._differing), partial(self._report, before, total), options)
                break
            except LineFailed as error:
                if not self._step_down():
                    raise
                self._tell(f"{error.message}; goes on at {self._bauds[0]} baud")
                self._differing = self._compare(self._differing)
        port_memory.save(self._job.opener.identity, port_memory.Memory(self._bauds[0], self._seen.mac))
        return f"{total / 1000:.1f} kB at {self._bauds[0]} baud, every piece proved by the device's MD5"

    def _compare(self, candidates: Sequence[Window]) -> list[Window]:
        """Those whose MD5 on the device is another. The ROM does it: no stub to be loaded first. At the rate that worked
        last time, or at the ROM's own."""
        out: list[Window] = []
        for at in range(0, len(candidates), _FILES_MAX):
            part = candidates[at : at + _FILES_MAX]
            try:
                self._seen = self._call("verify-flash", part, lambda done: None, baud=self._memory.baud)
            except LineFailed:
                self._retries += 1
                self._seen = self._call("verify-flash", part, lambda done: None)
            out += [w for w in part if w.offset not in self._seen.verified]
        return out

    def _step_down(self) -> bool:
        """The next lower rate; once more at the lowest, since a line may also fail by chance."""
        self._retries += 1
        self._bauds = self._bauds[1:] or self._bauds
        return self._retries <= RETRIES_MAX

    def _call(
        self,
        command: str,
        pieces: Sequence[Window],
        report: Callable[[int], None],
        options: Sequence[str] = (),
        *,
        baud: int = 0,
    ) -> Seen:
        with tempfile.TemporaryDirectory(prefix="quarkctl-esp-") as folder, self._job.opener.hold():
            self._port = self._job.opener.resolve()
            arguments = []
            for i, piece in enumerate(pieces):
                path = Path(folder) / f"{i}.bin"
                path.write_bytes(piece.data)
                arguments += [hex(piece.offset), str(path)]
            reset = ["no-reset", "no-reset"] if "://" in self._port else [
                str(self._board.get("esptool.before", "default-reset")), str(self._board.get("esptool.after", "hard-reset")),
            ]  # fmt: skip
            tool = Esptool(
                port=self._port, chip=str(self._board.need("rtos.processor")), before=reset[0], after=reset[1],
                baud=self._bauds[0] if command == "write-flash" else baud or _ROM_BAUD,
                stub=command == "write-flash",
            )  # fmt: skip
            total = sum(len(p.data) for p in pieces)
            seen = tool.run([command, *options, *arguments], total, report)
        if self._seen.mac and seen.mac and self._seen.mac != seen.mac:
            raise ProtocolError(f"{self._port} led to {self._seen.mac} and now leads to {seen.mac}", hint="flash again")
        return seen

    def _report(self, before: int, total: int, done: int) -> None:
        done = min(before + done, total)
        self._job.progress(Event(self._job.opener.identity, "write", Level.PROGRESS, "", done, total))

    def _tell(self, text: str) -> None:
        self._job.progress(Event(self._job.opener.identity, "write", Level.PROGRESS, text))

    def facts(self) -> dict[str, object]:
        return {"baud": self._bauds[0], "retries": self._retries}

    def interrupted(self, step: Step) -> str:
        if step.name == "compare":
            return "nothing was written"
        return "the flash is written in part; flash again: it goes on with the windows that still differ"


def _board(name: str, chip: str) -> Board:
    if name:
        return boards.load(name)
    found = [b for b in map(boards.load, boards.names()) if "esptool" in b.get("rtos.methods", [])]
    fitting = [b for b in found if not chip or b.get("rtos.processor") == chip]
    if len(fitting) == 1:
        return fitting[0]
    raise UsageWrong(
        f"no board with an {chip} is known" if chip else "several boards are flashed by esptool",
        hint=f"choose one: --board {' or --board '.join(b.name for b in found)}",
    )


# --- sources ----------------------------------------------------------------------------------------------------------


def _arguments_file(source: str) -> Path | None:
    path = Path(source)
    path = path / "flasher_args.json" if path.is_dir() else path
    return path if path.name == "flasher_args.json" and path.is_file() else None


def _from_sources(sources: Sequence[str]) -> tuple[str, list[Region]]:
    arguments = _arguments_file(sources[0]) if len(sources) == 1 else None
    if arguments:
        return _from_arguments(arguments)
    regions = []
    for source in sources:
        name, at, address = source.rpartition("@")
        try:
            offset = int(address, 0)
        except ValueError:
            offset = -1
        if not at or not 0 <= offset < 1 << 32:
            raise UsageWrong(
                f"{source} does not say where it goes",
                hint=f"{name or source}@0x10000, or the build folder of ESP-IDF with its flasher_args.json",
            )
        regions.append(Region(offset, _read(Path(name)), name))
    return "", regions


def _from_arguments(path: Path) -> tuple[str, list[Region]]:
    """ESP-IDF's list of what goes where. Names in it stay inside its folder."""
    try:
        raw = json.loads(_read(path))
        files = {int(address, 0): str(name) for address, name in raw["flash_files"].items()}
        chip = str(raw.get("extra_esptool_args", {}).get("chip", ""))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputWrong(
            f"{path} is no list of ESP-IDF: {type(error).__name__}", hint="idf.py build makes it"
        ) from error
    folder = path.parent.resolve()
    for name in files.values():
        if not (folder / name).resolve().is_relative_to(folder):
            raise InputWrong(f"{path}: {name} lies outside of its folder")
    if not files:
        raise InputWrong(f"{path} lists no files")
    return chip, [Region(offset, _read(folder / name), name) for offset, name in files.items()]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    if len(data) > _FILE_MAX:
        raise InputWrong(f"{path} is larger than {_FILE_MAX >> 20} MiB")
    return data


def _digest(regions: Sequence[Region]) -> str:
    import hashlib

    hash_ = hashlib.sha256()
    for r in regions:
        hash_.update(f"{r.offset} {len(r.data)} ".encode() + r.data)
    return hash_.hexdigest()
