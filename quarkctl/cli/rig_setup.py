"""quarkctl rig discover, doctor"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quarkctl.cli import show
from quarkctl.cli.doctor import CHECKS, Check, report
from quarkctl.cli.options import Json, examples
from quarkctl.cli.rig_run import RigFile
from quarkctl.errors import HostUnfit, InputWrong, LinkError, QuarkError

if TYPE_CHECKING:
    from quarkctl.formats.rig_file import Rig
    from quarkctl.link.identity import Device

#: Logs and recordings of a night fit into this.
DISK_FREE_MIN = 1 << 30
USB_DEVICES = Path("/sys/bus/usb/devices")
#: Nothing here is older; a clock that says so was never set.
_BUILT = 1_767_225_600  # 2026-01-01


def register(app: typer.Typer) -> None:
    app.command(epilog=examples("quarkctl rig discover", "quarkctl rig discover --out lab.toml"))(discover)
    app.command(epilog=examples("quarkctl rig doctor", "quarkctl rig doctor --rig lab.toml --json"))(doctor)


def discover(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write; never overwritten.")] = Path(
        "rig.toml"
    ),
    as_json: Json = False,
) -> None:
    """Write a rig.toml with a station for each device that is connected now."""
    from quarkctl.cli.choose import devices
    from quarkctl.link.identity import talking

    found = talking(devices())  # one station for both chips
    if not found:
        raise LinkError("no device found", hint="plug the glasses in, or start virtual ones: quarkctl sim start")
    text = _rig_text(found)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputWrong(f"{out} exists already", hint="--out OTHER.toml, then compare") from None
    except OSError as error:
        raise HostUnfit(f"cannot write {out}: {error.strerror}") from error
    if as_json:
        show.document("quarkctl.rig-discover/1", {"file": str(out), "stations": [d.identity for d in found]})
    else:
        show.out.print(f"{out}: {len(found)} stations. Give them names, tags, power and swap; then quarkctl rig doctor")


def _rig_text(found: list[Device]) -> str:
    """By serial number where it is the device's own; by physical port where it is not."""
    import json

    lines = ["# Written by quarkctl rig discover. docs/rigs.md describes every key.", "[rig]", 'name = "rig"', ""]
    for number, d in enumerate(found, 1):
        if d.identity.startswith("sim:"):
            key, value = "sim", d.identity.removeprefix("sim:")
        elif d.serial and d.identity.startswith(f"usb:{d.serial}") and sum(d.serial == o.serial for o in found) == 1:
            key, value = "serial", d.serial
        else:
            key, value = "port", d.location or d.port
        words = "".join(c for c in d.description if c.isprintable())  # a device says of itself what it likes
        lines += [f"[station.station-{number}]", f"# {words}", f"{key} = {json.dumps(value)}"]
        if d.board:
            lines.append(f"board = {json.dumps(d.board)}")
        if key != "sim":
            lines.append('# power = { uhubctl = "1-1", port = 1 }      or { command = ["relay", "{action}", "3"] }')
        lines.append("")
    return "\n".join(lines)


def doctor(rig: RigFile = None, as_json: Json = False) -> int:
    """Check the rig: file, devices, hubs, power control, permissions, locks, disk, clock. Prints the cures."""
    from quarkctl.link import names

    checks = [c() for c in CHECKS]
    file = rig or names.path()
    if file is None:
        checks.append(Check("rig file", False, "there is no rig.toml", "quarkctl rig discover"))
    else:
        try:
            loaded = names.load_rig(file)
            checks.append(Check("rig file", True, f"{file}: {len(loaded.stations)} stations"))
            checks += [*_stations(loaded), *_twins(loaded), *_power(loaded)]
        except QuarkError as error:
            checks.append(Check("rig file", False, error.message, error.hint))
    checks += [*_hubs(), *_locks(), _disk(), *_clock(), _runs()]
    return report(checks, "quarkctl.rig-doctor/1", as_json=as_json)


def _stations(rig: Rig) -> Iterator[Check]:
    from quarkctl.cli.choose import devices
    from quarkctl.link.holder import openers_of
    from quarkctl.link.identity import called
    from quarkctl.link.lock import holder_of
    from quarkctl.rig import quarantine

    found, out = devices(), quarantine.all_records()
    for s in rig.stations.values():
        fitting = called(found, s.word)
        if not fitting and s.port.startswith("/") and Path(s.port).exists():
            yield Check(s.name, os.access(s.port, os.R_OK | os.W_OK), s.port, f"no permission for {s.port}")
        elif len(fitting) != 1:
            words = f"{len(fitting)} devices fit {s.word}" if fitting else f"{s} is not connected"
            yield Check(
                s.name, False, words, "plug it in, switch it on, or correct rig.toml; quarkctl devices lists all"
            )
        else:
            d = fitting[0]
            holder = holder_of(d.identity)
            strangers = [] if holder or d.identity.startswith("sim:") else openers_of(d.port)
            held = f", held by {holder}" if holder else ""
            yield Check(s.name, not strangers, f"{d.identity} at {d.port or '-'}{held}"
                        + (f", opened by {', '.join(map(str, strangers))}" if strangers else ""),
                        "end that program: it takes bytes away from quarkctl")  # fmt: skip
        for word in s.also:
            if not any(d.is_called(word) for d in found) and not (word.startswith("/") and Path(word).exists()):
                yield Check(f"{s.name} also", False, f"{word} is not connected", "plug it in, or correct rig.toml")
        record = out.get(s.name)
        if record and record.out_of_use:
            yield Check(f"{s.name} quarantine", False, f"since {record.since}: {record.reason}",
                        f"quarkctl rig quarantine --release {s.name}", needed=False)  # fmt: skip


