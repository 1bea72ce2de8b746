"""The composition root: wiring, middleware, static files, start and shutdown order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from rtc_server import health, signaling, uploads, whip
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    BadRequest,
    ConfigError,
    InternalError,
    MethodNotAllowed,
    ModelLoadError,
    NotFound,
    ServerError,
    TooLarge,
)
from rtc_server.metrics import Metrics
from rtc_server.registry import Registry
from rtc_server.services import make_detector, make_engines
from rtc_server.uploads import Uploads

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HTTP_SHUTDOWN_S: Final = 2.0
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def static_directory() -> Path:
    """Where the page's files are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    return next(path for path in (package.parent / "static", package / "static") if (path / "index.html").is_file())


def build_app(registry: Registry, file_door: Uploads, settings: Settings, metrics: Metrics) -> web.Application:
    """The HTTP application; starting and stopping what is behind it is :class:`Server`'s."""
    app = web.Application(client_max_size=signaling.MAX_BODY_BYTES, middlewares=[_errors])
    app[signaling.REGISTRY] = registry
    app[signaling.SETTINGS] = settings
    app[uploads.UPLOADS] = file_door
    app[health.METRICS] = metrics
    app[health.STARTED_AT] = time.monotonic()
    app.add_routes(signaling.routes)
    app.add_routes(whip.routes)
    app.add_routes(uploads.routes)
    app.add_routes(health.routes)
    static = static_directory()

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(static / "index.html", headers={"Cache-Control": "no-cache"})

    # Looked up, not resolved: a path that is not one of these leads nowhere, whatever it is made of.
    files = {path.relative_to(static).as_posix(): path for path in static.rglob("*") if path.is_file()}

    async def file(request: web.Request) -> web.FileResponse:
        path = files.get(request.match_info["path"])
        if path is None:
            raise NotFound
        return web.FileResponse(path)

    app.router.add_get("/", index)
    app.router.add_get("/static/{path:.*}", file)
    app.on_response_prepare.append(_add_security_headers)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as our own kind of answer; a peer never sees the text of a foreign exception."""
    try:
        return await handler(request)
    except ServerError as error:
        return signaling.error_response(error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - redirects and the like are not errors
            raise
        return signaling.error_response(_typed(error))
    except Exception:  # the border of a request: the fault is ours, is logged, and costs this request alone
        logger.exception("%s %s failed", request.method, request.rel_url.path.split("/")[1:3])
        return signaling.error_response(InternalError())


def _typed(error: web.HTTPException) -> ServerError:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return TooLarge(signaling.MAX_BODY_BYTES)
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed()
        case web.HTTPNotFound():
            return NotFound()
        case _:
            return BadRequest()


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


class Server:
    """One server: engines, registry, HTTP. Start it, wait, stop it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.engines: dict[str, EngineClient] = make_engines(settings, self.metrics)
        self.detector = make_detector(settings, self.engines, self.metrics)
        self.registry = Registry(self.engines, settings, self.metrics, self.detector)
        self.uploads = Uploads(self.registry, settings)
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen, and begin to load the models; ``/readyz`` tells when they are. Raises ConfigError if the
        address cannot be had."""
        app = build_app(self.registry, self.uploads, self.settings, self.metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_HTTP_SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"Cannot listen on {self.settings.host}:{self.settings.port}: {error.strerror}.",
                hint="Another server may be running there; choose a port with --port.",
            ) from error
        self.port = self._runner.addresses[0][1]
        for engine in self._all_engines():
            engine.start()

    def _all_engines(self) -> list[EngineClient]:
        return [*self.engines.values(), *([] if self.detector is None else [self.detector])]

    async def wait_ready(self) -> None:
        """Until every model is loaded. Raises ModelLoadError for the first that cannot be."""
        async with asyncio.TaskGroup() as group:
            for engine in self._all_engines():
                group.create_task(engine.wait_settled(), name=f"load-{engine.service}")

    async def stop(self, grace_s: float) -> None:
        """Drain, then close sessions, engines and sockets, in this order."""
        await asyncio.gather(self.registry.drain(grace_s), self.uploads.drain(grace_s))
        await asyncio.gather(*(engine.close() for engine in self._all_engines()))
        if self._runner is not None:
            await self._runner.cleanup()


async def serve(settings: Settings, announce: Callable[[Server], None]) -> None:
    """Run until SIGTERM or SIGINT; a second signal cuts the drain short.

    ``announce`` is called once the models are ready. Raises ConfigError, ModelLoadError.
    """
    server = Server(settings)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await server.start()
    try:
        await _until_stopped(server, stop, announce)
    finally:
        await _stop_unless_hurried(server, hurry)


async def _until_stopped(server: Server, stop: asyncio.Event, announce: Callable[[Server], None]) -> None:
    stopping = asyncio.create_task(stop.wait(), name="signal")
    loading = asyncio.create_task(server.wait_ready(), name="loading")
    try:
        await asyncio.wait([stopping, loading], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            _raise_load_error(loading)
            announce(server)
            await stopping
    finally:
        for task in (stopping, loading):
            task.cancel()
        await asyncio.gather(stopping, loading, return_exceptions=True)


def _raise_load_error(loading: asyncio.Task[None]) -> None:
    try:
        loading.result()
    except* ModelLoadError as group:
        error = group.exceptions[0]
        assert isinstance(error, ModelLoadError)
        raise ModelLoadError(error.message, error.hint) from None


async def _stop_unless_hurried(server: Server, hurry: asyncio.Event) -> None:
    logger.info("stopping")
    draining = asyncio.create_task(server.stop(server.settings.drain_s), name="stop")
    hurried = asyncio.create_task(hurry.wait(), name="hurry")
    await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        await asyncio.gather(server.registry.close(), server.uploads.close())
    hurried.cancel()
    await draining
    with contextlib.suppress(asyncio.CancelledError):
        await hurried
