"""Clients of speech-to-text that send no audio, or answer no pings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode

from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.endpoints.asr_socket import SocketLimits
from tests.support.asr import (
    AsrClosed,
    AsrSocketClient,
    asr_client,
    asr_server,
)
from tests.support.parrot import Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


@pytest.mark.parametrize("says", [None, {"type": "Init"}, {"type": "Audio", "pcm": []}, {"type": "Marker", "id": 1}])
async def test_one_without_audio_is_sent_away(server: Server, says: dict[str, Any] | None) -> None:
    """It holds a place that others want. What it says instead, again and again, does not count."""
    server.asr_sockets.limits = SocketLimits(first_audio_s=0.4)

    async def chatter(client: AsrSocketClient) -> None:
        with contextlib.suppress(ConnectionError):
            while says is not None:
                await client.send(says)
                await asyncio.sleep(0.05)

    async with asr_client(server) as client:
        talking = asyncio.create_task(chatter(client), name="chatter")
        error = await client.until("Error")
        assert (error["code"], error["message"]) == ("request_timeout", "No audio came for 0.4 s.")
        with pytest.raises(AsrClosed) as closed:
            await client.next()
        assert closed.value.code == WSCloseCode.POLICY_VIOLATION
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


@pytest.mark.slow
async def test_audio_that_waits_to_be_heard_is_no_silence() -> None:
    """The model takes longer than a client may be quiet."""
    limits = SocketLimits(idle_s=1.5, ping_s=5.0)
    async with asr_server(lambda: Parrot(heads=1, step_s=0.04), limits) as server, asr_client(server) as client:
        await client.send_audio(numbered(60))
        await client.until("Step", step_idx=60)
        assert "1.5 s" in (await client.until("Error"))["message"]


async def test_who_sends_nothing_is_sent_away(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(idle_s=0.4, ping_s=0.3)
    async with asr_client(server) as client:
        await client.until("Ready")
        started_at = time.monotonic()
        assert "0.4 s" in (await client.until("Error"))["message"]
        assert time.monotonic() - started_at > 0.2


async def test_text_does_not_count_as_something(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(idle_s=0.4, ping_s=0.3)

    async def chatter(client: AsrSocketClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await client.socket.send_str("still here")
                await client.socket.ping()
                await asyncio.sleep(0.02)

    async with asr_client(server) as client:
        talking = asyncio.create_task(chatter(client), name="chatter")
        await client.until("Error")
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


@pytest.mark.slow
async def test_who_answers_pings_and_sends_now_and_then_stays(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet for longer than pings may go unanswered (two), and all in all longer than nothing valid may come."""
    ping, pings = aiohttp.web.WebSocketResponse.ping, 0

    async def counted(response: aiohttp.web.WebSocketResponse, message: bytes = b"") -> None:
        nonlocal pings
        pings += 1
        await ping(response, message)

    monkeypatch.setattr(aiohttp.web.WebSocketResponse, "ping", counted)
    server.asr_sockets.limits = SocketLimits(idle_s=4.0, ping_s=1.0)
    async with asr_client(server) as client:
        reading = asyncio.create_task(client.until("Marker"), name="reading")  # and answering
        for quiet in (3, 6):
            await client.send_audio(numbered(1))
            await until(lambda quiet=quiet: pings >= quiet, "three pings")  # type: ignore[misc]
        await client.send({"type": "Marker", "id": 1})
        await client.send_audio(audio.silence(10 * FRAME_SAMPLES))
        await reading
        assert not client.of("Error")


async def test_who_does_not_answer_pings_is_gone(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(ping_s=0.1, close_s=0.1)
    async with asr_client(server, autoping=False) as client:
        await client.until("Ready")
        await until(lambda: len(server.asr_sockets) == 0)
        assert server.engines["transcribe"].slots_used == 0


async def test_pings_of_clients_are_answered(server: Server) -> None:
    async with asr_client(server, autoping=False) as client:
        await client.until("Ready")
        await client.socket.ping(b"hello")
        message = await client.socket.receive(20)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"hello")
