"""Access-control middleware: says whose a request is, and refuses what may not come in. Knows no path, and nothing of
sessions: it asks of a request what the matched route declares (``web/routes.py``).

What it looks at, in this order, before a handler runs: where the request comes from, whom it is addressed to, of
which web page it is, how many offers that address makes, and whose key or token it carries. Only then is the body read,
whole and within a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from aiohttp import HttpVersion11, hdrs, web

from rtc_server.access.addresses import Proxies, counted_by, is_loopback
from rtc_server.access.credentials import Authenticator
from rtc_server.access.ephemeral import EphemeralKeys
from rtc_server.access.hosts import Hosts, PublicUrl, parse_authority, parse_public_url
from rtc_server.access.origins import ANY, Origins, hosts_of
from rtc_server.access.principals import ANONYMOUS, NOBODY, Principal, Visitor
from rtc_server.config import Settings, option
from rtc_server.errors import (
    BadRequest,
    ConfigError,
    Forbidden,
    HostRefused,
    NotFound,
    RateLimited,
    TooManyConnections,
    Unauthorized,
)
from rtc_server.system.rate_limit import Buckets
from rtc_server.web.bearer import credential_of
from rtc_server.web.bodies import read_body
from rtc_server.web.cors import add_cors_headers, check_origin, is_preflight, preflight_answer
from rtc_server.web.limits import Connection
from rtc_server.web.neighbours import Signatures
from rtc_server.web.routes import Handler, Policy, Who, policy_of
from rtc_server.web.siblings import address_from_sibling, came_from_sibling

REQUEST_TIMEOUT_S: Final = 10.0
"""For all of a request to arrive: ``docs/protocol.md``, section 1."""
_MAX_ADDRESSES: Final = 10_000
"""That have an offers' bucket at a time: a few MB."""
_MIN_BURST: Final = 10
_MINUTE_S: Final = 60

_VISITOR: Final = web.RequestKey("visitor", Visitor)


def visitor_of(request: web.Request) -> Visitor:
    """Who makes this request."""
    return request[_VISITOR]


def visitor_of_a_socket(request: web.Request) -> Visitor:
    """The same, for a request that lasts: its principal's ``max_session_s`` ends with its token."""
    visitor, now = request[_VISITOR], request.app[ACCESS].today()
    return replace(visitor, principal=visitor.principal.of_a_socket(now))


class OfferBuckets(Protocol):
    """How many offers each address has made."""

    def wait_s(self, name: str, now: float) -> float:
        """0: one more may pass now, and is counted. Else the seconds until one may."""


@dataclass(slots=True)
class Access:
    """All that the access control goes by. ``authenticator``: None lets every client in; it is replaced when its file
    is read again. ``signatures``: of servers that pass requests on. ``clock`` is monotonic, ``today`` in seconds since
    1970."""

    authenticator: Authenticator | None
    origins: Origins
    proxies: Proxies
    offers: OfferBuckets
    hosts: Hosts = field(default_factory=lambda: Hosts(any_name=True))
    ephemeral: EphemeralKeys = field(default_factory=EphemeralKeys)
    signatures: Signatures | None = None
    request_timeout_s: float = REQUEST_TIMEOUT_S
    clock: Callable[[], float] = time.monotonic
    today: Callable[[], float] = time.time

    def install(self, app: web.Application) -> None:
        """Stand at the door of ``app``. Inside the middleware that makes answers of errors, outside all others."""
        app[ACCESS] = self
        app.middlewares.append(self.admit)
        app.on_response_prepare.append(add_cors_headers)
        app.on_response_prepare.append(_close_surplus)

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Everything that comes before the handler. Raises what a request is refused for."""
        arrived_at = _begin(request, self.clock)
        policy = policy_of(request)
        try:
            # Another process has let it in.
            sibling = came_from_sibling(request) or (self.signatures is not None and self.signatures.signed(request))
            address = address_from_sibling(request) if sibling else self._address_of(request)
            request[_VISITOR] = Visitor(NOBODY, address)
            if not sibling:
                _check_host(request, self.hosts)
            if not policy.any_origin and not sibling:
                check_origin(request, self.origins)
            if _is_surplus(request) and not policy.when_crowded:
                raise TooManyConnections
            if is_preflight(request):
                return preflight_answer(request, policy)
            if policy.is_offer and not sibling:
                self._count_offer(address)
            request[_VISITOR] = Visitor(self._principal_of(request, policy), address)
            await read_body(request, policy, arrived_at + self.request_timeout_s - self.clock())
            return await handler(request)
        finally:
            _end(request)

    def _address_of(self, request: web.Request) -> str:
        return counted_by(self.proxies.client(request.remote or "", request.headers.getall("X-Forwarded-For", [])))

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
        try:
            credential, now = credential_of(request, policy), self.today()
            ephemeral = self.ephemeral.find(credential, now, self.authenticator)
            if ephemeral is not None:
                return ephemeral
            return ANONYMOUS if self.authenticator is None else self.authenticator.authenticate(credential, now)
        except Unauthorized:
            if self.authenticator is None:
                return ANONYMOUS
            if policy.who is not Who.ANYONE:
                raise
            return NOBODY


ACCESS: Final = web.AppKey("access", Access)


def make_access(
    settings: Settings, authenticator: Authenticator | None = None, request_timeout_s: float = REQUEST_TIMEOUT_S
) -> Access:
    """As the settings say, with the keys of ``--auth``. Raises ConfigError for what cannot be, and for a server that
    would be open to a network without the operator having said so."""
    local = is_loopback(settings.host)
    if not (settings.auth or settings.allow_anonymous):
        _refuse_open_door(settings, local)
    public = parse_public_url(settings.public_url) if settings.public_url else None
    hosts = _hosts(settings, local, public)
    return Access(
        authenticator=authenticator,
        origins=Origins(settings.allow_origins, hosts, public),
        proxies=Proxies(settings.trusted_proxies),
        offers=Buckets(*offers_allowed(settings), _MAX_ADDRESSES),
        hosts=hosts,
        request_timeout_s=request_timeout_s,
    )


def offers_allowed(settings: Settings) -> tuple[float, int]:
    """Of one address: how many a second in the long run, and how many at once."""
    per_minute = settings.offers_per_minute
    return per_minute / _MINUTE_S, max(_MIN_BURST, per_minute // 2)


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
