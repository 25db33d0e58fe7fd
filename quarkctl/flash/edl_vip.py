"""Flash in emergency download where secure boot is on: the packets that signed digest tables list, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quarkctl import boards
from quarkctl.errors import LinkError, UsageWrong
from quarkctl.events import Event, Level
from quarkctl.flash import edl_sources, vip
from quarkctl.flash.edl_device import EdlDevice, forget_programmer, open_device
from quarkctl.flash.edl_sources import Work
from quarkctl.flash.firehose import PAYLOAD_BYTES, QUICK_S
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.progress import Meter
from quarkctl.flash.vip import Command
from quarkctl.formats import vip as tables

_PATCH_S = 30.0


class VipSession:
    """One device from its programmer's greeting to the last packet. Nothing can be asked, skipped or proved on the way:
    the device itself refuses what its tables do not list."""

    def __init__(self, job: Job, work: Work) -> None:
        self._job = job
        self._wish = job.wish.ar1
        self._work = work
        self._device: EdlDevice | None = None
        self._todo: dict[str, list[Command]] = {}

    @property
    def where(self) -> str:
        return self._device.link.name if self._device else ""

    def close(self) -> None:
        if self._device:
            self._device.link.close()
            self._device = None
        self._work.close()

    def _told(self, text: str) -> None:
        if "error" in text.lower():
            self._job.progress(Event(self._job.opener.identity, "device", Level.NOTE, text))

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        if self._job.wish.verify_only or self._wish.erase_first:
            raise UsageWrong("digest tables list one flash and nothing else", hint="leave the other options out")
        edl_sources.check_secdata(self._work, allowed=self._wish.secdata)
        board = boards.load(self._job.board) if self._job.board else None
        memory = self._wish.memory or self._work.memory or (str(board.get("ar1.storage", "")) if board else "") or "ufs"
        commands = vip.commands(self._work, memory, restart=self._wish.restart)
        signed = vip.load(Path(self._wish.vip_tables))
        digests = vip.digests(commands)
        signed.check(tables.build(digests))
        images = edl_sources.load_programmers(self._work, self._wish.programmer)
        step = Step("programmer", "", sum(map(len, images.values())))
        meter = Meter(self._job.progress, self._job.opener.identity, step, step.size_bytes)
        self._device = open_device(
            self._job.opener, images, memory, self._told, self._job.journal, meter.at, vip=True
        )  # fmt: skip
        self._device.programmer.before_packet = vip.Escort(self._device.programmer, signed)
        steps = self._steps(commands)
        return Plan(
            self._job.opener.identity, board.name if board else "", "ar1", "edl", "", "",
            sum(s.size_bytes for s in steps), hashlib.sha256(b"".join(digests)).hexdigest(), tuple(steps), (), (),
            {"memory": memory, "packets": len(digests), "tables": 1 + len(signed.chained)},
            f"{memory}, {len(digests)} packets in {1 + len(signed.chained)} digest tables",
        )  # fmt: skip

    def _steps(self, commands: Sequence[Command]) -> list[Step]:
        """Commands of one kind and file together."""
        for command in commands:
            name = f"program {command.attributes['filename']}" if command.tag == "program" else command.tag
            last = next(reversed(self._todo), "")
            if name in self._todo and name != last:
                name = f"{name} at {command.attributes.get('start_sector', len(self._todo))}"
            self._todo.setdefault(name, []).append(command)
        return [
            Step(name, f"{len(found)} commands" if len(found) > 1 else "", sum(c.size_bytes for c in found))
            for name, found in self._todo.items()
        ]

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        if self._device is None:
            raise LinkError("the device is not open")
        programmer = self._device.programmer
        meter = Meter(self._job.progress, self._job.opener.identity, step, step.size_bytes)
        for command in self._todo[step.name]:
            if command.tag == "program":
                moved = partial(_advance, meter, meter.done_bytes)
                programmer.program(command.attributes, command.size_bytes, command.pieces(PAYLOAD_BYTES), moved)
            elif command.tag == "configure":
                programmer.configure_exactly(command.attributes)
            elif command.tag == "power":
                programmer.leave(command.attributes)
                forget_programmer(self._job.opener.identity)
            else:
                programmer.command(command.tag, command.attributes, _PATCH_S if command.tag == "patch" else QUICK_S)
        return "as the digest tables list it"

    def facts(self) -> dict[str, object]:
        return {"verified": dict.fromkeys((w.label for w in self._work.writes), "digest tables")}

    def interrupted(self, step: Step) -> str:
        return (
            f"stopped in {step.name}: with digest tables the device goes on with nothing else. Power-cycle it into "
            "emergency download and repeat the command"
        )


def _advance(meter: Meter, before: int, sent: int) -> None:
    meter.at(before + sent)
