"""The doorkeeper: which request is whose, and which get no further. Knows no path, and nothing of sessions: it asks of
a request what the matched route declares (``web/routes.py``).

What it looks at, in this order, before a handler runs: where the request comes from, whom it is addressed to, of
which web page it is, how many offers that address makes, and whose key or token it carries. Only then is the body read,
whole and within a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from rtc_server.access import keyfile
from rtc_server.access.addresses import Proxies, counted_by, is_loopback
from rtc_server.access.credentials import Authenticator
from rtc_server.access.hosts import Hosts, PublicUrl, parse_authority, parse_public_url
from rtc_server.access.origins import ANY, Origins, hosts_of
from rtc_server.access.principals import ANONYMOUS, NOBODY, Principal, Visitor
from rtc_server.access.rate_limit import Buckets
from rtc_server.config import Settings, option
from rtc_server.errors import (
    BadRequest,
    ConfigError,
    Forbidden,
    HostRefused,
    NotFound,
    OriginRefused,
    RateLimited,
    RequestTimeout,
    TooLarge,
    TooManyConnections,
    Unauthorized,
    UnsupportedMediaType,
)
from rtc_server.web.errors import Handler
from rtc_server.web.limits import Connection
from rtc_server.web.routes import Policy, Who, policy_of

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
"""For all of a request to arrive: ``docs/protocol.md``, section 1."""
_MAX_ADDRESSES: Final = 10_000
"""That have an offers' bucket at a time: a few MB."""
_MIN_BURST: Final = 10
_MINUTE_S: Final = 60

_BEARER: Final = "bearer"
PLAIN_PROTOCOL: Final = "rtc-server.v1"
"""What a page names beside ``bearer.KEY`` when it opens a WebSocket, so that the server has something to choose."""
_PROTOCOL_PREFIX: Final = "bearer."

_CORS_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_CORS_HEADERS: Final = ("Authorization", "Content-Type", "If-Match", "Last-Event-ID")
_MAX_ASKED_HEADERS: Final = 64
_MAX_ASKED_CHARACTERS: Final = 4096
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$%&'+.^_`|~-]{0,127}")
"""RFC 9110, section 5.6.2, but for ``*``, which CORS takes for all headers."""
_CORS_EXPOSED: Final = "Location, ETag, Link, Retry-After"
_CORS_MAX_AGE_S: Final = 7200
"""Chromium keeps a preflight's answer for no longer."""

_VISITOR: Final = web.RequestKey("visitor", Visitor)
_CROSS_ORIGIN: Final = web.RequestKey("cross_origin", str)


def visitor_of(request: web.Request) -> Visitor:
    """Who makes this request."""
    return request[_VISITOR]


