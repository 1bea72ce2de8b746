"""A client of OpenAI Live over a WebSocket that sends what a test wants, and talks at the pace of a microphone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import numpy as np

from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from rtc_server.media.plain import PlainReader, PlainWriter
from rtc_server.protocols.openai.formats import AudioFormat
from tests.support.moshi import Microphone, silence
from tests.support.pace import every_frame


class LiveClient:
    """``events``: what came, but audio; ``heard``: the voice so far, at 24 kHz; ``chunks``: how it came, in bytes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, microphone: Microphone, form: AudioFormat) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.chunks: list[bytes] = []
        self._microphone = microphone
        self._writer = PlainWriter(form)
        self._reader = PlainReader(form)
        self._heard: list[FloatArray] = []

    @property
    def heard(self) -> FloatArray:
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    @property
    def text(self) -> str:
        return "".join(event["delta"] for event in self.all("session.output_transcript.delta"))

    def all(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type_]

    def codes(self) -> list[str]:
        """Of all errors."""
        return [event["error"]["code"] for event in self.all("error")]

    async def say(self, type_: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": type_, **fields}))

    async def append(self, pcm: FloatArray) -> None:
        await self.append_bytes(self._writer.write(pcm))

    async def append_bytes(self, raw: bytes) -> None:
        await self.say("session.input_audio.append", audio=base64.b64encode(raw).decode())

    async def wait_for(self, type_: str) -> dict[str, Any]:
        """The first of its kind."""
        await until(lambda: self.all(type_) or self.socket.closed, type_)
        assert self.all(type_), f"closed with {self.socket.close_code} after {self.events}"
        return self.all(type_)[0]

    async def talk(self) -> None:
        """A frame each 80 ms, once the session has started."""
        await self.wait_for("session.started")
        async for _ in every_frame():
            if self.socket.closed:
                return
            await self.append(self._microphone(FRAME_SAMPLES))

    async def listen(self) -> None:
        async for message in self.socket:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            event = json.loads(message.data)
            if event["type"] == "session.output_audio.delta":
                self.chunks.append(base64.b64decode(event["delta"], validate=True))
                self._heard.append(self._reader.read(self.chunks[-1]))
            else:
                self.events.append(event)


@contextlib.asynccontextmanager
async def live_client(
    url: str,
    microphone: Microphone = silence,
    *,
    form: AudioFormat = AudioFormat.PCM_24K,
    session: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    protocols: tuple[str, ...] = (),
    starts: bool = True,
    talks: bool = True,
) -> AsyncIterator[LiveClient]:
    """Listens inside. ``starts``: begins with a session of ``form``, and with what is in ``session``. ``talks``:
    sends what its microphone hears, once it has started."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{url}/v1/live/sessions", headers=headers, protocols=protocols, max_msg_size=0) as socket,
    ):
        client = LiveClient(socket, microphone, form)
        tasks = [asyncio.create_task(client.listen())]
        if starts:
            config = {"model": "gpt-live-1", "audio": {"format": form.as_dict()}} | dict(session or {})
            await client.say("session.start", event_id="start", session=config)
        if starts and talks:
            tasks.append(asyncio.create_task(client.talk()))
        try:
            yield client
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
