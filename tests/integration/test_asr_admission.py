"""Who gets a WebSocket of speech-to-text, and what the others are told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSCloseCode

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.config import parse
from tests.support.asr import (
    AsrClosed,
    asr_client,
    asr_server,
    asr_url,
)
from tests.support.asr_words import transcribed
from tests.support.parrot import Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


async def test_a_server_without_the_service_says_so_before_the_upgrade(base_url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{base_url}/api/asr-streaming") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "unknown_service"


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    server = Server(parse(["--port", "0", "--model", "echo"], environment={}))
    await server.start()
    await server.wait_ready()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop(0.0)


async def test_what_is_no_websocket_is_told_so(server: Server) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(asr_url(server)) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "bad_request"
        async with http.post(asr_url(server), data=b"audio") as response:
            assert response.status == 405
    assert len(server.asr_sockets) == 0


async def test_when_all_slots_are_taken_it_says_so_and_closes(server: Server) -> None:
    async with asr_client(server) as one, asr_client(server) as two:
        await one.until("Ready")
        await two.until("Ready")
        async with asr_client(server) as three:
            assert await three.next() == {
                "type": "Error",
                "message": "Every slot is taken. Try again in a few seconds.",
                "code": "server_full",
            }
            with pytest.raises(AsrClosed) as closed:
                await three.next()
            assert closed.value.code == WSCloseCode.TRY_AGAIN_LATER
        assert await transcribed(one, numbered(1)) == ["1"]
    await until(lambda: server.engines["transcribe"].slots_used == 0)
    async with asr_client(server) as client:
        await client.until("Ready")


async def test_an_engine_that_is_not_ready_is_told() -> None:
    async with asr_server(Parrot) as server:
        await server.engines["transcribe"].close()
        async with asr_client(server) as client:
            assert (await client.next())["type"] == "Error"
            with pytest.raises(AsrClosed):
                await client.next()


async def test_a_server_that_drains_lets_nobody_in(server: Server) -> None:
    server.admission.draining = True
    async with asr_client(server) as client:
        assert "shutting down" in (await client.until("Error"))["message"]
        with pytest.raises(AsrClosed):
            await client.next()
