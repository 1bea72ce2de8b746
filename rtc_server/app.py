"""The composition root: wiring, middleware, start and shutdown order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from rtc_server import signaling
from rtc_server.access import keyfile
from rtc_server.access.credentials import Authenticator
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.config import Settings
from rtc_server.endpoints import (
    asr,
    client_secrets,
    ice_servers,
    moshi,
    openai_live,
    openai_live_attach,
    openai_live_calls,
    openai_models,
    openai_realtime,
    openai_realtime_calls,
    openai_translation,
    operations,
    page,
    rooms,
    seamless,
    transcribe,
    whip,
)
from rtc_server.endpoints.transcribe import Uploads
from rtc_server.engine.engine import Engine
from rtc_server.errors import ConfigError, ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.protocols.openai.models import DEFAULT, ModelNames, parse_alias
from rtc_server.rooms.engine import RoomEngine
from rtc_server.rooms.homes import Homes
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.simultaneous import Simultaneous
from rtc_server.rooms.store import make_store
from rtc_server.services import (
    ALL_SERVICES,
    TRANSCRIBE,
    TRANSLATE,
    captions_engine,
    make_detector,
    make_engines,
    make_recognisers,
    make_simultaneous,
    make_translator,
    warn_of_unused_device,
)
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.captioner import Captioner, Captioners
from rtc_server.sessions.registry import Registry
from rtc_server.system import descriptors
from rtc_server.system.descriptors import Descriptors
from rtc_server.system.loop_lag import LoopLag
from rtc_server.turn.ice_servers import IceServers
from rtc_server.usage.spelling import did_you_mean
from rtc_server.web import tls
from rtc_server.web.errors import errors_middleware
from rtc_server.web.gate import make_access, visitor_of
from rtc_server.web.handshakes import Handshakes
from rtc_server.web.limits import ConnectionLimits, Connections
from rtc_server.web.listening import BACKLOG, check, listen
from rtc_server.web.neighbours import NEIGHBOURS, Neighbours, Signatures
from rtc_server.web.routes import add_routes
from rtc_server.web.siblings import SIBLINGS
from rtc_server.webrtc.gateway import WebRtc
from rtc_server.worker import Shared, Worker

logger = logging.getLogger(__name__)

_HTTP_SHUTDOWN_S: Final = 2.0
_SECURITY_HEADERS: Final = {
    # All that the page is made of, and all that it talks to, is here: no scripts or styles in the markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; img-src 'self' data:; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Against pages that embed what they may not read. Those of --allow-origins read by CORS, which this leaves alone.
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HSTS: Final = "max-age=31536000"
"""A year, for certificates that browsers trust: with one of our own making it would lock its user out."""


def build_app(server: Server) -> web.Application:
    """The HTTP application; starting and stopping what is behind it is :class:`Server`'s."""
    live = (openai_live, openai_live_calls, openai_live_attach)
    openai = (openai_models, client_secrets, *live, openai_realtime, openai_realtime_calls, openai_translation)
    modules = (signaling, whip, moshi, *openai, asr, transcribe, rooms, seamless, operations, ice_servers, page)
    longest = max(route.policy.max_body_bytes for module in modules for route in module.routes)
    app = web.Application(client_max_size=longest, middlewares=[errors_middleware])
    server.access.install(app)
    app[signaling.REGISTRY] = server.registry
    app[signaling.WEBRTC] = server.webrtc
    app[signaling.SETTINGS] = server.settings
    app[asr.ASR_SOCKETS] = server.asr_sockets
    app[transcribe.UPLOADS] = server.uploads
    app[operations.METRICS] = server.metrics
    app[operations.STARTED_AT] = time.monotonic()
    app[openai_models.MODEL_NAMES] = server.model_names
    app[openai_models.CREATED] = int(time.time())
    app[ice_servers.ICE_SERVERS] = IceServers(server.settings)
    app[page.FILES] = page.files()
    if server.rooms is not None:
        app[rooms.LOBBY] = server.rooms.lobby
        if server.settings.seamless_door:
            app[seamless.DOOR] = seamless.Door(server.rooms.lobby, server.admission, server.uploads)
    for module in modules:
        add_routes(app, module.routes)
    if server.neighbours is not None:
        app[NEIGHBOURS] = server.neighbours
        app.middlewares.append(server.neighbours.forward)
    if server.shared is not None:
        app[SIBLINGS] = server.shared.siblings
        app.middlewares.append(server.shared.siblings.forward)
    security_headers = _SECURITY_HEADERS | ({"Strict-Transport-Security": _HSTS} if server.settings.tls_cert else {})

    async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
        for name, value in security_headers.items():
            response.headers.setdefault(name, value)

    app.on_response_prepare.append(add_security_headers)
    return app