@dataclass(slots=True)
class Access:
    """All that the access control goes by. ``authenticator``: None lets every client in; it is replaced when its file
    is read again. ``clock`` is monotonic, ``today`` in seconds since 1970."""

    authenticator: Authenticator | None
    origins: Origins
    proxies: Proxies
    offers: Buckets
    hosts: Hosts = field(default_factory=lambda: Hosts(any_name=True))
    request_timeout_s: float = REQUEST_TIMEOUT_S
    clock: Callable[[], float] = time.monotonic
    today: Callable[[], float] = time.time

    def install(self, app: web.Application) -> None:
        """Stand at the door of ``app``. Inside the middleware that makes answers of errors, outside all others."""
        app.middlewares.append(self.admit)
        app.on_response_prepare.append(_add_cors_headers)
        app.on_response_prepare.append(_close_surplus)

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Everything that comes before the handler. Raises what a request is refused for."""
        arrived_at = _begin(request, self.clock)
        policy = policy_of(request)
        try:
            address = counted_by(
                self.proxies.client(request.remote or "", request.headers.getall("X-Forwarded-For", []))
            )
            request[_VISITOR] = Visitor(NOBODY, address)
            _check_host(request, self.hosts)
            if not policy.any_origin:
                _check_origin(request, self.origins)
            if _is_surplus(request) and not policy.when_crowded:
                raise TooManyConnections
            if _is_preflight(request):
                return _preflight_answer(request, policy)
            if policy.is_offer:
                self._count_offer(address)
            request[_VISITOR] = Visitor(self._principal_of(request, policy), address)
            await _read_body(request, policy, arrived_at + self.request_timeout_s - self.clock())
            return await handler(request)
        finally:
            _end(request)

    def _count_offer(self, address: str) -> None:
        wait_s = math.ceil(self.offers.wait_s(address, self.clock()))
        if wait_s:
            raise RateLimited(f"Too many offers from this address. Try again in {wait_s} s.", retry_after_s=wait_s)

    def _principal_of(self, request: web.Request, policy: Policy) -> Principal:
        principal = self._authenticate(request, policy)
        if policy.who is Who.NO_CLIENT:
            raise NotFound
        if policy.who is Who.OPERATOR and not principal.operator:
            raise Forbidden("This is for operators: it wants a key, not a token.")
        return principal

    def _authenticate(self, request: web.Request, policy: Policy) -> Principal:
        if self.authenticator is None:
            return ANONYMOUS
        try:
            return self.authenticator.authenticate(_credential(request, policy), self.today())
        except Unauthorized:
            if policy.who is not Who.ANYONE:
                raise
            return NOBODY


def make_access(settings: Settings, request_timeout_s: float = REQUEST_TIMEOUT_S) -> Access:
    """As the settings say. Raises ConfigError for what cannot be, and for a server that would be open to a network
    without the operator having said so."""
    local = is_loopback(settings.host)
    if not (settings.auth or settings.allow_anonymous):
        _refuse_open_door(settings, local)
    per_minute = settings.offers_per_minute
    public = parse_public_url(settings.public_url) if settings.public_url else None
    hosts = _hosts(settings, local, public)
    return Access(
        authenticator=keyfile.load(Path(settings.auth)) if settings.auth else None,
        origins=Origins(settings.allow_origins, hosts, public),
        proxies=Proxies(settings.trusted_proxies),
        offers=Buckets(per_minute / _MINUTE_S, max(_MIN_BURST, per_minute // 2), _MAX_ADDRESSES),
        hosts=hosts,
        request_timeout_s=request_timeout_s,
    )


def _hosts(settings: Settings, local: bool, public: PublicUrl | None) -> Hosts:
    """Strangers are kept out by name where nothing else keeps them out, and the names are known: those of a proxy are
    if it says which, in ``public``."""
    names = [*hosts_of(settings.allow_origins), *([] if public is None else [public.host])]
    behind_any_name = bool(settings.trusted_proxies) and public is None
    known = local and not settings.auth and ANY not in settings.allow_origins and not behind_any_name
    return Hosts(names, any_name=not known)


def _refuse_open_door(settings: Settings, local: bool) -> None:
    proxy = next((option(name) for name in ("trusted_proxies", "public_url") if getattr(settings, name)), None)
    if local and proxy is None:
        return
    way = f"A server behind a proxy ({proxy})" if local else f"--host {settings.host}"
    raise ConfigError(
        f"{way} can be reached from other machines, and there is nobody at the door.",
        hint="--auth FILE lets in who has a key (rtc-server auth-key makes one); --allow-anonymous, everybody.",
    )


# Whom it is addressed to, and where it comes from.


def _check_host(request: web.Request, hosts: Hosts) -> None:
    """Raises HostRefused, and BadRequest as RFC 9112, section 3.2, wants it: for "any HTTP/1.1 request message that
    lacks a Host header field and [...] any request message that contains more than one Host header field line or a
    Host header field with an invalid field value". Without any (HTTP/1.0) it comes from no browser."""
    named = request.headers.getall(hdrs.HOST, [])
    if len(named) > 1 or (not named and request.version >= HttpVersion11):
        raise BadRequest("A request names one host, in the header Host.")
    for value in named:
        _check_name(value, hosts)
        # "When an origin server receives a request with an absolute-form of request-target, the origin server MUST
        # ignore the received Host header field" (section 3.2.2): of two names, both have to be ours.
        _check_name(request.url.raw_authority, hosts)  # with the brackets of IPv6


def _check_name(value: str, hosts: Hosts) -> None:
    authority = parse_authority(value)
    if authority is None:
        raise BadRequest("The header Host is not a host and a port.")
    if not hosts.answers_to(authority.host):
        raise HostRefused


def _check_origin(request: web.Request, origins: Origins) -> None:
    """Raises OriginRefused. An origin that is another's, and may come in, is noted for the answer's headers."""
    named = request.headers.getall(hdrs.ORIGIN, [])
    if not named:
        return
    if len(named) > 1:
        raise OriginRefused
    if origins.is_ours(named[0], request.headers.get(hdrs.HOST, "")):
        return
    if not origins.allows(named[0]):
        raise OriginRefused
    request[_CROSS_ORIGIN] = named[0]


def _is_preflight(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )


def _preflight_answer(request: web.Request, policy: Policy) -> web.Response:
    headers: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _CORS_METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join(_headers_for(request)),
        hdrs.VARY: hdrs.ACCESS_CONTROL_REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_CORS_MAX_AGE_S),
    }
    if policy.accept_post is not None:
        headers["Accept-Post"] = policy.accept_post
    return web.Response(status=204, headers=headers)


