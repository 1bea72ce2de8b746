"""Sockets and streams of events, at every door: each ends when the token that opened it is good no longer. A client
secret opens one, which goes on; and so does a call, which a request has opened and is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rtc_server.access.credentials import TokenRules, sign_token
from rtc_server.app import Server
from tests.conftest import running_server
from tests.support.calls import offering

pytestmark = pytest.mark.slow

SECRET = b"s" * 64
RULES = TokenRules("HS256", SECRET, "voice", leeway_s=0)
SOON_S = 2


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "auth.toml").write_text(
        '[jwt]\nalgorithm = "HS256"\nsecret_file = "secret"\naudience = "voice"\nleeway_s = 0\n'
    )
    async with running_server("--model", "echo", "--auth", str(tmp_path / "auth.toml")) as server:
        yield server


def bearer(ttl_s: float) -> dict[str, str]:
    return {"Authorization": f"Bearer {sign_token(RULES, time.time(), ttl_s, subject='ada')}"}


async def told(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Read to the end; the close code."""
    async with asyncio.timeout(10):
        while (await socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            pass
    return socket.close_code


async def begin(socket: aiohttp.ClientWebSocketResponse, path: str) -> None:
    """What makes a session of the socket."""
    if path == "/v1/live/sessions":
        await socket.send_json({"type": "session.start", "session": {"model": "echo"}})


DOORS = pytest.mark.parametrize("path", ["/api/chat", "/v1/realtime", "/v1/live/sessions"])


@DOORS
async def test_a_socket_ends_with_its_token(guarded: Server, path: str) -> None:
    started = time.monotonic()
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{guarded.port}") as http,
        http.ws_connect(path, headers=bearer(SOON_S)) as socket,
    ):
        await begin(socket, path)
        assert await told(socket) == aiohttp.WSCloseCode.OK
    assert time.monotonic() - started > SOON_S - 1.5, "it was good for a while"


@DOORS
async def test_one_that_a_client_secret_opened_goes_on(guarded: Server, path: str) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{guarded.port}") as http:
        async with http.post("/v1/realtime/client_secrets", headers=bearer(SOON_S)) as response:
            secret = (await response.json())["value"]
        async with http.ws_connect(path, headers={"Authorization": f"Bearer {secret}"}) as socket:
            await begin(socket, path)
            await asyncio.sleep(SOON_S)
            async with http.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}) as response:
                assert response.status == 401, "it opens nothing any more"
            assert len(guarded.registry) == 1


@pytest.mark.parametrize("door", ["attach", "call_id", "events"])
async def test_what_is_beside_a_call_ends_and_the_call_goes_on(guarded: Server, door: str) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{guarded.port}") as http, offering() as offer:
        address = await called(http, door, offer["sdp"])
        if door == "events":
            async with http.get(address, headers=bearer(SOON_S)) as response, asyncio.timeout(10):
                assert response.status == 200
                await response.read()
        else:
            async with http.ws_connect(address, headers=bearer(SOON_S)) as socket:
                assert await told(socket) == aiohttp.WSCloseCode.OK
        assert len(guarded.registry) == 1


async def called(http: aiohttp.ClientSession, door: str, sdp: str) -> str:
    """Open a call, which will not connect; where to listen beside it."""
    session: Any
    if door == "attach":
        body = {"session": {"model": "echo"}, "transport": {"type": "webrtc", "sdp": sdp}}
        async with http.post("/v1/live/sessions", json=body, headers=bearer(600)) as response:
            session = (await response.json())["session"]["id"]
        return f"/v1/live/sessions/{session}/attach"
    if door == "call_id":
        headers = {**bearer(600), "Content-Type": "application/sdp"}
        async with http.post("/v1/realtime/calls", data=sdp, headers=headers) as response:
            session = response.headers["Location"].rsplit("/", 1)[1]
        return f"/v1/realtime?call_id={session}"
    async with http.post("/api/offer", json={"sdp": sdp, "type": "offer"}, headers=bearer(600)) as response:
        session = (await response.json())["session"]
    return f"/api/sessions/{session}/events"
