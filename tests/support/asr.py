"""Servers with the service ``transcribe``, and a client that does what Kyutai's own scripts do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgpack
import numpy as np

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.config import Settings, parse
from rtc_server.endpoints.asr_socket import SocketLimits
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import StreamingModel
from rtc_server.metrics import Metrics
from rtc_server.services import make_engines
from tests.conftest import UNLIMITED

PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def asr_server(
    model: Callable[[], StreamingModel], limits: SocketLimits | None = None, *arguments: str
) -> AsyncIterator[Server]:
    """A server whose service ``transcribe`` is ``model``, in a thread; at the end nothing of its sockets is left."""

    def engines(settings: Settings, metrics: Metrics) -> dict[str, Engine]:
        transcriber = EngineClient("transcribe", lambda: LocalLink(model), metrics)
        return {**make_engines(settings, metrics), "transcribe": transcriber}

    settings = parse(["--port", "0", "--model", "echo", "--vad", "off", *UNLIMITED, *arguments], environment={})
    server = Server(settings, make_engines=engines)
    if limits is not None:
        server.asr_sockets.limits = limits
    async with running(server):
        yield server


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    await server.start()
    try:
        await server.wait_ready()
        yield server
        await until(lambda: not len(server.asr_sockets))
        assert server.engines["transcribe"].slots_used == 0
    finally:
        await server.stop(0.0)
    assert len(server.asr_sockets) == 0
    assert not asr_tasks()


def asr_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("asr", "transcribe"))]


def packed(message: object) -> bytes:
    """As Kyutai's scripts do it."""
    raw = msgpack.packb(message, use_bin_type=True, use_single_float=True)
    assert isinstance(raw, bytes)
    return raw


def packed_audio(pcm: FloatArray | list[float]) -> bytes:
    return packed({"type": "Audio", "pcm": [float(sample) for sample in pcm]})


class AsrClosed(Exception):
    """The server has closed the socket, with this code."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(str(code))


@dataclass
class AsrSocketClient:
    """One socket, message by message. ``messages``: all that has been read."""

    socket: aiohttp.ClientWebSocketResponse
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, message: object) -> None:
        await self.socket.send_bytes(packed(message))

    async def send_audio(self, pcm: FloatArray | list[float]) -> None:
        await self.socket.send_bytes(packed_audio(pcm))

    async def next(self) -> dict[str, Any]:
        """Raises AsrClosed, TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise AsrClosed(self.socket.close_code)
        self.messages.append(msgpack.unpackb(message.data, raw=False))
        return self.messages[-1]

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of the type with these fields."""
        while True:
            message = await self.next()
            if message["type"] == kind and fields.items() <= message.items():
                return message

    async def to_the_end(self) -> None:
        """Read until the server closes."""
        with contextlib.suppress(AsrClosed):
            while True:
                await self.next()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def words(self) -> list[str]:
        return [message["text"] for message in self.of("Word")]


def asr_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/api/asr-streaming"


@contextlib.asynccontextmanager
async def asr_client(server: Server, query: str = "", **options: Any) -> AsyncIterator[AsrSocketClient]:
    # A client that leaves need not wait for an answer.
    timeout = aiohttp.ClientWSTimeout(ws_close=1.0)
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(asr_url(server) + query, timeout=timeout, **options) as ws,
    ):
        yield AsrSocketClient(ws)


async def kyutai_file_script(server: Server, pcm: FloatArray, rtf: float = 1000.0) -> list[dict[str, Any]]:
    """What ``stt_from_file_rust_server.py`` of Kyutai's delayed-streams-modeling does with a file, step by step."""
    headers = {"kyutai-api-key": "public_token"}
    async with asr_client(server, headers=headers) as client:
        _, transcript = await asyncio.gather(_send_file(client, pcm, rtf), _receive_transcript(client.next))
    return transcript


async def _send_file(client: AsrSocketClient, pcm: FloatArray, rtf: float) -> None:
    loop = asyncio.get_running_loop()
    await client.send_audio([0.0] * MODEL_RATE_HZ)
    started_at = loop.time()
    for start in range(0, pcm.size, FRAME_SAMPLES):
        await client.send_audio(pcm[start : start + FRAME_SAMPLES])
        due_at = started_at + (start + 1) / MODEL_RATE_HZ / rtf
        await asyncio.sleep(max(0.001, due_at - loop.time()))
    for _ in range(5):
        await client.send_audio([0.0] * MODEL_RATE_HZ)
    await client.send({"type": "Marker", "id": 0})
    with contextlib.suppress(ConnectionError):  # of websockets' client, too, the other side of gather is done by then
        for _ in range(35):
            await client.send_audio([0.0] * MODEL_RATE_HZ)


async def _receive_transcript(next_message: Callable[[], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    transcript: list[dict[str, Any]] = []
    while True:
        data = await next_message()
        if data["type"] == "Word":
            transcript.append({"text": data["text"], "timestamp": [data["start_time"], data["start_time"]]})
        if data["type"] == "EndWord" and transcript:
            transcript[-1]["timestamp"][1] = data["stop_time"]
        if data["type"] == "Marker":
            return transcript


def noise(seconds: float, seed: int) -> FloatArray:
    """Whole frames, each of its own loudness, so that a tiny model has something to tell apart; within ±1."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * MODEL_RATE_HZ / FRAME_SAMPLES)
    loudness = rng.uniform(0.001, 0.3, size=(frames, 1))
    pcm = loudness * rng.standard_normal((frames, FRAME_SAMPLES))
    return np.clip(pcm, -1.0, 1.0).astype(np.float32).reshape(-1)