class Server:
    """One server: engines, registry, HTTP. Start it, wait, stop it."""

    def __init__(
        self,
        settings: Settings,
        limits: ConnectionLimits | None = None,
        make_engines: Callable[[Settings, Metrics], Mapping[str, Engine]] = make_engines,
        worker: Worker | None = None,
    ) -> None:
        """``make_engines``: the engines by service, the default service first. ``worker``: which of the server's media
        processes this is; None: there is one.
        Raises ConfigError for settings with which no server can or should start."""
        self.settings = settings
        self.limits = limits or ConnectionLimits.of_this_process()
        self.access = make_access(settings, _read_keys(settings), self.limits.head_s)
        self.certificate = tls.make_certificate(settings)
        self.metrics = Metrics()
        if worker is None:
            warn_of_unused_device(settings)
        self.engines = dict(make_engines(settings, self.metrics))
        self.detector = make_detector(settings, self.engines, self.metrics)
        number = 0 if worker is None else worker.place.index
        self.rooms = self._make_rooms(number)
        self.model_names = _model_names(settings, self.engines)
        self.lag = LoopLag(settings.max_lag_ms, self.metrics)
        self.files = Descriptors()
        self.shared = None if worker is None else Shared(worker, settings, self.access)
        self.neighbours = self._make_neighbours(f"{settings.node}-{number}")
        elsewhere = None if self.shared is None else self.shared.places
        self.admission = Admission(self.engines, settings, self.lag, self.files, elsewhere)
        self.registry = Registry(self.admission, settings, self.metrics, self.detector, self._make_captioners(), number)
        self.webrtc = WebRtc(self.registry, settings)
        self.asr_sockets = asr.AsrSockets(self.admission, settings, self.metrics)
        self.uploads = Uploads(self.admission, settings)
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server | Handshakes] = []
        self._certificate_watch: asyncio.Task[None] | None = None
        self.port = settings.port
        self.addresses: tuple[str, ...] = ()
        """What is listened on, once that has begun."""

    async def start(self) -> None:
        """Listen, and begin to load the models; ``/readyz`` tells when they are. Raises ConfigError if no address of
        the host can be had."""
        app = build_app(self)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_HTTP_SHUTDOWN_S)
        await self._runner.setup()
        assert self._runner.server is not None
        connections = Connections(self._runner.server, self.limits, self.access.proxies, self.files)
        try:
            bound = await self._listen()
        except ConfigError:
            await self._runner.cleanup()
            raise
        self.addresses = tuple(each.getsockname()[0] for each in bound)
        self.port = bound[0].getsockname()[1]
        self._listeners = [await self._serve(each, connections) for each in bound]
        if self.certificate is not None:
            self._certificate_watch = asyncio.create_task(self.certificate.watch(), name="certificate-watch")
        if self.rooms is not None and self.rooms.lobby.homes is not None:
            self.rooms.lobby.homes.url = self.settings.node_url.rstrip("/") or _url_of(bound[0])
        self.lag.start()
        for engine in self._all_engines():
            engine.start()
        self.uploads.start()
        if self.shared is not None:
            self.shared.start(connections, self.wait_ready)

    async def _listen(self) -> list[socket.socket]:
        if self.shared is None:
            return await listen(self.settings.host, self.settings.port)
        return self.shared.listeners()

    def _make_rooms(self, number: int) -> RoomEngine | None:
        """Rooms, as a service among the others, if the settings want them."""
        engine, settings = self.engines.get(TRANSCRIBE), self.settings
        wanted = settings.rooms == "on" or engine is not None or bool(settings.simultaneous)
        if settings.rooms == "off" or not wanted:
            if settings.seamless_door:
                raise ConfigError("--seamless-door is a way into rooms.", hint="Have some: --rooms on.")
            return None
        interpreter = Interpreter(make_translator(settings, self.metrics), self.metrics)
        recognisers = [] if engine is None else [engine]
        own = make_recognisers(settings, self.metrics)
        place, detects = f"{settings.node}-{number}", self.detector is not None
        store = make_store(settings)
        homes = None if store is None else Homes(store, place)
        lobby = Lobby(
            *(place, interpreter, recognisers, self.metrics, settings.max_rooms, own, detects, homes),
            simultaneous=self._make_simultaneous(),
        )
        rooms = RoomEngine(TRANSLATE, lobby, settings.max_sessions, self.metrics)
        self.engines[TRANSLATE] = rooms
        return rooms

    def _make_simultaneous(self) -> Simultaneous | None:
        made = make_simultaneous(self.settings, self.metrics)
        return None if made is None else Simultaneous(made[0], self.metrics, made[1].targets, made[1].notice)

    def _make_neighbours(self, process: str) -> Neighbours | None:
        """Media processes on other machines that have rooms and sessions, as Redis tells of them, or the pool, if it
        was told where this one is. Raises ConfigError."""
        lobby = None if self.rooms is None else self.rooms.lobby
        homes = None if lobby is None else lobby.homes
        directory = next((each.directory for each in self.engines.values() if isinstance(each, PooledEngine)), None)
        siblings = None if self.shared is None else self.shared.siblings
        if lobby is not None and homes is not None:
            _check_node_url(self.settings)
            if siblings is not None:
                siblings.rooms_elsewhere = True
            signatures = Signatures(lambda: homes.secret)
            made = Neighbours(process, homes.address_of, signatures, _address_of, siblings, lobby.home_of)
        elif directory is not None and self.settings.node_url:
            _check_node_url(self.settings)
            directory.announce(process, self.settings.node_url.rstrip("/"))
            signatures = Signatures(lambda: directory.secret)
            made = Neighbours(process, directory.address_of, signatures, _address_of, siblings)
        else:
            return None
        self.access.signatures = signatures
        return made

    def _make_captioners(self) -> Captioners:
        engine = captions_engine(self.settings, self.engines)
        of_dialogues = None if engine is None else self._make_captioner(engine)
        if self.rooms is None:
            return Captioners(self.metrics, of_dialogues)
        of_rooms = [
            of_dialogues if of_dialogues is not None and each is engine else self._make_captioner(each)
            for each in self.rooms.lobby.recognisers
        ]
        return Captioners(self.metrics, of_dialogues, of_rooms)

    def _make_captioner(self, engine: Engine) -> Captioner:
        return Captioner(engine, self.engines.values(), self.settings, self.lag.window, self.metrics)

    def _all_engines(self) -> list[Engine]:
        """In the order in which they are closed: rooms before what they are made of."""
        others = [engine for engine in self.engines.values() if engine is not self.rooms]
        beside = None if self.rooms is None else self.rooms.lobby.simultaneous.engine
        return [each for each in (self.rooms, *others, beside, self.detector) if each is not None]

    async def _serve(self, bound: socket.socket, connections: Connections) -> asyncio.Server | Handshakes:
        if self.certificate is not None:
            return Handshakes(bound, connections, self.certificate.context)
        return await asyncio.get_running_loop().create_server(connections, sock=bound, backlog=BACKLOG)

    def reload(self) -> None:
        """Read again what may change without a restart: the certificate, and the keys. What cannot be read leaves
        things as they were, and is logged."""
        if self.certificate is not None:
            self.certificate.refresh()
        if self.settings.auth:
            try:
                self.access.authenticator = _read_keys(self.settings)
            except ConfigError as error:
                logger.error("the keys are not taken: %s", error.message)
            else:
                logger.info("the keys are read again")

    async def wait_ready(self) -> None:
        """Until every model is loaded. Raises ModelLoadError for the first that cannot be."""
        async with asyncio.TaskGroup() as group:
            for engine in self._all_engines():
                group.create_task(engine.wait_settled(), name=f"load-{engine.service}")
        if self.rooms is not None:
            self.rooms.lobby.simultaneous.require_translates()

    async def stop(self, grace_s: float) -> None:
        """Drain, then close sessions, engines and sockets, in this order."""
        await self.admission.drain(grace_s)
        await self.uploads.close()
        await asyncio.gather(*(engine.close() for engine in self._all_engines()))
        self.lag.stop()
        if self._certificate_watch is not None:
            self._certificate_watch.cancel()
            await asyncio.gather(self._certificate_watch, return_exceptions=True)
        for listener in self._listeners:
            if isinstance(listener, Handshakes):
                await listener.close()
            else:
                listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self.neighbours is not None:
            await self.neighbours.close()
        if self.shared is not None:
            await self.shared.close()


