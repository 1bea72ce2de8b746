"""What the access control decides about each route of the whole application, asked from outside.

The real application stands behind real connections; only its handlers are replaced, by one that says it was reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web

from rtc_server.app import Server, build_app
from rtc_server.config import parse
from rtc_server.system.rate_limit import Buckets
from rtc_server.web.gate import visitor_of
from rtc_server.web.limits import ConnectionLimits, Connections
from rtc_server.web.routes import Handler
from tests.support.gate import ALLOWED, KEY, PREFLIGHT, authenticator, bearer
from tests.support.tokens import NOW, token

OTHERS: Final = "https://evil.example"
REACHED: Final = 299
LARGE: Final = b"x" * 70_000
TOO_LARGE: Final = b"x" * 400_000

# Who comes in: "anyone", "known" (a key or a token), "operator" (a key). What else is special about it, in words:
#   page      pages of any origin may ask for it
#   crowded   it is answered when there are too many connections
#   offer     it counts as an offer of its address
#   streamed  its body is not read before its handler
#   large     its body may be larger than 64 KiB
#   ?token    a credential may stand in its address
#   takes SDP a preflight says so
# And the form of its errors, where they are not the server's own: problem details, or OpenAI's envelope.
EXPECTED = """
GET     /                               anyone    page
HEAD    /                               anyone    page
GET     /static/x                       anyone    page
HEAD    /static/x                       anyone    page
GET     /healthz                        anyone    crowded
HEAD    /healthz                        anyone    crowded
GET     /readyz                         anyone    crowded
HEAD    /readyz                         anyone    crowded
GET     /api/config                     anyone
HEAD    /api/config                     anyone
GET     /status                         operator
HEAD    /status                         operator
GET     /metrics                        operator
HEAD    /metrics                        operator
GET     /api/ice-servers                known
HEAD    /api/ice-servers                known
GET     /rooms.html                     anyone    page
HEAD    /rooms.html                     anyone    page
GET     /api/rooms                      known
HEAD    /api/rooms                      known
POST    /api/rooms                      known     offer
GET     /api/rooms/x                    known
HEAD    /api/rooms/x                    known
GET     /api/rooms/x/qr                 known
HEAD    /api/rooms/x/qr                 known
POST    /api/rooms/x/members            known     offer
PATCH   /api/rooms/x/members/me         known
DELETE  /api/rooms/x/members/me         known     crowded
POST    /api/rooms/x/messages           known
GET     /api/rooms/x/messages/x/audio   known
HEAD    /api/rooms/x/messages/x/audio   known
GET     /api/rooms/x/events             known     ?token
POST    /create-room                    known     offer
POST    /create-user                    known     offer
GET     /rooms                          known
HEAD    /rooms                          known
GET     /room-info                      known
HEAD    /room-info                      known
GET     /chat                           known
POST    /api/offer                      known     offer
GET     /api/sessions/x                 known
HEAD    /api/sessions/x                 known
PATCH   /api/sessions/x                 known
DELETE  /api/sessions/x                 known     crowded
GET     /api/sessions/x/events          known     ?token
POST    /whip/x                         known     offer, problem
OPTIONS /whip/x                         known     takes SDP, problem
PATCH   /whip/x/x                       known     problem
DELETE  /whip/x/x                       known     crowded, problem
OPTIONS /whip/x/x                       known     takes SDP, problem
POST    /whep/x                         known     offer, problem
OPTIONS /whep/x                         known     takes SDP, problem
PATCH   /whep/x/x                       known     problem
DELETE  /whep/x/x                       known     crowded, problem
OPTIONS /whep/x/x                       known     takes SDP, problem
GET     /api/chat                       known
GET     /ws                             known
GET     /v1/models                      known     openai
HEAD    /v1/models                      known
GET     /v1/models/x                    known     openai
HEAD    /v1/models/x                    known
GET     /v1/realtime                    known     openai
POST    /v1/realtime/calls              known     offer, large, openai
POST    /v1/realtime/calls/x/hangup     known     crowded, openai
POST    /v1/realtime/client_secrets     known     offer, large, openai
GET     /v1/realtime/translations       known     openai
POST    /v1/realtime/translations/calls known     offer, large, openai
POST    /v1/realtime/translations/calls/x/hangup known crowded, openai
POST    /v1/realtime/translations/client_secrets known offer, large, openai
GET     /v1/live/sessions               known     openai
POST    /v1/live/sessions               known     offer, large, openai
GET     /v1/live/sessions/x/attach      known     openai
POST    /v1/live/sessions/x/hangup      known     crowded, openai
GET     /api/asr-streaming              known
POST    /api/transcribe                 known     offer, streamed
PUT     /api/transcribe                 known     offer, streamed
PUT     /api/transcribe/x               known     offer, streamed
"""


def _expected() -> dict[tuple[str, str], tuple[str, set[str]]]:
    rows: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for line in EXPECTED.strip().splitlines():
        method, path, who, *rest = line.split(maxsplit=3)
        special = set(rest[0].split(", ")) if rest else set[str]()
        rows[method, path] = who, special
        if path != "/":  # each with a slash at its end
            rows[method, f"{path}/"] = who, special
    return rows


EXPECTED_OF: Final = _expected()


def _path_of(route: web.AbstractRoute) -> str:
    """An address that leads to it."""
    assert route.resource is not None
    return "/".join("x" if part.startswith("{") else part for part in route.resource.canonical.split("/"))


@dataclass(frozen=True, slots=True)
class Decided:
    """``name``: as whom the client came in. ``form``: of an error."""

    status: int
    name: str
    headers: dict[str, str]
    form: str

    @property
    def reached(self) -> bool:
        return self.status == REACHED


def _form(content_type: str, body: bytes) -> str:
    """As which an error is told; empty for the server's own form, and for what is no error."""
    if content_type == "application/problem+json":
        return "problem"
    return "openai" if b'"param"' in body else ""


