"""The access control before small handlers of our own: whom keys, tokens and nothing let in, however they are sent."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import pytest

from tests.support.gate import ALLOWED, KEY, bearer, door, doorkeeper
from tests.support.tokens import NOW, token

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


async def test_a_key_as_openais_clients_send_it_is_never_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it reach a log if there is nothing else to choose."""
    async with door(doorkeeper(keys=True)) as at:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await at.http.ws_connect(at.url + "/ws", protocols=(f"openai-insecure-api-key.{KEY}",))
        assert refused.value.status == 400
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
