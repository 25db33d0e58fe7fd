"""The two-chip transaction: its tables, all of them, and the session over scripted chips, cut at every operation."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from quarkctl.errors import DeviceRefused, InputWrong, LinkLost, QuarkError, VerificationFailed
from quarkctl.events import Event, Level
from quarkctl.flash import run, transaction
from quarkctl.flash.bundle import Incoming, Session
from quarkctl.flash.chip import Chip, Look, Pieces
from quarkctl.flash.journal import Journal
from quarkctl.flash.plan import Job, Plan, Result, Wish
from quarkctl.flash.transaction import AFTER, NEXT, RESTARTED, RUNS_NEW, UNDO, Act, State, Who, after, route
from quarkctl.formats.bundle import Component
from quarkctl.formats.mcuboot_image import Version
from tests import bundles

Pair = tuple[State, State]
A, C = State.ARMED, State.CONFIRMED
EVERY_PAIR = list(product(State, State))

# --- the tables ---------------------------------------------------------------------------------------------------------


def test_every_pair_of_states_leads_to_both_confirmed() -> None:
    assert set(NEXT) == set(EVERY_PAIR)
    for pair in EVERY_PAIR:
        end = pair
        for act, who in route(pair):
            end = after(end, act, who)
        assert end == (C, C)


def test_undoing_ends_with_nothing_armed_or_on_trial() -> None:
    for pair in EVERY_PAIR:
        end = pair
        for act, who in route(pair, UNDO):
            assert act is Act.REVERT
            end = after(end, act, who)
        assert not {State.ARMED, State.TRIAL} & set(end)


def mixed(pair: Pair) -> bool:
    """First old and second new: the pair that is not allowed where first is chosen well."""
    return pair[0] not in RUNS_NEW and pair[1] in RUNS_NEW


def restarted(pair: Pair, who: Who = Who.BOTH) -> Pair:
    return (
        RESTARTED[pair[0]] if who is not Who.SECOND else pair[0],
        RESTARTED[pair[1]] if who is not Who.FIRST else pair[1],
    )


def on_the_way(table: dict[Pair, transaction.Acts], start: Pair) -> Iterator[Pair]:
    yield start
    for act, who in route(start, table):
        start = after(start, act, who)
        yield start


STARTS = [(State.OLD, State.OLD), (State.WRITTEN, State.WRITTEN), (C, State.OLD), (State.OLD, C)]


def test_whenever_the_power_fails_what_starts_again_is_allowed() -> None:
    for start in STARTS[:3]:
        for pair in on_the_way(NEXT, start):
            for undone in on_the_way(UNDO, pair):  # also in the middle of going back
                assert not mixed(restarted(undone)), (start, pair, undone)
                assert not mixed(restarted(restarted(undone)))  # and at the second start


def test_one_chip_that_restarts_alone_before_the_power_fails_is_allowed_with_one_exception() -> None:
    """The first chip restarts by itself in the moment when both are armed, and the power fails before the host goes on."""
    wrong = {
        (pair, who)
        for start in STARTS[:3]
        for pair in on_the_way(NEXT, start)
        for who in (Who.FIRST, Who.SECOND)
        if mixed(restarted(restarted(pair, who)))
    }
    assert wrong == {((A, A), Who.FIRST)}
    assert route(restarted(restarted((A, A), Who.FIRST)))  # the next flash knows what to do about it


def test_acts_that_are_not_in_the_table_are_illegal() -> None:
    legal = {(State.OLD, Act.WRITE), (State.WRITTEN, Act.ARM), (State.ARMED, Act.RESTART), (State.TRIAL, Act.CHECK),
             (State.TRIAL, Act.CONFIRM), (State.ARMED, Act.REVERT), (State.TRIAL, Act.REVERT)}  # fmt: skip
    assert set(AFTER) == legal
    with pytest.raises(KeyError):
        after((State.OLD, State.OLD), Act.CONFIRM, Who.FIRST)


# --- scripted chips -----------------------------------------------------------------------------------------------------


class HostKilled(BaseException):
    """The process is gone: nothing of it runs any more."""


@dataclass
class Device:
    """What is in a chip, whoever talks to it. ``data`` is the user's; slots hold bytes by component."""

    old: str
    new: str
    state: State = State.OLD
    bad: bool = False
    data: bytes = b"photos"
    spare: dict[str, bytes] = field(default_factory=dict)
    power_lost: bool = False
    answers: bool = True

    def restart(self, *, power: bool = False) -> None:
        self.state = RESTARTED[self.state]
        self.power_lost = power
        self.answers = True

    @property
    def runs(self) -> Version:
        return Version.parse(self.new if self.state in RUNS_NEW else self.old)