def _twins(rig: Rig) -> Iterator[Check]:
    from quarkctl.cli.choose import devices
    from quarkctl.link import names

    for one, other, identity in names.twins(rig.stations.values(), devices()):
        yield Check(other.name, False, f"is the same device as {one.name}: {identity}", "correct rig.toml")


def _power(rig: Rig) -> Iterator[Check]:
    programs = {"uhubctl": "apt-get install uhubctl", "labgrid-client": "pip install 'quarkctl[labgrid]'"}
    for s in rig.stations.values():
        for what, control in (("power", s.power), ("swap", s.swap)):
            if not control or control.kind == "sim":
                continue
            program = {"uhubctl": "uhubctl", "labgrid": "labgrid-client"}.get(control.kind, control.words[0])
            path = shutil.which(program)
            if path is None:
                cure = programs.get(program, "install it, or correct rig.toml")
                yield Check(f"{s.name} {what}", False, f"there is no program {program}", cure)
            if control.kind == "uhubctl":
                yield from _hub_port(s.name, *control.words)
    without = [s.name for s in rig.stations.values() if not s.power]
    if without:
        words = f"no power control: {', '.join(without)}"
        yield Check("power", False, words, "a hang there needs a person; docs/rigs.md shows how", needed=False)


def _hub_port(station: str, hub: str, port: str) -> Iterator[Check]:
    """Is the hub there on which uhubctl is to switch, and has it that port?"""
    entry = USB_DEVICES / hub
    if not entry.exists():
        yield Check(f"{station} power", False, f"there is no hub {hub}", "uhubctl lists them; correct rig.toml")
        return
    with suppress(OSError, ValueError):
        count = int((entry / "maxchild").read_text())
        if int(port) > count:
            yield Check(f"{station} power", False, f"hub {hub} has {count} ports, not {port}", "correct rig.toml")


def _hubs() -> Iterator[Check]:
    """Hubs that say of themselves that they have no supply of their own (configuration attribute, USB 2.0, 9.6.3)."""
    found = False
    for entry in sorted(USB_DEVICES.glob("*-*")):
        with suppress(OSError, ValueError):
            if (entry / "bDeviceClass").read_text().strip() != "09":
                continue
            found = True
            own = int((entry / "bmAttributes").read_text().strip(), 16) & 0x40
            words = f"{entry.name} {'has a supply of its own' if own else 'lives on the power of its host'}"
            yield Check("hub", bool(own), words, "glasses that charge need a hub with a supply", needed=False)
    if not found:
        yield Check("hub", True, "no hub is connected")


def _locks() -> Iterator[Check]:
    """Locks are the kernel's: on a network folder they bind nobody, or everybody."""
    from quarkctl.link import lock

    try:
        lock.hold("doctor").release()
        held = lock.all_held()
        words = f"held: {', '.join(f'{identity} by {holder}' for identity, holder in held)}" if held else "none is held"
        yield Check("locks", True, words)
    except QuarkError as error:
        yield Check("locks", False, error.message, error.hint or "set QUARKCTL_STATE_DIR to a folder of a local disk")


def _disk() -> Check:
    from quarkctl import state

    place = next(p for p in (state.root(), *state.root().parents) if p.exists())
    free = shutil.disk_usage(place).free
    return Check("disk", free >= DISK_FREE_MIN, f"{free / 2**30:.1f} GiB free at {place}",
                 "make room: records of a night need 1 GiB; keep_days in rig.toml says how long runs are kept")  # fmt: skip


def _clock() -> Iterator[Check]:
    """Records are ordered by it, and the certificates of a database are checked against it."""
    from quarkctl.rig import runs

    now, cure = time.time(), "set it: timedatectl set-ntp true"
    newest = next((r for r in runs.newest(1)), None)
    if newest and newest.started > now + 60:
        words = f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')} is before the last run, {newest.id}"
        yield Check("clock", False, words, cure)
    else:
        yield Check("clock", now >= _BUILT, time.strftime("%Y-%m-%d %H:%M:%S %Z"), cure)
    state = _clock_state()
    if state is not None:
        words = "kept right by a time service" if state else "no time service keeps it right"
        yield Check("clock source", state, words, cure, needed=False)


def _clock_state() -> bool | None:
    """Does the kernel say that its clock is synchronised (adjtimex(2): TIME_ERROR is 5)? None where it cannot be asked."""
    import ctypes

    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # struct timex, all zero: only asked
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else bool(answer != 5)


def _runs() -> Check:
    from quarkctl.rig import runs

    waiting = len(list(runs.outbox().glob("*.json")))
    words = f"{waiting} records of runs wait for it" if waiting else "history has everything"
    return Check(
        "history", not waiting, words, "quarkctl rig history delivers them, or says what is wrong", needed=False
    )
