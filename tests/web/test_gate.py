"""The doorkeeper before small handlers of our own: who gets in, from which page, how often, and what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtc_server.access import credentials
from rtc_server.access.addresses import Proxies
from rtc_server.access.credentials import Authenticator, Key
from rtc_server.access.hosts import Hosts
from rtc_server.access.origins import Origins
from rtc_server.access.principals import Principal
from rtc_server.access.rate_limit import Buckets
from rtc_server.config import Settings
from rtc_server.errors import ConfigError, RateLimited
from rtc_server.web.bearer import socket_protocol
from rtc_server.web.envelopes import Envelope
from rtc_server.web.errors import errors_middleware
from rtc_server.web.gate import Access, make_access, visitor_of
from rtc_server.web.routes import Policy, Routes, Who, add_routes
from tests.access.test_auth import NOW, RULES, token

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


GUARDED = ["/api/sessions/x", "/status", "/metrics", "/nothing", "/api/offer", "/Status", "//", "/static"]


async def test_without_keys_everybody_is_let_in() -> None:
    async with door(doorkeeper()) as at:
        for path in ("/", "/status", "/metrics", "/api/sessions/x"):
            status, _, body = await at.ask("GET", path)
            assert (status, body["name"]) == (200, "")
        status, _, body = await at.ask("GET", "/", **bearer("whatever"))
        assert (status, body["name"]) == (200, "")


async def test_the_page_and_what_it_needs_first_are_open() -> None:
    async with door(doorkeeper(keys=True)) as at:
        for path in ("/", "/static/main.js", "/healthz", "/readyz", "/api/config"):
            for headers in ({}, bearer("wrong"), bearer(token(exp=NOW - 60))):
                status, _, body = await at.ask("GET", path, **headers)
                assert (status, body["name"]) == (200, "nobody")
            assert (await at.ask("GET", path, **bearer(KEY)))[2]["name"] == "key/kiosk"


@pytest.mark.parametrize("path", GUARDED)
async def test_everything_else_is_not(path: str) -> None:
    """What there is not, neither: a stranger learns nothing of what there is."""
    method = "POST" if path == "/api/offer" else "GET"
    async with door(doorkeeper(keys=True)) as at:
        for headers in (
            {},
            bearer(""),
            bearer("wrong"),
            bearer(KEY[:-1]),
            bearer(token(exp=NOW - 60)),
            bearer("x" * 5000),
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": "Bearer"},
        ):
            status, answered, body = await at.ask(method, path, **headers)
            assert (status, body["error"]["code"]) == (401, "unauthorized")
            assert answered["WWW-Authenticate"] == "Bearer"
        assert not at.served


@pytest.mark.parametrize(
    "path", ["/%73tatus", "/static/../status", "/static/%2e%2e/status", "/./status", "/static/..%2fstatus"]
)
async def test_no_spelling_of_a_path_opens_it(path: str) -> None:
    """A handler of guarded things is reached by no path that counts as open."""
    async with door(doorkeeper(keys=True)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    if path.startswith("/static/"):
        assert b'"name": "nobody"' in answer, "it is the page's files' handler that it reaches"
    else:
        assert b" 401 " in answer.splitlines()[0]


async def test_a_key_and_a_token_open_it() -> None:
    async with door(doorkeeper(keys=True)) as at:
        assert (await at.ask("GET", "/api/sessions/x", **bearer(KEY)))[2]["name"] == "key/kiosk"
        assert (await at.ask("GET", "/api/sessions/x", **bearer(token())))[2]["name"] == "sub/ada"
        status, _, body = await at.ask("GET", "/api/sessions/x", Authorization=f"bEARER  {KEY} ")
        assert (status, body["name"]) == (200, "key/kiosk")


async def test_what_concerns_everybody_wants_a_key() -> None:
    async with door(doorkeeper(keys=True)) as at:
        for path in ("/status", "/metrics"):
            assert (await at.ask("GET", path, **bearer(KEY)))[0] == 200
            status, _, body = await at.ask("GET", path, **bearer(token()))
            assert (status, body["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("keys", [True, False], ids=["with keys", "without"])
async def test_a_route_that_declares_nothing_lets_no_client_in(keys: bool) -> None:
    async with door(doorkeeper(keys=keys)) as at:
        for method in ("GET", "HEAD"):
            assert (await at.ask(method, "/undeclared", **bearer(KEY)))[0] == 404
        assert (await at.ask("GET", "/undeclared"))[0] == (401 if keys else 404), "as what there is not"
        assert not at.served


async def test_two_credentials_are_none() -> None:
    async with door(doorkeeper(keys=True)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        lines = f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}x\r\n"
        writer.write(f"GET /api/sessions/x HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n".encode())
        assert b" 401 " in (await reader.read()).splitlines()[0]
        writer.close()


async def test_a_credential_in_the_address_opens_only_what_browsers_open_without_headers() -> None:
    """Addresses are kept in logs and histories."""
    async with door(doorkeeper(keys=True)) as at:
        for path in (f"/api/sessions/x?token={KEY}", f"/status?token={KEY}", f"/api/sessions/x/events?auth_id={KEY}"):
            assert (await at.ask("GET", path))[0] == 401
            assert (await at.ask("GET", path, Sec_WebSocket_Protocol=f"bearer.{KEY}"))[0] == 401
        assert (await at.ask("POST", f"/api/sessions/x/events?token={KEY}"))[0] == 401


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_event_source(slash: str) -> None:
    """``new EventSource(url)`` can neither send headers nor read an answer that is refused."""
    path = f"/api/sessions/x/events{slash}"
    async with door(doorkeeper(keys=True)) as at:
        for credential, name in ((KEY, "key/kiosk"), (token(), "sub/ada")):
            status, headers, body = await at.ask("GET", f"{path}?token={credential}", Origin=ALLOWED)
            assert (status, body["name"]) == (200, name)
            assert headers["Access-Control-Allow-Origin"] == ALLOWED
        for query in ("", "?token=", "?token=x", f"?token={token(exp=NOW - 60)}", f"?token={KEY}&token={KEY}"):
            status, headers, body = await at.ask("GET", path + query)
            assert (status, body["error"]["code"]) == (401, "unauthorized")
            assert headers["Cache-Control"] == "no-store"
        assert (await at.ask("GET", f"{path}?token={KEY}", **bearer("wrong")))[0] == 401


@pytest.mark.parametrize("credential", [KEY, token()], ids=["key", "token"])
async def test_websockets(credential: str) -> None:
    """Browsers open them without headers. The credential is not what the server says it speaks."""
    expected = "key/kiosk" if credential == KEY else "sub/ada"
    async with door(doorkeeper(keys=True)) as at:
        for path, protocols, headers in (
            ("/ws", (f"bearer.{credential}", "voice"), {}),
            ("/ws", ("voice", f"bearer.{credential}"), {}),
            ("/ws", ("voice", f"openai-insecure-api-key.{credential}", "openai-agents-sdk.1"), {}),
            ("/ws", (f"openai-insecure-api-key.{credential}", "voice"), {}),
            (f"/ws?token={credential}", ("voice",), {}),
            ("/ws", ("voice",), bearer(credential)),
            ("/ws", ("voice",), {"kyutai-api-key": credential}),  # as clients of Kyutai's server do
            (f"/ws?auth_id={credential}", ("voice",), {}),
        ):
            async with at.http.ws_connect(at.url + path, protocols=protocols, headers=headers) as socket:
                assert await socket.receive_str() == expected
                assert socket.protocol == "voice"
        for path in (f"/ws?token={credential}&token={credential}", f"/ws?auth_id={credential}x"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await at.http.ws_connect(at.url + path)
        for path, protocols in (("/ws", ("voice",)), ("/ws?token=x", ("voice",)), ("/ws", ("bearer.x", "voice"))):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await at.http.ws_connect(at.url + path, protocols=protocols)
            assert refused.value.status == 401


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((), None),
        ((f"bearer.{KEY}",), f"bearer.{KEY}"),
        (("rtc-server.v1", f"bearer.{KEY}"), "rtc-server.v1"),
        ((f"bearer.{KEY}", "rtc-server.v1"), "rtc-server.v1"),
        ((f"bearer.{KEY}", "voice", "rtc-server.v1"), "rtc-server.v1"),
        ((f"bearer.{KEY}", "voice", "words"), "voice"),
        (("voice", KEY), "voice"),
        ((f"openai-insecure-api-key.{KEY}", "realtime", "openai-agents-sdk.1"), "realtime"),
        ((f"Bearer.{KEY}", f"token.{KEY}"), f"Bearer.{KEY}"),
    ],
    ids=[
        "none",
        "key",
        "plain",
        "plain last",
        "plain behind others",
        "first of others",
        "bare key",
        "openai",
        "no key of ours",
    ],
)
async def test_browsers_get_one_of_the_protocols_that_they_offer(
    offered: tuple[str, ...], chosen: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain one where there is one; or else they would fail the connection. In no case is any of them logged."""
    caplog.set_level(logging.DEBUG)
    async with door(doorkeeper()) as at, at.http.ws_connect(f"{at.url}/ws", protocols=offered) as socket:
        assert await socket.receive_str() == ""
        # aiohttp's client tells a protocol only if it has offered it.
        assert socket._response.headers.get("Sec-WebSocket-Protocol") == chosen
    assert KEY not in caplog.text
    assert "protocols" not in caplog.text