@dataclass
class World:
    """Two devices, and a fault at one operation: before it takes effect or after."""

    devices: dict[str, Device]
    fault: str = ""
    at: int = -1
    late: bool = False
    count: int = 0
    log: list[str] = field(default_factory=list)

    def operation(self, name: str, what: str, effect: Callable[[], None]) -> None:
        self.log.append(f"{what} {name}")
        mine, self.count = self.count == self.at, self.count + 1
        if not self.devices[name].answers:
            raise LinkLost(f"{name} does not answer")
        if mine and not self.late:
            self.strike(name)
        effect()
        if mine and self.late:
            self.strike(name)

    def strike(self, name: str) -> None:
        if self.fault == "host":
            raise HostKilled
        if self.fault == "cable":
            for d in self.devices.values():
                d.answers = False
            raise LinkLost(f"{name} went away")
        struck = self.devices if self.fault == "power" else {self.fault: self.devices[self.fault]}
        for d in struck.values():
            d.restart(power=True)
        if name in struck:
            raise LinkLost(f"{name} went away")

    def power_on(self) -> None:
        for d in self.devices.values():
            d.restart(power=True)

    def runs(self) -> dict[str, Version]:
        return {n: d.runs for n, d in self.devices.items()}


@dataclass
class Scripted:
    world: World
    name: str
    packs: dict[str, int] = field(default_factory=dict)
    where: str = "script"

    @property
    def device(self) -> Device:
        return self.world.devices[self.name]

    def _move(self, act: Act) -> str:
        def effect() -> None:  # the host may be wrong about where the chip is
            if (self.device.state, act) in AFTER:
                self.device.state = AFTER[self.device.state, act]
            elif act is Act.RESTART:
                self.device.restart()
                raise VerificationFailed(f"{self.name} did not start the new image")
            elif act is not Act.REVERT:
                raise DeviceRefused(f"{self.name} refuses to {act.value}")

        self.world.operation(self.name, act.value, effect)
        return act.value

    def look(self) -> Look:
        self.world.operation(self.name, "look", lambda: None)
        d = self.device
        settled = d.new if d.state is State.CONFIRMED else d.old
        return Look(d.state, d.runs, Version.parse(settled), "s1-virtual", rollback_index=1, packs=self.packs,
                    power_lost=d.power_lost)  # fmt: skip

    def write(self, component: Component, pieces: Pieces) -> None:
        got = b"".join(chunk for _, chunk in pieces)

        def effect() -> None:
            self.device.spare[component.target] = got
            self.device.state = State.WRITTEN

        self.world.operation(self.name, "write", effect)

    def arm(self) -> str:
        return self._move(Act.ARM)

    def restart(self) -> str:
        told = self._move(Act.RESTART)
        if self.device.bad:
            self.device.restart()
            raise VerificationFailed(f"{self.name} crashed at its start")
        return told

    def check(self) -> str:
        return self._move(Act.CHECK)

    def confirm(self) -> str:
        return self._move(Act.CONFIRM)

    def revert(self) -> str:
        return self._move(Act.REVERT)

    def fell_back(self) -> QuarkError:
        return VerificationFailed(f"{self.name} did not hold out")

    def close(self) -> None:
        return


