"""A whole server with few file descriptors: calls go on, health is told, and all else is refused in words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lab.sound.tones import Ear, tone
from rtc_server.client import VoiceClient
from tests.support.calls import assert_serves, offering
from tests.support.server_process import ServerProcess, server_process

pytestmark = pytest.mark.slow

FEW = 64


@contextlib.asynccontextmanager
async def server_with_files(option: str) -> AsyncIterator[ServerProcess]:
    """``option``: of the shell's ``ulimit``."""
    within = ("bash", "-c", f'ulimit {option} {FEW} && exec "$@"', "bash")
    async with server_process("--model", "echo", within=within) as server:
        await server.wait_ready(90)
        yield server
        assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]


@contextlib.asynccontextmanager
async def silent_connections(server: ServerProcess, number: int) -> AsyncIterator[None]:
    port = int(server.url.rsplit(":", 1)[1])
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    try:
        yield
    finally:
        for _, writer in opened:
            writer.close()


async def ask(server: ServerProcess, path: str) -> tuple[int, str | None, str | None]:
    """Status, code and Retry-After."""
    async with aiohttp.ClientSession() as http, http.get(server.url + path) as response:
        error = (await response.json()).get("error", {}) if response.content_type == "application/json" else {}
        return response.status, error.get("code"), response.headers.get("Retry-After")


async def test_connections_leave_the_media_its_share() -> None:
    ear = Ear()
    async with server_with_files("-n") as server, VoiceClient(server.url, tone(500), on_voice=ear) as client:
        await client.wait_for("connected")
        await ear.until_voice()
        for _ in range(2):
            async with silent_connections(server, 2 * FEW):
                for _ in range(3):
                    assert await ask(server, "/healthz") == (200, None, None)
                    assert await ask(server, "/readyz") == (200, None, None)
                    for path in ("/status", "/", "/static/main.js", "/api/config"):
                        assert await ask(server, path) == (503, "too_many_connections", "5")
                heard = ear.samples
                await ear.hear(0.5)
                assert ear.samples > heard
                await ear.until_voice()
        await until_served(server)
        await assert_serves(server.url)


async def test_calls_end_before_the_files_do() -> None:
    """As many as there is room for; the next is refused in words, and once one has ended there is room for another."""
    async with server_with_files("-n") as server, offering() as body, aiohttp.ClientSession() as http:

        async def offer() -> tuple[int, dict[str, Any]]:
            async with http.post(f"{server.url}/api/offer", json=body) as response:
                return response.status, await response.json()

        sessions: list[str] = []
        status, answer = await offer()
        while status == 201:
            sessions.append(answer["session"])
            assert len(sessions) < FEW
            status, answer = await offer()
        assert (status, answer["error"]["code"]) == (503, "too_many_connections")
        assert len(sessions) > FEW // 8
        assert (await ask(server, "/healthz"))[0] == 200
        for session in sessions:
            async with http.delete(f"{server.url}/api/sessions/{session}") as response:
                assert response.status == 204
        await until_served(server)
        assert (await offer())[0] == 201


async def test_listeners_end_before_the_files_do() -> None:
    """Of a few sessions, which may have eight each."""
    async with server_with_files("-n") as server, offering() as body, aiohttp.ClientSession() as http:
        sdp = {"data": body["sdp"], "headers": {"Content-Type": "application/sdp"}}
        published: list[str] = []
        for _ in range(3):
            async with http.post(f"{server.url}/whip/echo", **sdp) as response:
                assert response.status == 201
                published.append(response.headers["Location"].rsplit("/", 1)[1])
        statuses: list[int] = []
        for session in published:
            for _ in range(8):
                async with http.post(f"{server.url}/whep/{session}", **sdp) as response:
                    statuses.append(response.status)
                    if response.status != 201:
                        problem = await response.json(content_type=None)
                        assert (response.status, problem["code"]) == (503, "too_many_connections")
        assert {201, 503} == set(statuses)
        assert (await ask(server, "/healthz"))[0] == 200


async def test_a_soft_limit_is_no_limit() -> None:
    async with server_with_files("-Sn") as server, silent_connections(server, 2 * FEW):
        assert (await ask(server, "/status"))[0] == 200


async def until_served(server: ServerProcess) -> None:
    async with asyncio.timeout(10):
        while (await ask(server, "/status"))[0] != 200:  # noqa: ASYNC110 - another process changes
            await asyncio.sleep(0.05)
