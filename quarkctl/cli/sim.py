"""quarkctl sim"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Board, Json, complete_glasses, examples
from quarkctl.errors import InputWrong, LinkError, UsageWrong
from quarkctl.sim.loads import LOADS_MA

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Virtual glasses: the real firmware in QEMU.")

Name = Annotated[
    str,
    typer.Option("--name", "-n", metavar="NAME", autocompletion=complete_glasses, help="Which glasses, if several."),
]


class Action(Enum):
    EJECT = "eject"
    INSERT = "insert"


class Side(Enum):
    LEFT = "left"
    RIGHT = "right"


class Power(Enum):
    CUT = "cut"
    ON = "on"
    CYCLE = "cycle"
    RESET = "reset"


class CableAction(Enum):
    PLUG = "plug"
    UNPLUG = "unplug"
    NOISE = "noise"


class Switch(Enum):
    ON = "on"
    OFF = "off"


@app.callback(epilog=examples("quarkctl sim start --load camera", "quarkctl sim battery eject left"))
def _sim() -> None:
    """Virtual glasses: the real firmware in QEMU, fed by a model of batteries, load and heat."""


@app.command(
    epilog=examples(
        "quarkctl sim start", "quarkctl sim start s1b --image build/s1-virtual/rtos-1.0.0.bin --load camera"
    )
)
def start(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name; default: the product, such as s1.")] = "",
    board: Board = "s1-virtual",
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the factory puts into slot A; default: the newest build.")
    ] = None,
    load: Annotated[str, typer.Option(help=f"What the glasses do: {', '.join(LOADS_MA)}.")] = "idle",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 1,
    ar1_version: Annotated[
        str, typer.Option(metavar="X.Y.Z", help="What the AR1 is taken to run while it says nothing itself.")
    ] = "1.0.0",
    ar1: Annotated[
        str,
        typer.Option(
            metavar="DIR|off", help="Build that the factory flashes into the AR1; default: the board's, if any."
        ),
    ] = "",
    imu_hz: Annotated[int, typer.Option("--imu-hz", min=0, max=1000, help="Rate of the inertial sensor; 0: off.")] = 0,
    as_json: Json = False,
) -> None:
    """Start a pair of virtual glasses: the microcontroller, and the AR1 if something was built for it."""
    from quarkctl.build.rtos import boot_name
    from quarkctl.flash import images
    from quarkctl.formats import mcuboot_image
    from quarkctl.sim import control

    if load not in LOADS_MA:
        raise UsageWrong(f"no load {load!r}", hint=f"there are {', '.join(LOADS_MA)}")
    chosen = image or images.newest(Path("build") / board)
    key_hash = mcuboot_image.parse(images.load(chosen)).key_hash
    boot_elf = chosen.parent / boot_name(key_hash)
    if not boot_elf.is_file():
        raise InputWrong(
            f"there is no {boot_elf.name} beside {chosen.name}: the bootloader that trusts its key",
            hint="build both together: quarkctl build rtos",
        )
    ar1_images = _ar1_images(ar1, board)
    instance = control.start(
        name or board.removesuffix("-virtual"), board, control.Firmware(boot_elf, chosen),
        load=load, seed=seed, ar1_version=str(mcuboot_image.Version.parse(ar1_version)), ar1_images=ar1_images,
        imu_hz=imu_hz,
    )  # fmt: skip
    if as_json:
        show.document("quarkctl.sim/1", {**instance.as_dict(), "ar1_images": str(ar1_images or "")})
        return
    show.out.print(f"sim:{instance.name}  {instance.board}  {instance.serial}  serial {instance.port}  {chosen.name}")
    if ar1_images:
        show.out.print(f"sim:{instance.name}/ar1  starts what the factory flashed from {ar1_images}")


def _ar1_images(word: str, board: str) -> Path | None:
    """The build that the factory flashes."""
    if word == "off":
        return None
    folder = Path(word) if word else Path("build") / board / "ar1"
    return folder if word or any(folder.glob("rawprogram*.xml")) else None


@app.command("list", epilog=examples("quarkctl sim list", "quarkctl sim list --json"))
def list_glasses(as_json: Json = False) -> None:
    """List running virtual glasses."""
    from quarkctl.sim import control, folder

    rows, others = [], []
    for name, i in folder.everything():
        if i is None:
            others.append(name)
            continue
        try:
            rows.append({**i.as_dict(), **control.request(name, command="status")})
        except LinkError:  # it stopped while we looked
            continue
    if as_json:
        show.document("quarkctl.sim-list/1", {"glasses": rows, "other_versions": others})
        return
    for name in others:
        show.out.print(f"sim:{name} was started by another version of quarkctl; end it: quarkctl sim stop {name}")
    if not rows and others:
        return
    if not rows:
        show.out.print("no virtual glasses are running; start some: quarkctl sim start")
        return
    show.table(
        ("device", "board", "serial", "power", "port", "load", "packs", "ar1"),
        (
            (f"sim:{r['name']}", r["board"], r["serial"], r["power"], r["port"], r["load"], _packs(r), _ar1(r["ar1"]))
            for r in rows
        ),
    )


@app.command(epilog=examples("quarkctl sim stop", "quarkctl sim stop --all"))
def stop(
    name: Annotated[str, typer.Argument(metavar="[NAME]", autocompletion=complete_glasses)] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that run.")] = False,
) -> None:
    """Stop virtual glasses and remove what they left."""
    from quarkctl.sim import control, folder

    names = [found for found, _ in folder.everything()] if everything else [_only(name)]
    for one in names:
        control.stop(one)
        show.out.print(f"sim:{one} stopped")


@app.command(epilog=examples("quarkctl sim battery eject left", "quarkctl sim battery insert left --soc 95"))
def battery(
    action: Annotated[Action, typer.Argument()],
    side: Annotated[Side, typer.Argument()],
    soc: Annotated[int | None, typer.Option(min=0, max=100, metavar="PCT", help="Charge of the pack put in.")] = None,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Pull a battery, or put one in."""
    from quarkctl.sim import control

    status = control.request(_only(name), command="battery", action=action.value, side=side.value, soc_pct=soc)
    _print_status(status, as_json=as_json)


