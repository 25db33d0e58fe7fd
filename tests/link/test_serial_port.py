"""Opening a serial port: what is none is told as such, and never touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quarkctl.errors import DeviceMissing
from quarkctl.link.serial_port import open_serial


@pytest.mark.parametrize("path", ["/dev/null", "/dev/urandom", "/tmp", __file__])
def test_what_is_no_serial_port_is_told_and_nobody_is_accused_of_holding_it(path: str) -> None:
    with pytest.raises(DeviceMissing, match="is no serial port"):
        open_serial(path, 115200)


def test_a_path_that_is_nowhere_is_told_as_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceMissing, match="there is no"):
        open_serial(str(tmp_path / "ttyUSB0"), 115200)


def test_a_pseudo_terminal_is_a_port() -> None:
    controller, terminal = os.openpty()
    try:
        name = os.ttyname(terminal)
        os.close(terminal)
        open_serial(name, 115200).close()
    finally:
        os.close(controller)
