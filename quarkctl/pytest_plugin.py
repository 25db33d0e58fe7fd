"""For the tests of product teams: ``pytest --quark-station NAME`` and the fixtures ``glasses``, ``telemetry``, ``flash``.

docs/rigs.md has an example. Everything is imported when it is used: this file is loaded by every pytest of the environment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quarkctl.formats.rig_file import Station
    from quarkctl.formats.stream import Sample
    from quarkctl.link import Link, Opener


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quarkctl", "smart glasses")
    group.addoption("--quark-station", metavar="NAME", help="station of rig.toml, or what quarkctl --device takes")
    group.addoption("--quark-rig", metavar="FILE", help="rig file; default as quarkctl rig finds it")
    group.addoption("--quark-wait", metavar="S", type=float, default=0.0, help="wait so long for a busy station")


@dataclass
class Glasses:
    """The device of a station, held for the whole session."""

    station: Station
    opener: Opener

    @property
    def identity(self) -> str:
        return self.opener.identity

    def power(self, action: str) -> None:
        """off, on or cycle."""
        from quarkctl.rig import power

        power.switch(self.station, action)

    def battery(self, action: str, side: str) -> None:
        """eject or insert; left or right."""
        from quarkctl.rig import power

        power.swap(self.station, action, side)


class Heard:
    """What the glasses have said since listening began. ``samples`` grows while the test goes on."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._news = threading.Condition()
        self._seen = 0
        self._error: Exception | None = None

    def wait_for(self, message: str, timeout_s: float = 10.0) -> Sample:
        """The next message of that name after the last one waited for. Raises LinkTimeout, or what ended the listening."""
        from quarkctl.errors import LinkTimeout

        until = time.monotonic() + timeout_s
        with self._news:
            while True:
                for index in range(self._seen, len(self.samples)):
                    if self.samples[index].message.name == message:
                        self._seen = index + 1
                        return self.samples[index]
                self._seen = len(self.samples)
                if self._error:
                    raise self._error
                if not self._news.wait(until - time.monotonic()) and time.monotonic() >= until:
                    raise LinkTimeout(f"no {message} within {timeout_s:g} s")

    def add(self, sample: Sample) -> None:
        with self._news:
            self.samples.append(sample)
            self._news.notify_all()

    def fail(self, error: Exception) -> None:
        with self._news:
            self._error = error
            self._news.notify_all()


@dataclass(frozen=True)
class Telemetry:
    glasses: Glasses

    def listen(self, seconds: float) -> list[Sample]:
        """Samples of so many seconds. Raises LinkTimeout when nothing comes."""
        from quarkctl.telemetry.live import Until

        link = self.glasses.opener.open()
        try:
            return list(_samples(link, Until(seconds)))
        finally:
            link.close()

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Listens while the test does something: ``with telemetry.listening() as heard: ...``"""
        from quarkctl.errors import QuarkError
        from quarkctl.telemetry.live import Until

        link, heard, until = self.glasses.opener.open(), Heard(), Until(None)

        def work() -> None:
            try:
                for sample in _samples(link, until):
                    heard.add(sample)
            except QuarkError as error:
                heard.fail(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            until.requested = True
            thread.join()
            link.close()


def _samples(link: Link, stop: Callable[[], bool]) -> Iterator[Sample]:
    from quarkctl import schemas
    from quarkctl.formats.stream import Decoder
    from quarkctl.telemetry import live

    decoder = Decoder(schemas.telemetry())
    for chunk in live.chunks(link, stop):
        yield from decoder.feed(chunk.data, chunk.host_ns)


@pytest.fixture(scope="session")
def glasses(request: pytest.FixtureRequest) -> Iterator[Glasses]:
    """The glasses of ``--quark-station``, nobody else's while the session lasts."""
    from quarkctl.cli.choose import choose
    from quarkctl.errors import QuarkError
    from quarkctl.link.lock import hold

    refused = ""
    try:
        station = _station(request.config)
        opener = choose(station.word)
        held = hold(opener.identity, request.config.getoption("--quark-wait"))
    except QuarkError as error:
        refused = f"{error.message}{f' ({error.hint})' if error.hint else ''}"
    if refused:
        pytest.fail(refused, pytrace=False)
    try:
        yield Glasses(station, opener)
    finally:
        held.release()


def _station(config: pytest.Config) -> Station:
    from quarkctl.formats.rig_file import Power, Station, Swap
    from quarkctl.link import names

    name = config.getoption("--quark-station")
    if not name:
        pytest.fail("which glasses? give --quark-station NAME", pytrace=False)
    file = config.getoption("--quark-rig")
    stations = names.load_rig(Path(file) if file else None).stations
    if name in stations:
        return stations[name]
    sim = name.removeprefix("sim:") if name.startswith("sim:") else ""
    if sim:
        return Station(name, sim=sim, power=Power("sim", (sim,)), swap=Swap("sim", (sim,)))
    return Station(name, serial=name)


@pytest.fixture
def telemetry(glasses: Glasses) -> Telemetry:
    """Listens when it is told to."""
    return Telemetry(glasses)


@pytest.fixture
def flash(glasses: Glasses) -> Callable[..., dict[str, Any]]:
    """``flash("build/s1-virtual")`` does what `quarkctl flash` does and returns its result.

    Options: via, chip, force, allow_downgrade. Raises the errors of quarkctl.errors.
    """

    def do(
        *what: str, via: str = "", chip: str = "", force: bool = False, allow_downgrade: bool = False
    ) -> dict[str, Any]:
        from quarkctl.cli.choose import choose
        from quarkctl.events import silent
        from quarkctl.flash import methods, run
        from quarkctl.flash.journal import Journal
        from quarkctl.flash.plan import Job, Wish

        method = methods.select([str(w) for w in what], via=via, chip=chip)
        prepared = method.prepare([str(w) for w in what])
        opener = choose(glasses.station.word, method.device_method)
        journal = Journal(opener.identity)
        began = time.monotonic()
        session = prepared(
            Job(opener, journal, silent, glasses.station.board, Wish(force, allow_downgrade), chip, choose)
        )
        try:
            made = run.preflight(session, journal, silent)
            result = run.carry_out(session, made, journal, silent)
        finally:
            session.close()
        return {**result.as_dict(), "total_s": round(time.monotonic() - began, 3)}

    return do
