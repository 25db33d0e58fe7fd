"""What can be done with the AR1's boot loader and programmer besides flashing: questions, switches, whole LUNs, memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quarkctl import boards, files
from quarkctl.errors import HostUnfit, InputWrong, LinkError, ProtocolError, UsageWrong
from quarkctl.events import Event, Level, Progress
from quarkctl.files import File
from quarkctl.flash import edl_sources, vip
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.edl_device import HELLO_S, EdlDevice, forget_programmer, open_device
from quarkctl.flash.edl_sources import Work, load_programmers
from quarkctl.flash.fastboot import Client
from quarkctl.flash.fastboot_pieces import cut
from quarkctl.flash.firehose import MEDIA_BYTES_PER_S, START_S
from quarkctl.flash.journal import Journal
from quarkctl.flash.payload import FileRange
from quarkctl.flash.plan import Step
from quarkctl.flash.progress import Meter
from quarkctl.flash.sahara import Sahara
from quarkctl.formats import firehose, gpt, rawprogram, sparse
from quarkctl.formats import vip as digest_tables
from quarkctl.formats.sparse import Chunk, Kind, Sparse
from quarkctl.link import Opener
from quarkctl.link.ar1 import DUMP, EDL, FASTBOOT, expect, mode_of_link, reopen
from quarkctl.link.usb import UsbLink

#: {mode: fastboot's command}
REBOOTS = {
    "system": "reboot", "bootloader": "reboot-bootloader", "fastbootd": "reboot-fastboot",
    "recovery": "reboot-recovery", "edl": "oem edl", "off": "powerdown",
}  # fmt: skip
_LONG_S = 120.0
#: What fits the log lines of one command.
_PEEK_BYTES = 512


# --- fastboot ---------------------------------------------------------------------------------------------------------


@contextmanager
def fastboot(opener: Opener, told: Callable[[str], None] = lambda _: None) -> Iterator[Client]:
    """A client of a device in fastboot. Raises LinkError for one in emergency download."""
    link = opener.open()
    expect(link, FASTBOOT)
    try:
        yield Client(link, told)
    finally:
        link.close()


def variables(client: Client, name: str) -> dict[str, str]:
    """One variable, or ``all``. Raises DeviceRefused for one that the device does not know."""
    return client.variables() if name == "all" else {name: client.command(f"getvar:{name}").text}


def restart(opener: Opener, mode: str, *, wait: bool) -> str:
    """Leave fastboot for another mode; ``wait`` until the device is found there again, by its identity."""
    if mode not in REBOOTS:
        raise UsageWrong(f"there is no mode {mode!r}", hint=f"there are {', '.join(REBOOTS)}")
    with fastboot(opener) as client:
        client.command(REBOOTS[mode], _LONG_S)
        on_usb = isinstance(client.link, UsbLink)
    if wait and mode in ("bootloader", "fastbootd"):
        userspace = "yes" if mode == "fastbootd" else "no"
        reopen(
            opener,
            lambda link: mode_of_link(link) == FASTBOOT and Client(link).variable("is-userspace") == userspace,
        ).close()
    if wait and mode == "edl" and on_usb:  # a network never sees it there
        reopen(opener, lambda link: mode_of_link(link) == EDL).close()
    return mode


def stage(client: Client, path: Path, moved: Callable[[int], None]) -> int:
    """Give the boot loader a file without writing it anywhere."""
    image = Image(path, may_be_sparse=False)
    try:
        limit = client.number("max-download-size")
        if limit and image.size_bytes > limit:
            raise InputWrong(f"{path.name} has {image.size_bytes} bytes, the device takes {limit}")
        client.download([FileRange(image.file, 0, image.size_bytes)], image.size_bytes, moved)
        return image.size_bytes
    finally:
        image.close()


def boot(client: Client, path: Path, moved: Callable[[int], None]) -> int:
    """Start a boot image without writing it. Raises InputWrong for a file that is none."""
    with File(path) as file:
        if file[:8] != b"ANDROID!":
            raise InputWrong(f"{path.name} is no boot image", hint="quarkctl inspect " + str(path))
    size = stage(client, path, moved)
    client.command("boot", _LONG_S)
    return size


def update_super(client: Client, path: Path, *, wipe: bool, moved: Callable[[int], None]) -> str:
    """Give fastbootd a new table of logical partitions (what lpmake makes; not sparse). Returns the partition's name."""
    with File(path) as file:
        if file[:4] == b"\x3a\xff\x26\xed":
            raise InputWrong(
                f"{path.name} is sparse: fastbootd takes the table only as it is", hint="simg2img it first"
            )
    require_fastbootd(client)
    name = client.variable("super-partition-name") or "super"
    stage(client, path, moved)
    client.command(f"update-super:{name}" + (":wipe" if wipe else ""), _LONG_S)
    return name


