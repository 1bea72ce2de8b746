"""A small application behind the access control, and who asks it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtc_server.access import credentials
from rtc_server.access.addresses import Proxies
from rtc_server.access.credentials import Authenticator, Key
from rtc_server.access.origins import Origins
from rtc_server.access.principals import Principal
from rtc_server.system.rate_limit import Buckets
from rtc_server.web.bearer import socket_protocol
from rtc_server.web.envelopes import Envelope
from rtc_server.web.errors import errors_middleware
from rtc_server.web.gate import Access, visitor_of
from rtc_server.web.routes import Policy, Routes, Who, add_routes
from tests.support.tokens import NOW, RULES

KEY = credentials.new_key()


PLENTY = 1_000_000


MAX_BYTES = 1000


ALLOWED = "https://voice.example.com"


OPEN = {
    "/": Policy(Who.ANYONE, any_origin=True),
    "/static/{path:.*}": Policy(Who.ANYONE, any_origin=True),
    "/healthz": Policy(Who.ANYONE, when_crowded=True),
    "/readyz": Policy(Who.ANYONE, when_crowded=True),
    "/api/config": Policy(Who.ANYONE),
}


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def authenticator() -> Authenticator:
    digest = bytes.fromhex(credentials.hash_of(KEY).removeprefix("sha256:"))
    return Authenticator([Key(digest, Principal("key/kiosk", operator=True))], RULES)


def doorkeeper(*, keys: bool = False, per_minute: int = PLENTY, **changes: Any) -> Access:
    made: dict[str, Any] = {
        "authenticator": authenticator() if keys else None,
        "origins": Origins([ALLOWED]),
        "proxies": Proxies(["127.0.0.1"]),
        "offers": Buckets(per_minute / 60, max(10, per_minute // 2), 1000),
        "request_timeout_s": 10.0,
        "clock": Clock(),
        "today": lambda: NOW,
    }
    return Access(**{**made, **changes})


class Door:
    """A running application behind a doorkeeper. ``served``: what handlers got to see."""

    def __init__(self, url: str, http: aiohttp.ClientSession, served: list[tuple[str, bytes]]) -> None:
        self.url, self.http, self.served = url, http, served

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> tuple[int, dict[str, Any], Any]:
        """Status, headers, and the body of an error as an object."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, self.url + path, data=data, headers=named) as response:
            text = await response.text()
            return response.status, dict(response.headers), json.loads(text) if text.startswith("{") else text


@contextlib.asynccontextmanager
async def door(access: Access) -> AsyncIterator[Door]:
    served: list[tuple[str, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        visitor = visitor_of(request)
        served.append((visitor.address, await request.read()))
        return web.json_response({"name": visitor.principal.name, "address": visitor.address})

    async def socket(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(protocols=socket_protocol(request))
        await response.prepare(request)
        await response.send_str(visitor_of(request).principal.name)
        await response.close()
        return response

    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError("secret")

    app = web.Application(middlewares=[errors_middleware], client_max_size=MAX_BYTES)
    access.install(app)
    routes = Routes()
    for path, policy in OPEN.items():
        routes.get(path, policy)(handler)
    for path in ("/status", "/metrics"):
        routes.get(path, Policy(Who.OPERATOR))(handler)
    routes.add("*", "/api/sessions/{id}", Policy())(handler)
    routes.add("*", "/api/sessions/{id}/events", Policy(query_token=True))(handler)
    routes.add("POST", "/api/offer", Policy(is_offer=True))(handler)
    routes.add("POST", "/small", Policy(max_body_bytes=MAX_BYTES // 2))(handler)
    problems = Routes(errors=Envelope.PROBLEM)
    for path in ("/whip/{service}", "/whep/{session}"):
        problems.add("POST", path, Policy(is_offer=True))(handler)
        problems.add("OPTIONS", path, Policy(accept_post="application/sdp"))(handler)
    openai = Routes(errors=Envelope.OPENAI)
    openai.get("/v1/models", Policy())(handler)
    openai.get("/v1/broken", Policy())(broken)
    routes.get("/ws", Policy())(socket)
    routes.get("/broken", Policy())(broken)
    for each in (routes, problems, openai):
        add_routes(app, each)
    app.router.add_get("/undeclared", handler)
    async with _started(TestServer(app)) as server, aiohttp.ClientSession() as http:
        yield Door(str(server.make_url("")).rstrip("/"), http, served)


@contextlib.asynccontextmanager
async def _started(server: TestServer) -> AsyncIterator[TestServer]:
    await server.start_server(access_log=None)
    try:
        yield server
    finally:
        await server.close()


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
