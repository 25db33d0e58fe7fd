"""Work spread over processes gives what one process gives, and nobody waits for one that is gone."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from quarkctl.build.processors import Processors
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.files import File, Into
from quarkctl.formats import verity
from quarkctl.formats.record import Damaged
from quarkctl.formats.segments import Joined, Span


@dataclass
class Square:
    """``here``: the process that asks; it waits with its first task until another one has begun, as ``began`` tells it."""

    here: int
    began: Path
    elsewhere: str = ""
    signalled: bool = False

    def __call__(self, task: int, /) -> tuple[int, int]:
        if not self.signalled:
            self._signal()
            self.signalled = True
        if os.getpid() == self.here:
            return task * task, os.getpid()
        if self.elsewhere == "dies":
            os._exit(9)
        if self.elsewhere == "refuses":
            raise Damaged("image", "size", 8, "is too large", "cut it")
        if self.elsewhere == "stumbles":
            raise ZeroDivisionError
        if self.elsewhere == "is interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        return task * task, os.getpid()

    def _signal(self) -> None:
        fd = os.open(self.began, os.O_RDWR)
        if os.getpid() == self.here:
            os.read(fd, 1)
        else:
            os.write(fd, b"!")
        os.close(fd)


@pytest.fixture
def began(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "began"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)  # what is written stays until it is read
    yield path
    os.close(fd)


def test_results_come_in_order_from_several_processes(began: Path) -> None:
    with Processors(3) as processors:
        for _ in range(2):  # helpers stay for the next round
            found = list(processors.map(Square(os.getpid(), began), range(2000)))
            assert [value for value, _ in found] == [n * n for n in range(2000)]
            assert len({pid for _, pid in found}) > 1


@pytest.mark.parametrize(
    ("elsewhere", "error", "told"),
    [
        ("dies", HostUnfit, "ended with 9"),
        ("refuses", InputWrong, "size at offset 0x8 is too large"),
        ("stumbles", RuntimeError, "ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_elsewhere_is_raised_here(
    elsewhere: str, error: type[Exception], told: str, began: Path
) -> None:
    with Processors(2) as processors, pytest.raises(error, match=told) as caught:
        list(processors.map(Square(os.getpid(), began, elsewhere), range(20)))
    if elsewhere == "refuses":
        assert isinstance(caught.value, Damaged) and caught.value.hint == "cut it"


def test_an_interrupt_from_the_terminal_is_for_who_started_the_helpers(began: Path) -> None:
    with Processors(2) as processors:
        found = list(processors.map(Square(os.getpid(), began, "is interrupted"), range(20)))
    assert len({pid for _, pid in found}) == 2


def test_who_stops_listening_stops_the_work(began: Path) -> None:
    with Processors(2) as processors:
        results = processors.map(Square(os.getpid(), began), range(1 << 30))
        assert next(iter(results))[0] == 0
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("roots", [0, 2, 3])
def test_trees_and_codes_are_those_of_one_process(roots: int, tmp_path: Path) -> None:
    image, copy = tmp_path / "image", tmp_path / "copy"
    rng = np.random.default_rng(5)
    image.write_bytes(rng.bytes(9 << 20) + bytes(24 << 20) + b"\x11\x22\x33\x44" * (1 << 18) + rng.bytes(3 << 20))
    copy.touch()
    with File(image) as file, Processors(2) as processors:
        data = Joined([Span(file, 4096, len(file) - 4096), bytes(8192)])
        into = Into(copy)
        if roots:
            spread = verity.protect(data, b"salt", roots, seen=into, run=processors.map)
            assert spread == verity.protect(data, b"salt", roots)
        else:
            assert verity.tree(data, b"salt", seen=into, run=processors.map) == verity.tree(data, b"salt")
        into.close()
        written = copy.read_bytes()
        assert written.ljust(len(data), b"\0") == data[: len(data)]


def test_a_file_that_was_replaced_meanwhile_is_not_taken_for_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    with File(path) as file:
        sent = pickle.dumps(file)
        with pickle.loads(sent) as again:
            assert again[:3] == b"old"
        (tmp_path / "other").write_bytes(b"new")
        (tmp_path / "other").replace(path)
        with pytest.raises(InputWrong, match="replaced while it was read"):
            pickle.loads(sent)
