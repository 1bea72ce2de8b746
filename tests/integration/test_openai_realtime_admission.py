"""OpenAI Realtime by WebSocket: who gets a session, and of which model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp

from rtc_server.access import credentials
from rtc_server.app import Server
from tests.conftest import running_server
from tests.support.openai_realtime import realtime_client
from tests.support.openai_realtime_talk import url


async def refused(at: str, **more: Any) -> tuple[int, str]:
    """Status and code of a socket that is not opened: as a program gets to know it."""
    async with aiohttp.ClientSession() as http:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers = upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} | more.pop("headers", {})
        async with http.get(at, headers=headers, **more) as response:
            return response.status, (await response.json())["error"]["code"]


async def test_an_unknown_model(server: Server) -> None:
    assert await refused(url(server, "?model=gpt-5")) == (404, "model_not_found")
    origin = {"Origin": f"http://127.0.0.1:{server.port}"}
    async with realtime_client(url(server, "?model=gpt-5"), None, headers=origin) as client:
        assert await client.listened() == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.last("error")["error"]["code"] == "model_not_found"


async def test_a_full_server_says_so_before_and_after_the_upgrade() -> None:
    async with running_server("--model", "echo", "--echo-slots", "1") as server, realtime_client(url(server)):
        assert await refused(url(server)) == (503, "server_full")
        origin = {"Origin": f"http://127.0.0.1:{server.port}"}
        async with realtime_client(url(server), None, headers=origin) as client:
            assert await client.listened() == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert client.last("error")["error"]["code"] == "server_full"


async def test_a_model_that_is_loading(server: Server) -> None:
    await server.engines["echo"].close()
    assert await refused(url(server)) == (503, "engine_unavailable")


async def test_keys_and_client_secrets(tmp_path: Path) -> None:
    key, path = credentials.new_key(), tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    async with running_server("--model", "echo", "--auth", str(path)) as server:
        for wrong in (None, "nonsense", "ek_nonsense"):
            headers = {} if wrong is None else {"Authorization": f"Bearer {wrong}"}
            assert await refused(url(server), headers=headers) == (401, "invalid_api_key")
        bearer = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http:
            secrets_url = f"http://127.0.0.1:{server.port}/v1/realtime/client_secrets"
            body = {"session": {"type": "realtime", "model": "echo"}}
            async with http.post(secrets_url, json=body, headers=bearer) as answer:
                secret = (await answer.json())["value"]
        async with realtime_client(url(server), None, headers=bearer) as client:
            await client.comes("session.created")
        for query in ("", "?model=echo"):
            offered = ["realtime", f"openai-insecure-api-key.{secret}"]
            async with realtime_client(url(server, query), None, protocols=offered) as client:
                assert (await client.comes("session.created"))["session"]["model"] == "echo"
        server.access.today = lambda: time.time() + 601
        assert await refused(url(server), headers={"Authorization": f"Bearer {secret}"}) == (401, "invalid_api_key")
