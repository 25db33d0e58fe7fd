"""Runs get a device in the order in which they came; the dead hold up nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quarkctl.rig.turns import Ticket


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path))


def test_who_came_first_is_first_at_every_device() -> None:
    with Ticket() as first, Ticket() as second, Ticket() as third:
        for ticket in (third, first, second):  # whatever the order in which they reach this device
            ticket.stand("usb:A")
        assert [t.ahead("usb:A") for t in (first, second, third)] == [0, 1, 2]
        first.leave("usb:A")
        assert [t.ahead("usb:A") for t in (second, third)] == [0, 1]


def test_devices_have_queues_of_their_own() -> None:
    with Ticket() as first, Ticket() as second:
        first.stand("usb:A")
        second.stand("usb:B")
        assert second.ahead("usb:B") == 0


def test_a_run_that_died_in_the_queue_is_passed_over() -> None:
    pid = os.fork()
    if not pid:
        Ticket().stand("usb:A")
        os._exit(0)
    os.waitpid(pid, 0)
    with Ticket() as ticket:
        ticket.stand("usb:A")
        assert ticket.ahead("usb:A") == 0


def test_a_damaged_counter_begins_anew(tmp_path: Path) -> None:
    Ticket()
    (tmp_path / "queue" / "number").write_text("what?")
    with Ticket() as ticket:
        ticket.stand("usb:A")
        assert ticket.ahead("usb:A") == 0