def _headers_for(request: web.Request) -> list[str]:
    """What a page of an allowed origin may send: what we read, and what it asks for besides. Tracing libraries, error
    reporters and the like add headers to every request of a page, which then cannot make any if one is not named."""
    asked = ",".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, []))
    if len(asked) > _MAX_ASKED_CHARACTERS:
        return list(_CORS_HEADERS)
    names = {name.lower(): name for name in _CORS_HEADERS}
    for name in asked.split(",")[:_MAX_ASKED_HEADERS]:
        if _HEADER_NAME.fullmatch(name.strip()):
            names.setdefault(name.strip().lower(), name.strip())
    return list(names.values())


async def _add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, errors among them: a page that cannot read why it was refused cannot tell its user.

    ``Vary`` also where no origin is named, or a cache would hand that answer to a page that is then kept from it.
    """
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.get(_CROSS_ORIGIN)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _CORS_EXPOSED


# Who it is.


def _credential(request: web.Request, policy: Policy) -> str:
    """What it carries, or an empty text. Raises Unauthorized for more than one of them.

    In the address only where browsers send no headers: addresses are kept in histories, and in the logs of proxies.
    """
    named = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(named) > 1:
        raise Unauthorized
    if named:
        scheme, _, value = named[0].partition(" ")
        return value.strip() if scheme.lower() == _BEARER else ""
    if _is_websocket(request):
        offered = next((name for name in _offered_protocols(request) if name.startswith(_PROTOCOL_PREFIX)), "")
        return offered.removeprefix(_PROTOCOL_PREFIX) or _query_credential(request) or _kyutai_credential(request)
    if request.method == hdrs.METH_GET and policy.query_token:
        return _query_credential(request)
    return ""


def _query_credential(request: web.Request) -> str:
    named = request.query.getall("token", [])
    if len(named) > 1:
        raise Unauthorized
    return named[0] if named else ""


def _kyutai_credential(request: web.Request) -> str:
    """As clients of Kyutai's moshi-server send their key."""
    return request.headers.get("kyutai-api-key", "") or request.query.get("auth_id", "")


def _is_websocket(request: web.Request) -> bool:
    return request.method == hdrs.METH_GET and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def _offered_protocols(request: web.Request) -> list[str]:
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])).split(",")
    return [name.strip() for name in offered if name.strip()]


def socket_protocol(request: web.Request) -> tuple[str, ...]:
    """Which of the offered subprotocols to choose: one, or none where none is offered. What is spoken is said by the
    path, so any name will do; but a browser fails the connection if none is chosen of those that it offered.

    Our own name goes first, then the first that is no credential. One that is goes back to the client that sent it
    only if there is nothing else. aiohttp logs what a client offers in vain, credentials included: here nothing is.
    """
    offered = _offered_protocols(request)
    plain = [name for name in offered if not name.startswith(_PROTOCOL_PREFIX)]
    return (PLAIN_PROTOCOL,) if PLAIN_PROTOCOL in plain else tuple((plain or offered)[:1])


# That all of it is here.


def _begin(request: web.Request, clock: Callable[[], float]) -> float:
    """When the request began to arrive."""
    connection = request.protocol
    return connection.request_began() if isinstance(connection, Connection) else clock()


def _is_surplus(request: web.Request) -> bool:
    return isinstance(request.protocol, Connection) and request.protocol.surplus


async def _close_surplus(request: web.Request, response: web.StreamResponse) -> None:
    """One answer is all that it gets."""
    if _is_surplus(request):
        response.headers[hdrs.CONNECTION] = "close"
        response.force_close()


def _end(request: web.Request) -> None:
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.request_ended()


async def _read_body(request: web.Request, policy: Policy, timeout_s: float) -> None:
    """Read it, so that handlers find it in memory: ``await request.read()`` is then immediate.

    Nothing is read that the router has no handler for. Compressed bodies are refused: no client of ours sends any, and
    what they unpack to is a stranger's choice.
    """
    if not request.body_exists or request.method in (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS):
        return
    if request.match_info.http_exception is not None:
        return
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaType("identity", "The body must come without a Content-Encoding.")
    if policy.streams_body:
        return
    if (request.content_length or 0) > request.client_max_size:
        raise TooLarge(request.client_max_size)
    try:
        async with asyncio.timeout(timeout_s):
            await request.read()
    except TimeoutError:
        raise RequestTimeout from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("The body cannot be read: it breaks off, or is not framed as it says.") from None
