"""Fixtures that several folders share: built firmware, virtual glasses, the command line."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from quarkctl.build import rtos
from quarkctl.build.alone import in_turn
from quarkctl.formats.mcuboot_image import Version
from quarkctl.sim import control, folder
from tests import ar1 as ar1_bench
from tests import scratch

ROOT = Path(__file__).parents[1]
RTOS = ROOT / "firmware" / "rtos"
#: Everything that tests build; kept between runs, since make and ninja know what is stale.
BUILD = ROOT / "build" / "tests"

_FAILED = pytest.StashKey[bool]()

settings.register_profile("quarkctl", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
settings.load_profile("quarkctl")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A state folder of our own: tests never see or stop a developer's glasses, and socket paths stay short."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started behind an `&`: what tests start would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    state = scratch.make("qk-", scratch.fast())
    if config.option.basetemp is None:  # workers are told theirs
        config.option.basetemp = str(state / "tmp")
    os.environ["QUARKCTL_STATE_DIR"] = str(state)
    os.environ.pop("QUARKCTL_DEVICE", None)
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where file system tools are, for those who are not root
    config.add_cleanup(lambda: _remove(state, failed=config.stash.get(_FAILED, False)))


def _remove(state: Path, *, failed: bool) -> None:
    left = scratch.remove(state, look=failed)
    assert not left, f"tests left virtual glasses running: {left}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_FAILED] = exitstatus == pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(exitstatus: int, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.write_line(f"until the next run, folders of failed tests are in {config.option.basetemp}")


@pytest.fixture(scope="session")
def firmware() -> Callable[..., rtos.Built]:
    """``firmware("1.1.0", sabotage="hang")`` builds an image once for a worker; for the next one there is little to do."""

    @cache
    def build(version: str, board: str = "s1-virtual", **options: Any) -> rtos.Built:
        out = BUILD / (f"{board}-{options['key'].stem}" if options.get("key") else board)
        return rtos.build(rtos.Request(board, Version.parse(version), out=out, **options))

    return build


def target_program(name: str, board: str = "s1-virtual") -> bytes:
    """The ELF file of a test program for the microcontroller, where `firmware` was built."""
    work = BUILD / board / f".work-{board}"
    with in_turn(str(work), lambda: None):
        subprocess.run(["ninja", "-C", work, name], check=True, capture_output=True)
        return (work / name).read_bytes()


@pytest.fixture(scope="session")
def ar1_images() -> Callable[[str], Path]:
    """``ar1_images("g1-virtual")`` builds the AR1's images, once, from the sources in firmware/ar1."""

    def build(board: str) -> Path:
        from quarkctl.build.ar1 import request

        out = BUILD / board / "ar1"
        out.mkdir(parents=True, exist_ok=True)
        with (BUILD / "lock.ar1").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            request.build(request.Request(ROOT / "firmware/ar1" / f"{board}.toml", out))
        return out

    return build


@dataclass
class Glasses:
    """Running virtual glasses."""

    name: str
    instance: folder.Instance

    @property
    def device(self) -> str:
        return f"sim:{self.name}"

    def tell(self, command: str, **fields: Any) -> dict[str, Any]:
        return control.request(self.name, command=command, **fields)


@pytest.fixture
def glasses(firmware: Callable[..., rtos.Built]) -> Iterator[Callable[..., Glasses]]:
    """``glasses()`` starts a pair with firmware 1.0.0; all are stopped at the end of the test."""
    started: list[str] = []

    def start(
        version: str = "1.0.0", load: str = "camera", board: str = "s1-virtual", name: str = "", sabotage: str = ""
    ) -> Glasses:
        built = firmware(version, board, sabotage=sabotage)
        name = name or f"t{os.getpid()}-{len(started)}"
        instance = control.start(name, board, control.Firmware(built.boot_elf, built.image), load=load)
        started.append(name)
        return Glasses(name, instance)

    yield start
    for name in started:
        if any(i.name == name for i in folder.running()):
            control.stop(name)


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Quarkctl:
    """The command line as a user runs it, in a folder of the test."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *args: str | Path, timeout: float = 120.0) -> Outcome:
        done = subprocess.run(
            self.command(*args), cwd=self.folder, env={**os.environ, **self.env}, capture_output=True, text=True,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*args), cwd=self.folder, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @staticmethod
    def command(*args: str | Path) -> list[str]:
        return [sys.executable, "-m", "quarkctl.cli.main", *map(str, args)]


@pytest.fixture
def quarkctl(tmp_path: Path) -> Quarkctl:
    return Quarkctl(tmp_path)


@pytest.fixture
def ar1(tmp_path: Path) -> Iterator[Callable[..., ar1_bench.Bench]]:
    """``ar1("fastboot", quirks=...)`` is a virtual AR1 in that mode; all are switched off at the end of the test."""
    made: list[ar1_bench.Bench] = []

    def make(mode: str, **settings: Any) -> ar1_bench.Bench:
        made.append(ar1_bench.make(tmp_path / f"d{len(made)}", mode, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.usbip.close()
        bench.ar1.close()
