"""The supervisor of one pair of virtual glasses: ``python -m quarkctl.sim.glasses FOLDER LOCK``.

LOCK is the inherited descriptor of the folder's lock. The supervisor owns QEMU and the plant, feeds one with the other,
and takes commands as JSON lines on ``control.sock``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quarkctl import schemas
from quarkctl.errors import LinkError, QuarkError, UsageWrong
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import faults, folder
from quarkctl.sim.ar1 import control as ar1
from quarkctl.sim.cable import Cable
from quarkctl.sim.host import Waits
from quarkctl.sim.loads import LOADS_MA
from quarkctl.sim.mailbox import NO_VALUE, Mailbox
from quarkctl.sim.motion import RATE_HZ_MAX, Motion
from quarkctl.sim.plant import SIDES, Plant
from quarkctl.sim.qemu import Qemu

#: The plant moves on that often, and the firmware looks that often; in between, edges ring the doorbell.
BLOCK_S = 0.04
#: Gauges and the like are read that often.
SLOW_S = 0.9
#: Behind by more (the host was busy or slept): readings get rarer, as the firmware's clock went on all the same.
BEHIND_MAX_S = 0.5
#: Behind by more, time is skipped: nobody waits for an hour to be replayed.
_REPLAYED_MAX_S = 3600.0
#: How often it is noted what the host let the glasses wait.
_WAITS_S = 1.0


class Glasses:
    """QEMU, plant and mailbox, and the commands on them."""

    def __init__(self, path: Path, settings: dict[str, Any], selector: selectors.BaseSelector) -> None:
        self._path = path
        self._settings = settings
        self._plant = Plant(
            seed=int(settings["seed"]), load=str(settings["load"]),
            displays=0 if str(settings["board"]).startswith("g1") else 2,
        )  # fmt: skip
        self._mailbox = Mailbox(path / "memory.bin")
        self._motion = Motion(int(settings["seed"]), int(settings.get("imu_hz", 0)))
        self._cable = Cable(selector, int(settings["seed"]))
        self._machine_faults: dict[str, float] = {}
        self._slow_due_s = 0.0
        self._waits, self._waits_due_s = Waits(), 0.0
        self._qemu: Qemu | None = None
        self._clock_offset = 0.0
        self.stopping = False
        self._ar1: ar1.Child | None = None
        self._commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": lambda _: self._status(),
            "stop": self._stop,
            "battery": self._battery,
            "load": self._load,
            "fault": self._fault,
            "charger": self._charger,
            "ambient": self._ambient,
            "imu": self._imu,
            "power": self._power,
            "cable": self._plug,
            "ar1": self._application,
            "host": self._host,
        }

    # --- power --------------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        if self._qemu:
            return
        if self._settings.get("ar1") and self._ar1 is None:
            self._switch_on("off")  # before time begins: starting a process takes a while
        hysteresis = self._machine_faults.get(faults.NO_HYSTERESIS.name)
        self._mailbox.reset(
            str(self._settings["serial"]), Version.parse(self._settings["ar1_version"]).packed,
            NO_VALUE if hysteresis is None else int(hysteresis),
        )  # fmt: skip
        self._switch_imu(self._motion.rate_hz)
        self._qemu = Qemu(self._path, icount=bool(self._settings.get("icount")))
        self._cable.attach(self._qemu.port)
        self._clock_offset = time.monotonic() - self._plant.time_us / 1e6
        self._plant.brown_out = False
        self._publish()
        self._tell_ar1(command="power", action="on")

    def power_cut(self, reason: str = "power_on") -> None:
        """Of both chips. ``reason``: what the next start of the application processor says of it."""
        self._tell_ar1(command="power", action="cut", reason=reason)
        if self._qemu:
            self._cable.detach()
            self._qemu.kill()
            self._qemu = None
        self._publish()

    def _reset(self, cause: str) -> None:
        if self._qemu:
            self._mailbox.set_reset_cause(schemas.telemetry().enums["reset_reason"][cause])
            self._qemu.qmp("system_reset")

    def _publish(self) -> None:
        q = self._qemu
        s = self._settings
        folder.publish(
            self._path,
            folder.Instance(
                s["name"], s["board"], s["serial"], os.getpid(), q.pid if q else 0, self._cable.port, s["image"]
            ),
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Bring the plant up to now and tell the firmware."""
        self._cable.step()
        if self._qemu and not self._qemu.running:  # somebody killed it: that is a power cut
            self.power_cut()
        if not self._qemu:
            return
        if time.monotonic() >= self._waits_due_s:
            self._waits_due_s = time.monotonic() + _WAITS_S
            self._waits.measure(ar1=self._ar1 is not None)
        now_us = int((time.monotonic() - self._clock_offset) * 1e6)
        if now_us - self._plant.time_us > _REPLAYED_MAX_S * 1e6:
            self._clock_offset += (now_us - self._plant.time_us) / 1e6
            return
        status = self._mailbox.status()
        self._plant.throttle_level = status.throttle_level
        if status.heartbeat:
            self._plant.pack_enable = status.pack_enable or 3
        readings = []
        coarse_us = int(BEHIND_MAX_S * 1e6)
        while now_us - self._plant.time_us > coarse_us:
            readings += self._plant.advance(self._plant.time_us + coarse_us, coarse_us)
        readings += self._plant.advance(now_us)
        if faults.FROZEN_CONVERTER.name not in self._machine_faults:
            self._mailbox.write(readings)
        self._mailbox.write_motion(*self._motion.advance(now_us))
        if time.monotonic() >= self._slow_due_s and self._mailbox.slow_due:
            self._slow_due_s = time.monotonic() + SLOW_S
            self._mailbox.write_slow(self._plant.registers())
        if self._plant.brown_out:
            self._brown_out()

    def _brown_out(self) -> None:
        """Below the limit the power chip holds reset; it lets go when a pack can feed the bus again."""
        self._plant.brown_out = False
        if self._plant.bus_mv < self._plant.uvlo_mv:
            self.power_cut("brownout")
        else:
            self._reset("brownout")
            self._tell_ar1(command="power", action="cut", reason="brownout")
            self._tell_ar1(command="power", action="on")

    def _now(self) -> None:
        """An edge: what the firmware sees must be up to date on both sides of it."""
        self.step()
        if self._qemu:
            self._qemu.ring()

    # --- commands -----------------------------------------------------------------------------------------------------

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        command = self._commands.get(str(request.get("command")))
        if command is None:
            raise UsageWrong(f"virtual glasses know no command {request.get('command')!r}")
        return command(request)

    def _status(self) -> dict[str, Any]:
        p = self._plant
        return {
            "power": "on" if self._qemu else "off",
            "time_us": p.time_us,
            "port": self._cable.port,
            "load": p.load,
            "load_ma": round(p.load_ma),
            "charger": p.charger,
            "ambient_c": p.ambient_c,
            "imu_hz": self._motion.rate_hz,
            "bus_mv": round(p.bus_mv),
            "packs": [
                {"side": side, "present": c.present, "soc_pct": round(100 * c.soc), "ma": round(c.ma)}
                for side, c in zip(SIDES, p.cells, strict=True)
            ],
            "zone_c": dict(
                zip(("ar1", "rtos", "battery_left", "battery_right", "skin"), p.temperatures(), strict=True)
            ),
            "throttle_level": p.throttle_level,
            "faults": {**p.faults, **self._machine_faults},
            "ar1": self._ar1_state(),
        }

    def _ar1_state(self) -> dict[str, Any] | None:
        """Of the application processor; None where it was never switched on."""
        try:
            now = json.loads((self._path / "ar1" / "state.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return {key: now[key] for key in ("mode", "slot", "port", "boot_failure")}

    def _host(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the host let all of this wait for a processor, since a moment of the wall clock."""
        self._waits.measure(ar1=self._ar1 is not None)
        return {"waits": self._waits.since(int(request["since_ns"]))}

    def _stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self.stopping = True
        return {}

    def _battery(self, request: dict[str, Any]) -> dict[str, Any]:
        side = SIDES.index(str(request["side"]))
        self.step()
        if request["action"] == "eject":
            self._plant.eject(side)
            if faults.RESET_ON_SWAP.name in self._machine_faults:
                self._reset("brownout")
        else:
            soc = request.get("soc_pct")
            self._plant.insert(side, None if soc is None else int(soc) / 100)
            if not self._qemu and self._settings.get("auto_on", True):
                self.power_on()
        self._now()
        return self._status()

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["load"] not in LOADS_MA:
            raise UsageWrong(f"no load {request['load']!r}", hint=f"there are {', '.join(LOADS_MA)}")
        self._plant.set_load(str(request["load"]))
        self._now()
        return self._status()

    def _fault(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request["fault"])
        fault = faults.FAULTS.get(name)
        if fault is None:
            raise UsageWrong(f"no fault {name!r}", hint=f"there are {', '.join(faults.FAULTS)}")
        given = request.get("size")
        size = fault.default if given is None else float(given)
        if name in faults.PLANT_FAULTS:
            self.step()
            self._plant.switch_fault(name, size if request["on"] else None)
            self._now()
        elif request["on"]:
            self._machine_faults[name] = size
        else:
            self._machine_faults.pop(name, None)
        self._cable.drop_rate = self._machine_faults.get(faults.LOST_TELEMETRY.name, 0.0) / 100
        return self._status()

    def _charger(self, request: dict[str, Any]) -> dict[str, Any]:
        self.step()
        self._plant.set_charger(on=bool(request["on"]))
        self._now()
        return self._status()

    def _ambient(self, request: dict[str, Any]) -> dict[str, Any]:
        self.step()
        self._plant.set_ambient(float(request["ambient_c"]), soaked=bool(request.get("soaked")))
        return self._status()

    def _imu(self, request: dict[str, Any]) -> dict[str, Any]:
        self._switch_imu(int(request["rate_hz"]))
        return self._status()

    def _switch_imu(self, rate_hz: int) -> None:
        if not 0 <= rate_hz <= RATE_HZ_MAX:
            raise UsageWrong(f"the inertial sensor has no {rate_hz} Hz", hint=f"0 (off) to {RATE_HZ_MAX}")
        self._motion.switch(rate_hz, self._plant.time_us)
        self._mailbox.set_motion_period(self._motion.period_ns)

    def _power(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request["action"]
        if action == "reset":
            self._reset("external")
        if action in ("cut", "cycle"):
            self.power_cut()
        if action in ("on", "cycle"):
            self.power_on()
        return self._status()

    def _plug(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request["action"]
        if action == "unplug":
            self._cable.unplug()
        elif action == "plug":
            self._cable.plug()
        elif action == "noise":
            self._cable.error_rate = min(max(float(request["rate"]), 0.0), 1.0)
        self._publish()
        return self._status()

    def _application(self, request: dict[str, Any]) -> dict[str, Any]:
        """The application processor: switched on by the first command for it, then commanded by itself."""
        if self._ar1 is None:
            self._switch_on("fastboot")
        return ar1.request(self._path / "ar1", **dict(request["request"]))

    def _switch_on(self, mode: str) -> None:
        s = self._settings
        self._ar1 = ar1.Child(self._path / "ar1", str(s["board"]), str(s["serial"]), mode)

    def _tell_ar1(self, **request: Any) -> None:
        """A command for the application processor, if there is one that listens."""
        if self._ar1:
            with contextlib.suppress(LinkError):
                ar1.request(self._path / "ar1", **request)

    def close(self) -> None:
        if self._ar1:
            self._ar1.close()
        self._cable.close()
        if self._qemu:
            self._qemu.kill()
        self._mailbox.close()


def serve(path: Path, lock_fd: int) -> None:
    """Run until told to stop. Says ``ready`` or an error as one JSON line on stdout, then closes it."""
    settings = json.loads((path / "settings.json").read_text("utf-8"))
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(path / "control.sock"))
    control.listen(8)
    with os.fdopen(lock_fd), control, selectors.DefaultSelector() as selector:
        glasses = Glasses(path, settings, selector)
        selector.register(control, selectors.EVENT_READ, lambda _: _answer(control, glasses))
        signal.signal(signal.SIGTERM, lambda *_: setattr(glasses, "stopping", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            glasses.power_on()
            glasses.step()
            print(json.dumps({"ready": True}), flush=True)
            _close_stdout()
            due = time.monotonic()
            while not glasses.stopping:
                due += BLOCK_S
                while (left := due - time.monotonic()) > 0 and not glasses.stopping:
                    for key, events in selector.select(left):
                        if selector.get_map().get(key.fd) is key:  # not dropped by a handler before it
                            key.data(events)
                due = max(due, time.monotonic() - BEHIND_MAX_S)
                glasses.step()
        finally:
            glasses.close()
        folder.clear(path)  # only after a proper stop: after a crash the log is worth reading


def _close_stdout() -> None:
    """The starter waits for the end of the pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _answer(control: socket.socket, glasses: Glasses) -> None:
    """One request, one answer, one connection. A client that dawdles is cut off: time must go on."""
    connection, _ = control.accept()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(0.2)
        try:
            request = json.loads(connection.makefile("r").readline(65536))
            answer = {"ok": glasses.handle(request)}
        except QuarkError as error:
            answer = {"error": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}}
        except (ValueError, KeyError, TypeError) as error:
            answer = {"error": {"message": f"malformed command: {error!r}", "hint": "", "exit_code": 5}}
        connection.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # nobody waits for the supervisor: its starter goes on, and init takes it over
    try:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
    except QuarkError as failure:
        print(json.dumps({"error": failure.message, "hint": failure.hint, "exit_code": failure.exit_code}), flush=True)
        sys.exit(failure.exit_code)
