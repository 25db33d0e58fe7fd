"""Flash the AR1 in emergency download: plan over all LUNs, skip what is there, write, patch, prove, restart."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path

from quarkctl import boards
from quarkctl.errors import InputWrong, ProtocolError, VerificationFailed
from quarkctl.flash import edl_sources
from quarkctl.flash.ar1_image import Extent, Image
from quarkctl.flash.background import Background
from quarkctl.flash.edl_device import forget_programmer
from quarkctl.flash.edl_session import EdlSession
from quarkctl.flash.edl_sources import Work, Write
from quarkctl.flash.edl_vip import VipSession
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.progress import Meter
from quarkctl.formats.rawprogram import Erase, Patch, Sector
from quarkctl.formats.record import rounded

#: A device is deaf while it computes a digest: not more than this at once.
WINDOW_BYTES = 64 << 20
#: A piece that is smaller costs less to write than to ask about.
_ASK_BYTES = 1 << 20
#: Where a window differs after one that does not, it is looked at in parts.
_FINE_BYTES = 8 << 20
_ERASE_S = 120.0
#: Storage on which a place may be written without being erased before.
_REWRITABLE = frozenset({"ufs", "emmc", "nvme"})
_GAPS_MAX = 256
#: More digests than that for one image cost more than what they save.
_ASK_COUNT = 256
#: Images of not more than that are hashed while the programmer starts, which lasts longer, and so many bytes of them.
_EARLY_BYTES, _EARLY_TOTAL_BYTES = 8 << 20, 64 << 20
#: Of UFS, for which they are hashed: no device was asked yet. With others, what ends inside of a sector is hashed anew.
_EARLY_SECTOR_BYTES = 4096


def accepts(sources: Sequence[str]) -> bool:
    """XML files, a flashmap, or a folder that has them."""
    paths = [Path(s) for s in sources]
    if all(p.is_dir() for p in paths):
        names = ("flashmap.json", "contents.xml")
        return any((paths[0] / n).is_file() for n in names) or any(paths[0].glob("rawprogram*.xml"))
    return any(p.suffix in (".xml", ".json") for p in paths)


def prepare(sources: Sequence[str]) -> Callable[[Job], Session | VipSession]:
    """Raises InputWrong for files that are missing, damaged or contradict each other."""
    work = edl_sources.read(sources)
    return lambda job: VipSession(job, work) if job.wish.ar1.vip_tables else Session(job, work)


@dataclass(frozen=True)
class Placed:
    """A write whose place is known in numbers."""

    write: Write
    lun: int
    first_sector: int
    name: str

    def extents(self) -> list[Extent]:
        return self.write.image.extents


@dataclass(frozen=True)
class Cleared:
    """An erase whose place is known in numbers. ``sectors`` 0: a whole LUN of which the device does not tell the size."""

    erase: Erase
    first_sector: int
    sectors: int

    @property
    def step_name(self) -> str:
        e = self.erase
        return f"erase {e.lun}:{e.start}+{e.sectors}" if e.sectors else f"erase {e.lun}"

    @property
    def text(self) -> str:
        if not self.erase.sectors:
            return f"LUN {self.erase.lun} as a whole"
        return f"{self.sectors} sectors of LUN {self.erase.lun} from {self.first_sector} on"


class Expected:
    """Digests of what an image leaves on the storage, by window. ``padded`` rounds bytes up to whole sectors; ``known``
    are those that were computed before."""

    def __init__(self, image: Image, padded: Callable[[int], int], known: Mapping[Extent, bytes]) -> None:
        self._image = image
        self._padded = padded
        self._digests = dict(known)

    def __contains__(self, window: Extent) -> bool:
        return window in self._digests

    def compute(self, window: Extent) -> None:
        if window not in self._digests:
            padded = self._padded(window.size_bytes)
            self._digests[window] = self._image.digest(window.offset, window.size_bytes, pad_to=padded)

    def __getitem__(self, window: Extent) -> bytes:
        self.compute(window)
        return self._digests[window]


class Session(EdlSession):
    """One device from the first question to the last answer."""

    def __init__(self, job: Job, work: Work) -> None:
        super().__init__(job, work)
        self._todo: list[Placed | Cleared] = []
        self._placed: dict[str, Placed] = {}
        self._skipped_bytes = 0
        self._verified: dict[str, str] = {}
        self._no_digest = False
        #: {id of an open image: digests of its extents}
        self._early: dict[int, dict[Extent, bytes]] = {}

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        if not self._work.entries:
            raise InputWrong("the files say nothing that could be written")
        if self._work.board and self._job.board not in ("", self._work.board):
            raise InputWrong(f"the files are for {self._work.board}, not {self._job.board}", hint="leave --board out")
        name = self._job.board or self._work.board
        board = boards.load(name) if name else None
        memory = self._memory(board)
        sizes = {e.sector_bytes for e in self._work.entries if e.sector_bytes}
        if len(sizes) > 1:
            raise InputWrong(f"the files disagree on the size of a sector: {', '.join(map(str, sorted(sizes)))}")
        edl_sources.check_secdata(self._work, allowed=self._wish.secdata)
        early = Background(self._hash_early)
        try:
            device = self._start(memory)
        finally:
            early.join()
        self._early = early.result()
        given = next(iter(sizes), 0) or (int(board.get("ar1.sector_bytes", 0)) if board else 0)
        device.find_sector_size(given)
        self._todo = _named([
            self._cleared(e) if isinstance(e, Erase) else self._place(e)
            for e in self._work.entries if not isinstance(e, Patch)
        ])  # fmt: skip
        found = [t for t in self._todo if isinstance(t, Placed)]
        self._check_overlaps(found)
        self._placed = {p.name: p for p in found}
        edl_sources.check_order([self._span(t) for t in self._todo])
        return self._made(board.name if board else "", memory)

    def _hash_early(self) -> dict[int, dict[Extent, bytes]]:
        """What is small is hashed while the device starts its programmer: later both would compute at the same time, and a
        flash of milliseconds would wait for it."""
        found: dict[int, dict[Extent, bytes]] = {}
        left = _EARLY_TOTAL_BYTES if self._wish.verify or not self._job.wish.force else 0
        for image in (w.image for w in self._work.writes):
            extents = image.extents
            size = sum(e.size_bytes for e in extents)
            if size > min(left, _EARLY_BYTES):
                continue
            left -= size
            found[id(image)] = {
                e: image.digest(e.offset, e.size_bytes, pad_to=rounded(e.size_bytes, _EARLY_SECTOR_BYTES))
                for e in extents
            }
        return found

    def _place(self, write: Write) -> Placed:
        """In numbers. Raises InputWrong for what does not fit: nothing is ever cut off."""
        device = self._open()
        if write.partition:
            write = self._partition(write)
        info = device.info(0)
        if info and info.lun_count and write.lun >= info.lun_count:
            raise InputWrong(f"{write.label} goes to LUN {write.lun}, the device has {info.lun_count}")
        total = device.sectors(write.lun)
        if write.start.from_end and not total:
            raise InputWrong(
                f"{write.label} starts at {write.start}, and the device does not tell the size of LUN {write.lun}"
            )
        first = total - write.start.number if write.start.from_end else write.start.number
        size, sector = write.image.size_bytes, device.sector_bytes
        if write.image.block_bytes % sector and write.image.sparse:
            raise InputWrong(
                f"{write.image.path.name} has blocks of {write.image.block_bytes} bytes, sectors have {sector}"
            )
        sectors = -(-size // sector)
        room = write.sectors or (total - first if total else sectors)
        if sectors > room:
            raise InputWrong(
                f"{write.image.path.name} has {size} bytes, {write.label} holds {room * sector}",
                hint="nothing was written; is the image for this board?",
            )
        last = write.last_sector
        if write.pages_per_block and (first % write.pages_per_block or (last and first + sectors > last + 1)):
            raise InputWrong(
                f"{write.label} at sectors {first} to {first + sectors - 1} begins inside of a block of "
                f"{write.pages_per_block} pages, or ends behind sector {last}"
            )
        if first < 0 or (total and first + sectors > total):
            raise InputWrong(
                f"{write.label} ends at sector {first + sectors} of LUN {write.lun}, which has {total}",
                hint="the files are made for a larger storage",
            )
        return Placed(write, write.lun, first, write.label)

    def _cleared(self, erase: Erase) -> Cleared:
        device = self._open()
        info, total = device.info(0), device.sectors(erase.lun)
        first = total - erase.start.number if erase.start.from_end else erase.start.number
        if erase.start.from_end and not total:
            raise InputWrong(
                f"an <erase> starts at {erase.start}, and the device does not tell the size of LUN {erase.lun}"
            )
        if (info and info.lun_count and erase.lun >= info.lun_count) or first < 0 or (
            total and first + erase.sectors > total
        ):  # fmt: skip
            what = f"{erase.sectors or 'all'} sectors from {erase.start} of LUN {erase.lun}"
            raise InputWrong(
                f"{what} are to be erased, and it has {total}", hint="the files are made for a larger storage"
            )
        return Cleared(erase, first, erase.sectors or max(total - first, 0))

    def _span(self, place: Placed | Cleared) -> tuple[int, int, int, str]:
        if isinstance(place, Cleared):
            return place.erase.lun, place.first_sector, place.first_sector + (place.sectors or 1 << 63), ""
        sectors = -(-place.write.image.size_bytes // self._open().sector_bytes)
        return place.lun, place.first_sector, place.first_sector + sectors, place.name

    def _partition(self, write: Write) -> Write:
        tables = self._open().tables()
        found = [
            (lun, p)
            for lun, table in tables.items()
            for p in table.partitions
            if p.name == write.partition and write.lun in (-1, lun)
        ]
        if len(found) != 1:
            known = ", ".join(sorted({p.name for t in tables.values() for p in t.partitions})) or "no partition table"
            problem = "is on several LUNs" if found else "is not on the device"
            raise InputWrong(f"partition {write.partition} {problem}", hint=f"there is: {known}")
        lun, p = found[0]
        return edl_sources.with_place(write, lun, p.first_lba, p.sectors, self._open().sector_bytes)

    def _check_overlaps(self, found: Sequence[Placed]) -> None:
        sector = self._open().sector_bytes
        spans = sorted(
            (
                p.lun,
                p.first_sector + e.offset // sector,
                p.first_sector + -(-(e.offset + e.size_bytes) // sector),
                p.name,
            )
            for p in found
            for e in p.extents()
        )
        for (lun, _, end, name), (other_lun, start, _, other) in pairwise(spans):
            if lun == other_lun and start < end:
                raise InputWrong(
                    f"{name} and {other} both write sector {start} of LUN {lun}",
                    hint="the files contradict each other: give only those that you mean",
                )

    def _made(self, board: str, memory: str) -> Plan:
        device, work = self._open(), self._work
        payload = device.programmer.payload_bytes
        steps: list[Step] = []
        if self._wish.erase_first:
            steps.append(Step("erase", "what is written, before it is written"))
        steps += [
            Step(t.step_name, t.text) if isinstance(t, Cleared) else
            Step(f"program {t.name}", f"{t.write.image.path.name} to LUN {t.lun} from sector {t.first_sector}",
                 sum(e.size_bytes for e in t.extents()))
            for t in self._todo
        ]  # fmt: skip
        if work.patches:
            steps.append(Step("patch", f"{len(work.patches)} places"))
        if any(p.write.label in edl_sources.BOOT_LABELS for p in self._placed.values()):
            lun = next(p.lun for p in self._placed.values() if p.write.label in edl_sources.BOOT_LABELS)
            steps.append(Step("bootable", f"start from LUN {lun}"))
        if self._wish.restart:
            steps.append(Step("restart", "into the system"))
        if self._job.wish.verify_only:
            size = sum(s.size_bytes for s in steps)
            steps = [Step("compare", f"compare {', '.join(self._placed)}; write nothing", size)]
        holes = [
            p.name for p in self._placed.values() if sum(e.size_bytes for e in p.extents()) < p.write.image.size_bytes
        ]
        reasons = [f"{n} has holes: what is there now stays in them" for n in holes if not self._wish.erase_first]
        reasons += sorted(set(work.dropped))
        total = hashlib.sha256(
            "\n".join(f"{p.lun} {p.first_sector} {p.write.image.fingerprint()}" for p in self._placed.values()).encode()
            + repr((work.patches, [t.step_name for t in self._todo if isinstance(t, Cleared)])).encode()
        )
        return Plan(
            self._job.opener.identity, board, "ar1", "edl", "", "", sum(s.size_bytes for s in steps), total.hexdigest(),
            tuple(steps), tuple(reasons), (),
            {
                "preflight": f"{memory}, sectors of {device.sector_bytes} bytes, {payload >> 10} KiB at once",
                "memory": memory, "sector_bytes": device.sector_bytes,
                "writes": [
                    {"name": p.name, "file": str(p.write.image.path), "lun": p.lun, "first_sector": p.first_sector,
                     "size_bytes": p.write.image.size_bytes}
                    for p in self._placed.values()
                ],
                "erases": [
                    {"lun": t.erase.lun, "first_sector": t.first_sector, "sectors": t.sectors or None}
                    for t in self._todo if isinstance(t, Cleared)
                ],
                "patch_count": len(work.patches),
            },
        )  # fmt: skip

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        verb, _, name = step.name.partition(" ")
        if verb == "program":
            return self._program(step, self._placed[name])
        if verb == "erase" and name:
            return self._clear(next(t for t in self._todo if isinstance(t, Cleared) and t.step_name == step.name))
        acts = {
            "erase": self._erase_places, "patch": self._patch, "bootable": self._bootable, "restart": self._restart,
            "compare": self._compare,
        }  # fmt: skip
        return acts[verb]()

    def facts(self) -> dict[str, object]:
        return {"verified": self._verified, "skipped_bytes": self._skipped_bytes}

    def interrupted(self, step: Step) -> str:
        """The device may wait for the rest of a write; the journal knows how much, and the next run closes it."""
        if step.name.startswith("program"):
            return f"{step.name.partition(' ')[2]} is half written. Repeat the command: it goes on with what is missing"
        return f"stopped in {step.name}. Repeat the command: what is right already is skipped"

    def _compare(self) -> str:
        """Raises VerificationFailed. What patches would have changed is not looked at."""
        for placed in self._placed.values():
            hint = "write it: the same command without --verify-only"
            self._verified[placed.name] = self._verify(placed, self._windows(placed), self._expected(placed), hint)
        patches = f"; {len(self._work.patches)} patches not compared" if self._work.patches else ""
        return f"{', '.join(self._placed)}: as in the files{patches}"

    def _erase_places(self) -> str:
        device = self._open()
        for p in self._placed.values():
            sectors, pages = -(-p.write.image.size_bytes // device.sector_bytes), p.write.pages_per_block or 1
            whole = -(-sectors // pages) * pages
            self._erase(Erase(p.lun, Sector(p.first_sector), whole, pages_per_block=p.write.pages_per_block))
        return f"{len(self._placed)} places"

    def _clear(self, cleared: Cleared) -> str:
        """What an interrupted run erased and then wrote is not lost again: only what no image covers is erased anew."""
        journal = self._job.journal
        before = journal.noted("erased")
        names = [str(n) for n in before] if isinstance(before, list) else []
        gaps = self._gaps(cleared) if cleared.step_name in names and not self._job.wish.force else None
        for erase in [cleared.erase] if gaps is None else gaps:
            self._erase(erase)
        journal.note(erased=[*dict.fromkeys([*names, cleared.step_name])])
        return "" if gaps is None else f"was erased before; {len(gaps)} places beside the images again"

    def _erase(self, erase: Erase) -> None:
        device = self._open()
        device.programmer.command("erase", edl_sources.erase_attributes(erase, device.sector_bytes), _ERASE_S)

    def _gaps(self, cleared: Cleared) -> list[Erase] | None:
        """Its parts outside of the images; None where it is better erased as a whole."""
        if cleared.erase.pages_per_block or not cleared.sectors or self._open().memory not in _REWRITABLE:
            return None
        lun, at, sector = cleared.erase.lun, cleared.first_sector, self._open().sector_bytes
        end = at + cleared.sectors
        found: list[Erase] = []
        spans = (
            (p.first_sector + e.offset // sector, p.first_sector + -(-(e.offset + e.size_bytes) // sector))
            for p in self._placed.values() if p.lun == lun for e in p.extents()
        )  # fmt: skip
        for first, behind in [*sorted(spans), (end, end)]:
            if min(first, end) > at:
                found.append(Erase(lun, Sector(at), min(first, end) - at))
                if len(found) > _GAPS_MAX:
                    return None
            at = max(at, behind)
        return found

    def _patch(self) -> str:
        device = self._open()
        for patch in self._work.patches:
            device.programmer.command("patch", edl_sources.patch_attributes(patch), 30.0)
        return f"{len(self._work.patches)} places"

    def _bootable(self) -> str:
        lun = next(p.lun for p in self._placed.values() if p.write.label in edl_sources.BOOT_LABELS)
        self._open().programmer.command("setbootablestoragedrive", {"value": lun})
        return f"LUN {lun}"

    def _restart(self) -> str:
        self._open().programmer.leave({"value": "reset", "DelayInSeconds": 1})
        forget_programmer(self._job.opener.identity)
        return "restarts into the system"

    # --- one image ----------------------------------------------------------------------------------------------------

    def _program(self, step: Step, placed: Placed) -> str:
        windows = self._windows(placed)
        ours = self._expected(placed)
        meter = Meter(self._job.progress, self._job.opener.identity, step, step.size_bytes)
        todo = self._missing(placed, windows, ours)
        skipped = step.size_bytes - sum(w.size_bytes for w in todo)
        self._skipped_bytes += skipped
        meter.skip(skipped)
        for run in _joined(todo):
            self._write(placed, run, partial(_advance, meter, meter.done_bytes))
        if not self._wish.verify:
            return "not verified, as you wish"
        how = self._verify(placed, todo, ours) if todo else "was there already"
        self._verified[placed.name] = how
        return how

    def _windows(self, placed: Placed) -> list[Extent]:
        """Extents, cut so that a digest of one does not take too long."""
        return [
            Extent(at, min(WINDOW_BYTES, e.offset + e.size_bytes - at))
            for e in placed.extents()
            for at in range(e.offset, e.offset + e.size_bytes, WINDOW_BYTES)
        ]

    def _padded(self, size_bytes: int) -> int:
        return rounded(size_bytes, self._open().sector_bytes)

    def _expected(self, placed: Placed) -> Expected:
        early = self._early.get(id(placed.write.image), {})
        fitting = {
            e: d for e, d in early.items() if self._padded(e.size_bytes) == rounded(e.size_bytes, _EARLY_SECTOR_BYTES)
        }
        return Expected(placed.write.image, self._padded, fitting)

    def _attributes(self, placed: Placed, window: Extent) -> dict[str, object]:
        device = self._open()
        first = placed.first_sector + window.offset // device.sector_bytes
        return device.attributes(placed.lun, first, self._padded(window.size_bytes) // device.sector_bytes)

    def _digest(self, placed: Placed, window: Extent, ours: Expected) -> bytes | None:
        """The device's; ``ours`` gains that of the file, computed while the device computes. None where it cannot."""
        if self._no_digest or placed.write.pages_per_block:  # of NAND, programmers differ in what they count
            return None
        attributes = self._attributes(placed, window)
        meanwhile = None if window in ours else partial(ours.compute, window)
        found = self._open().programmer.digest(attributes, window.size_bytes, meanwhile)
        self._no_digest = found is None
        return found

    def _missing(self, placed: Placed, windows: Sequence[Extent], ours: Expected) -> list[Extent]:
        """Windows that are not on the device yet. Small ones are written without asking."""
        large = [w for w in windows if w.size_bytes >= _ASK_BYTES]
        if self._job.wish.force or len(large) > _ASK_COUNT or placed.write.pages_per_block:
            return list(windows)
        missing: list[Extent] = []
        there = False
        for window in windows:
            asked = window in large and not self._no_digest
            before, there = there, asked and self._digest(placed, window, ours) == ours[window]
            if before and asked and not there:  # here an earlier flash may have ended: only what it did not reach
                end = window.offset + window.size_bytes
                parts = [Extent(at, min(_FINE_BYTES, end - at)) for at in range(window.offset, end, _FINE_BYTES)]
                missing += [p for p in parts if self._digest(placed, p, ours) != ours[p]]
            elif not there:
                missing.append(window)
        return missing

    def _write(self, placed: Placed, run: Extent, moved: Callable[[int], None]) -> None:
        device, image = self._open(), placed.write.image
        total = self._padded(run.size_bytes)
        journal = self._job.journal
        journal.count(0, total)

        def sent(count: int) -> None:
            journal.count(count, total)
            moved(count)

        attributes = {
            **self._attributes(placed, run), "filename": image.path.name, **edl_sources.nand_attributes(placed.write),
            "label": placed.name,
        }  # fmt: skip
        pieces = image.pieces(run.offset, run.size_bytes, repeat(device.buffer), pad_to=total)
        try:
            device.programmer.program(attributes, total, pieces, sent)
        except ProtocolError:  # it answered: the phase is closed
            journal.count(0, 0)
            raise
        journal.count(0, 0)

    def _verify(
        self, placed: Placed, written: Sequence[Extent], ours: Expected,
        hint: str = "repeat the command; if it happens again the storage or the cable is bad",
    ) -> str:  # fmt: skip
        how = "digest"
        for window in written:
            actual = self._digest(placed, window, ours)
            if actual is None:
                how, actual = "read back", self._read_back(placed, window)
            if actual != ours[window]:
                raise VerificationFailed(
                    f"{placed.name} does not hold what is in the file: {window.size_bytes} bytes at {window.offset} differ",
                    hint=hint,
                )
        return f"verified by {how}"

    def _read_back(self, placed: Placed, window: Extent) -> bytes:
        total = hashlib.sha256()
        for piece in self._open().programmer.read(self._attributes(placed, window), self._padded(window.size_bytes)):
            total.update(piece)
        return total.digest()


