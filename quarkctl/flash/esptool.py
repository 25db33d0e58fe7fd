"""esptool as a program: its command line, what it prints, how it fails."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quarkctl.errors import (
    DeviceBusy,
    DeviceMissing,
    DeviceRefused,
    HostUnfit,
    InputWrong,
    LinkLost,
    LinkTimeout,
    ProtocolError,
    QuarkError,
    VerificationFailed,
)

#: It says something at least so often, besides the time that the bytes take: connecting, loading the stub, one erase.
STALL_S = 60.0
#: Slowest way of a byte: 115200 baud, with as long again for erasing and writing.
_BYTES_PER_S = 5_000.0
_OUTPUT_MAX = 1 << 20

_CHIP = re.compile(r"Chip type:\s+(.+)")
_MAC = re.compile(r"MAC:\s+([0-9a-f:]{17,23})")
_WRITING = re.compile(r"Writing at 0x([0-9a-f]+).*?([\d.]+)(k?B|MB)/")
_VERIFYING = re.compile(r"Verifying 0x[0-9a-f]+ \(\d+\) bytes at 0x([0-9a-f]+)")
_WROTE = re.compile(r"Wrote (\d+) bytes")


class LineFailed(LinkTimeout):
    """Bytes were lost or damaged on the way: a lower rate may get through."""


#: (what esptool says, error class, our words with {0} for its own, hint); the first that is found counts.
_FAILURES: tuple[tuple[str, type[QuarkError], str, str], ...] = (
    (r"No module named esptool", HostUnfit, "esptool is not installed", "pip install esptool"),
    (r"This chip is (\S+), not (\S+?)\.", InputWrong, "the device is an {1}, not an {2}", "choose the board: --board"),
    (r"will not fit in .*", InputWrong, "{0}", "the image is too large for this device's flash"),
    (r"Permission denied.*", HostUnfit, "no permission to open the port: {0}", "quarkctl doctor shows the cure"),
    (r"Could not exclusively lock port|port is busy|Device or resource busy", DeviceBusy,
     "the port is held by another program", "close it; `quarkctl devices` names it"),
    (r"No such file or directory.*|Could not open \S+.*|Connection refused.*", DeviceMissing, "{0}",
     "plug the device in; `quarkctl devices` lists what is there"),
    (r"Wrong boot mode detected \((0x[0-9a-f]+)\)", LinkTimeout, "the chip started in boot mode {1}, not in download mode",
     "hold BOOT while it resets, or check the DTR and RTS lines of its adapter"),
    (r"Download mode successfully detected, but getting no sync reply", LinkTimeout,
     "the chip is in download mode but does not hear us", "check the wire from the adapter's TX"),
    (r"Failed to connect to (\S+): (.*)", LinkTimeout, "{1} does not answer: {2}",
     "is it in download mode? Hold BOOT while it resets; check the cable"),
    (r"device disconnected|readiness to read but returned no data|Input/output error|Connection reset|Broken pipe|"
     r"socket disconnected|Lost connection", LinkLost, "the device went away", "check cable and power, then flash again"),
    (r"[Ss]ecure [Bb]oot.*|[Ff]lash encryption.*|secure download mode.*", DeviceRefused, "{0}",
     "this device takes only images prepared for it"),
    (r"MD5 of file does not match.*|MD5 hash mismatch.*|Verification failed.*", VerificationFailed,
     "what is in the device's flash is not what was sent", "flash again; if it repeats, its flash is bad"),
    (r"Invalid head of packet.*|Possible serial noise.*|Serial data stream stopped.*|Packet content transfer stopped.*|"
     r"No more data.*|No serial data received.*|Timed? ?out.*|Failed to (?:write|enter|leave|calculate|load).*|"
     r"Response doesn't match request.*|Only got \d+ byte status.*|Invalid SLIP escape.*|The chip stopped responding.*",
     LineFailed, "the line failed: {0}", "a lower rate may help: esptool.bauds of the board, or a shorter cable"),
)  # fmt: skip


@dataclass
class Seen:
    """What esptool told. ``verified``: addresses of the files whose MD5 on the device is right."""

    chip: str = ""
    mac: str = ""
    verified: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Esptool:
    """How to reach one device."""

    port: str
    chip: str
    before: str
    after: str
    baud: int
    stub: bool

    def run(self, command: Sequence[str], total_bytes: int, report: Callable[[int], None]) -> Seen:
        """One call of esptool; ``report`` gets the bytes written so far.

        A compare that finds differences is no failure. Raises what `_FAILURES` names, LinkTimeout when it stalls.
        """
        line = [
            sys.executable, "-m", "esptool", "--chip", self.chip, "--port", self.port, "--baud", str(self.baud),
            "--before", self.before, "--after", self.after, *([] if self.stub else ["--no-stub"]),
            command[0], *_KEEP, *command[1:],
        ]  # fmt: skip
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(),
            start_new_session=True, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        reading = _Reading(report, verifies=command[0] == "verify-flash")
        limit = time.monotonic() + STALL_S + total_bytes / _BYTES_PER_S
        try:
            self._follow(process, reading, limit)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        if process.returncode and not (
            reading.verifies and reading.mismatches and "Verification failed" in reading.tail
        ):
            raise failure(reading.tail, process.returncode)
        return reading.seen

    def _follow(self, process: subprocess.Popen[bytes], reading: _Reading, limit: float) -> None:
        """Read what it prints until it ends. Silence and excess of time are both bounded."""
        output = process.stdout
        if output is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                left = min(STALL_S, limit - time.monotonic())
                if left <= 0 or not selector.select(left):
                    raise LinkTimeout(
                        f"{self.port}: esptool made no progress for {STALL_S:.0f} s",
                        hint="reset the device and flash again",
                    )
                data = os.read(output.fileno(), 65536)
                if not data:
                    return
                reading.feed(data)


#: The image is written as it is: what a window holds must be what the file holds.
_KEEP = ("--flash-mode", "keep", "--flash-freq", "keep", "--flash-size", "keep")


class _Reading:
    """Understands the output line by line; keeps its end for the error."""

    def __init__(self, report: Callable[[int], None], *, verifies: bool) -> None:
        self.seen = Seen()
        self.verifies = verifies
        self.mismatches = 0
        self.tail = ""
        self._report = report
        self._rest = ""
        self._finished = 0
        self._at = -1

    def feed(self, data: bytes) -> None:
        text = self._rest + data.decode("utf-8", "replace")
        *lines, self._rest = re.split(r"[\r\n]+", text)
        self._rest = self._rest[-4096:]
        for line in lines:
            self._line(line.strip())
        self.tail = (self.tail + data.decode("utf-8", "replace"))[-8192:]

    def _line(self, line: str) -> None:
        if match := _WRITING.search(line):
            unit = {"B": 1, "kB": 1024, "MB": 1 << 20}[match.group(3)]
            self._report(self._finished + int(float(match.group(2)) * unit))
        elif match := _WROTE.search(line):
            self._finished += int(match.group(1))
            self._report(self._finished)
        elif match := _VERIFYING.search(line):
            self._at = int(match.group(1), 16)
        elif line.startswith("Verification successful"):
            self.seen.verified.add(self._at)
        elif line.startswith("Verification failed"):
            self.mismatches += 1
        elif match := _CHIP.search(line):
            self.seen.chip = match.group(1)
        elif match := _MAC.search(line):
            self.seen.mac = match.group(1)


def failure(output: str, code: int) -> QuarkError:
    """The error that esptool's output stands for, with its own words in it."""
    for pattern, kind, words, hint in _FAILURES:
        match = re.search(pattern, output)
        if match:
            said = match.group(0).partition(". ")[0].strip()
            return kind(words.format(said, *match.groups()), hint=hint)
    lines = [x.strip() for x in output.splitlines() if x.strip()]
    said = next((x for x in reversed(lines) if "rror" in x), lines[-1] if lines else "nothing")
    return ProtocolError(f"esptool ended with code {code}: {said[:200]}", hint="-v shows what it did")


def _environment() -> dict[str, str]:
    """Nothing of the user's settings for esptool may change what we ask for; plain text."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ESPTOOL")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "500", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "TERM": "dumb"}


def _die_with_parent() -> None:
    """Runs in the child before esptool: if we are killed, nobody would end it, and it holds the port."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
