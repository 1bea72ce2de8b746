"""A client of Moshi's WebSocket with Kyutai's own codec (``sphn``), that talks at the pace of a microphone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import aiohttp
import numpy as np
import sphn

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.protocols.moshi import MOSHI, Dialect, Kind
from tests.support.pace import every_frame

Microphone = Callable[[int], FloatArray]
"""Called with a number of samples; returns that many, mono float32 at 24 kHz."""


class MoshiClient:
    """``messages``: what came, whole. ``heard``: the voice so far. ``closed``: code and reason, once it is over."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, microphone: Microphone, dialect: Dialect) -> None:
        self.socket = socket
        self.messages: list[bytes] = []
        self.most_audio_at_once = 0
        self._microphone = microphone
        self._dialect = dialect
        self._writer = sphn.OpusStreamWriter(MODEL_RATE_HZ)
        self._reader = sphn.OpusStreamReader(MODEL_RATE_HZ)
        self._heard: list[FloatArray] = []

    @property
    def text(self) -> str:
        return "".join(m[1:].decode() for m in self.messages if m[0] == self._dialect.text)

    @property
    def heard(self) -> FloatArray:
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    def kinds(self) -> list[int]:
        return [message[0] for message in self.messages]

    async def talk(self) -> None:
        """A frame each 80 ms."""
        async for _ in every_frame():
            if self.socket.closed:
                return
            pages = self._writer.append_pcm(self._microphone(FRAME_SAMPLES))
            await self.socket.send_bytes(bytes([Kind.AUDIO]) * self._dialect.tagged + pages)

    async def listen(self) -> None:
        async for message in self.socket:
            assert message.type is aiohttp.WSMsgType.BINARY, message
            self.messages.append(message.data)
            if message.data[0] == Kind.AUDIO and self._dialect.speaks:
                pcm = self._reader.append_bytes(message.data[1:])
                self._heard.append(pcm)
                self.most_audio_at_once = max(self.most_audio_at_once, pcm.size)

    async def listened(self, timeout_s: float = 20.0) -> tuple[int | None, list[bytes]]:
        """Listen until the server closes: the close code, and what came."""
        async with asyncio.timeout(timeout_s):
            await self.listen()
        return self.socket.close_code, self.messages


def silence(samples: int) -> FloatArray:
    return np.zeros(samples, np.float32)


@contextlib.asynccontextmanager
async def moshi_client(
    url: str,
    microphone: Microphone = silence,
    dialect: Dialect = MOSHI,
    headers: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> AsyncIterator[MoshiClient]:
    """Talks and listens inside, unless it is ``quiet``: then it does neither by itself."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, headers=headers) as socket:
        client = MoshiClient(socket, microphone, dialect)
        if quiet:
            yield client
            return
        tasks = [asyncio.create_task(work()) for work in (client.talk, client.listen)]
        try:
            yield client
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
