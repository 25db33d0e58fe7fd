"""quarkctl ar1"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.ask import insist
from quarkctl.cli.options import Board, Device, Events, Json, Timeout, Yes, bounded, examples, terminable
from quarkctl.errors import DeviceMissing, UsageWrong

if TYPE_CHECKING:
    from quarkctl.flash.edl_device import EdlDevice
    from quarkctl.flash.fastboot import Answer, Client
    from quarkctl.link import Opener

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The application processor's boot loader and boot ROM, by hand."
)

Programmer = Annotated[str, typer.Option("--programmer", metavar="FILE", help="The Firehose programmer.")]
Memory = Annotated[str, typer.Option("--memory", metavar="KIND", help="ufs, emmc, nand, nvme or spinor.")]
Idle = Annotated[bool, typer.Option("--assume-idle", help="A programmer of another tool waits for commands.")]


@app.callback(epilog=examples("quarkctl ar1 getvar all", "quarkctl ar1 gpt --programmer prog.elf"))
def _ar1() -> None:
    """Questions and switches of the application processor, in fastboot or in emergency download."""


@contextmanager
def _fastboot(device: str, timeout: float, *, quiet: bool = False) -> Iterator[Client]:
    """A client of the boot loader. What it says meanwhile is shown at once, unless ``quiet``: then it is the answer."""
    from quarkctl.flash import ar1_commands

    opener = _opener(device, "fastboot")
    told = (lambda _: None) if quiet else show.err.print
    with bounded(timeout), terminable(), opener.hold(), ar1_commands.fastboot(opener, told) as client:
        yield client


def _command(device: str, timeout: float, text: str, allowed_s: float, *, quiet: bool = False) -> Answer:
    """One command to the boot loader."""
    with _fastboot(device, timeout, quiet=quiet) as client:
        return client.command(text, allowed_s)


def _opener(device: str, method: str) -> Opener:
    from quarkctl.cli.choose import choose

    return choose(device, method)


@contextmanager
def _edl(
    device: str, programmer: str, memory: str, board: str, timeout: float, events: str, *, quiet: bool, idle: bool
) -> Iterator[tuple[EdlDevice, Opener, show.Reporter]]:
    from quarkctl.flash import ar1_commands

    opener = _opener(device, "edl")
    with (
        show.Reporter(events, quiet=quiet) as progress, bounded(timeout), terminable(), opener.hold(),
        ar1_commands.edl(opener, programmer, memory, board, progress, assume_idle=idle) as found,
    ):  # fmt: skip
        yield found, opener, progress


def _said(schema: str, body: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        show.document(schema, body)
    else:
        show.out.print(line)


# --- fastboot ---------------------------------------------------------------------------------------------------------


@app.command(epilog=examples("quarkctl ar1 getvar all", "quarkctl ar1 getvar max-download-size --json"))
def getvar(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A variable, or all.")] = "all",
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Ask the boot loader for a variable."""
    from quarkctl.flash import ar1_commands

    with _fastboot(device, timeout, quiet=True) as client:
        found = ar1_commands.variables(client, name)
    if as_json:
        show.document("quarkctl.ar1-variables/1", {"variables": found})
    else:
        show.table(("variable", "value"), sorted(found.items()))


