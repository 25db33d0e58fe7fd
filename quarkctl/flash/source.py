"""Where the bytes of a bundle come from: a file, a pipe, or an HTTP server of the rig. Read once, from front to back."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from quarkctl.errors import InputWrong, LinkLost, LinkTimeout, UsageWrong
from quarkctl.flash.background import Background

#: Nothing comes for so long: the server is gone. Nor is one waited for that gives less than so much in `HTTP_SLOW_S`.
HTTP_TIMEOUT_S = 20.0
HTTP_SLOW_S, HTTP_SLOW_BYTES = 60.0, 64 << 10
#: How often a connection that breaks is taken up again where it was, in a row.
HTTP_RETRIES = 3


class Source(Protocol):
    """``size_bytes`` is 0 where it is not known in advance; ``rereadable``: `open_source` of the same name begins anew."""

    size_bytes: int
    rereadable: bool

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; nothing at the end."""
        ...

    def close(self) -> None: ...


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def open_source(name: str) -> Source:
    """``-``, an http or https address, or a file. Raises InputWrong, LinkLost, LinkTimeout."""
    if name == "-":
        if sys.stdin.buffer.isatty():
            raise UsageWrong(
                "- reads the bundle from a pipe, and there is none", hint="cat release.qfw | quarkctl flash -"
            )
        return Stream(sys.stdin.buffer, "standard input")
    if is_url(name):
        return Http(name)
    try:
        return Stream(Path(name).open("rb", buffering=0), name)
    except OSError as error:
        raise InputWrong(f"cannot read {name}: {error.strerror}") from error


class Stream:
    """An open file or pipe."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self.rereadable = Path(name).is_file()
        self.size_bytes = os.fstat(file.fileno()).st_size if self.rereadable else 0

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size) or b""
        except OSError as error:
            raise InputWrong(f"cannot read {self._name}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Http:
    """A file on a server. A connection that breaks is taken up again by a Range request, if the file is still the same."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._done = 0
        self._failures = 0
        self._tag = ""
        self._waited_s, self._waited_for = 0.0, 0
        self.rereadable = True
        self.size_bytes = 0
        self._answer = self._open()
        self.size_bytes = self._length()
        self._tag = self._answer.headers.get("ETag") or self._answer.headers.get("Last-Modified") or ""

    def read(self, size: int) -> bytes:
        while True:
            began = time.monotonic()
            try:
                data: bytes = self._answer.read1(size)  # what is there: a server that drips must not hold us
            except (OSError, http.client.HTTPException) as error:
                self._resume(error)
                continue
            if not data and size and self.size_bytes and self._done < self.size_bytes:
                self._resume(http.client.IncompleteRead(b"", self.size_bytes - self._done))
                continue
            self._done += len(data)
            if data:
                self._failures = 0
            self._check_pace(time.monotonic() - began, len(data))
            return data

    def _check_pace(self, took_s: float, size: int) -> None:
        """Only the time counts in which we waited for the server, not that of the device. Raises LinkTimeout."""
        self._waited_s, self._waited_for = self._waited_s + took_s, self._waited_for + size
        if self._waited_s < HTTP_SLOW_S:
            return
        if self._waited_for < HTTP_SLOW_BYTES:
            raise LinkTimeout(
                f"{self._url} gave {self._waited_for} bytes in {self._waited_s:.0f} s",
                hint="the server or the way to it is too slow: flash again, or get the file first",
            )
        self._waited_s, self._waited_for = 0.0, 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._answer.close()

    def _resume(self, error: Exception) -> None:
        self._failures += 1
        if self._failures > HTTP_RETRIES:
            raise LinkLost(
                f"{self._url} broke off at byte {self._done}: {_told(error)}",
                hint="flash again when the server is well",
            ) from error
        self.close()
        self._answer = self._open()

    def _open(self) -> http.client.HTTPResponse:
        headers = {"User-Agent": "quarkctl", "Accept-Encoding": "identity"}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._tag:
                headers["If-Range"] = self._tag
        try:
            request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 - http and https only, see is_url
            answer = _opened(request)
        except urllib.error.HTTPError as error:
            error.close()
            raise InputWrong(
                f"{self._url}: the server answers {error.code} {error.reason}",
                hint="look at the address and the server",
            ) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise LinkTimeout(f"{self._url}: no answer within {HTTP_TIMEOUT_S:.0f} s") from error
            raise LinkLost(
                f"{self._url} cannot be reached: {_told(error.reason)}", hint="does the server run?"
            ) from error
        except TimeoutError as error:
            raise LinkTimeout(f"{self._url}: no whole answer in time", hint="is the server well?") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LinkLost(f"{self._url} cannot be read: {_told(error)}") from error
        told = answer.headers.get("Content-Range") or f"bytes {self._done}-"
        if self._done and (answer.status != http.client.PARTIAL_CONTENT or not told.startswith(f"bytes {self._done}-")):
            answer.close()
            raise LinkLost(
                f"{self._url} broke off at byte {self._done} and cannot be taken up there",
                hint="the file changed, or the server knows no ranges: flash again",
            )
        return answer

    def _length(self) -> int:
        text = self._answer.headers.get("Content-Length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows a few redirections, to http and https only."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ):  # fmt: skip
        if not is_url(newurl):
            fp.close()
            raise InputWrong(f"{req.full_url} leads to {newurl}", hint="bundles are read from http and https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Waits for the whole head of the answer, and no longer: the time-out of a socket begins anew with every byte."""
    opener = urllib.request.build_opener(_HttpOnly)
    head: Background[http.client.HTTPResponse] = Background(lambda: opener.open(request, timeout=HTTP_TIMEOUT_S))
    return head.result(HTTP_SLOW_S)


def _told(error: object) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