def _url_of(bound: socket.socket) -> str:
    """Where what listens there is, for this machine and those that share its address."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_of(request: web.Request) -> str:
    """By which a request is counted."""
    return visitor_of(request).address


def _check_node_url(settings: Settings) -> None:
    """Raises ConfigError where other media nodes would not know how to reach this one."""
    if settings.node_url:
        parts = urlsplit(settings.node_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError("--node-url is not as http://10.0.0.7:8080.")
    elif settings.tls_cert or settings.tls != "off" or settings.host in ("", "0.0.0.0", "::"):  # noqa: S104
        raise ConfigError(
            "--redis wants --node-url as well: with this --host, or with TLS, the other media nodes would not know how "
            "to reach this one.",
            hint="For example: --node-url http://10.0.0.7:8080",
        )


def _read_keys(settings: Settings) -> Authenticator | None:
    """Those of ``--auth``. Raises ConfigError for what is wrong with them, a key of a service that no server has
    included: it would open nothing, and not say why."""
    if not settings.auth:
        return None
    authenticator = keyfile.load(Path(settings.auth))
    for name in sorted(authenticator.services.difference(ALL_SERVICES)):
        raise ConfigError(
            f"--auth: there is no service {name[:80]}.{did_you_mean(name, ALL_SERVICES)}",
            hint=f"A server may have: {', '.join(ALL_SERVICES)}.",
        )
    return authenticator


def _model_names(settings: Settings, services: Collection[str]) -> ModelNames:
    """Raises ConfigError for what is no alias, and for one of a service that this server does not have."""
    aliases: dict[str, str] = {}
    for alias in settings.model_alias:
        parsed = parse_alias(alias)
        if parsed is None:
            raise ConfigError(f"--model-alias {alias!r} is not NAME=SERVICE.")
        name, service = parsed
        if service not in (DEFAULT, *services):
            raise ConfigError(
                f"--model-alias {alias}: there is no service {service}.{did_you_mean(service, services)}",
                hint=f"This server has: {', '.join((*services, DEFAULT))}.",
            )
        aliases[name] = service
    return ModelNames(aliases)


async def serve(settings: Settings, announce: Callable[[Server], None]) -> None:
    """Run until SIGTERM or SIGINT; a second signal cuts the drain short. A service reads certificate and keys again on
    SIGHUP; at a terminal the same signal says that the window was closed, and stops the server as ever.

    ``announce`` is called once the models are ready. Raises ConfigError, ModelLoadError.
    """
    await check(settings.host)  # one that is not this machine's is no door to be guarded
    descriptors.raise_limit()
    server = Server(settings)
    stop, hurry = asyncio.Event(), asyncio.Event()
    on_signals(stop, hurry, server.reload)
    await run(server, stop, hurry, announce)


def on_signals(stop: asyncio.Event, hurry: asyncio.Event, reload: Callable[[], None]) -> None:
    """From now on a signal that ends programs sets ``stop``, and another one ``hurry``."""

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_signal if os.isatty(0) else reload)


async def run(server: Server, stop: asyncio.Event, hurry: asyncio.Event, announce: Callable[[Server], None]) -> None:
    """Run ``server`` until ``stop`` is set; ``hurry`` cuts the drain short. Raises ConfigError, ModelLoadError."""
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
        await server.admission.close()
    hurried.cancel()
    await draining
    with contextlib.suppress(asyncio.CancelledError):
        await hurried