@app.command(epilog=examples("quarkctl ar1 status", "quarkctl ar1 status -d sim:s1 --verify --json"))
def status(
    verify: Annotated[bool, typer.Option("--verify", help="Let it read all verified partitions again, first.")] = False,
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Tell what the running system says: slots, self-test, and what dm-verity found."""
    from quarkctl.cli.choose import choose, devices
    from quarkctl.flash.ar1_system import System
    from quarkctl.link import identity
    from quarkctl.link.ar1 import SYSTEM

    running = [] if device else [d for d in devices() if d.mode == "system"]
    if not device and not running:
        raise DeviceMissing(
            "no AR1 was found whose system runs", hint="name it with -d; in its boot loader: quarkctl ar1 getvar"
        )
    opener = choose(device, SYSTEM) if device else identity.choose(running, "").opener()
    with bounded(timeout), terminable(), opener.hold(), closing(opener.open()) as link:
        system = System(link)
        if verify:
            system.ask("verify")
        r = system.report()
    slots = {
        name: {
            "version": str(s.version or ""), "rollback_index": s.rollback_index, "vbmeta_digest": s.digest.hex(),
            "active": s.active, "successful": s.successful, "unbootable": s.unbootable, "retry_count": s.tries,
        }
        for name, s in (("a", r.slots.a), ("b", r.slots.b))
    }  # fmt: skip
    if as_json:
        facts = {
            "board": r.board, "serial": r.serial, "slot": r.slots.running, "locked": r.locked, "healthy": r.healthy,
            "selftest_passed": r.selftest_passed, "selftest_count": r.selftest_count, "reset_reason": r.reset_reason,
            "rollback_reason": r.rollback_reason, "verity_state": r.verity_state,
            "verity_failed_blocks": r.verity_failed_blocks, "verity_corrected_errors": r.verity_corrected_errors,
        }  # fmt: skip
        show.document("quarkctl.ar1-status/1", {**facts, "slots": slots})
        return
    show.out.print(
        f"{opener.identity}  {r.board}  {r.serial}  {'locked' if r.locked else 'unlocked'}  runs slot {r.slots.running}  "
        f"self-test {r.selftest_passed} of {r.selftest_count}  last restart: {r.reset_reason}"
    )
    for name, s in slots.items():
        words = [word for word in ("active", "successful", "unbootable") if s[word]]
        version = f"{s['version'] or 'empty'}, rollback index {s['rollback_index']}"
        show.out.print(f"slot {name}  {version}, {', '.join(words) or 'spare'}, {s['retry_count']} tries")
    show.out.print(f"dm-verity: {_verity(r.verity_state, r.verity_failed_blocks, r.verity_corrected_errors)}")


def _verity(state: str, failed: int, corrected: int) -> str:
    """What the kernel found of the partitions that it verifies, when they were read last."""
    mended = f", {corrected} bytes were mended since the start" if corrected else ""
    words = {"none": "no partition is verified", "whole": "everything is as it was signed"}
    if state == "failed":
        return f"failed: {failed} blocks are not what was signed, and cannot be read (EIO){mended}"
    return words.get(state, f"{state}{mended}")


@app.command(epilog=examples("quarkctl ar1 reboot fastbootd", "quarkctl ar1 reboot edl -d tcp:127.0.0.1:5554"))
def reboot(
    mode: Annotated[
        str, typer.Argument(metavar="[MODE]", help="system, bootloader, fastbootd, recovery, edl or off.")
    ] = "system",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until the device is found there again.")] = True,
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Restart from fastboot into another mode."""
    from quarkctl.flash import ar1_commands

    opener = _opener(device, "fastboot")
    with bounded(timeout), terminable(), opener.hold():
        ar1_commands.restart(opener, mode, wait=wait)
    _said("quarkctl.ar1-reboot/1", {"mode": mode}, f"{opener.identity} restarts into {mode}", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 erase userdata", "quarkctl ar1 erase misc --yes"))
def erase(
    partition: Annotated[str, typer.Argument(metavar="PARTITION")],
    device: Device = "",
    yes: Yes = False,
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Erase a partition. What was on it is gone."""
    insist(f"erase {partition}: what is on it will be gone. Go on?", yes=yes)
    _command(device, timeout, f"erase:{partition}", 120.0)
    _said("quarkctl.ar1-erase/1", {"partition": partition}, f"{partition} is erased", as_json=as_json)


@app.command("set-active", epilog=examples("quarkctl ar1 set-active b", "quarkctl ar1 set-active a -d QS1-0042"))
def set_active(
    slot: Annotated[str, typer.Argument(metavar="a|b")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Choose the slot that boots next."""
    if slot not in ("a", "b"):
        raise UsageWrong(f"there is no slot {slot!r}", hint="a or b")
    _command(device, timeout, f"set_active:{slot}", 30.0)
    _said("quarkctl.ar1-slot/1", {"slot": slot}, f"slot {slot} boots next", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 oem device-info", "quarkctl ar1 oem digest boot_a"))
def oem(
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="As the boot loader's vendor defines them.")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Give the boot loader a command of its vendor, and print what it says."""
    answer = _command(device, timeout, "oem " + " ".join(words), 120.0, quiet=True)
    lines = [line for line in (*answer.lines, answer.text) if line]
    _said("quarkctl.ar1-oem/1", {"lines": lines}, "\n".join(lines) or "done", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 flashing get_unlock_ability", "quarkctl ar1 flashing unlock --yes"))
def flashing(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="lock, unlock, lock_critical, unlock_critical, get_unlock_ability.")
    ],
    device: Device = "",
    yes: Yes = False,
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Lock or unlock the boot loader. Both erase user data."""
    if action not in ("lock", "unlock", "lock_critical", "unlock_critical", "get_unlock_ability"):
        raise UsageWrong(f"there is no flashing {action!r}", hint="quarkctl ar1 flashing --help")
    if action in ("lock", "unlock"):
        insist(f"{action}: user data will be erased. Go on?", yes=yes)
    answer = _command(device, timeout, f"flashing {action}", 120.0)
    _said("quarkctl.ar1-flashing/1", {"action": action, "lines": answer.lines}, f"{action}: done", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 snapshot cancel", "quarkctl ar1 snapshot merge"))
def snapshot(
    action: Annotated[str, typer.Argument(metavar="cancel|merge")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """End a virtual A/B update that waits: drop it, or merge it now."""
    if action not in ("cancel", "merge"):
        raise UsageWrong(f"snapshot {action!r}", hint="cancel or merge")
    _command(device, timeout, f"snapshot-update:{action}", 600.0)
    _said("quarkctl.ar1-snapshot/1", {"action": action}, f"snapshot {action}: done", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 logical create oem_a 67108864", "quarkctl ar1 logical delete oem_a"))
def logical(
    action: Annotated[str, typer.Argument(metavar="create|resize|delete")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    size_bytes: Annotated[int, typer.Argument(metavar="[BYTES]", min=0)] = 0,
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Change logical partitions; the device must be in fastbootd."""
    if action not in ("create", "resize", "delete"):
        raise UsageWrong(f"logical {action!r}", hint="create, resize or delete")
    size = "" if action == "delete" else f":{size_bytes}"
    _command(device, timeout, f"{action}-logical-partition:{name}{size}", 60.0)
    _said("quarkctl.ar1-logical/1", {"action": action, "partition": name}, f"{name}: {action} done", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 stage script.bin", "quarkctl ar1 stage key.bin -d tcp:127.0.0.1"))
def stage(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Give the boot loader a file without writing it: what comes next uses it."""
    from quarkctl.flash import ar1_commands

    with _fastboot(device, timeout) as client:
        size = ar1_commands.stage(client, file, lambda _: None)
    _said("quarkctl.ar1-stage/1", {"size_bytes": size}, f"{size} bytes staged", as_json=as_json)


@app.command("get-staged", epilog=examples("quarkctl ar1 get-staged log.bin", "quarkctl ar1 get-staged x -d QS1-0042"))
def get_staged(
    out: Annotated[Path, typer.Argument(metavar="FILE")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Take what the boot loader has staged for us."""
    from quarkctl.flash import ar1_commands

    with _fastboot(device, timeout) as client:
        size = ar1_commands.take(client, "upload", out)
    _said("quarkctl.ar1-staged/1", {"file": str(out), "size_bytes": size}, f"{out}: {size} bytes", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 fetch vendor_boot_a v.img", "quarkctl ar1 fetch vendor_boot_b b.img"))
def fetch(
    partition: Annotated[str, typer.Argument(metavar="PARTITION")],
    out: Annotated[Path, typer.Argument(metavar="FILE")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Read a partition back. fastbootd gives only vendor_boot; most boot loaders give nothing."""
    from quarkctl.flash import ar1_commands

    with _fastboot(device, timeout) as client:
        size = ar1_commands.take(client, f"fetch:{partition}", out)
    _said("quarkctl.ar1-fetch/1", {"file": str(out), "size_bytes": size}, f"{out}: {size} bytes", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 boot boot.img", "quarkctl ar1 boot boot.img -d tcp:127.0.0.1"))
def boot(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    device: Device = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Start a boot image without writing it anywhere."""
    from quarkctl.flash import ar1_commands

    with _fastboot(device, timeout) as client:
        size = ar1_commands.boot(client, file, lambda _: None)
    _said("quarkctl.ar1-boot/1", {"size_bytes": size}, f"{file.name} is started", as_json=as_json)


@app.command(
    "update-super", epilog=examples("quarkctl ar1 update-super empty.img", "quarkctl ar1 update-super x.img --wipe")
)
def update_super(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What lpmake makes, not sparse.")],
    wipe: Annotated[bool, typer.Option("--wipe", help="Drop all logical partitions that there are.")] = False,
    device: Device = "",
    yes: Yes = False,
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Give fastbootd a new table of logical partitions."""
    from quarkctl.flash import ar1_commands

    if wipe:
        insist("all logical partitions will be gone. Go on?", yes=yes)
    with _fastboot(device, timeout) as client:
        name = ar1_commands.update_super(client, file, wipe=wipe, moved=lambda _: None)
    _said("quarkctl.ar1-super/1", {"partition": name}, f"{name} has the table of {file.name}", as_json=as_json)


@app.command("format", epilog=examples("quarkctl ar1 format userdata", "quarkctl ar1 format metadata --type ext4 -y"))
def format_(
    partition: Annotated[str, typer.Argument(metavar="PARTITION")],
    kind: Annotated[str, typer.Option("--type", metavar="KIND", help="ext4; else as the device says.")] = "",
    device: Device = "",
    yes: Yes = False,
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Make an empty file system on a partition. What was on it is gone."""
    import tempfile

    from quarkctl.build.ar1 import empty
    from quarkctl.flash import ar1_commands

    insist(f"format {partition}: what is on it will be gone. Go on?", yes=yes)
    with tempfile.TemporaryDirectory() as folder, _fastboot(device, timeout) as client:
        size, kind = ar1_commands.place_to_format(client, partition, kind)
        image = Path(folder) / "empty.img"
        empty.make(kind, image, size, partition)
        sent = ar1_commands.write_empty(client, partition, image, lambda _: None)
    _said(
        "quarkctl.ar1-format/1", {"partition": partition, "type": kind, "size_bytes": size, "sent_bytes": sent},
        f"{partition} is an empty {kind} of {size} bytes", as_json=as_json,
    )  # fmt: skip


@app.command(epilog=examples("quarkctl ar1 gsi status", "quarkctl ar1 gsi disable"))
def gsi(
    action: Annotated[str, typer.Argument(metavar="status|disable|wipe")] = "status",
    device: Device = "",
    yes: Yes = False,
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """A system image that was installed beside the device's own: ask, switch it off, or remove it."""
    from quarkctl.flash import ar1_commands

    if action not in ("status", "disable", "wipe"):
        raise UsageWrong(f"gsi {action!r}", hint="status, disable or wipe")
    if action == "wipe":
        insist("the other system image and its data will be gone. Go on?", yes=yes)
    with _fastboot(device, timeout, quiet=True) as client:
        ar1_commands.require_fastbootd(client)
        answer = client.command(f"gsi:{action}", 60.0)
    _said(
        "quarkctl.ar1-gsi/1", {"action": action, "lines": answer.lines}, "\n".join(answer.lines) or "done",
        as_json=as_json,
    )  # fmt: skip


# --- emergency download -----------------------------------------------------------------------------------------------


@app.command("chip-info", epilog=examples("quarkctl ar1 chip-info", "quarkctl ar1 chip-info --json"))
def chip_info(device: Device = "", timeout: Timeout = 0.0, as_json: Json = False) -> None:
    """Ask the boot ROM in emergency download for serial number, hardware id and the hash of the key that it trusts."""
    from quarkctl.flash import ar1_commands

    opener = _opener(device, "edl")
    with bounded(timeout), terminable(), opener.hold():
        info = ar1_commands.chip_info(opener)
    if as_json:
        show.document("quarkctl.ar1-chip/1", info)
        return
    rows = [(k, f"{v:#x}" if isinstance(v, int) else v) for k, v in info.items() if v is not None]
    show.table(("what", "value"), rows)


@app.command(epilog=examples("quarkctl ar1 storage --programmer prog.elf", "quarkctl ar1 storage --json"))
def storage(
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Kind and sizes of the storage, by LUN."""
    from quarkctl.flash import ar1_commands

    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, _, _):
        told = ar1_commands.storage(found)
    if as_json:
        show.document("quarkctl.ar1-storage/1", told)
        return
    show.out.print(f"{told['memory']} {told['product']}  sectors of {told['sector_bytes']} bytes")
    show.table(("LUN", "sectors", "bytes"), ((r["lun"], r["sectors"], r["size_bytes"]) for r in told["luns"]))


@app.command(epilog=examples("quarkctl ar1 gpt --programmer prog.elf", "quarkctl ar1 gpt --json"))
def gpt(
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Print the partition tables of all LUNs."""
    from quarkctl.flash import ar1_commands

    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, _, _):
        rows = ar1_commands.tables(found)
    if as_json:
        show.document("quarkctl.ar1-gpt/1", {"partitions": rows})
        return
    show.table(
        ("LUN", "partition", "first sector", "sectors", "bytes", "attributes"),
        (
            (r["lun"], r["name"], r["first_sector"], r["sectors"], r["size_bytes"],
             " ".join(f"{k}={v}" for k, v in r["attributes"].items()))
            for r in rows
        ),
    )  # fmt: skip


@app.command(epilog=examples("quarkctl ar1 backup 0 lun0.img --programmer prog.elf", "quarkctl ar1 backup 1 x.img"))
def backup(
    lun: Annotated[int, typer.Argument(metavar="LUN", min=0, max=31)],
    out: Annotated[Path, typer.Argument(metavar="FILE")],
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    events: Events = "", timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Read a whole LUN into a file. Restore it with: quarkctl flash FILE@LUN:0 --via edl"""
    from quarkctl.flash import ar1_commands

    with _edl(device, programmer, memory, board, timeout, events, quiet=as_json, idle=idle) as (
        found,
        opener,
        progress,
    ):
        done = ar1_commands.backup(found, lun, out, progress, opener.identity)
    _said("quarkctl.ar1-backup/1", done, f"{out}: {done['size_bytes']} bytes, sha256 {done['sha256']}", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 digest 0 6 256 --programmer prog.elf", "quarkctl ar1 digest 0 0 16384"))
def digest(
    lun: Annotated[int, typer.Argument(metavar="LUN", min=0, max=31)],
    first: Annotated[int, typer.Argument(metavar="SECTOR", min=0)],
    sectors: Annotated[int, typer.Argument(metavar="COUNT", min=1)],
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """SHA-256 of sectors, computed by the device."""
    from quarkctl.flash import ar1_commands

    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, _, _):
        value = ar1_commands.digest(found, lun, first, sectors)
    _said("quarkctl.ar1-digest/1", {"sha256": value}, value, as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 power reset", "quarkctl ar1 power reset_to_edl"))
def power(
    mode: Annotated[str, typer.Argument(metavar="reset|off|reset_to_edl")] = "reset",
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Leave emergency download."""
    from quarkctl.flash import ar1_commands

    if mode not in ("reset", "off", "reset_to_edl"):
        raise UsageWrong(f"power {mode!r}", hint="reset, off or reset_to_edl")
    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, opener, _):
        ar1_commands.power(found, opener, mode)
    _said("quarkctl.ar1-power/1", {"mode": mode}, f"{opener.identity}: {mode}", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 provision ufs.xml --irreversible", "quarkctl ar1 provision --help"))
def provision(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    irreversible: Annotated[bool, typer.Option("--irreversible", help="Yes: it cannot be undone.")] = False,
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Divide UFS storage into LUNs anew. Everything on it is lost, and a committed division stays for ever."""
    from quarkctl.flash import ar1_commands

    elements = ar1_commands.provision_elements(file)
    if not irreversible:
        raise UsageWrong(
            f"{file.name} would divide the storage anew, for ever", hint="say --irreversible if you mean it"
        )
    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, _, _):
        count = ar1_commands.provision(found, elements)
    _said("quarkctl.ar1-provision/1", {"elements": count}, f"{count} elements given", as_json=as_json)


@app.command(epilog=examples("quarkctl ar1 peek 0x10000000 64 --programmer prog.elf", "quarkctl ar1 peek 0x0 4 --json"))
def peek(
    address: Annotated[str, typer.Argument(metavar="ADDRESS")],
    size_bytes: Annotated[int, typer.Argument(metavar="BYTES", min=1, max=65536)] = 4,
    device: Device = "", programmer: Programmer = "", memory: Memory = "", board: Board = "", idle: Idle = False,
    timeout: Timeout = 0.0, as_json: Json = False,
) -> None:  # fmt: skip
    """Read memory of the device through its programmer, where that allows it."""
    from quarkctl.flash import ar1_commands

    try:
        start = int(address, 0)
    except ValueError:
        raise UsageWrong(f"{address!r} is no address", hint="0x10000000") from None
    with _edl(device, programmer, memory, board, timeout, "", quiet=as_json, idle=idle) as (found, _, _):
        data = ar1_commands.peek(found, start, size_bytes)
    lines = [f"{start + at:#012x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)]
    _said("quarkctl.ar1-peek/1", {"address": start, "hex": data.hex()}, "\n".join(lines), as_json=as_json)


@app.command(
    "vip-tables",
    epilog=examples("quarkctl ar1 vip-tables build/ar1 --out vip", "quarkctl ar1 vip-tables rawprogram0.xml --out vip"),
)
def vip_tables(
    what: Annotated[list[str], typer.Argument(metavar="WHAT...", help="As for quarkctl flash --via edl.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the tables go.")],
    memory: Memory = "",
    payload: Annotated[
        int, typer.Option("--payload", metavar="BYTES", min=4096, help="As the programmer takes it.")
    ] = 1 << 20,
    restart: Annotated[bool, typer.Option("--restart/--no-restart", help="As the flash will be called.")] = True,
    as_json: Json = False,
) -> None:
    """Make the digest tables of a flash, for a device with secure boot: sign DigestsToSign.bin, then flash --vip-tables."""
    from quarkctl.flash import ar1_commands

    made = ar1_commands.vip_tables(what, out, memory, payload, restart=restart)
    _said(
        "quarkctl.ar1-vip/1", made, "\n".join([*made["files"], f"{made['packets']} packets; sign {made['to_sign']}"]),
        as_json=as_json,
    )  # fmt: skip


@app.command(epilog=examples("quarkctl ar1 ramdump dumps", "quarkctl ar1 ramdump dumps OCIMEM.BIN"))
def ramdump(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER")],
    regions: Annotated[list[str] | None, typer.Argument(metavar="[REGION...]", help="Only these.")] = None,
    device: Device = "",
    events: Events = "",
    timeout: Timeout = 0.0,
    as_json: Json = False,
) -> None:
    """Save the memory of a crashed system (USB id 05c6:900e), region by region."""
    from quarkctl.flash import ar1_commands

    opener = _opener(device, "ramdump")
    with show.Reporter(events, quiet=as_json) as progress, bounded(timeout), terminable(), opener.hold():
        saved = ar1_commands.ramdump(opener, folder, list(regions or ()), progress)
    _said("quarkctl.ar1-ramdump/1", {"regions": saved}, "\n".join(f"{r['file']}" for r in saved), as_json=as_json)