OWN_NAMES = ["localhost", "LOCALHOST:9", "localhost.:80", "a.localhost", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"]
OTHERS_NAMES = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "192.168.1.7",
    "0.0.0.0",
    "[2001:db8::1]",
]


async def raw(at: Door, request: str) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that is written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
    writer.write(request.replace("\n", "\r\n").encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    text = json.loads(body) if body.startswith(b"{") else {}
    return int(head.split()[1]), text.get("error") or text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_a_server_for_this_machine_answers_to_its_own_names_alone(method: str) -> None:
    """DNS rebinding: whatever the page of a stranger asks for, and most of what it asks for says no Origin."""
    paths = ["/", "/static/main.js", "/healthz", "/status", "/metrics", "/api/offer", "/whip/echo", "/nothing", "/ws"]
    async with door(doorkeeper(hosts=Hosts(["voice.example.com"]))) as at:
        for path in paths:
            for host in OTHERS_NAMES:
                for origin in ({}, {"Origin": f"http://{host}"}, {"Origin": ALLOWED}, PREFLIGHT | {"Origin": ALLOWED}):
                    status, headers, body = await at.ask(method, path, Host=host, **origin)
                    assert status == 421, (path, host, origin)
                    assert "Access-Control-Allow-Origin" not in headers
                    if method != "HEAD":
                        assert (body.get("error") or body)["code"] == "host_refused"
            for host in (*OWN_NAMES, "Voice.Example.com"):
                assert (await at.ask(method, path, Host=host))[0] != 421, (path, host)
        assert all(address == "127.0.0.1" for address, _ in at.served)


async def test_a_request_names_one_host() -> None:
    """RFC 9112, section 3.2. Without any, as HTTP/1.0 may be, it comes from no browser."""
    rest = "\nConnection: close\n\n"
    for hosts in (Hosts(), Hosts(any_name=True)):
        async with door(doorkeeper(hosts=hosts)) as at:
            for named in (
                "",
                "\nHost: localhost\nHost: evil.example",
                "\nHost: localhost\nHost: localhost",
                "\nHost: localhost, evil.example",
                "\nHost: ",
                "\nHost: localhost:x",
                "\nHost: user@localhost",
                "\nHost: [::1",
            ):
                status, error = await raw(at, f"GET /status HTTP/1.1{named}{rest}")
                # What the parser itself refuses is answered in aiohttp's words here, and in ours by a whole server.
                assert (status, error.get("code", "bad_request")) == (400, "bad_request"), named
            assert (await raw(at, f"GET /healthz HTTP/1.0{rest}"))[0] == 200
            assert not [address for address, _ in at.served if address != "127.0.0.1"]
            assert len(at.served) == 1


async def test_the_name_in_the_request_line_counts_too() -> None:
    rest = "\nConnection: close\n\n"
    async with door(doorkeeper(hosts=Hosts())) as at:
        for target, host, expected in (
            ("http://evil.example/status", "localhost", 421),
            ("http://localhost/status", "evil.example", 421),
            ("http://localhost:8080/status", "localhost:8080", 200),
        ):
            assert (await raw(at, f"GET {target} HTTP/1.1\nHost: {host}{rest}"))[0] == expected


async def test_the_pages_own_files_are_for_every_origin() -> None:
    """A proxy that does not pass Host on makes a stranger of the page: it must load, to say what is wrong."""
    async with door(doorkeeper()) as at:
        for path, status in (("/", 200), ("/api/config", 403)):
            assert (await at.ask("GET", path, Origin="https://evil.example"))[0] == status


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_origins(method: str) -> None:
    async with door(doorkeeper()) as at:
        for origin, status, named in (
            (at.url, 200, None),
            (ALLOWED, 200, ALLOWED),
            ("https://evil.example", 403, None),
            ("null", 403, None),
        ):
            answered, headers, body = await at.ask(method, "/api/sessions/x", Origin=origin)
            assert answered == status
            assert headers.get("Access-Control-Allow-Origin") == named
            assert "Access-Control-Allow-Credentials" not in headers
            assert headers["Vary"] == "Origin"
            if status == 403:
                assert body["error"]["code"] == "origin_refused"
        assert "Access-Control-Allow-Origin" not in (await at.ask(method, "/api/sessions/x"))[1]


async def test_a_refused_page_reaches_no_handler_whatever_it_carries() -> None:
    async with door(doorkeeper(keys=True)) as at:
        for method, path in (("POST", "/api/offer"), ("GET", "/status"), ("GET", "/healthz"), ("GET", "/nothing")):
            assert (await at.ask(method, path, Origin="https://evil.example", **bearer(KEY)))[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await at.http.ws_connect(f"{at.url}/ws?token={KEY}", origin="https://evil.example")
        assert refused.value.status == 403
        assert not at.served


async def test_an_allowed_page_can_read_what_it_needs_also_of_errors() -> None:
    async with door(doorkeeper(keys=True)) as at:
        for path, status in (("/api/config", 200), ("/api/sessions/x", 401), ("/nothing", 401)):
            answered, headers, _ = await at.ask("GET", path, Origin=ALLOWED)
            assert answered == status
            assert headers["Access-Control-Allow-Origin"] == ALLOWED
            assert headers["Access-Control-Expose-Headers"] == "Location, ETag, Link, Retry-After"


async def test_any_page() -> None:
    async with door(doorkeeper(origins=Origins(["*"]))) as at:
        for origin in ("https://evil.example", "null"):
            status, headers, _ = await at.ask("POST", "/api/offer", Origin=origin)
            assert (status, headers["Access-Control-Allow-Origin"]) == (200, origin)


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.mark.parametrize("path", ["/api/offer", "/whip/echo", "/whep/x", "/api/sessions/x", "/nothing"])
async def test_a_preflight_is_answered_without_a_key(path: str) -> None:
    """A browser sends none with it. It reaches no handler and counts as no offer."""
    async with door(doorkeeper(keys=True, per_minute=1)) as at:
        for _ in range(30):
            status, headers, _ = await at.ask("OPTIONS", path, Origin=ALLOWED, **PREFLIGHT)
            assert status == 204
        assert headers["Access-Control-Allow-Origin"] == ALLOWED
        assert headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, If-Match, Last-Event-ID"
        assert headers.get("Accept-Post") == ("application/sdp" if path.startswith("/wh") else None)
        status, headers, _ = await at.ask("OPTIONS", path, Origin="https://evil.example", **PREFLIGHT)
        assert status == 403
        assert "Access-Control-Allow-Methods" not in headers
        assert not at.served


ALWAYS = "Authorization, Content-Type, If-Match, Last-Event-ID"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("baggage, sentry-trace", f"{ALWAYS}, baggage, sentry-trace"),
        (
            "authorization,idempotency-key , traceparent,x-b3-traceid",
            f"{ALWAYS}, idempotency-key, traceparent, x-b3-traceid",
        ),
        ("last-event-id", ALWAYS),
        ("x-a, X-A, AUTHORIZATION", f"{ALWAYS}, x-a"),
        ('*, a b, <x>, "q", x:y, é, ,-, ok', f"{ALWAYS}, ok"),
        (", ".join(f"h{n}" for n in range(80)), ", ".join([ALWAYS, *(f"h{n}" for n in range(64))])),
        ("x" * 129, ALWAYS),
        (", ".join(f"{n:x>100}" for n in range(50)), ALWAYS),
        ("", ALWAYS),
    ],
)
async def test_an_allowed_page_may_send_the_headers_that_it_asks_for(asked: str, allowed: str) -> None:
    """Whatever its libraries add to its requests; names, so many, and nothing else."""
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    async with door(doorkeeper(keys=True)) as at:
        status, answered, _ = await at.ask("OPTIONS", "/api/offer", Origin=ALLOWED, **headers)
        assert (status, answered["Access-Control-Allow-Headers"]) == (204, allowed)
        for stranger in ("https://evil.example", "null", "capacitor://localhost"):
            status, answered, _ = await at.ask("OPTIONS", "/api/offer", Origin=stranger, **headers)
            assert status == 403
            assert not [name for name in answered if name.startswith("Access-Control")]


