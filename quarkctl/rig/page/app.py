"""The web application. It reads; whoever wants more brings the token. Bound to another address than this computer's own, it
wants the token for everything."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quarkctl.errors import InputWrong, LinkError, QuarkError, UsageWrong
from quarkctl.rig import power, quarantine, runs
from quarkctl.rig.page import html, notify
from quarkctl.rig.page.live import Live
from quarkctl.rig.power import Find

_EVENTS_EVERY_S = 0.3
_RUNS_SHOWN = 100
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_CODES: dict[type[QuarkError], int] = {InputWrong: 404, UsageWrong: 400, LinkError: 409}
#: How a browser on this computer calls it; anything else is another site's name for us.
_LOCAL = ["localhost", "127.0.0.1", "[::1]"]


def is_local(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def make(rig_file: Path | None, history: str, find: Find, host: str = "127.0.0.1", token: str = "") -> Starlette:
    """``token`` empty: nothing can be changed. For a ``host`` that is not local it must not be empty."""
    live = Live(rig_file)
    pages = _Pages(live, history, find, token)
    local = is_local(host)
    wildcard = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return Starlette(
        routes=[
            Route("/", pages.stations),
            Route("/events", pages.events),
            Route("/favicon.ico", _no_icon),
            Route("/runs", pages.runs),
            Route("/runs/{run}", pages.run),
            Route("/trends", pages.trends),
            Route("/files/{run}/{path:path}", pages.file),
            Route("/api/stations", pages.api_stations),
            Route("/api/runs", pages.api_runs),
            Route("/api/stations/{name}/{action}", pages.change, methods=["POST"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["*"] if wildcard else [*_LOCAL, host]),
            Middleware(_Guard, token="" if local else token),
        ],
        exception_handlers={QuarkError: _error, HTTPException: _http_error},
        lifespan=_lifespan,
    )


class _Guard:
    """Headers for all answers; where a token is demanded for everything, nothing without it. For a browser it is the
    password of any user name."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"], *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
                ]  # fmt: skip
            await send(message)

        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # no file, no run and no text of a database has it
            await JSONResponse({"error": "there is a NUL in the address"}, 400)(scope, receive, with_headers)
            return
        if self._token and not is_token(Request(scope), self._token, basic=True):
            refusal = JSONResponse(
                {"error": "the token is missing or wrong"}, 401, {"WWW-Authenticate": 'Basic realm="rig"'}
            )
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def is_token(request: Request, token: str, *, basic: bool = False) -> bool:
    """Compared in the same time wherever the difference is."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if basic and scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError, ValueError):
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            scheme = "bearer"
    return scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), token.encode())


async def _no_icon(_: Request) -> Response:
    return Response(status_code=204)


async def _error(_: Request, error: Exception) -> Response:
    message, hint = (error.message, error.hint) if isinstance(error, QuarkError) else (str(error), "")
    code = next((c for k, c in _CODES.items() if isinstance(error, k)), 503)
    return JSONResponse({"error": message, "hint": hint}, code)


async def _http_error(_: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": str(getattr(error, "detail", error))}, code)


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    """systemd hears that we are ready, and then that the loop turns."""
    every_s = notify.watchdog_s()

    async def beat() -> None:
        while True:
            notify.tell("WATCHDOG=1")
            await asyncio.sleep(every_s)

    notify.tell("READY=1")
    task = asyncio.create_task(beat()) if every_s else None
    try:
        yield
    finally:
        notify.tell("STOPPING=1")
        if task:
            task.cancel()


class _Pages:
    def __init__(self, live: Live, history: str, find: Find, token: str) -> None:
        self._live = live
        self._history = history
        self._find = find
        self._token = token

    async def stations(self, _: Request) -> Response:
        return HTMLResponse(html.stations(await run_in_threadpool(self._live.now)))

    async def api_stations(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._live.now))

    async def events(self, request: Request) -> Response:
        """Server-sent events (WHATWG HTML, section 9.2): the stations whenever something has changed."""

        async def stream() -> AsyncIterator[str]:
            before, quiet_s = "", 0.0
            while not await request.is_disconnected():
                now = json.dumps(await run_in_threadpool(self._live.now))
                if now != before:
                    before, quiet_s = now, 0.0
                    yield f"data: {now}\n\n"
                elif quiet_s > 15:  # so that both ends notice when the other is gone
                    quiet_s = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(_EVENTS_EVERY_S)
                quiet_s += _EVENTS_EVERY_S

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def runs(self, request: Request) -> Response:
        wanted = dict(request.query_params)
        return HTMLResponse(html.runs(await run_in_threadpool(self._runs, wanted), wanted, _RUNS_SHOWN))

    async def api_runs(self, request: Request) -> Response:
        return JSONResponse({"runs": await run_in_threadpool(self._runs, dict(request.query_params))})

    def _runs(self, wanted: dict[str, str]) -> list[dict[str, Any]]:
        from quarkctl.rig.history import database, listing
        from quarkctl.rig.history.ages import since_of
        from quarkctl.rig.history.deliver import catch_up

        keys = ("station", "device", "board", "verdict", "plan", "firmware")
        chosen = listing.Filter(**{k: wanted.get(k, "") for k in keys}, since=since_of(wanted.get("since", "")))
        catch_up(self._history)
        with database.reading(self._history) as ask:
            return listing.runs(ask, chosen, _RUNS_SHOWN)

    async def run(self, request: Request) -> Response:
        """A run under way is seen with the stations."""
        name = request.path_params["run"]
        if any(p.name == name and runs.alive(p) for p in runs.root().glob("*")):
            return RedirectResponse("/", 303)
        return HTMLResponse(await run_in_threadpool(self._run, name))

    def _run(self, run_id: str) -> str:
        from sqlalchemy import select

        from quarkctl.rig.history import database, query, tables
        from quarkctl.rig.history.deliver import catch_up

        catch_up(self._history)
        with database.connect(self._history) as connection:
            head = connection.execute(select(tables.run).where(tables.run.c.id == run_id)).mappings().first()
            if head is None:
                raise InputWrong(
                    f"history has no run {run_id} (yet)", hint="a run under way is shown with the stations"
                )
            rows = query.results(connection, run_id)
        folder = runs.root() / head["id"]
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "lock")
        return html.run(dict(head), rows, files)

    async def trends(self, request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(self._trends, request.query_params.get("name", "")))

    def _trends(self, name: str) -> str:
        from sqlalchemy import select

        from quarkctl.rig.history import database, listing, query, tables
        from quarkctl.rig.history.deliver import catch_up

        everything = listing.Filter()
        catch_up(self._history)
        with database.connect(self._history) as connection:
            column = tables.measurement.c.name
            names = list(connection.execute(select(column).distinct().order_by(column)).scalars())
            name = name or ("flash.total_s" if "flash.total_s" in names else "")
            return html.trends(
                names, name, query.trends(connection, everything, name) if name else [],
                query.series(connection, name, everything) if name else [], query.yields(connection, everything),
                query.flaky(connection, everything),
            )  # fmt: skip

    async def file(self, request: Request) -> Response:
        """A file of a run, to be saved and not to be run by the browser."""
        try:
            folder = (runs.root() / request.path_params["run"]).resolve()
            path = (folder / request.path_params["path"]).resolve()
            there = folder.parent == runs.root().resolve() and folder in path.parents and path.is_file()
        except OSError:  # no name that a file could have
            there = False
        if not there:
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    async def change(self, request: Request) -> Response:
        """Quarantine, release, power-cycle: with the token, sent as a bearer, which no other site can make a browser do."""
        if not self._token:
            raise HTTPException(403, "this page only reads; start it with a token to allow more")
        if not is_token(request, self._token):
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        name, action = request.path_params["name"], request.path_params["action"]
        station = self._live.rig.stations.get(name)
        if station is None:
            raise HTTPException(404, f"there is no station {name}")
        changes: dict[str, Callable[[], object]] = {
            "quarantine": lambda: quarantine.put(name, "by the page"),
            "release": lambda: quarantine.release(name),
            "power-cycle": lambda: power.cycle(station, self._find),
        }
        if action not in changes:
            raise HTTPException(404, f"there is no action {action}; there are {', '.join(changes)}")
        await run_in_threadpool(changes[action])
        return JSONResponse({"station": name, "done": action})