class Opener:
    identity = "script"

    def hold(self) -> Any: ...

    def open(self) -> Any: ...


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rtos 1.0.0 -> 1.1.0 and ar1 1.0.0 -> 1.0.1; the new rtos may run beside the old ar1, not the other way round."""
    folder = tmp_path_factory.mktemp("release")
    return bundles.make(folder, ar1={"boot": b"b" * 5000}, needs=("1.0.0", "1.1.0")).path


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda fd: None)  # hundreds of journals: that one is durable is tested with it


def world(**fault: Any) -> World:
    return World({"rtos": Device("1.0.0", "1.1.0"), "ar1": Device("1.0.0", "1.0.1")}, **fault)


def session(release: Path, w: World, events: list[Event] | None = None, packs: dict[str, int] | None = None,
            wish: Wish | None = None) -> tuple[Session, Journal]:  # fmt: skip
    def make(*_: object) -> dict[str, Chip]:
        return {name: Scripted(w, name, packs or {}) for name in w.devices}

    journal = Journal("script")
    job = Job(Opener(), journal, (events if events is not None else []).append, wish=wish or Wish())
    return Session(job, Incoming(str(release)), make), journal


def flash(release: Path, w: World, events: list[Event] | None = None, **how: Any) -> tuple[Plan, Result]:
    one, journal = session(release, w, events, **how)
    try:
        plan = run.preflight(one, journal, lambda e: None)
        return plan, run.carry_out(one, plan, journal, lambda e: None)
    finally:
        one.close()


def test_an_update_goes_through_its_steps_in_the_order_that_is_safe(release: Path) -> None:
    w = world()
    plan, result = flash(release, w)
    assert plan.step_names == (
        "write", "arm rtos", "arm ar1", "restart ar1", "restart rtos", "check", "confirm rtos", "check ar1", "confirm ar1",
    )  # fmt: skip
    assert result.facts["runs"] == {"rtos": "1.1.0", "ar1": "1.0.1"}
    assert w.devices["ar1"].spare == {"boot": b"b" * 5000}
    assert flash(release, w)[1].outcome == "unchanged"


def test_the_chip_that_tolerates_the_others_old_version_is_first(tmp_path: Path) -> None:
    other_way = bundles.make(tmp_path, ar1={"boot": b"b"}, needs=("1.0.1", "1.0.0")).path
    assert flash(other_way, world())[0].facts["order"] == ["ar1", "rtos"]


def test_versions_that_tolerate_no_old_one_are_told_as_a_risk_that_needs_a_yes(tmp_path: Path) -> None:
    strict = bundles.make(tmp_path, ar1={"boot": b"b"}).path
    one, journal = session(strict, world())
    plan = run.preflight(one, journal, lambda e: None)
    one.close()
    assert plan.facts["lockstep"] and "stay mixed until the next flash" in plan.questions[0]


def operations(release: Path) -> int:
    w = world()
    flash(release, w)
    return w.count


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", ["host", "cable", "rtos", "ar1", "power"])
def test_cut_at_every_operation_nothing_is_left_that_does_not_belong_together(
    release: Path, fault: str, late: bool
) -> None:
    with contextlib.closing(Incoming(str(release))) as incoming:
        manifest = incoming.manifest
    cuts = operations(release)
    assert cuts > 20
    for at in range(cuts):
        for power_first in (False, True):
            w = world(fault=fault, at=at, late=late)
            with contextlib.suppress(HostKilled, QuarkError):
                flash(release, w)
            for d in w.devices.values():
                d.answers = True  # the cable is plugged in again, the computer is back
            if power_first:
                w.power_on()
                assert manifest.allows(w.runs()), (at, w.log)
            flash(release, w)
            assert w.runs() == {"rtos": Version(1, 1, 0), "ar1": Version(1, 0, 1)}, (at, w.log)
            assert {d.state for d in w.devices.values()} == {State.CONFIRMED}
            assert {d.data for d in w.devices.values()} == {b"photos"}


@pytest.mark.parametrize("bad", ["rtos", "ar1"])
def test_one_bad_image_takes_both_chips_back(release: Path, bad: str) -> None:
    w = world()
    w.devices[bad].bad = True
    events: list[Event] = []
    with pytest.raises(VerificationFailed, match=f"{bad} crashed at its start") as failure:
        flash(release, w, events)
    assert w.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}
    assert not {d.state for d in w.devices.values()} & {State.ARMED, State.TRIAL}
    assert "both chips run what they ran before: rtos 1.0.0, ar1 1.0.0" in failure.value.hint
    assert any(e.level is Level.NOTE and "ran before" in e.text for e in events)


@pytest.mark.parametrize("bad", ["rtos", "ar1"])
def test_a_bad_image_and_a_cut_at_every_operation_end_with_the_old_versions(release: Path, bad: str) -> None:
    for at in range(40):
        w = world(fault="power", at=at)
        w.devices[bad].bad = True
        with pytest.raises(QuarkError):
            flash(release, w)
        w.power_on()
        w.power_on()
        assert w.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}, (at, w.log)


def test_a_battery_swapped_too_slowly_costs_one_more_attempt(release: Path) -> None:
    clean = world()
    flash(release, clean)
    at = clean.log.index("check ar1") if "check ar1" in clean.log else clean.log.index("check rtos")
    w = world(fault="power", at=at)
    _, result = flash(release, w)
    assert result.facts["runs"] == {"rtos": "1.1.0", "ar1": "1.0.1"}
    assert result.facts["notes"] == ["the power was gone for a moment; trying once more"]


def test_a_battery_too_low_to_finish_is_refused_before_anything_is_written(release: Path) -> None:
    w = world()
    with pytest.raises(DeviceRefused, match="the fuller battery has 9 %, this update needs 15 %"):
        flash(release, w, packs={"left": 9, "right": 4})
    assert not any(d.spare for d in w.devices.values())


def test_a_battery_that_runs_low_meanwhile_stops_the_update_before_anything_is_armed(release: Path) -> None:
    w = world()
    packs = {"left": 80, "right": 10}
    one, journal = session(release, w, packs=packs)
    plan = run.preflight(one, journal, lambda e: None)
    del packs["left"]  # swapped out, and the other one cannot carry it
    with pytest.raises(DeviceRefused, match="the fuller battery has 10 %"):
        run.carry_out(one, plan, journal, lambda e: None)
    one.close()
    assert {d.state for d in w.devices.values()} == {State.WRITTEN}
    flash(release, w, packs={"left": 90, "right": 10})
    assert {d.state for d in w.devices.values()} == {State.CONFIRMED}


def test_glasses_that_are_too_hot_are_refused(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world()
    real = Scripted.look
    monkeypatch.setattr(Scripted, "look", lambda self: dataclasses.replace(real(self), hottest_decic=612))
    with pytest.raises(DeviceRefused, match="61 C at their hottest, an update needs 60 C or less"):
        flash(release, w)
    assert not any(d.spare for d in w.devices.values())


def test_large_images_need_more_charge(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_size_of", lambda self, name: 4 << 30 if name == "ar1" else 0)
    with pytest.raises(DeviceRefused, match="needs 21 %"):
        flash(release, world(), packs={"left": 20, "right": 15})
    flash(release, world(), packs={"left": 21, "right": 15})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"old": "1.2.0"}, "ar1 1.0.1, older than 1.2.0"),
        ({"chip": "rtos", "old": "1.2.0"}, "rtos 1.1.0, older than 1.2.0"),
        ({"index": 2}, "ar1 1.0.1 has rollback index 1, the device demands 2"),
        ({"chip": "rtos", "index": 2}, "rtos 1.1.0 has rollback index 1, the device demands 2"),
        ({"board": "g1-virtual"}, "the bundle is for s1-virtual, the device is g1-virtual"),
    ],
)
def test_downgrades_and_wrong_products_are_refused_before_a_byte_is_written(
    release: Path, change: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    real = Scripted.look

    def look(self: Scripted) -> Look:
        seen = real(self)
        seen = dataclasses.replace(seen, board=change.get("board", seen.board))
        if self.name == change.get("chip", "ar1"):
            seen = dataclasses.replace(seen, rollback_index=change.get("index", 1),
                           settled=Version.parse(change.get("old", "1.0.0")))  # fmt: skip
        return seen

    monkeypatch.setattr(Scripted, "look", look)
    with pytest.raises(InputWrong, match=told) as failure:
        flash(release, w)
    assert failure.value.exit_code == 6 and failure.value.hint
    assert not any(d.spare for d in w.devices.values())


def test_hardware_that_the_bundle_is_not_for_is_refused(tmp_path: Path) -> None:
    only = bundles.make(tmp_path, ar1={"boot": b"b"}, needs=("1.0.0", ""), extra='hardware = ["rev-b"]').path
    with pytest.raises(DeviceRefused, match="rev-b, the device does not say what it is"):
        flash(only, world())


def test_ctrl_c_takes_both_chips_back(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world()
    monkeypatch.setattr(Scripted, "check", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    events: list[Event] = []
    one, journal = session(release, w)
    plan = run.preflight(one, journal, lambda e: None)
    with pytest.raises(KeyboardInterrupt):
        run.carry_out(one, plan, journal, events.append)
    one.close()
    assert w.runs() == {"rtos": Version(1, 0, 0), "ar1": Version(1, 0, 0)}
    assert any("ran before" in e.text for e in events if e.step == "interrupt")


class SilentLink:
    name = "silent"

    def read(self, timeout_s: float) -> bytes:
        threading.Event().wait(timeout_s)
        return b""

    def close(self) -> None:
        return


def test_ctrl_c_while_one_chip_is_written_does_not_wait_for_the_other(release: Path) -> None:
    """The microcontroller hangs: its upload would wait for answers much longer."""
    w, events, listening = world(), list[Event](), threading.Event()

    @dataclass
    class Hanging(Scripted):
        opener: Any = None

        def write(self, component: Component, pieces: Pieces) -> None:
            link = self.opener.open()
            listening.set()
            link.read(3600.0)

    class Stopped(Scripted):
        def write(self, component: Component, pieces: Pieces) -> None:
            listening.wait()
            raise KeyboardInterrupt

    class Silent(Opener):
        def open(self) -> SilentLink:
            return SilentLink()

    journal = Journal("script")
    job = Job(Silent(), journal, events.append)
    one = Session(
        job,
        Incoming(str(release)),
        lambda job, *_: {"rtos": Hanging(w, "rtos", opener=job.opener), "ar1": Stopped(w, "ar1")},
    )
    with pytest.raises(KeyboardInterrupt):
        run.carry_out(one, run.preflight(one, journal, lambda e: None), journal, events.append)
    one.close()
    assert any("ran before" in e.text for e in events if e.step == "interrupt")


def test_comparing_writes_nothing(release: Path) -> None:
    w = world()
    with pytest.raises(VerificationFailed, match="does not run this release"):
        flash(release, w, wish=Wish(verify_only=True))
    assert set(w.log) == {"look rtos", "look ar1"}
    flash(release, w)
    assert flash(release, w, wish=Wish(verify_only=True))[1].outcome == "verified"
