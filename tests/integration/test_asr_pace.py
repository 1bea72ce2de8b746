"""Clients of speech-to-text, many at once, faster and slower than real time, and what may wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
import threading
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest

from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.endpoints.asr_socket import SocketLimits
from rtc_server.engine.model import BoolArray, RowOutput
from rtc_server.protocols import asr
from tests.support.asr import (
    AsrSocketClient,
    asr_client,
    asr_server,
    packed,
)
from tests.support.asr_words import transcribed
from tests.support.parrot import Parrot, numbered


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


async def test_sixteen_streams_at_once_have_each_its_own_words() -> None:
    async def stream(server: Server, number: int) -> None:
        pcm = numbered(25, first=1 + 25 * number)
        async with asr_client(server) as client:
            for start in range(0, pcm.size, 1000 + 100 * number):
                await client.send_audio(pcm[start : start + 1000 + 100 * number])
            assert await transcribed(client, audio.silence(0)) == [str(25 * number + n) for n in range(1, 26)]
            assert client.of("Word")[0]["start_time"] == 0.0

    async with asr_server(lambda: Parrot(slots=16, heads=4, step_s=0.002)) as server, asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(stream(server, number))


async def test_far_faster_than_the_model_is_held_back() -> None:
    """Half a minute of audio at once for a model that takes 5 ms a frame: nothing is lost, and little is kept."""
    limits = SocketLimits(buffered_s=2.0)
    frames = 400
    async with asr_server(lambda: Parrot(heads=1, step_s=0.005), limits) as server, asr_client(server) as client:
        tail = audio.silence(10 * FRAME_SAMPLES)

        async def pour() -> None:
            pcm = np.concatenate((numbered(frames), audio.silence(FRAME_SAMPLES)))
            for start in range(0, pcm.size, FRAME_SAMPLES):
                await client.send_audio(pcm[start : start + FRAME_SAMPLES])
            await client.send({"type": "Marker", "id": 0})
            await client.send_audio(tail)

        pouring = asyncio.create_task(pour(), name="pour")
        await client.until("Marker")
        await pouring
        assert client.words == [str(n) for n in range(1, frames + 1)]
        assert max(step["buffered_pcm"] for step in client.of("Step")) <= limits.buffered_s * MODEL_RATE_HZ + tail.size


class Waiting(Parrot):
    """Makes its first steps only when it is let."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__(heads=1)
        self._go = go

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self._go.wait(20)
        return super().step(pcm, active)


async def test_a_client_far_ahead_of_the_model_is_answered_its_pings() -> None:
    """Five minutes of audio at once, for a model that has heard next to nothing of it; then all words come."""
    go = threading.Event()
    pcm = np.concatenate([*[numbered(400)] * 9, numbered(150)])
    assert pcm.size == 300 * MODEL_RATE_HZ
    async with asr_server(lambda: Waiting(go)) as server, asr_client(server, autoping=False) as client:
        for start in range(0, pcm.size, asr.MAX_SAMPLES):
            await client.socket.send_bytes(asr.encode_client_message(asr.Audio(pcm[start : start + asr.MAX_SAMPLES])))
        await client.socket.ping(b"still there?")
        await client.until("Ready")
        message = await client.socket.receive(20)
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"still there?")
        go.set()
        words = await transcribed(client, audio.silence(0))
        assert words == [str(n) for numbers in [400] * 9 + [150] for n in range(1, numbers + 1)]
        assert client.of("Step")[0]["buffered_pcm"] > 290 * MODEL_RATE_HZ, "the model had not heard it"


async def test_all_clients_together_are_so_far_ahead_and_no_further() -> None:
    """One that is far ahead is held back for the others; each has some room of its own."""
    limits = SocketLimits(buffered_s=20.0, all_buffered_s=10.0, own_buffered_s=2.0)
    async with asr_server(lambda: Parrot(slots=2, heads=1, step_s=0.002), limits) as server:

        async def pour(client: AsrSocketClient) -> None:
            for start in range(0, frames * FRAME_SAMPLES, FRAME_SAMPLES):
                await client.send_audio(pcm[start : start + FRAME_SAMPLES])
            await transcribed(client, audio.silence(0))

        frames = 300
        pcm = numbered(frames)
        async with asr_client(server) as one, asr_client(server) as other, asyncio.TaskGroup() as group:
            for client in (one, other):
                group.create_task(pour(client))
        most = [max(step["buffered_pcm"] for step in client.of("Step")) / MODEL_RATE_HZ for client in (one, other)]
        assert max(most) <= limits.all_buffered_s + 1.0
        assert all(len(client.words) == frames for client in (one, other))


async def test_far_slower_than_real_time_is_heard(server: Server) -> None:
    async with asr_client(server) as client:
        pcm = numbered(3)
        for start in range(0, pcm.size, FRAME_SAMPLES // 2):
            await client.send_audio(pcm[start : start + FRAME_SAMPLES // 2])
            await asyncio.sleep(0.1)
        assert await transcribed(client, audio.silence(0)) == ["1", "2", "3"]


async def test_a_client_that_sends_and_does_not_read_fills_no_memory(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It is cut off once what it ought to read is more than a bounded queue.

    The server's side is looked at: a system whose receive buffer is full may not let its program know of the end.
    """
    server.asr_sockets.limits = SocketLimits(outgoing=50, close_s=0.2, first_audio_s=60.0)
    async with asr_client(server) as neighbour:
        with caplog.at_level("INFO", "rtc_server.endpoints.asr_socket"):
            flooding = asyncio.create_task(flood(server.port, packed({"type": "Init"})), name="flood")
            await until(lambda: "a transcription ends: bad_request" in caplog.text)
        await until(lambda: len(server.asr_sockets) == 1)
        assert await transcribed(neighbour, numbered(2)) == ["1", "2"]
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await flooding


async def flood(port: int, message: bytes) -> None:
    """A WebSocket by hand that sends ``message`` (short) for ever, and reads nothing."""
    request = (
        "GET /api/asr-streaming HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    frame = b"\x82" + bytes([0x80 | len(message)]) + bytes(4) + message
    loop = asyncio.get_running_loop()
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        await loop.sock_sendall(raw, request.encode())
        while True:
            await loop.sock_sendall(raw, 20 * frame)
            await asyncio.sleep(0)
