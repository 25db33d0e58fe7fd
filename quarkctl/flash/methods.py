"""The ways to put firmware on a device, by the name that ``--via`` takes.

A method is one line here. Its module is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from quarkctl import boards
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.flash.plan import Job, Session, Wish


@dataclass(frozen=True)
class Method:
    """``module`` has ``accepts(sources) -> bool``: is this something that the method writes? It looks into the files, is
    quick and raises nothing. And ``prepare(sources) -> (Job -> Session)``: reads and checks what can be known without a
    device, raises InputWrong or UsageWrong, and returns what makes the session.

    A module may have ``adapts(sources) -> bool`` beside them: files of another method, which it can write too.

    ``chip`` is empty for what concerns both. ``heeds``: names of wishes (`quarkctl.flash.plan.Wish`) that it carries out
    besides those that every method knows. ``reaches``: the method whose devices it takes, if not its own."""

    name: str
    chip: str
    text: str
    module: str
    heeds: frozenset[str]
    reaches: str = ""

    @property
    def device_method(self) -> str:
        """The method by which devices say that they take this."""
        return self.reaches or self.name

    def check(self, wish: Wish) -> None:
        """Raises UsageWrong for what is asked for and would be passed over without a word."""
        for name in sorted(wish.asked - self.heeds - _EVERYWHERE):
            others = " or ".join(f"--via {m.name}" for m in METHODS.values() if name in m.heeds)
            raise UsageWrong(f"{self.name} knows no {OPTIONS[name]}", hint=f"it is for {others}: leave it out")

    def accepts(self, sources: Sequence[str]) -> bool:
        return cast(Callable[[Sequence[str]], bool], import_module(self.module).accepts)(sources)

    def adapts(self, sources: Sequence[str]) -> bool:
        adapts = getattr(import_module(self.module), "adapts", None)
        return adapts is not None and bool(adapts(sources))

    def prepare(self, sources: Sequence[str]) -> Callable[[Job], Session]:
        return cast(Callable[[Sequence[str]], Callable[[Job], Session]], import_module(self.module).prepare)(sources)


#: Wishes that every method carries out, or refuses in its own words.
_EVERYWHERE = frozenset({"force", "verify_only"})
_SMP = frozenset({"allow_downgrade", "framing"})
_AR1 = frozenset({"restart", "erase_first", "verify", "secdata"})
#: {wish: its option of the command line}
OPTIONS = {
    "allow_downgrade": "--allow-downgrade", "framing": "--framing", "restart": "--no-restart", "verify": "--no-verify",
    "erase_first": "--erase-first", "secdata": "--allow-secdata", "slot": "--slot", "programmer": "--programmer",
    "memory": "--memory", "assume_idle": "--assume-idle", "vip_tables": "--vip-tables", "device": "--ar1",
}  # fmt: skip

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("smp", "rtos", "SMP over serial: our bootloader, MCUboot, Zephyr", "quarkctl.flash.rtos", _SMP),
        Method("esptool", "rtos", "ESP32 family through esptool", "quarkctl.flash.esp", frozenset()),
        Method("fastboot", "ar1", "the AR1's boot loader: USB, TCP, UDP", "quarkctl.flash.fastboot_session",
               _AR1 | {"slot"}),
        Method("edl", "ar1", "emergency download: Sahara and Firehose over USB", "quarkctl.flash.edl",
               _AR1 | {"programmer", "memory", "assume_idle", "vip_tables"}),
        Method("bundle", "", "a release bundle: both chips or neither", "quarkctl.flash.bundle", _SMP | {"device"}, "smp"),
    )
}  # fmt: skip


def select(
    sources: Sequence[str], *, via: str = "", chip: str = "", board: str = "",
    present: Callable[[], Sequence[str]] = lambda: (),
) -> Method:  # fmt: skip
    """The method that is meant: named, or the only one that fits chip, board profile and files.

    ``present`` tells which methods the device takes in its present mode; it is asked only where files fit several.

    Raises UsageWrong (no such method, it is for the other chip, several fit), InputWrong (nothing takes these files).
    """
    if via and via not in METHODS:
        raise UsageWrong(f"there is no flash method {via!r}", hint=f"there are {', '.join(METHODS)}")
    chips = sorted({m.chip for m in METHODS.values()} - {""})
    if chip and chip not in ("rtos", "ar1"):
        raise UsageWrong(f"there is no chip {chip!r}", hint="there are rtos and ar1")
    if via:
        method = METHODS[via]
        if chip and method.chip not in ("", chip):
            raise UsageWrong(f"--via {via} flashes the {method.chip}, not the {chip}", hint="leave one of the two out")
        return method
    fitting = [m for m in METHODS.values() if not chip or m.chip in ("", chip)]
    if not fitting:
        raise UsageWrong(f"no flash method for the {chip} yet", hint=f"there are methods for {', '.join(chips)}")
    if board:
        profile = boards.load(board)
        named = [n for c in chips for n in profile.get(f"{c}.methods", [])]
        fitting = [m for m in fitting if m.device_method in named]
        if not fitting:
            raise UsageWrong(f"no flash method is known for board {board}", hint=f"its profile names {named or 'none'}")
    for source in sources:  # a missing file is told as such, whatever it should have been
        path = Path(source.rpartition("@")[0] or source)
        if source == "-" or "://" in source:
            continue
        if not path.exists() and not Path(source).exists():
            raise InputWrong(f"cannot read {path}: No such file or directory")
    taking = [m for m in fitting if m.accepts(sources)]
    if len(taking) > 1:
        now = present()
        taking = [m for m in taking if m.device_method in now] or taking
    if len(taking) > 1:
        ways = " or ".join(f"--via {m.name}" for m in taking)
        raise UsageWrong(f"{sources[0]} can be written in {len(taking)} ways", hint=f"choose: {ways}")
    other_ways = [m for m in fitting if m not in taking and m.adapts(sources)] if len(taking) == 1 else []
    if other_ways and taking[0].device_method not in (now := present()):
        taking = [m for m in other_ways if m.device_method in now] or taking
    others = [m.name for m in METHODS.values() if board and m not in fitting and m.accepts(sources)]
    if others and not taking:
        raise InputWrong(
            f"{sources[0]} is written by {others[0]}, {board} is flashed by {' or '.join(m.name for m in fitting)}",
            hint="is it for another board?",
        )
    return taking[0] if taking else fitting[0]  # its own words tell what is wrong with the file
