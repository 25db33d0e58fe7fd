"""The cable between virtual glasses and the host."""

from __future__ import annotations

import os
import selectors
import tty

from quarkctl.sim.cable import Cable


def test_what_a_guest_sent_before_it_was_switched_off_arrives() -> None:
    selector = selectors.DefaultSelector()
    cable = Cable(selector)
    guest, end = os.openpty()
    tty.setraw(end)
    host = os.open(cable.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        cable.attach(os.ttyname(end))
        cable.step()
        os.write(guest, b"last words")
        cable.detach()
        assert os.read(host, 64) == b"last words"
    finally:
        for fd in (guest, end, host):
            os.close(fd)
        cable.close()
        selector.close()
