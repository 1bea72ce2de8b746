"""A client of OpenAI Realtime's WebSocket that sends and keeps events, good ones and bad ones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np

from lab.waiting import until
from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from tests.support.moshi import Microphone, silence
from tests.support.pace import every_frame

DELTA = "response.output_audio.delta"


def pcm16(pcm: FloatArray) -> str:
    """As ``input_audio_buffer.append`` has it."""
    return base64.b64encode(audio.to_int16(pcm).astype("<i2").tobytes()).decode()


class RealtimeClient:
    """``said``: the events that came, without the audio. ``sound``: its bytes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, microphone: Microphone) -> None:
        self.socket = socket
        self.said: list[dict[str, Any]] = []
        self.sound: list[bytes] = []
        self._microphone = microphone

    @property
    def heard(self) -> FloatArray:
        """The voice so far, of PCM at 24 kHz."""
        return audio.from_int16(np.frombuffer(b"".join(self.sound), "<i2"))

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.said]

    def last(self, type_: str) -> dict[str, Any]:
        return next(event for event in reversed(self.said) if event["type"] == type_)

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": type_, **fields}))

    async def append(self, pcm: FloatArray) -> None:
        await self.send("input_audio_buffer.append", audio=pcm16(pcm))

    async def comes(self, type_: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """The last event of a type, when there is one."""
        await until(lambda: type_ in self.types, type_, timeout_s)
        return self.last(type_)

    async def talk(self) -> None:
        """A frame each 80 ms."""
        async for _ in every_frame():
            if self.socket.closed:
                return
            await self.append(self._microphone(FRAME_SAMPLES))

    async def listen(self) -> None:
        async for message in self.socket:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            event = json.loads(message.data)
            if event["type"] == DELTA:
                self.sound.append(base64.b64decode(event["delta"]))
            else:
                self.said.append(event)

    async def listened(self, timeout_s: float = 20.0) -> int | None:
        """The close code, when the server has closed."""
        await until(lambda: self.socket.closed, "the close", timeout_s)
        return self.socket.close_code


@contextlib.asynccontextmanager
async def realtime_client(
    url: str,
    microphone: Microphone | None = silence,
    headers: Mapping[str, str] | None = None,
    protocols: Sequence[str] = (),
) -> AsyncIterator[RealtimeClient]:
    """Listens inside, and talks, unless it has no ``microphone``."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers, protocols=protocols) as socket:
        client = RealtimeClient(socket, microphone or silence)
        tasks = [asyncio.create_task(client.listen())]
        if microphone is not None:
            tasks.append(asyncio.create_task(client.talk()))
        try:
            yield client
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
