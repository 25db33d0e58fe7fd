"""Forwards one device as a TCP stream: one client at a time, the device held while it is connected."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from quarkctl.errors import QuarkError
from quarkctl.link import Link, Opener


def serve(opener: Opener, listener: socket.socket, complain: Callable[[str], None]) -> None:
    """Until the listener is closed. A device that goes away closes the connection; the next one finds it again."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                link = opener.open()
            except QuarkError as error:
                complain(error.message)
                continue
            try:
                _forward(client, link)
            finally:
                link.close()


def _forward(client: socket.socket, link: Link) -> None:
    ended = threading.Event()

    def to_client() -> None:
        with suppress(QuarkError, OSError):
            while not ended.is_set():
                data = link.read(0.1)
                if data:
                    client.sendall(data)
        ended.set()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=to_client, daemon=True)
    thread.start()
    with suppress(QuarkError, OSError):
        while data := client.recv(65536):
            link.write(data)
    ended.set()
    thread.join()