@app.command(epilog=examples("quarkctl sim load camera", "quarkctl sim load sleep --name s1"))
def load(
    load: Annotated[str, typer.Argument(metavar="LOAD", help=f"One of {', '.join(LOADS_MA)}.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Set what the glasses do, and so what they draw."""
    from quarkctl.sim import control

    _print_status(control.request(_only(name), command="load", load=load), as_json=as_json)


@app.command(epilog=examples("quarkctl sim fault", "quarkctl sim fault late_switchover on --size 800"))
def fault(
    fault: Annotated[str, typer.Argument(metavar="[FAULT]", help="Without: the list.")] = "",
    switch: Annotated[Switch, typer.Argument()] = Switch.ON,
    size: Annotated[float | None, typer.Option(help="How bad, in the unit of the list.")] = None,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Switch a fault on or off, or list the faults there are."""
    from quarkctl.sim import control, faults

    if not fault:
        known = [vars(f) for f in faults.FAULTS.values()]
        if as_json:
            show.document("quarkctl.faults/1", {"faults": known})
        else:
            show.table(
                ("fault", "default", "unit", "what"), ((f["name"], f["default"], f["unit"], f["doc"]) for f in known)
            )
        return
    status = control.request(_only(name), command="fault", fault=fault, on=switch is Switch.ON, size=size)
    _print_status(status, as_json=as_json)


@app.command(epilog=examples("quarkctl sim charger on", "quarkctl sim charger off --name s1"))
def charger(switch: Annotated[Switch, typer.Argument()], name: Name = "", as_json: Json = False) -> None:
    """Put the glasses on a charger, or take them off."""
    from quarkctl.sim import control

    status = control.request(_only(name), command="charger", on=switch is Switch.ON)
    _print_status(status, as_json=as_json)


@app.command(epilog=examples("quarkctl sim ambient 40", "quarkctl sim ambient --soaked -- -5"))
def ambient(
    celsius: Annotated[float, typer.Argument(metavar="C", min=-40.0, max=85.0, help="Temperature of the air.")],
    soaked: Annotated[
        bool, typer.Option("--soaked", help="As after hours at it, instead of warming up to it.")
    ] = False,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Set the temperature around the glasses."""
    from quarkctl.sim import control

    status = control.request(_only(name), command="ambient", ambient_c=celsius, soaked=soaked)
    _print_status(status, as_json=as_json)


@app.command(epilog=examples("quarkctl sim imu 400", "quarkctl sim imu 0 --name s1"))
def imu(
    rate_hz: Annotated[int, typer.Argument(metavar="HZ", min=0, max=1000, help="Samples a second; 0 switches it off.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Set the rate of the inertial sensor: the wearer walks and looks around."""
    from quarkctl.sim import control

    _print_status(control.request(_only(name), command="imu", rate_hz=rate_hz), as_json=as_json)


@app.command(epilog=examples("quarkctl sim power cycle", "quarkctl sim power cut --name s1"))
def power(action: Annotated[Power, typer.Argument()], name: Name = "", as_json: Json = False) -> None:
    """Cut the power without warning, give it back, or reset the microcontroller."""
    from quarkctl.sim import control

    _print_status(control.request(_only(name), command="power", action=action.value), as_json=as_json)


@app.command(epilog=examples("quarkctl sim cable unplug", "quarkctl sim cable noise --rate 1e-5"))
def cable(
    action: Annotated[CableAction, typer.Argument()],
    rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of bytes that noise damages.")] = 0.0,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Pull the serial cable, plug it in again (the port gets another name), or make it noisy."""
    from quarkctl.sim import control

    _print_status(control.request(_only(name), command="cable", action=action.value, rate=rate), as_json=as_json)


@app.command(epilog=examples("quarkctl sim ar1 system --wait", "quarkctl sim ar1 --flip system_a+4096"))
def ar1(
    mode: Annotated[str, typer.Argument(metavar="[MODE]", help="fastboot, fastbootd, edl, dump, system or off.")] = "",
    faults: Annotated[
        list[str] | None, typer.Option("--fault", metavar="FAULT", help="Switch on; `list` lists.")
    ] = None,
    heal: Annotated[list[str] | None, typer.Option("--heal", metavar="FAULT", help="Switch off again.")] = None,
    cable: Annotated[str, typer.Option(metavar="plug|unplug", help="Its USB cable and its network.")] = "",
    soc: Annotated[
        int | None, typer.Option("--battery", min=0, max=100, metavar="PCT", help="What it says of it.")
    ] = None,
    flip: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTITION[+OFFSET[:BYTES]]", help="Damage bytes on its storage; may be repeated."),
    ] = None,
    cut_after: Annotated[
        int | None,
        typer.Option(
            "--cut-after", min=1, metavar="BYTES", help="Its power fails in the write of that byte from now on."
        ),
    ] = None,
    lock: Annotated[bool | None, typer.Option("--lock/--unlock", help="What its boot loader may start.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until a system that starts talks, or does not start.")] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="S", help="Of --wait.")] = 120.0,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Switch the application processor on, into a mode; damage its storage, boot ROM and boot loader; tell how it is."""
    from quarkctl.sim import control
    from quarkctl.sim.ar1 import control as ar1_control
    from quarkctl.sim.ar1.settings import QUIRKS

    if faults == ["list"]:
        show.table(("fault", "what"), QUIRKS.items())
        return
    if cable not in ("", "plug", "unplug"):
        raise UsageWrong(f"--cable {cable!r}", hint="plug or unplug")
    glasses = _only(name)
    requests: list[dict[str, Any]] = [{"command": "fault", "fault": f, "on": True} for f in faults or ()]
    requests += [{"command": "fault", "fault": f, "on": False} for f in heal or ()]
    requests += [{"command": "battery", "soc_pct": soc}] if soc is not None else []
    requests += [{"command": "lock", "on": lock}] if lock is not None else []
    requests += [{"command": "flip", **_range(word)} for word in flip or ()]
    requests += [{"command": "cut", "after_bytes": cut_after}] if cut_after else []
    requests += [{"command": "enter", "mode": mode}] if mode else []
    requests += [{"command": "cable", "action": cable}] if cable else []
    status = {}
    for request in requests or [{"command": "status"}]:
        status = control.request(glasses, command="ar1", request=request)
    if wait:
        status = ar1_control.wait(glasses, timeout)
    if as_json:
        show.document("quarkctl.sim-ar1/1", status)
        return
    _print_ar1(glasses, status)


def _range(word: str) -> dict[str, Any]:
    """``PARTITION[+OFFSET[:BYTES]]``, numbers also with 0x."""
    partition, _, rest = word.partition("+")
    offset, _, size = rest.partition(":")
    try:
        return {"partition": partition, "offset": int(offset or "0", 0), "size_bytes": int(size or "1", 0)}
    except ValueError:
        raise UsageWrong(f"--flip {word!r}", hint="PARTITION+OFFSET:BYTES, such as system_a+4096:1") from None


def _print_ar1(glasses: str, status: dict[str, Any]) -> None:
    broken = f"   faults: {', '.join(status['faults'])}" if status["faults"] else ""
    lock = "unlocked" if status["unlocked"] else "locked"
    show.out.print(
        f"sim:{glasses}  AR1 in {_ar1(status)}  {lock}  serial {status['serial']}  battery {status['battery_soc_pct']} %  "
        f"tcp:127.0.0.1:{status['tcp_port']}  udp:127.0.0.1:{status['udp_port']}  "
        f"usbip:127.0.0.1:{status['usbip_port']}{broken}"
    )
    for slot, s in status["slots"].items():
        words = [w for w in ("active", "successful", "unbootable") if s[w]]
        reason = f": {s['reason']}" if s["reason"] else ""
        show.out.print(f"slot {slot}  {', '.join(words) or 'spare'}, {s['retry_count']} tries{reason}")
    if status["port"]:
        show.out.print(f"its port: {status['port']} (--device sim:{glasses}/ar1)")
    if status["mode"] == "edl":
        show.out.print(f"its programmer: {status['programmer']}")
    if status["boot_failure"]:
        show.out.print(f"it did not start: {status['boot_failure']}")


def _ar1(status: dict[str, Any] | None) -> str:
    """Mode, and the slot that runs."""
    if status is None:
        return "off"
    return f"{status['mode']} {status['slot']}".strip() if status["mode"] == "system" else str(status["mode"])


@app.command(epilog=examples("quarkctl sim console", "quarkctl sim console --ar1 --name s1"))
def console(
    ar1: Annotated[bool, typer.Option("--ar1", help="The AR1's boot loader and its kernel's console.")] = False,
    name: Name = "",
) -> None:
    """Print the firmware's own log."""
    from quarkctl.sim import folder

    path = folder.folder_of(_only(name))
    for log in (path / "ar1/bootloader.log", path / "ar1/console.log") if ar1 else (path / "firmware.log",):
        sys.stdout.write(log.read_text("utf-8", "replace") if log.exists() else "")


def _only(name: str) -> str:
    """The glasses that are meant, or the only ones."""
    from quarkctl.sim import folder

    if name:
        return name.removeprefix("sim:")
    running = [found for found, _ in folder.everything()]
    if len(running) == 1:
        return running[0]
    if not running:
        raise LinkError("no virtual glasses are running", hint="quarkctl sim start")
    raise LinkError(f"{len(running)} virtual glasses run: {', '.join(running)}", hint="choose one with --name")


def _packs(status: dict[str, Any]) -> str:
    return "  ".join(f"{p['side']} {str(p['soc_pct']) + ' %' if p['present'] else 'out'}" for p in status["packs"])


def _print_status(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document("quarkctl.sim-status/1", status)
        return
    words = [f"power {status['power']}", f"{status['load']} {status['load_ma']} mA", f"bus {status['bus_mv']} mV"]
    words.append(_packs(status))
    if status["imu_hz"]:
        words.append(f"imu {status['imu_hz']} Hz")
    if status["faults"]:
        words.append(f"faults: {', '.join(status['faults'])}")
    show.out.print("   ".join(words))
