"""How streams of speech-to-text end: by the client, the engine, the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from rtc_server.endpoints.asr_socket import SocketLimits
from tests.support.asr import (
    AsrClosed,
    asr_client,
    asr_server,
    asr_tasks,
)
from tests.support.asr_words import transcribed
from tests.support.parrot import BREAK, DELAY_FRAMES, Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


def broken_frame() -> FloatArray:
    return np.full(FRAME_SAMPLES, BREAK, dtype=np.float32)


@pytest.mark.parametrize("manner", ["close", "abort"])
async def test_a_client_that_leaves_in_the_middle_of_a_word_leaves_nothing(server: Server, manner: str) -> None:
    engine = server.engines["transcribe"]
    for _ in range(5):
        async with asr_client(server) as client:
            await client.send_audio(numbered(DELAY_FRAMES + 1))
            await client.until("Step", step_idx=DELAY_FRAMES + 1)
            assert engine.slots_used == 1
            if manner == "abort":
                transport = client.socket._conn.transport if client.socket._conn else None
                assert transport is not None
                transport.abort()
        await until(lambda: engine.slots_used == 0 and len(server.asr_sockets) == 0)
        await until(lambda: not asr_tasks())


async def test_a_client_that_leaves_while_it_is_held_back_leaves_nothing() -> None:
    async with asr_server(lambda: Parrot(step_s=0.002), SocketLimits(buffered_s=1.0)) as server:
        async with asr_client(server) as client:
            await client.send_audio(numbered(100))
            await client.send_audio(numbered(100))
        await until(lambda: server.engines["transcribe"].slots_used == 0 and not asr_tasks())


async def test_an_engine_that_breaks_is_told_and_comes_back(server: Server) -> None:
    async with asr_client(server) as client, asr_client(server) as idle:
        await idle.until("Ready")
        await client.send_audio(broken_frame())
        for each in (client, idle):
            assert "failed" in (await each.until("Error"))["message"]
            with pytest.raises(AsrClosed):
                await each.next()
    await until(lambda: server.engines["transcribe"].ready)
    async with asr_client(server) as client:
        assert await transcribed(client, numbered(1)) == ["1"]


async def test_a_server_that_stops_tells_and_closes(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        await client.send_audio(numbered(1))
        stopping = asyncio.create_task(server.stop(0.0), name="stop")
        assert "shutting down" in (await client.until("Error"))["message"]
        with pytest.raises(AsrClosed):
            await client.next()
        await stopping
    assert not asr_tasks()


async def test_a_server_that_stops_gives_streams_time_to_end(server: Server) -> None:
    async with asr_client(server) as client:
        await client.until("Ready")
        stopping = asyncio.create_task(server.stop(100.0), name="stop")
        await until(lambda: server.admission.draining)
        assert await transcribed(client, numbered(2)) == ["1", "2"]
    started_at = time.monotonic()
    await stopping
    assert time.monotonic() - started_at < 50, "the rest of the time is not waited for"
    assert not client.of("Error")


async def test_a_server_that_stops_does_not_wait_for_who_does_not_read(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(close_s=0.2)
    async with asr_client(server, autoping=False, autoclose=False) as client:
        await client.until("Ready")
        started_at = time.monotonic()
        await server.stop(0.0)
        assert time.monotonic() - started_at < 5
