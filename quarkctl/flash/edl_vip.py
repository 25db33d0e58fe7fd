"""Flash in emergency download where secure boot is on: the packets that signed digest tables list, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quarkctl import boards
from quarkctl.errors import UsageWrong
from quarkctl.flash import edl_sources, vip
from quarkctl.flash.edl_device import forget_programmer
from quarkctl.flash.edl_session import EdlSession
from quarkctl.flash.edl_sources import Work
from quarkctl.flash.firehose import PAYLOAD_BYTES, QUICK_S
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.progress import Meter
from quarkctl.flash.vip import Command
from quarkctl.formats import vip as tables

_PATCH_S = 30.0


class VipSession(EdlSession):
    """One device from its programmer's greeting to the last packet. Nothing can be asked, skipped or proved on the way:
    the device itself refuses what its tables do not list."""

    def __init__(self, job: Job, work: Work) -> None:
        super().__init__(job, work)
        self._todo: dict[str, list[Command]] = {}

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        if self._job.wish.verify_only or self._wish.erase_first:
            raise UsageWrong("digest tables list one flash and nothing else", hint="leave the other options out")
        edl_sources.check_secdata(self._work, allowed=self._wish.secdata)
        board = boards.load(self._job.board) if self._job.board else None
        memory = self._memory(board)
        commands = vip.commands(self._work, memory, restart=self._wish.restart)
        if self._wish.vip_tables == "bundle":
            signed = vip.collect(self._work.tables.get, "the bundle")
        else:
            signed = vip.load(Path(self._wish.vip_tables))
        digests = vip.digests(commands)
        signed.check(tables.build(digests))
        programmer = self._start(memory, vip=True).programmer
        programmer.before_packet = vip.Escort(programmer, signed)
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
        programmer = self._open().programmer
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