async def test_options_that_are_no_preflight_are_the_handlers() -> None:
    async with door(doorkeeper(keys=True)) as at:
        assert (await at.ask("OPTIONS", "/whip/echo"))[0] == 401
        assert (await at.ask("OPTIONS", "/whip/echo", **bearer(KEY)))[0] == 200
        assert (await at.ask("OPTIONS", "/whip/echo", Origin=ALLOWED, **bearer(KEY)))[0] == 200
        status, headers, _ = await at.ask("OPTIONS", "/api/offer", **bearer(KEY))
        assert (status, headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/api/offer", "/whip/echo", "/whep/x"])
async def test_offers_are_counted_by_address(path: str) -> None:
    """Ten at once, one a second after that; another address is served all the while."""
    access = doorkeeper(per_minute=20)
    clock = access.clock
    assert isinstance(clock, Clock)
    async with door(access) as at:
        one, other = {"X_Forwarded_For": "198.51.100.1"}, {"X_Forwarded_For": "198.51.100.2"}
        assert [(await at.ask("POST", path, **one))[0] for _ in range(12)] == [200] * 10 + [429] * 2
        status, headers, body = await at.ask("POST", path, **one)
        assert (status, headers["Retry-After"]) == (429, "3")
        error = body if path.startswith("/wh") else body["error"]
        assert error["code"] == "rate_limited"
        assert "offers" in error.get("message", error.get("detail"))
        assert (await at.ask("POST", path, **other))[0] == 200
        clock.now += 3
        assert [(await at.ask("POST", path, **one))[0] for _ in range(2)] == [200, 429]
        assert (await at.ask("GET", "/api/config", **one))[0] == 200
        assert (await at.ask("DELETE", "/api/sessions/x", **one))[0] == 200


async def test_ten_thousand_offers_from_one_address() -> None:
    """Each is refused before a key is looked at or a body is read, and who else comes is served."""
    access = doorkeeper(keys=True, per_minute=60)
    async with door(access) as at:
        one, other = {"X_Forwarded_For": "198.51.100.1"}, {"X_Forwarded_For": "198.51.100.2"}
        statuses = [(await at.ask("POST", "/api/offer", b"{}", **one))[0] for _ in range(40)]
        assert statuses == [401] * 30 + [429] * 10
        for _ in range(9_000):
            assert access.offers.wait_s("198.51.100.1", access.clock()) > 0
        refused = await asyncio.gather(
            *(at.ask("POST", "/api/offer", b"x" * 900, **one, **bearer(KEY)) for _ in range(500))
        )
        assert {status for status, _, _ in refused} == {429}
        assert not at.served
        assert (await at.ask("POST", "/api/offer", **other, **bearer(KEY)))[0] == 200
        assert len(at.served) == 1


async def test_the_body_of_a_refused_offer_is_not_waited_for() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        for _ in range(10):
            await at.ask("POST", "/api/offer")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        writer.write(b"POST /api/offer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
        async with asyncio.timeout(5):
            assert b" 429 " in await reader.readline()
        writer.close()


async def test_who_is_no_proxy_cannot_pass_for_another() -> None:
    """By making up an address for each offer."""
    async with door(doorkeeper(per_minute=1, proxies=Proxies())) as at:
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=f"198.51.100.{n}"))[0] for n in range(12)]
        assert statuses == [200] * 10 + [429] * 2
        assert {address for address, _ in at.served} == {"127.0.0.1"}