def _named(todo: Sequence[Placed | Cleared]) -> list[Placed | Cleared]:
    """Each write by a name of its own: its label; with the place where several have it; with a number where several go
    to the same place, which are parts of one image."""
    labels = Counter(t.write.label for t in todo if isinstance(t, Placed))
    named = [
        replace(t, name=f"{t.write.label}@{t.lun}:{t.write.start}")
        if isinstance(t, Placed) and labels[t.write.label] > 1 else t
        for t in todo
    ]  # fmt: skip
    places, numbers = Counter(t.name for t in named if isinstance(t, Placed)), Counter[str]()
    out: list[Placed | Cleared] = []
    for t in named:
        if isinstance(t, Placed) and places[t.name] > 1:
            numbers[t.name] += 1
            out.append(replace(t, name=f"{t.name} {numbers[t.name]}/{places[t.name]}"))
        else:
            out.append(t)
    return out


def _advance(meter: Meter, before: int, sent: int) -> None:
    """Padding does not count."""
    meter.at(min(before + sent, meter.total_bytes))


def _joined(windows: Sequence[Extent]) -> list[Extent]:
    """Neighbours as one: fewer commands."""
    runs: list[Extent] = []
    for w in windows:
        if runs and runs[-1].offset + runs[-1].size_bytes == w.offset:
            runs[-1] = Extent(runs[-1].offset, runs[-1].size_bytes + w.size_bytes)
        else:
            runs.append(w)
    return runs
