"""Every error that quarkctl raises on purpose, with the exit code it ends in.

An error is raised where it is noticed and shown once, in ``quarkctl.cli.main``.
"""

from __future__ import annotations


class QuarkError(Exception):
    """A failure with a cause in one line and, where there is one, the next thing to do.

    The class carries the exit code; a plain exception that is not a QuarkError is a bug (exit code 1).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageWrong(QuarkError):
    """The command line does not make sense."""

    exit_code = 2


class HostUnfit(QuarkError):
    """A tool, a permission or the source tree is missing on this computer."""

    exit_code = 3


class LinkError(QuarkError):
    """The way to the device does not work."""

    exit_code = 4


class DeviceMissing(LinkError):
    """No device fits."""


class DeviceAmbiguous(LinkError):
    """Several devices fit and none was chosen."""


class DeviceBusy(LinkError):
    """Somebody else holds the device or its port."""


class LinkTimeout(LinkError):
    """The device did not answer in time."""


class LinkLost(LinkError):
    """The port went away."""


class ProtocolError(QuarkError):
    """The device answered, but not what was agreed."""

    exit_code = 5


class DeviceRefused(ProtocolError):
    """The device understood and said no."""


class LayoutMismatch(ProtocolError):
    """Device and host have different message schemas."""


class VerificationFailed(ProtocolError):
    """What is on the device is not what was sent, or it did not survive its test boot."""


class InputWrong(QuarkError):
    """A file given by the user is damaged, of the wrong kind, or not for this device."""

    exit_code = 6
