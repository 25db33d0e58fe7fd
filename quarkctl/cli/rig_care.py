"""quarkctl rig list, power-cycle, quarantine"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Json, examples
from quarkctl.cli.rig_run import RigFile, Where
from quarkctl.errors import UsageWrong

if TYPE_CHECKING:
    from quarkctl.formats.rig_file import Station


def register(app: typer.Typer) -> None:
    app.command("list", epilog=examples("quarkctl rig list", "quarkctl rig list --json"))(list_stations)
    app.command("power-cycle", epilog=examples("quarkctl rig power-cycle bench-1", "quarkctl rig power-cycle hub-3"))(
        power_cycle
    )
    app.command(
        epilog=examples(
            "quarkctl rig quarantine bench-1 --reason 'loose cable'", "quarkctl rig quarantine --release bench-1"
        )
    )(quarantine)


def complete_station(incomplete: str) -> list[str]:
    from quarkctl.errors import QuarkError
    from quarkctl.link import names

    try:
        return [n for n in names.load() if n.startswith(incomplete)]
    except QuarkError:
        return []


StationName = Annotated[str, typer.Argument(metavar="STATION", autocompletion=complete_station)]


def list_stations(rig: RigFile = None, where: Where = None, as_json: Json = False) -> None:
    """List the stations: what is there, who holds it, what is in quarantine."""
    from quarkctl.cli.choose import devices
    from quarkctl.link import names
    from quarkctl.link.identity import called
    from quarkctl.link.lock import holder_of
    from quarkctl.rig import plan
    from quarkctl.rig import quarantine as records

    loaded = names.load_rig(rig)
    chosen = plan.choose(loaded.stations, where or [])
    found, out = devices(), records.all_records()
    rows: list[dict[str, Any]] = []
    for s in chosen:
        device = next(iter(called(found, s.word)), None)
        holder = holder_of(device.identity) or holder_of(s.lock) if device else None
        record = out.get(s.name)
        kept = record and record.out_of_use
        state = "quarantine" if kept else "missing" if device is None else "busy" if holder else "free"
        rows.append({
            "station": s.name, "device": device.identity if device else None, "word": s.word, "board": s.board,
            "tags": list(s.tags), "state": state, "held_by": str(holder) if holder else None,
            "faults": record.faults if record else 0, "reason": record.reason if record else "",
            "power": s.power.kind, "swap": s.swap.kind,
        })  # fmt: skip
    if as_json:
        show.document("quarkctl.rig-list/1", {"rig": loaded.name, "stations": rows})
        return
    show.table(
        ("station", "device", "board", "tags", "power", "swap", "state", ""),
        (
            (r["station"], r["device"] or r["word"], r["board"] or "-", ",".join(r["tags"]) or "-", r["power"] or "-",
             r["swap"] or "-", r["state"], r["held_by"] or r["reason"])
            for r in rows
        ),
    )  # fmt: skip


def power_cycle(station: StationName, rig: RigFile = None) -> None:
    """Switch the power of a station off and on again. Refused while somebody works with it."""
    from quarkctl.cli.choose import choose
    from quarkctl.rig import power

    found = station_called(station, rig)
    power.cycle(found, choose)
    show.out.print(f"{found}: power off and on")


def quarantine(
    station: Annotated[str, typer.Argument(metavar="[STATION]", autocompletion=complete_station)] = "",
    release: Annotated[bool, typer.Option("--release", help="Take it back into use.")] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT")] = "by hand",
    rig: RigFile = None,
    as_json: Json = False,
) -> None:
    """Take a station out of use, or back; without a station, list those that are out."""
    from quarkctl.rig import quarantine as records

    if not station:
        if release:
            raise UsageWrong("which station?", hint="quarkctl rig quarantine lists them")
        out = {n: r for n, r in records.all_records().items() if r.out_of_use}
        if as_json:
            show.document(
                "quarkctl.rig-quarantine/1", {"stations": [{"station": n, **vars(r)} for n, r in out.items()]}
            )
        elif not out:
            show.out.print("no station is in quarantine")
        else:
            show.table(
                ("station", "since", "faults", "why"), ((n, r.since, r.faults, r.reason) for n, r in out.items())
            )
        return
    name = station_called(station, rig).name
    if release:
        was = records.release(name)
        show.out.print(f"{name} is in use again" if was else f"{name} was not in quarantine")
    else:
        records.put(name, reason)
        show.out.print(f"{name} is out of use: {reason}")


def station_called(name: str, rig: Path | None) -> Station:
    """Raises UsageWrong for a name that rig.toml does not have."""
    from quarkctl.link import names

    stations = names.load_rig(rig).stations
    if name not in stations:
        raise UsageWrong(
            f"there is no station {name!r}", hint=f"there are {', '.join(stations) or 'none: quarkctl rig discover'}"
        )
    return stations[name]