async def test_behind_a_proxy_the_made_up_part_does_not_count() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        made_up = [f"203.0.113.{n}, 198.51.100.1" for n in range(12)]
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=chain))[0] for chain in made_up]
        assert statuses == [200] * 10 + [429] * 2
        assert {address for address, _ in at.served} == {"198.51.100.1"}


async def test_addresses_of_one_ipv6_network_are_one() -> None:
    async with door(doorkeeper(per_minute=1)) as at:
        chains = [f"2001:db8:1:2::{n:x}" for n in range(12)]
        statuses = [(await at.ask("POST", "/api/offer", X_Forwarded_For=chain))[0] for chain in chains]
        assert statuses == [200] * 10 + [429] * 2


def test_retry_after_is_the_wait_and_else_what_it_always_was() -> None:
    assert RateLimited("Slow down.", retry_after_s=3).retry_after_s == 3
    assert RateLimited().retry_after_s == 5


async def test_the_body_is_there_before_the_handler() -> None:
    async with door(doorkeeper()) as at:
        for body in (b"", b"x", b"x" * MAX_BYTES):
            assert (await at.ask("POST", "/api/offer", body))[0] == 200
            assert at.served[-1][1] == body


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large(chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    async with door(doorkeeper()) as at:
        status, _, body = await at.ask("POST", "/api/offer", chunks() if chunked else b"x" * 5000)
        assert (status, body["error"]["code"]) == (413, "too_large")
        assert str(MAX_BYTES) in body["error"]["message"]
        assert not at.served


async def test_a_body_that_does_not_come() -> None:
    """Drop by drop or not at all: what counts is when all of it is here."""
    async with door(doorkeeper(request_timeout_s=0.2)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        writer.write(b"POST /api/offer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            body = json.loads(await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0])))
        dripping.cancel()
        writer.close()
        assert b" 408 " in head.splitlines()[0]
        assert b"connection: close" in head.lower()
        assert body["error"]["code"] == "request_timeout"
        assert body["error"]["retryable"] is True
        assert not at.served


async def test_a_key_as_openais_clients_send_it_is_never_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it reach a log if there is nothing else to choose."""
    async with door(doorkeeper(keys=True)) as at:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await at.http.ws_connect(at.url + "/ws", protocols=(f"openai-insecure-api-key.{KEY}",))
        assert refused.value.status == 400
        assert KEY not in caplog.text


async def test_errors_under_v1_are_those_of_openai() -> None:
    """Whatever the error is, and for paths that there are not."""
    async with door(doorkeeper(keys=True)) as at:
        status, _, body = await at.ask("GET", "/v1/nothing")
        assert status == 401
        assert body["error"] == {
            "message": "This server wants a key or a token.",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
            "param": None,
        }
        for method, path, status, code in (
            ("GET", "/v1/nothing", 404, "not_found"),
            ("POST", "/v1/models", 405, "method_not_allowed"),
            ("GET", "/v1/broken", 500, "internal"),
        ):
            answered, _, body = await at.ask(method, path, **bearer(KEY))
            assert (answered, body["error"]["code"]) == (status, code)
            assert set(body["error"]) == {"message", "type", "code", "param"}


async def test_errors_at_the_doors_of_whip_are_problem_details() -> None:
    """RFC 9457. Whatever the error is, and for paths that there are not."""
    async with door(doorkeeper(keys=True)) as at:
        for method, path, status, code in (
            ("POST", "/whip/echo", 401, "unauthorized"),
            ("POST", "/whep/x", 401, "unauthorized"),
            ("GET", "/whip/nothing/here", 401, "unauthorized"),
        ):
            answered, headers, body = await at.ask(method, path)
            assert answered == status
            assert headers["Content-Type"].startswith("application/problem+json")
            assert set(body) == {"type", "title", "status", "detail", "code", "retryable"}
            assert (body["type"], body["title"], body["status"]) == ("about:blank", "Unauthorized", 401)
            assert (body["code"], body["retryable"]) == (code, False)
        answered, headers, body = await at.ask("PUT", "/whip/echo", **bearer(KEY))
        assert (answered, body["code"], set(headers["Allow"].split(","))) == (
            405,
            "method_not_allowed",
            {"POST", "OPTIONS"},
        )


@pytest.mark.parametrize("path", ["/whipped", "/api/whip", "/WHIP/echo", "/"])
async def test_elsewhere_they_are_not(path: str) -> None:
    async with door(doorkeeper()) as at:
        status, headers, body = await at.ask("PATCH", path)
        assert status in (404, 405)
        assert headers["Content-Type"].startswith("application/json")
        assert set(body) == {"error"}


async def test_a_fault_of_ours_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async with door(doorkeeper(keys=True)) as at:
        status, headers, body = await at.ask("GET", f"/broken?token={KEY}", Origin=ALLOWED, **bearer(KEY))
        assert (status, body["error"]["code"]) == (500, "internal")
        assert "secret" not in str(body)
        assert headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "ZeroDivisionError" in caplog.text
    assert "GET /broken failed" in caplog.text
    assert KEY not in caplog.text


async def test_logs_have_no_credential_and_no_address(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is refused, and for what reason."""
    caplog.set_level(logging.INFO)
    signed = token()
    async with door(doorkeeper(keys=True, per_minute=1)) as at:
        for credential in (KEY, KEY[:-1] + "x", signed, signed[:-9]):
            for path in ("/api/offer", "/status", "/api/sessions/x", f"/ws?token={credential}"):
                for method in ("GET", "POST"):
                    for origin in (ALLOWED, "https://evil.example"):
                        headers = {"X_Forwarded_For": "198.51.100.77", "Origin": origin, **bearer(credential)}
                        await at.ask(method, path, b"x" * 2000, **headers)
    for private in (KEY[:20], signed[-20:], "198.51.100.77", "127.0.0.1"):
        assert private not in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "voice.example.com"])
def test_a_server_for_others_says_who_may_come_in(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_access(Settings(host=host))
    assert refused.value.hint is not None
    assert "--auth" in refused.value.hint
    assert "--allow-anonymous" in refused.value.hint
    assert make_access(Settings(host=host, allow_anonymous=True)).authenticator is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize(
    ("option", "proxied"),
    [
        ("--trusted-proxies", {"trusted_proxies": ("127.0.0.1",)}),
        ("--public-url", {"public_url": "https://voice.example.com"}),
    ],
)
def test_behind_a_proxy_others_reach_it_on_loopback_too(host: str, option: str, proxied: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=option):
        make_access(Settings(host=host, **proxied))
    assert make_access(Settings(host=host, **proxied, allow_anonymous=True)).authenticator is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_server_for_this_machine_need_not(host: str) -> None:
    access = make_access(Settings(host=host))
    assert access.authenticator is None
    assert not access.origins.is_ours("http://evil.example", "evil.example")
    assert access.origins.is_ours("http://localhost:1", "localhost:1")


def test_with_keys_or_for_a_network_names_are_believed(tmp_path: Any) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "a"\nhash = "{credentials.hash_of(KEY)}"\n')
    for settings in (Settings(auth=str(path)), Settings(host="0.0.0.0", allow_anonymous=True)):
        assert make_access(settings).origins.is_ours("http://voice.example", "voice.example")
    access = make_access(Settings(auth=str(path), host="0.0.0.0"))
    assert access.authenticator is not None
    assert access.authenticator.authenticate(KEY, NOW).name == "key/a"


@pytest.mark.parametrize(("per_minute", "burst"), [(1, 10), (20, 10), (120, 60), (1000, 500)])
def test_how_many_offers_at_once(per_minute: int, burst: int) -> None:
    offers = make_access(Settings(offers_per_minute=per_minute)).offers
    assert sum(not offers.wait_s("a", 0.0) for _ in range(2000)) == burst


@pytest.mark.parametrize(
    "wrong", [{"allow_origins": ("example.com",)}, {"trusted_proxies": ("proxy",)}, {"auth": "/nowhere.toml"}]
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_access(Settings(**wrong))
