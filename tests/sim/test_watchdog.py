"""The watchdog of a processor that is a process: firmware that hangs is reset, firmware that got no time to run is not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from quarkctl.flash import device
from quarkctl.flash.smp import Client
from quarkctl.link.serial_port import open_serial
from quarkctl.sim import control, folder
from tests.conftest import Glasses
from tests.sim.test_glasses import Listener, named

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


@pytest.mark.parametrize(("sabotage", "thread"), [("masked", "sabotage"), ("stalled", "guard")])
def test_a_hang_is_found_with_interrupts_masked_and_with_everybody_waiting(
    glasses: Start, sabotage: str, thread: str
) -> None:
    listener = Listener(glasses("1.2.0", sabotage=sabotage))
    fault = listener.event("fault")
    assert named(listener, fault, "kind") == "watchdog"
    assert str(named(listener, fault, "thread")).rstrip("\0") == thread


def test_a_host_that_gives_it_no_time_resets_nothing(glasses: Start) -> None:
    g = glasses()
    before = _identity(g)
    pid = folder.load(g.name).qemu_pid
    os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(5.0)  # longer than the time-out of firmware (3 s) and than the hardware behind it (4 s)
    os.kill(pid, signal.SIGCONT)
    after = _identity(g)
    assert (after["boot_id"], after["boot_count"]) == (before["boot_id"], before["boot_count"])


def _identity(g: Glasses) -> dict[str, object]:
    link = open_serial(control.port(g.name), 1_000_000)
    try:
        return dict(device.read_identity(Client(link)))
    finally:
        link.close()
