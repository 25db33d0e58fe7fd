"""Driver and strategy for labgrid's own tests: ``imports: [quarkctl.rig.labgrid.drivers]`` in the environment file."""

from __future__ import annotations

import enum
from typing import Any

import attr
from labgrid.driver import Driver
from labgrid.factory import target_factory
from labgrid.strategy import Strategy, StrategyError

from quarkctl.link.stream import StreamOpener
from quarkctl.rig.labgrid import resources


@target_factory.reg_driver
@attr.s(eq=False)
class QuarkRtosDriver(Driver):
    """The microcontroller of the glasses behind a QuarkBench."""

    bindings = {"bench": resources.QuarkBench}  # noqa: RUF012 - labgrid wants it so

    @property
    def opener(self) -> StreamOpener:
        return StreamOpener(f"labgrid:{self.bench.host}:{self.bench.port}", self.bench.host, self.bench.port)

    @Driver.check_active
    def flash(self, *what: str, allow_downgrade: bool = False) -> dict[str, Any]:
        """What `quarkctl flash` does. Raises the errors of quarkctl.errors."""
        from quarkctl.events import silent
        from quarkctl.flash import methods, run
        from quarkctl.flash.journal import Journal
        from quarkctl.flash.plan import Job, Wish

        prepared = methods.select(what, via="smp").prepare(what)
        with self.opener.hold():
            journal = Journal(self.opener.identity)
            session = prepared(
                Job(self.opener, journal, silent, self.bench.board, Wish(allow_downgrade=allow_downgrade))
            )
            try:
                return run.carry_out(session, run.preflight(session, journal, silent), journal, silent).as_dict()
            finally:
                session.close()

    @Driver.check_active
    def read_state(self) -> Any:
        """`quarkctl.flash.device.DeviceState`."""
        from quarkctl.flash.device import probe
        from quarkctl.flash.smp import Client

        link = self.opener.open()
        try:
            return probe(Client(link))
        finally:
            link.close()


class Status(enum.Enum):
    unknown = 0
    booted = 1
    flashed = 2


@target_factory.reg_driver
@attr.s(eq=False)
class QuarkStrategy(Strategy):
    """``booted``: the glasses answer. ``flashed``: they run ``image`` and it is permanent."""

    bindings = {"rtos": QuarkRtosDriver}  # noqa: RUF012 - labgrid wants it so
    image: Any = attr.ib(default="", validator=attr.validators.instance_of(str))
    status: Any = attr.ib(default=Status.unknown)

    def transition(self, status: Status | str) -> None:
        wanted = Status[status] if isinstance(status, str) else status
        self.target.activate(self.rtos)
        if wanted is Status.booted:
            if self.rtos.read_state().active is None:
                raise StrategyError("only the bootloader runs")
        elif wanted is Status.flashed:
            if not self.image:
                raise StrategyError("the strategy has no image")
            self.rtos.flash(self.image, allow_downgrade=True)
        else:
            raise StrategyError(f"cannot become {wanted.name}")
        self.status = wanted
