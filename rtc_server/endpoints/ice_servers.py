"""The door to the ICE servers: what a request's own client is told. Puts together who asks and what
:class:`~rtc_server.turn.ice_servers.IceServers` makes; knows nothing of offers."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from rtc_server.access.principals import NOBODY
from rtc_server.turn.ice_servers import IceServer, IceServers, user_key
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import NO_STORE, Policy, Routes

ICE_SERVERS: Final = web.AppKey("ice_servers", IceServers)

routes = Routes()


@routes.get("/api/ice-servers", Policy())
async def ice_servers(request: web.Request) -> web.Response:
    body = {
        "ice_servers": servers_for(request),
        "expires_in_s": request.app[ICE_SERVERS].expires_in_s,
    }
    return web.json_response(body, headers=NO_STORE)


def servers_for(request: web.Request) -> list[IceServer]:
    return request.app[ICE_SERVERS].for_user(_user_of(request), time.time())


def servers_for_anybody(request: web.Request) -> list[IceServer]:
    """None for an unknown client: credentials are for those who may come in."""
    return [] if visitor_of(request).principal is NOBODY else servers_for(request)


def links_for(request: web.Request) -> list[str]:
    """Values of ``Link`` headers, one each."""
    return request.app[ICE_SERVERS].link_headers(_user_of(request), time.time())


def _user_of(request: web.Request) -> str:
    visitor = visitor_of(request)
    return user_key(visitor.principal.name, visitor.address)