class Asker:
    """Asks the application, each time from another address. ``crowded``: of its URLs, where there are too many
    connections."""

    def __init__(self, http: aiohttp.ClientSession, urls: dict[bool, str]) -> None:
        self._http, self._urls = http, urls
        self._addresses = (f"10.0.{high}.{low}" for high, low in itertools.product(range(256), range(256)))

    async def ask(self, method: str, path: str, *, crowded: bool = False, times: int = 1, **request: Any) -> Decided:
        """What is decided the last of so many ``times``."""
        headers = {"X-Forwarded-For": next(self._addresses)} | request.pop("headers", {})
        for _ in range(times):
            url = self._urls[crowded] + path
            async with self._http.request(method, url, headers=headers, **request) as response:
                form = _form(response.content_type, await response.read())
                decided = Decided(response.status, response.headers.get("X-Name", ""), dict(response.headers), form)
        return decided


@web.middleware
async def say_that_it_is_reached(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.match_info.http_exception is not None:
        return await handler(request)
    return web.Response(status=REACHED, headers={"X-Name": visitor_of(request).principal.name})


@contextlib.asynccontextmanager
async def application() -> AsyncIterator[tuple[web.Application, Asker]]:
    options = ("--model", "echo", "--allow-anonymous", "--allow-origins", ALLOWED, "--trusted-proxies", "127.0.0.1")
    server = Server(parse(options, environment={}))
    server.access.authenticator, server.access.today = authenticator(), lambda: NOW
    server.access.offers = Buckets(rate_per_s=0.001, burst=1, limit=10_000)
    app = build_app(server)
    app.middlewares.append(say_that_it_is_reached)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    assert runner.server is not None
    urls: dict[bool, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        for crowded, most in ((False, 100), (True, 0)):
            connections = Connections(runner.server, ConnectionLimits(in_all=most), server.access.proxies)
            listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
            stack.callback(listener.close)
            urls[crowded] = f"http://localhost:{listener.sockets[0].getsockname()[1]}"
        yield app, Asker(await stack.enter_async_context(aiohttp.ClientSession()), urls)


async def who_comes_in(asker: Asker, method: str, path: str) -> str:
    keyed = await asker.ask(method, path, headers=bearer(KEY))
    assert (keyed.status, keyed.name) == (REACHED, "key/kiosk"), "it declares a policy, and one that lets a client in"
    unknown = await asker.ask(method, path)
    if unknown.reached:
        assert unknown.name == "nobody"
        return "anyone"
    assert unknown.status == 401
    tokened = await asker.ask(method, path, headers=bearer(token()))
    if tokened.reached:
        assert tokened.name == "sub/ada"
        return "known"
    assert tokened.status == 403
    return "operator"


async def what_is_special(asker: Asker, method: str, path: str) -> set[str]:
    key = bearer(KEY)
    special = {(await asker.ask(method, path)).form} - {""}
    foreign = await asker.ask(method, path, headers=key | {"Origin": OTHERS})
    allowed = await asker.ask(method, path, headers=key | {"Origin": ALLOWED})
    assert foreign.status in (REACHED, 403)
    assert allowed.reached
    assert allowed.headers.get("Access-Control-Allow-Origin") == (None if foreign.reached else ALLOWED)
    if foreign.reached:
        special.add("page")
    crowded = await asker.ask(method, path, headers=key, crowded=True)
    assert crowded.status in (REACHED, 503)
    if crowded.reached:
        special.add("crowded")
    often = await asker.ask(method, path, headers=key, times=2)
    assert often.status in (REACHED, 429)
    if not often.reached:
        special.add("offer")
    if method in ("POST", "PUT", "PATCH", "DELETE"):
        large, larger = [await asker.ask(method, path, headers=key, data=data) for data in (LARGE, TOO_LARGE)]
        assert {large.status, larger.status} <= {REACHED, 413}
        if larger.reached:
            special.add("streamed")
        elif large.reached:
            special.add("large")
    if (await asker.ask(method, f"{path}?token={KEY}")).name == "key/kiosk":
        special.add("?token")
    if method == "OPTIONS":
        preflight = await asker.ask(method, path, headers=PREFLIGHT | {"Origin": ALLOWED})
        assert preflight.status == 204
        if preflight.headers.get("Accept-Post") == "application/sdp":
            special.add("takes SDP")
    return special


async def test_what_is_decided_about_each_route() -> None:
    async with application() as (app, asker):
        routes = {(route.method, _path_of(route)) for route in app.router.routes()}
        assert routes == set(EXPECTED_OF), "each route has its line, and each line its route"
        decided = {
            (method, path): (
                await who_comes_in(asker, method, path),
                await what_is_special(asker, method, path),
            )
            for method, path in sorted(routes)
        }
    assert decided == EXPECTED_OF


async def test_what_is_no_route_is_closed() -> None:
    """A client without a credential does not learn what there is."""
    async with application() as (_, asker):
        for method, path in (
            ("GET", "/nothing"),
            ("POST", "/status"),
            ("POST", "/"),
            ("DELETE", "/static/main.js"),
            ("GET", "//"),
            ("GET", "/static"),
            ("PUT", "/api/offer"),
            ("GET", "/whip/x"),
        ):
            assert (await asker.ask(method, path)).status == 401
            assert (await asker.ask(method, path, headers=bearer(KEY) | {"Origin": OTHERS})).status == 403
            known = [(await asker.ask(method, path, headers=bearer(KEY), times=times)).status for times in (1, 2)]
            assert set(known) in ({404}, {405}), "and it is no offer"


async def test_what_is_no_route_is_refused_in_the_form_of_its_neighbours() -> None:
    async with application() as (_, asker):
        for method, path, form in (
            ("GET", "/whip/x", "problem"),
            ("GET", "/whep", "problem"),
            ("GET", "/v1/nothing", "openai"),
            ("POST", "/v1/models", "openai"),
            ("GET", "/v1", "openai"),
            ("GET", "/nothing", ""),
            ("GET", "/api/v1/whip", ""),
            ("GET", "//v1", ""),
        ):
            for headers in ({}, bearer(KEY)):
                assert (await asker.ask(method, path, headers=headers)).form == form
