"""What fastboot will write where: decided from what the device says, before the first byte goes to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quarkctl import boards
from quarkctl.boards import Board
from quarkctl.errors import DeviceRefused, InputWrong, ProtocolError, UsageWrong
from quarkctl.flash import split
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.plan import Ar1Wish, Plan, Step
from quarkctl.formats import fastboot, lp, sparse

#: Partitions that hold fuses, keys and calibration: a wrong write cannot be undone.
SECDATA = frozenset({"secdata", "sec", "fuses", "persist", "modemst1", "modemst2", "fsg", "devinfo", "keystore"})


@dataclass(frozen=True)
class Item:
    """One image and the partition that the user names for it, with or without slot. ``offset_bytes``: where it begins there.
    ``needs_bytes``: so large the partition is meant to be at least; 0 where nobody said."""

    partition: str
    image: Image
    offset_bytes: int = 0
    needs_bytes: int = 0


@dataclass(frozen=True)
class DeviceFacts:
    """What the device said. Sizes in bytes, 0 where it said nothing."""

    product: str
    serial: str
    secure: bool
    unlocked: bool
    userspace: bool
    slot: str
    max_download_bytes: int
    battery_ok: bool
    battery: str
    snapshot: str
    slotted: frozenset[str]
    sizes: Mapping[str, int]
    logical: frozenset[str]

    @property
    def other_slot(self) -> str:
        return {"a": "b", "b": "a"}.get(self.slot, "")


def read_facts(variable: Callable[[str], str], everything: Mapping[str, str]) -> DeviceFacts:
    """From ``getvar all`` where the device knows it, single variables elsewhere.

    Raises ProtocolError for a device that does not tell how much it takes: zero would be a guess.
    """

    def value(name: str) -> str:
        return everything[name] if name in everything else variable(name)

    limit = value("max-download-size")
    if not limit:
        raise ProtocolError(
            "the device does not tell its max-download-size",
            hint="is its battery empty, or its boot loader in a reduced mode? charge it and start fastboot anew",
        )
    sizes = {
        k.removeprefix("partition-size:"): fastboot.parse_number(v, bare_base=16)
        for k, v in everything.items()
        if k.startswith("partition-size:") and v
    }
    slot = value("current-slot").lstrip("_")
    return DeviceFacts(
        value("product"), value("serialno"), value("secure") == "yes", value("unlocked") != "no",
        value("is-userspace") == "yes", slot if slot in ("a", "b") else "",
        min(fastboot.parse_number(limit), fastboot.DOWNLOAD_MAX), value("battery-soc-ok") != "no",
        value("battery-soc") or value("battery-voltage"), value("snapshot-update-status") or "none",
        _with_yes(everything, "has-slot:"), sizes, _with_yes(everything, "is-logical:"),
    )  # fmt: skip


def _with_yes(everything: Mapping[str, str], prefix: str) -> frozenset[str]:
    return frozenset(k.removeprefix(prefix) for k, v in everything.items() if k.startswith(prefix) and v == "yes")


@dataclass(frozen=True)
class Target:
    """An image and the partition that it goes to. ``size_bytes`` is the partition's, 0 while it is not known (logical).
    ``part`` of how many files of one image this is, such as ``2/4``."""

    partition: str
    image: Image
    size_bytes: int
    slotted: bool
    offset_bytes: int = 0
    part: str = ""

    @property
    def name(self) -> str:
        """The partition, with the place inside where that is not its beginning."""
        place = f"{self.partition}+{self.offset_bytes}" if self.offset_bytes else self.partition
        return f"{place} {self.part}".rstrip()

    @property
    def written_bytes(self) -> int:
        """Without holes."""
        return sum(e.size_bytes for e in self.image.extents)


def targets(items: Sequence[Item], facts: DeviceFacts, wish: Ar1Wish, variable: Callable[[str], str]) -> list[Target]:
    """Where each image goes. Raises what must be known before the first byte.

    A partition that the boot loader does not know may be a logical one, which only fastbootd sees: its size is 0 here.
    """
    found = []
    for item in items:
        name, slotted = item.partition, False
        if name[-2:] not in ("_a", "_b") and (name in facts.slotted or variable(f"has-slot:{name}") == "yes"):
            slot = {"inactive": facts.other_slot, "active": facts.slot}.get(wish.slot, wish.slot)
            if slot not in ("a", "b"):
                raise DeviceRefused(
                    f"{name} has slots, and the device does not tell which one runs",
                    hint="say it: --slot a or --slot b",
                )
            name, slotted = f"{name}_{slot}", True
        size = facts.sizes.get(name) or fastboot.parse_number(variable(f"partition-size:{name}") or "0", bare_base=16)
        if not size and (facts.userspace or not _may_be_logical(name, items, facts, variable)):
            known = ", ".join(sorted(facts.sizes)) or "it does not list them"
            raise InputWrong(f"the device has no partition {name}", hint=f"it has: {known}")
        check_size(name, item.image, size, item.offset_bytes)
        if size and item.needs_bytes > size:
            raise InputWrong(
                f"{name} is meant to have {item.needs_bytes} bytes, the device's has {size}: its partition table is another",
                hint="fastboot writes no partition tables: --via edl",
            )
        if _base(name) in SECDATA and not wish.secdata:
            raise UsageWrong(
                f"{name} holds fuses, keys or calibration: a wrong write cannot be undone",
                hint="--allow-secdata if you must",
            )
        found.append(Target(name, item.image, size, slotted or name[-2:] in ("_a", "_b"), item.offset_bytes))
    return _in_parts(found)


def _in_parts(found: Sequence[Target]) -> list[Target]:
    """Several images of one place are parts of one. Raises InputWrong where they write the same bytes."""
    by_partition: dict[str, list[Target]] = {}
    for t in found:
        by_partition.setdefault(t.partition, []).append(t)
    for partition, targets in by_partition.items():
        if len(targets) > 1:
            split.check_apart(partition, [(t.offset_bytes, t.image) for t in targets])
    counts, numbers = Counter(t.name for t in found), Counter[str]()
    out = []
    for t in found:
        numbers[t.name] += 1
        out.append(replace(t, part=f"{numbers[t.name]}/{counts[t.name]}") if counts[t.name] > 1 else t)
    return out


def check_size(name: str, image: Image, size_bytes: int, offset_bytes: int = 0) -> None:
    """Raises InputWrong for an image that would have to be cut off."""
    if size_bytes and offset_bytes + image.size_bytes > size_bytes:
        place = f"{name} from byte {offset_bytes} on" if offset_bytes else name
        raise InputWrong(
            f"{image.path.name} has {image.size_bytes} bytes, {place} holds {max(size_bytes - offset_bytes, 0)}",
            hint="nothing was written; is the image for this board?",
        )


def _base(name: str) -> str:
    return name[:-2] if name[-2:] in ("_a", "_b") else name


def _may_be_logical(
    name: str, items: Sequence[Item], facts: DeviceFacts, variable: Callable[[str], str]
) -> bool:  # fmt: skip
    """Whether fastbootd has to be asked: not where the boot loader knows better, nor where the table of logical partitions
    is among the files and has no such name."""
    if "super" not in facts.sizes and not variable("partition-size:super"):
        return False
    if variable(f"is-logical:{name}") == "no":
        return False
    tables = [names for i in items if i.partition == "super" and (names := _logical_names(i.image)) is not None]
    return not tables or any(name in names for names in tables)


def _logical_names(image: Image) -> frozenset[str] | None:
    """Of the partitions in an image of super; None where it shows no table."""
    try:
        table = lp.parse(sparse.Expanded(image.sparse) if image.sparse else image.file)
    except InputWrong:
        return None
    return frozenset(p.name for p in table.partitions)


def check_device(facts: DeviceFacts) -> None:
    """Raises DeviceRefused for what the device would refuse in the middle."""
    if not facts.unlocked:
        raise DeviceRefused(
            "the device is locked: it takes no images",
            hint="unlock it first: quarkctl ar1 flashing unlock (this erases user data)",
        )
    if not facts.battery_ok:
        raise DeviceRefused(
            f"the battery is too low ({facts.battery or 'the device says no more'})", hint="charge it first"
        )
    if facts.snapshot == "merging":
        raise DeviceRefused(
            "the device merges a snapshot: slots cannot be changed", hint="let it finish: quarkctl ar1 snapshot merge"
        )


def profile(facts: DeviceFacts, given: str) -> Board | None:
    """The board that the device says it is, or the one that the user names. Raises InputWrong when they differ."""
    if facts.product in boards.names():
        if given and given != facts.product:
            raise InputWrong(f"the device is {facts.product}, not {given}", hint="leave --board out")
        return boards.load(facts.product)
    return boards.load(given) if given else None


def make(
    device: str, facts: DeviceFacts, found: Sequence[Target], wish: Ar1Wish, board: str, missing: Sequence[str],
    left_out: Sequence[str] = (),
) -> Plan:  # fmt: skip
    """The order of things: write, verify each, and only then activate the slot. ``missing`` are slotted partitions of the
    device that nobody writes: a slot that lacks them is not activated. ``left_out``: what of the files is not written."""
    steps: list[Step] = []
    reasons: list[str] = list(left_out)
    questions: list[str] = []
    unknown = ", ".join(dict.fromkeys(t.partition for t in found if not t.size_bytes))
    if unknown:
        text = f"restart into fastbootd and ask it for {unknown}; where it is no logical partition, nothing is written"
        steps.append(Step("fastbootd", text))
    for t in found:
        kind = "sparse" if t.image.sparse else "raw"
        steps.append(Step(f"flash {t.name}", f"{t.image.path.name}, {kind}", t.written_bytes))
    slots = {t.partition[-1] for t in found if t.slotted}
    if facts.slot in slots:
        questions.append(f"this writes slot {facts.slot}, which the device runs from: go on?")
    elif len(slots) == 1:
        if missing:
            reasons.append(f"slot {min(slots)} stays inactive: nobody writes its {', '.join(missing)}")
        else:
            steps.append(Step("activate", f"make slot {min(slots)} the next to boot"))
    if facts.snapshot == "snapshotted" and any(t.partition == "super" or not t.size_bytes for t in found):
        questions.append("an update waits to be merged; writing its partitions cancels it: go on?")
    if wish.restart:
        steps.append(Step("restart", "into the system"))
    total = hashlib.sha256("\n".join([device, *(f"{t.name} {t.image.fingerprint()}" for t in found)]).encode())
    return Plan(
        device, board, "ar1", "fastboot", "", "", sum(t.written_bytes for t in found), total.hexdigest(), tuple(steps),
        tuple(reasons), tuple(questions),
        {
            "preflight": f"unlocked, battery {facts.battery or '?'}, takes {facts.max_download_bytes >> 20} MiB at once",
            "slot": facts.slot or None, "max_download_bytes": facts.max_download_bytes, "serial": facts.serial,
            "writes": [
                {"partition": t.partition, "file": str(t.image.path), "offset_bytes": t.offset_bytes,
                 "size_bytes": t.image.size_bytes} for t in found
            ],
        },
    )  # fmt: skip


def parse_sources(sources: Sequence[str], suffixes: frozenset[str]) -> list[tuple[Path, str]]:
    """``FILE[@PARTITION]`` each, or one folder whose images are named after their partitions; also in parts (`split`).

    Raises InputWrong.
    """
    if len(sources) == 1 and Path(sources[0]).is_dir():
        files = [p for p in Path(sources[0]).iterdir() if Path(split.whole_name(p)).suffix in suffixes and p.is_file()]
        if not files:
            raise InputWrong(f"{sources[0]} holds no images", hint=f"files named PARTITION{min(suffixes)}")
        found = [(p, "") for p in sorted(files, key=lambda p: (split.whole_name(p), len(p.name), p.name))]
    else:
        found = [split_target(source) for source in sources]
    split.check_complete(path for path, _ in found)
    return [(path, name or Path(split.whole_name(path)).stem) for path, name in found]


def split_target(source: str) -> tuple[Path, str]:
    """``FILE@TARGET`` in two; no target where none is named, or the file's name has an @."""
    path, _, name = source.rpartition("@") if "@" in source and not Path(source).exists() else (source, "", "")
    return Path(path), name
