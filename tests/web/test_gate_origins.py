"""The access control before small handlers of our own: from which pages, and what they may read."""

from __future__ import annotations

import aiohttp
import pytest

from rtc_server.access.origins import Origins
from tests.support.gate import ALLOWED, KEY, PREFLIGHT, bearer, door, doorkeeper


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