def require_fastbootd(client: Client) -> None:
    """Raises LinkError in the boot loader, which knows nothing of logical partitions."""
    if client.variable("is-userspace") != "yes":
        raise LinkError("the device is in its boot loader, and only fastbootd does that",
                        hint="quarkctl ar1 reboot fastbootd")  # fmt: skip


def place_to_format(client: Client, partition: str, kind: str) -> tuple[int, str]:
    """Size in bytes and file system of a partition, as the device tells. Raises InputWrong where it does not."""
    size = client.number(f"partition-size:{partition}")
    if not size:
        raise InputWrong(f"the device has no partition {partition}", hint="quarkctl ar1 getvar all")
    return size, kind or client.variable(f"partition-type:{partition}") or "unknown"


def write_empty(client: Client, partition: str, image: Path, moved: Callable[[int], None]) -> int:
    """Erase a partition and write a file system into it, of which only what the file holds is sent. Returns bytes sent."""
    with File(image) as file:
        whole = Sparse(file, sparse.BLOCK_BYTES, len(file) // sparse.BLOCK_BYTES, tuple(_data(file)))
        path = image.with_suffix(".simg")
        files.write(path, sparse.build(whole))
    client.command(f"erase:{partition}", _LONG_S)
    written = Image(path)
    try:
        sent = 0
        for piece in cut(written, client.number("max-download-size") or (1 << 20)):
            client.download(piece.parts(), piece.size_bytes, moved)
            client.flash(partition, piece.size_bytes)
            sent += piece.size_bytes
        return sent
    finally:
        written.close()


def _data(file: File) -> Iterator[Chunk]:
    """Chunks of a file with holes, block by block of 1 MiB: what is a hole is left out."""
    step, block = 1 << 20, sparse.BLOCK_BYTES
    for at in range(0, len(file), step):
        end = min(at + step, len(file))
        kind = Kind.DONT_CARE if file.is_hole(at, end) else Kind.RAW
        yield Chunk(kind, at // block, (end - at) // block, at if kind is Kind.RAW else 0)


def peek(device: EdlDevice, address: int, size_bytes: int) -> bytes:
    """Memory of the running device, which few programmers give. Raises DeviceRefused, ProtocolError."""
    data = b""
    while len(data) < size_bytes:
        count = min(_PEEK_BYTES, size_bytes - len(data))
        response = device.programmer.command("peek", {"address64": f"{address + len(data):#x}", "size_in_bytes": count})
        found = firehose.parse_memory(response.logs)
        if len(found) != count:
            raise ProtocolError(f"the programmer gave {len(found)} bytes instead of {count}")
        data += found
    return data


def take(client: Client, command: str, path: Path) -> int:
    """What the device uploads, into a file: whole or not at all. Returns its size."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            size = client.upload(command, file.write)
        temporary.replace(path)
        return size
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


# --- emergency download -----------------------------------------------------------------------------------------------


@contextmanager
def edl(
    opener: Opener, programmer: str, memory: str, board: str, progress: Progress, *, assume_idle: bool = False
) -> Iterator[EdlDevice]:
    """A device whose programmer takes commands."""
    profile = boards.load(board) if board else None
    kind = memory or (str(profile.get("ar1.storage", "")) if profile else "") or "ufs"

    def told(text: str) -> None:
        if "error" in text.lower():
            progress(Event(opener.identity, "device", Level.NOTE, text))

    images = load_programmers(Work(), programmer)
    device = open_device(opener, images, kind, told, Journal(opener.identity), lambda _: None, assume_idle=assume_idle)
    try:
        device.find_sector_size(int(profile.get("ar1.sector_bytes", 0)) if profile else 0)
        yield device
    finally:
        device.link.close()


def chip_info(opener: Opener) -> dict[str, object]:
    """Serial number, hardware id and key hash from the boot ROM. Raises DeviceRefused, LinkError."""
    link = _bulk(opener)
    try:
        first = link.read(HELLO_S)
        if not first or first.lstrip().startswith(b"<"):
            raise LinkError(
                "the boot ROM does not say who it is: a programmer runs already, or HELLO went to somebody else",
                hint="power-cycle it into emergency download, then repeat",
            )
        info = Sahara(link, first).chip_info()
    finally:
        link.close()
    return {**asdict(info), "key_hash": info.key_hash.hex()}


def _bulk(opener: Opener) -> UsbLink:
    link = opener.open()
    expect(link, EDL, DUMP)
    if not isinstance(link, UsbLink):
        raise LinkError(f"{link.name} is no USB device")
    return link


def storage(device: EdlDevice) -> dict[str, Any]:
    """Kind, sizes and LUNs, as the programmer tells."""
    info = device.info(0)
    count = info.lun_count if info and info.lun_count else 1
    return {
        "memory": device.memory, "sector_bytes": device.sector_bytes, "payload_bytes": device.programmer.payload_bytes,
        "product": info.product if info else "",
        "luns": [{"lun": n, "sectors": device.sectors(n), "size_bytes": device.sectors(n) * device.sector_bytes}
                 for n in range(count)],
    }  # fmt: skip


def tables(device: EdlDevice) -> list[dict[str, Any]]:
    """Every partition of every LUN."""
    return [
        {
            "lun": lun, "name": p.name, "first_sector": p.first_lba, "sectors": p.sectors,
            "size_bytes": p.sectors * device.sector_bytes, "attributes": gpt.attribute_values(p.attributes),
            "type_guid": str(p.type_guid),
        }
        for lun, table in device.tables().items()
        for p in table.partitions
    ]  # fmt: skip


def backup(device: EdlDevice, lun: int, path: Path, progress: Progress, identity: str) -> dict[str, Any]:
    """A whole LUN into a file, with holes where it is zero; compared with the device's own digest where it knows one."""
    info = device.info(0)
    if info and info.lun_count and lun >= info.lun_count:
        raise UsageWrong(f"there is no LUN {lun}", hint=f"the device has 0 to {info.lun_count - 1}")
    sectors = device.sectors(lun)
    if not sectors:
        raise ProtocolError(f"the device does not tell the size of LUN {lun}")
    size = sectors * device.sector_bytes
    step = Step(f"backup {lun}", str(path), size)
    progress(Event(identity, step.name, Level.START, total_bytes=size))
    meter = Meter(progress, identity, step, size)
    total = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            for piece in device.programmer.read(device.attributes(lun, 0, sectors), size):
                total.update(piece)
                if piece.count(0) == len(piece):
                    file.seek(len(piece), 1)
                else:
                    file.write(piece)
                meter.at(meter.done_bytes + len(piece))
            file.truncate(size)
        temporary.replace(path)
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    progress(Event(identity, step.name, Level.DONE, f"{size} bytes"))
    return {"lun": lun, "file": str(path), "size_bytes": size, "sha256": total.hexdigest()}


def digest(device: EdlDevice, lun: int, first: int, sectors: int) -> str:
    """SHA-256 of a range as the device computes it. Raises DeviceRefused with its words, ProtocolError for none."""
    allowed = START_S + sectors * device.sector_bytes / MEDIA_BYTES_PER_S
    response = device.programmer.command("getsha256digest", device.attributes(lun, first, sectors), allowed)
    found = firehose.parse_digest(response.logs, response.attributes)
    if found is None:
        raise ProtocolError("this programmer computes no digests", hint="quarkctl ar1 backup, then sha256sum")
    return found.hex()


def power(device: EdlDevice, opener: Opener, mode: str) -> None:
    """``reset``, ``off`` or ``reset_to_edl``."""
    device.programmer.leave({"value": mode, "DelayInSeconds": 1})
    forget_programmer(opener.identity)


def provision(device: EdlDevice, elements: list[Mapping[str, str]]) -> int:
    """Divide UFS anew, as the ``<ufs>`` elements of a provisioning file say. The last one commits: there is no way back."""
    for element in elements:
        device.programmer.command("ufs", element, _LONG_S)
    return len(elements)


def provision_elements(path: Path) -> list[Mapping[str, str]]:
    """Raises InputWrong for a file that provisions nothing, or commits before its end."""
    with File(path) as file:
        if len(file) > 1 << 20:
            raise InputWrong(f"{path.name} is no provisioning file")
        data = file[:]
    found = [dict(e.attrib) for e in rawprogram.parse_xml(data, path.name).iter("ufs")]
    commits = [n for n, e in enumerate(found) if "commit" in e]
    if not found or (commits and commits != [len(found) - 1]):
        raise InputWrong(f"{path.name} has {len(found)} <ufs> elements; only the last one may commit")
    return list(found)


def vip_tables(
    sources: Sequence[str], folder: Path, memory: str, payload_bytes: int, *, restart: bool
) -> dict[str, Any]:  # fmt: skip
    """Digest tables of a flash into a folder. Raises InputWrong."""
    work = edl_sources.read(sources)
    try:
        commands = vip.commands(work, memory or work.memory or "ufs", payload_bytes, restart=restart)
        digests = vip.digests(commands, payload_bytes)
        files = digest_tables.build(digests).files()
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{digest_tables.TO_SIGN_NAME}*"), folder.glob("ChainedTableOfDigests*.bin"):
            for path in stale:
                path.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise HostUnfit(f"cannot write into {folder}: {error.strerror}") from error
    finally:
        work.close()
    return {
        "files": [str(folder / name) for name in files], "packets": len(digests),
        "to_sign": str(folder / digest_tables.TO_SIGN_NAME),
    }  # fmt: skip


def ramdump(opener: Opener, folder: Path, names: list[str], progress: Progress) -> list[dict[str, Any]]:
    """Memory of a crashed system into files of a folder; ``names`` limits it. The device restarts afterwards."""
    link = _bulk(opener)
    saved = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sahara = Sahara(link, link.read(HELLO_S))
        regions, wide = sahara.regions()
        chosen = [r for r in regions if not names or r.name in names or r.file_name in names]
        if not chosen:
            raise UsageWrong(f"no region is called {', '.join(names)}", hint=", ".join(r.file_name for r in regions))
        for region in chosen:
            step = Step(f"dump {region.file_name}", region.name, region.size_bytes)
            progress(Event(opener.identity, step.name, Level.START, total_bytes=region.size_bytes))
            meter = Meter(progress, opener.identity, step, region.size_bytes)
            path = folder / region.file_name
            sahara.save(region, path, lambda n, m=meter: m.at(m.done_bytes + n), wide=wide)  # type: ignore[misc]
            progress(Event(opener.identity, step.name, Level.DONE, f"{region.size_bytes} bytes"))
            saved.append({**asdict(region), "file": str(path)})
        sahara.reset()
    except OSError as error:
        raise HostUnfit(f"cannot write into {folder}: {error.strerror}") from error
    finally:
        link.close()
    return saved
