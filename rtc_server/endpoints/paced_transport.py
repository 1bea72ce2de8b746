"""The WebSocket of a session whose client may send audio faster than it lasts: it is given on as its time comes."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import numpy as np
from aiohttp import web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.socket_transport import SocketTransport
from rtc_server.endpoints.sockets import Message
from rtc_server.errors import RateLimited
from rtc_server.media.paced import PacedAudio
from rtc_server.sessions.transport import TransportFigures, TransportOwner
from rtc_server.system.rate_limit import TokenBucket

_FEED_S: Final = 0.02
_BYTES_PER_S: Final = 512 * 1024
"""Eight times what audio of 24 kHz takes in base64, as it is spoken."""
_BYTE_BURST: Final = 16 * 1024 * 1024
_LEAST_BYTES: Final = 1024
"""What an event counts as at least: to read it takes time, however little audio there is in it."""


class PacedTransport(SocketTransport):
    """A client is there from its first event on, audio or not."""

    def __init__(self, owner: TransportOwner, request: web.Request, socket: web.WebSocketResponse) -> None:
        super().__init__(owner, request, socket)
        self._paced = PacedAudio(self.opened_at)
        self._feeding: asyncio.Task[None] | None = None
        self._bytes = TokenBucket(_BYTES_PER_S, _BYTE_BURST, self.opened_at)

    @property
    def audio_waits(self) -> bool:
        """Some of what the client has sent was not heard yet."""
        return self._paced.waiting_s > 0

    def forget_audio(self) -> None:
        self._paced.clear()

    async def look(self) -> TransportFigures:
        return TransportFigures(heard_dropped_ms=self._paced.dropped_s * 1000)

    async def close(self, flush: bool = True) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        await super().close(flush)

    def count(self, message: Message) -> None:
        """Raises RateLimited for a flood of audio."""
        if not self._bytes.allow(time.monotonic(), max(_LEAST_BYTES, len(message))):
            raise RateLimited("Audio comes faster than it lasts.")

    def take_pcm(self, pcm: FloatArray) -> None:
        """Samples at 24 kHz, for the session at the pace of real time."""
        self.arrive()
        self._give(self._paced.push(pcm, time.monotonic()))
        if self._paced.waiting_s and self._feeding is None and self.owner is not None:
            self._feeding = asyncio.create_task(self._feed(), name="paced-feed")

    def arrive(self) -> None:
        """The client has sent something."""
        if self.owner is not None and not self.connected:
            self.connected = True
            self.owner.on_connected(self)

    def _give(self, pieces: list[FloatArray]) -> None:
        if pieces:
            self.hear(np.concatenate(pieces))

    async def _feed(self) -> None:
        """What came early is given on as its time comes."""
        wheel = self.wheel
        try:
            while self._paced.waiting_s and self.owner is not None:
                await wheel.sleep_until(wheel.now() + _FEED_S)
                self._give(self._paced.poll(wheel.now()))
        finally:
            self._feeding = None
