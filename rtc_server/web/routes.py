"""Routes, and what each declares: its policy, which is what the access control asks of its requests, and the envelope
of its errors.

An endpoint says both where it registers its routes. A route that declares no policy lets no client in.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import hdrs, web

from rtc_server.web.envelopes import Envelope

MAX_BODY_BYTES: Final = 64 * 1024
NO_STORE: Final = {"Cache-Control": "no-store"}
"""Headers of an answer that is true for the moment, or for one client alone."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_H = TypeVar("_H", bound=Handler)


class Who(enum.Enum):
    """Whom a route lets in. Without ``--auth``, all but ``NO_CLIENT`` let in every client."""

    ANYONE = enum.auto()
    KNOWN = enum.auto()
    """A client with a key or a token."""
    OPERATOR = enum.auto()
    """A client whose key lets it look at what concerns all sessions."""
    NO_CLIENT = enum.auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """What the access control asks of a route's requests.

    ``any_origin``: pages of all origins may ask, and read nothing of the answer. ``when_crowded``: it is answered on
    a connection that is one too many. ``is_offer``: counts with the offers of its client's address.
    ``streams_body``: its handler reads the body as it comes, with bounds of its own. ``query_token``: a ``GET`` may
    carry its credential in the address, as an ``EventSource`` does, which sends no headers of the page's.
    ``accept_post``: the media type that its resource takes, which answers to preflights name. ``max_body_bytes``: of a
    body that is read before its handler. ``session``: what the path, or the query, calls the id of the session that a
    request is about; ``room``: what the path calls that of the room. ``spread``: opens a session, which any of the
    server's processes can have.
    """

    who: Who = Who.KNOWN
    any_origin: bool = False
    when_crowded: bool = False
    is_offer: bool = False
    streams_body: bool = False
    query_token: bool = False
    accept_post: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    session: str | None = None
    room: str | None = None
    spread: bool = False


UNROUTED: Final = Policy()
"""Of requests that the router has no handler for: a client without a credential does not learn what there is."""
_UNDECLARED: Final = Policy(Who.NO_CLIENT)


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    policy: Policy
    envelope: Envelope = Envelope.JSON


class Routes:
    """An endpoint's routes, registered with decorators as those of :class:`aiohttp.web.RouteTableDef`.

    ``errors``: the envelope in which all of them answer errors.
    """

    def __init__(self, errors: Envelope = Envelope.JSON) -> None:
        self._errors = errors
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(self, method: str, path: str, policy: Policy) -> Callable[[_H], _H]:
        """Register the decorated handler."""

        def register(handler: _H) -> _H:
            self._routes.append(Route(method, path, handler, policy, self._errors))
            return handler

        return register

    def get(self, path: str, policy: Policy, head: bool = True) -> Callable[[_H], _H]:
        """``head``: the handler answers ``HEAD`` as well."""

        def register(handler: _H) -> _H:
            if head:
                self.add(hdrs.METH_HEAD, path, policy)(handler)
            return self.add(hdrs.METH_GET, path, policy)(handler)

        return register


_ROUTES: Final = web.AppKey("routes", dict[web.AbstractRoute, Route])
_ENVELOPES: Final = web.AppKey("envelopes", dict[str, Envelope])
"""By the first part of the path: for requests that no route was found for."""


async def _when_admitted(_: web.Request) -> None:
    """``Expect`` (RFC 9110, section 10.1.1) is answered in aiohttp's place, after the door has let the request in:
    see ``web.bodies``. "A server that receives [another expectation] MAY respond with a 417": it is ignored."""


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Each route, and the same with a slash at its end: not by a redirect, which few clients follow with a body."""
    known, envelopes = app.setdefault(_ROUTES, {}), app.setdefault(_ENVELOPES, {})
    for route in routes:
        envelope = envelopes.setdefault(_first_part(route.path), route.envelope)
        assert envelope is route.envelope, f"{route.path}: routes below one first part answer errors in one envelope"
        for path in dict.fromkeys((route.path, f"{route.path.rstrip('/')}/")):
            added = app.router.add_route(route.method, path, route.handler, expect_handler=_when_admitted)
            known[added] = route


def policy_of(request: web.Request) -> Policy:
    """The policy of the route that the router took this request for: what will be served, however its path is
    spelled."""
    if request.match_info.http_exception is not None:
        return UNROUTED
    route = _route_of(request)
    return _UNDECLARED if route is None else route.policy


def envelope_of(request: web.Request) -> Envelope:
    """The envelope of the request's route; without one, that of the routes whose paths begin as its own does."""
    route = _route_of(request)
    if route is not None:
        return route.envelope
    return request.app.get(_ENVELOPES, {}).get(_first_part(request.path), Envelope.JSON)


def pattern_of(request: web.Request) -> str:
    """The path of the request's route as it was registered: what a log may have of it, without ids and names."""
    route = _route_of(request)
    return "(no route)" if route is None else route.path


def _route_of(request: web.Request) -> Route | None:
    return request.app.get(_ROUTES, {}).get(request.match_info.route)


def _first_part(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]
