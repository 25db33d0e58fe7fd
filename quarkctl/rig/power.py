"""Power and battery actuators of a station: commands without a shell, bounded in time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence

from quarkctl.errors import DeviceMissing, HostUnfit, LinkError, UsageWrong
from quarkctl.formats.rig_file import Station
from quarkctl.link import Opener
from quarkctl.link.lock import hold

#: (word for the device, flash method or "") -> where it is. Raises DeviceMissing, DeviceAmbiguous.
Find = Callable[[str, str], Opener]

_COMMAND_TIMEOUT_S = 30.0


def switch(station: Station, action: str) -> None:
    """``action``: off, on, cycle. Raises UsageWrong (no power control), HostUnfit (no such program), LinkError (failed)."""
    power = station.power
    if power.kind == "sim":
        from quarkctl.sim import control

        control.request(power.words[0], command="power", action={"off": "cut"}.get(action, action))
    elif power.kind == "command":
        _run([w.replace("{action}", action) for w in power.words])
    elif power.kind == "uhubctl":
        _run(["uhubctl", "-l", power.words[0], "-p", power.words[1], "-a", action])
    elif power.kind == "labgrid":
        _run(["labgrid-client", "-p", power.words[0], "power", action])
    else:
        raise UsageWrong(
            f"station {station.name} has no power control",
            hint=f"give it one in rig.toml: power = {{ ... }} in [station.{station.name}]",
        )


def cycle(station: Station, find: Find) -> None:
    """Off and on, by hand: not while somebody works with the device. Raises DeviceBusy besides."""
    try:
        lock = hold(find(station.word, "").identity)
    except DeviceMissing:  # that may be why
        lock = None
    try:
        switch(station, "cycle")
    finally:
        if lock:
            lock.release()


def swap(station: Station, action: str, side: str) -> None:
    """``action``: eject, insert; ``side``: left, right. Raises like `switch`."""
    if station.swap.kind == "sim":
        from quarkctl.sim import control

        control.request(station.swap.words[0], command="battery", action=action, side=side, soc_pct=None)
    elif station.swap.kind == "command":
        _run([w.replace("{action}", action).replace("{side}", side) for w in station.swap.words])
    else:
        raise UsageWrong(
            f"station {station.name} has no swap actuator",
            hint=f"give it one in rig.toml: swap = {{ command = [...] }} in [station.{station.name}]",
        )


def set_load(station: Station, load: str) -> None:
    """Only virtual glasses can be told from outside what to do. Raises UsageWrong."""
    if not station.sim:
        raise UsageWrong(f"the load of station {station.name} cannot be set", hint="leave load out of the step")
    from quarkctl.sim import control

    control.request(station.sim, command="load", load=load)


def _run(command: Sequence[str]) -> None:
    if shutil.which(command[0]) is None:
        raise HostUnfit(f"there is no program {command[0]}", hint="install it, or correct rig.toml")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LinkError(f"{command[0]} did not end within {_COMMAND_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise HostUnfit(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LinkError(f"{command[0]} ended with {done.returncode}: {words[-1] if words else 'no output'}")
