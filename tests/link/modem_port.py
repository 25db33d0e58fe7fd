"""A pseudo-terminal with modem lines: bytes go over a real PTY, the TIOCM* requests of its user are answered here.

The user runs under ``libumockdev-preload`` (package umockdev), which hands its ioctl calls to a socket: messages of three
64-bit words, (1, request, argument) from it; READ 5, WRITE 6, RUN 4 and DONE 3 from here. Source: umockdev's sources.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import tty
from collections.abc import Callable
from pathlib import Path

PRELOAD = "libumockdev-preload.so.0"
_WORDS = struct.Struct("QQQ")
_GET, _BIS, _BIC, _SET = 0x5415, 0x5416, 0x5417, 0x5418
DTR, RTS, _CTS, _DSR = 2, 4, 0x20, 0x100


class ModemPort:
    """``edges`` are (line, asserted) in order. ``on_edge(lines)`` is the board behind the adapter."""

    def __init__(self, root: Path, name: str = "ttyUSB0") -> None:
        self.edges: list[tuple[str, bool]] = []
        self.on_edge: Callable[[int, int], None] = lambda before, after: None
        self.lines = _CTS | _DSR
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        for folder in ("dev", "ioctl/dev", "sys"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._node = root / "dev" / name
        assert not Path("/dev", name).exists(), "this name would reach a real device"
        self._node.symlink_to(os.ttyname(self._slave))
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(root / "ioctl/dev" / name))
        self._server.listen()
        self.env = {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": str(root)}
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()
        self._node.unlink()
        os.close(self._slave)
        os.close(self.master)

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel, channel.makefile("rb") as reader:
            while len(head := reader.read(_WORDS.size)) == _WORDS.size:
                kind, request, argument = _WORDS.unpack(head)
                request &= 0xFFFFFFFF
                if kind == 1 and request in (_BIS, _BIC, _SET):
                    channel.sendall(_WORDS.pack(5, argument, 4))
                    (bits,) = struct.unpack("I", reader.read(4))
                    self._change({_BIS: self.lines | bits, _BIC: self.lines & ~bits, _SET: bits}[request])
                    channel.sendall(_WORDS.pack(3, 0, 0))
                elif kind == 1 and request == _GET:
                    channel.sendall(_WORDS.pack(6, argument, 4) + struct.pack("I", self.lines) + _WORDS.pack(3, 0, 0))
                else:  # everything else is done on the PTY
                    channel.sendall(_WORDS.pack(4, 0, 0))
                    _, result, error = _WORDS.unpack(reader.read(_WORDS.size))
                    channel.sendall(_WORDS.pack(3, result, error))

    def _change(self, wanted: int) -> None:
        before, self.lines = self.lines, wanted & (DTR | RTS) | _CTS | _DSR
        for bit, name in ((DTR, "DTR"), (RTS, "RTS")):
            if (before ^ self.lines) & bit:
                self.edges.append((name, bool(self.lines & bit)))
        self.on_edge(before, self.lines)
