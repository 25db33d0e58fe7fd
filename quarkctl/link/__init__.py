"""Ways to a device. Foreign exceptions end here: above, there is only `quarkctl.errors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from quarkctl.link.lock import Lock


class Link(Protocol):
    """A byte pipe to one device.

    ``read`` waits at most ``timeout_s`` for the first byte and returns what is there (empty when nothing came).
    ``write`` sends everything or raises. Both raise LinkLost when the other end is gone.
    """

    @property
    def name(self) -> str: ...

    def read(self, timeout_s: float) -> bytes: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """Finds the same device again, whatever its port is called now."""

    @property
    def identity(self) -> str:
        """What stays the same over resets, such as ``sim:s1-0001``."""
        ...

    @property
    def resolve(self) -> Callable[[], str]:
        """Where the device is now: its port. Raises DeviceMissing."""
        ...

    def hold(self) -> Lock:
        """Keep the device to this process while links to it are closed and opened. Raises DeviceBusy."""
        ...

    def open(self) -> Link:
        """Raises DeviceMissing, DeviceBusy or HostUnfit."""
        ...
