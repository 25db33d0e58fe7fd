"""Bundles from a rig's HTTP server that is slow, breaks off, lies or is not there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from quarkctl.errors import InputWrong, LinkLost, LinkTimeout, QuarkError
from quarkctl.flash import background, source
from quarkctl.flash.bundle import Incoming
from quarkctl.flash.source import open_source
from quarkctl.formats.bundle import CHUNK_BYTES
from tests import bundles

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Server(ThreadingHTTPServer):
    """Gives ``data`` by ``answer``; ``requests`` are the Range headers that came."""

    daemon_threads = True

    def __init__(self, data: bytes, answer: Answer) -> None:
        self.data, self.answer = data, answer
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that had enough is no error."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/release.qfw"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.ranges.append(self.headers["Range"])
        self.server.answer(self, self.server.data)

    def log_message(self, format: str, *args: object) -> None:
        return


def whole(h: BaseHTTPRequestHandler, data: bytes) -> None:
    start = int((h.headers["Range"] or "bytes=0-")[6:-1])
    h.send_response(206 if start else 200)
    h.send_header("Content-Length", str(len(data) - start))
    h.send_header("ETag", '"1"')
    h.end_headers()
    h.wfile.write(data[start:])


def breaking(h: BaseHTTPRequestHandler, data: bytes) -> None:
    """A third of what is asked for, then the connection is gone."""
    start = int((h.headers["Range"] or "bytes=0-")[6:-1])
    h.send_response(206 if start else 200)
    h.send_header("Content-Length", str(len(data) - start))
    h.end_headers()
    h.wfile.write(data[start : start + len(data) // 3])
    h.wfile.flush()
    h.connection.shutdown(socket.SHUT_RDWR)


def forgetful(h: BaseHTTPRequestHandler, data: bytes) -> None:
    """Breaks off, and knows no ranges."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(data)))
    h.end_headers()
    h.wfile.write(data[: len(data) // 2])
    h.wfile.flush()
    h.connection.shutdown(socket.SHUT_RDWR)


def silent(h: BaseHTTPRequestHandler, data: bytes) -> None:
    h.send_response(200)
    h.send_header("Content-Length", str(len(data)))
    h.end_headers()
    h.wfile.write(data[:1000])
    h.wfile.flush()
    while h.connection.recv(1):  # until the client has had enough
        continue


def endless(h: BaseHTTPRequestHandler, data: bytes) -> None:
    """No length, and never an end."""
    h.send_response(200)
    h.end_headers()
    try:
        h.wfile.write(data)
        while True:
            h.wfile.write(bytes(65536))
    except OSError:
        return


def dripping(h: BaseHTTPRequestHandler, data: bytes) -> None:
    """A byte now and then, for ever: no time-out of a socket ends it."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(data)))
    h.end_headers()
    with contextlib.suppress(OSError):
        for at in range(len(data)):
            h.wfile.write(data[at : at + 1])
            h.wfile.flush()


def dripping_head(h: BaseHTTPRequestHandler, data: bytes) -> None:
    with contextlib.suppress(OSError):
        h.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while True:
            h.wfile.write(b"X-Wait: a moment\r\n"[:1])
            h.wfile.flush()


def elsewhere(h: BaseHTTPRequestHandler, data: bytes) -> None:
    """Goes on at another place than was asked for."""
    start = int((h.headers["Range"] or "bytes=0-")[6:-1])
    h.send_response(206 if start else 200)
    h.send_header("Content-Length", str(len(data)))
    h.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
    h.end_headers()
    h.wfile.write(data[: len(data) // 2])
    h.wfile.flush()
    h.connection.shutdown(socket.SHUT_RDWR)


def leading_to(target: str) -> Answer:
    def answer(h: BaseHTTPRequestHandler, data: bytes) -> None:
        h.send_response(302)
        h.send_header("Location", target)
        h.end_headers()

    return answer


def lying(extra: int) -> Answer:
    """Tells another length than it has."""

    def answer(h: BaseHTTPRequestHandler, data: bytes) -> None:
        h.send_response(200)
        h.send_header("Content-Length", str(len(data) + extra))
        h.end_headers()
        with contextlib.suppress(OSError):
            h.wfile.write(data)

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[[bytes, Answer], Server]]:
    started: list[tuple[Server, threading.Thread]] = []

    def start(data: bytes, answer: Answer) -> Server:
        server = Server(data, answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


Serve = Callable[[bytes, Answer], Server]


def read_all(name: str) -> bytes:
    opened = open_source(name)
    out = b""
    try:
        while data := opened.read(10_000):
            out += data
    finally:
        opened.close()
    return out


def test_a_file_on_a_server_is_read_from_front_to_back(serve: Serve) -> None:
    data = os.urandom(300_000)
    server = serve(data, whole)
    assert read_all(server.url) == data
    assert server.ranges == [None]


def test_a_connection_that_breaks_is_taken_up_where_it_was(serve: Serve) -> None:
    data = os.urandom(300_000)
    server = serve(data, breaking)
    assert read_all(server.url) == data
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_is_no_reason_to_mix_two_files(serve: Serve) -> None:
    with pytest.raises(LinkLost, match="cannot be taken up there"):
        read_all(serve(os.urandom(300_000), forgetful).url)


def test_a_server_that_falls_silent_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "HTTP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(source, "HTTP_RETRIES", 1)
    with pytest.raises((LinkLost, LinkTimeout)):
        read_all(serve(os.urandom(300_000), silent).url)


@pytest.mark.parametrize("answer", [dripping, dripping_head])
def test_a_server_that_gives_a_byte_now_and_then_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(source, "HTTP_SLOW_S", 0.2)
    monkeypatch.setattr(source, "HTTP_SLOW_BYTES", 1 << 30)
    with pytest.raises((LinkTimeout, LinkLost)) as failure:
        read_all(serve(os.urandom(300_000), answer).url)
    assert failure.value.hint or "in time" in failure.value.message


def test_a_server_that_goes_on_at_another_place_is_left(serve: Serve) -> None:
    with pytest.raises(LinkLost, match="cannot be taken up there"):
        read_all(serve(os.urandom(300_000), elsewhere).url)


def test_a_server_that_tells_another_length_is_left_before_an_image(serve: Serve, tmp_path: Path) -> None:
    data = bundles.make(tmp_path).path.read_bytes()
    for extra in (1, -1, 1 << 40):
        with pytest.raises(InputWrong, match="its manifest makes") as failure:
            Incoming(serve(data, lying(extra)).url)
        assert failure.value.hint


def test_a_redirection_is_followed_but_not_out_of_the_web(serve: Serve, tmp_path: Path) -> None:
    data = os.urandom(1000)
    assert read_all(serve(b"", leading_to(serve(data, whole).url)).url) == data
    (tmp_path / "secret").write_bytes(b"s")
    for target in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/x"):
        with pytest.raises(InputWrong):
            read_all(serve(b"", leading_to(target)).url)
    around = serve(b"", whole)
    around.answer = leading_to(around.url)
    with pytest.raises(InputWrong):
        read_all(around.url)


def test_a_server_that_never_ends_is_left_at_the_end_of_the_bundle(serve: Serve, tmp_path: Path) -> None:
    server = serve(bundles.make(tmp_path, ar1={"boot": b"b" * 100}).path.read_bytes(), endless)
    incoming = Incoming(server.url)
    with pytest.raises(InputWrong, match="something follows the end"):
        incoming.pour({})
    incoming.close()


def test_a_bundle_by_http_is_checked_like_a_file(serve: Serve, tmp_path: Path) -> None:
    path = bundles.make(tmp_path).path
    data = bytearray(path.read_bytes())
    Incoming(serve(bytes(data), breaking).url).close()
    data[-700] ^= 1
    for name in (serve(bytes(data), whole).url, serve(bytes(data[:-1]), whole).url):
        with pytest.raises(InputWrong):
            Incoming(name, whole=True)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:1/x.qfw", "http://nowhere.invalid/x.qfw", "http://", "http://[bad/x"]
)
def test_an_address_that_leads_nowhere_says_so(name: str) -> None:
    with pytest.raises(QuarkError):
        open_source(name)


def test_a_chip_gets_what_stands_before_the_damage_and_nothing_of_the_damaged_chunk(tmp_path: Path) -> None:
    image = os.urandom(7 * CHUNK_BYTES + 5)
    path = bundles.make(tmp_path, ar1={"system": image}).path
    data = path.read_bytes()
    at = data.index(image[:100])
    for bad in range(8):
        path.write_bytes(data[: at + bad * CHUNK_BYTES + 3] + b"\0\1\2" + data[at + bad * CHUNK_BYTES + 6 :])
        got = bytearray()
        incoming = Incoming(str(path))
        with pytest.raises(InputWrong, match=f"bytes {bad * CHUNK_BYTES} to .* are not what was signed"):
            incoming.pour({"ar1": lambda _, pieces, got=got: [got.extend(chunk) for _, chunk in pieces]})  # type: ignore[misc]
        incoming.close()
        assert got == image[: bad * CHUNK_BYTES]


def test_items_made_ahead_are_as_few_as_was_said_and_none_when_the_caller_stops() -> None:
    made: list[int] = []
    items = background.ahead((made.append(k) or k for k in range(100)), 3)  # type: ignore[func-returns-value]
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    items.close()
    assert len(made) <= 5 + 3 + 2  # one is in the maker's hand, another follows where the queue is emptied
