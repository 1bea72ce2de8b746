"""A client of a WebSocket door that measures, as :mod:`bench.rtp_client` does.

It says a tape, piece by piece, and notes when each piece of sound came back. It has no buffer, and decodes no sound
while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import aiohttp

from bench.rtp_client import LATE_S, Arrival, CallLog
from bench.tape import OPUS_HZ, PACKET_S, Tape
from bench.wires import WIRES, Wire
from lab.network.sdp import Rewriter

_TURN: Final = 0x10000


class SocketClient:
    """One conversation. ``hang_up`` must be called, whatever happened.

    ``pieces``: of 20 ms, in a message. A client that puts more than one into it gathers them first: each piece counts
    as said when the microphone had it, not when the message went out. ``drift_ppm``: by how much its clock runs fast.
    """

    def __init__(self, url: str, door: str, tape: Tape, pieces: int = 1, drift_ppm: float = 0.0) -> None:
        self._wire: Wire = WIRES[door](tape)
        self.log = CallLog(decoder=self._wire.decoder)
        self._url = url.rstrip("/") + self._wire.path
        self._pieces = pieces
        self._piece_s = PACKET_S / (1 + drift_ppm * 1e-6)
        self._may_speak = asyncio.Event()
        self._over = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._sequence = 0
        self._timestamp = 0

    async def call(self, network: Rewriter | None = None, timeout_s: float = 20.0) -> None:
        """Connect, begin, and talk and listen from then on. Raises TimeoutError, aiohttp.ClientError."""
        self.log.began_at = self.log.offered_at = time.monotonic()
        http = await self._over.enter_async_context(aiohttp.ClientSession())
        socket = await self._over.enter_async_context(http.ws_connect(self._url, max_msg_size=0))
        self.log.answered_at = time.monotonic()
        for message in self._wire.opening():
            await _send(socket, message)
        self._tasks = [asyncio.create_task(self._listen(socket), name="listen")]
        async with asyncio.timeout(timeout_s):
            await self._may_speak.wait()
        self.log.connected_at = time.monotonic()
        self._tasks.append(asyncio.create_task(self._talk(socket), name="talk"))

    async def hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._over.aclose()

    @property
    def lost(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        message_s = self._piece_s * self._pieces
        due = time.monotonic() + message_s
        while True:
            now = time.monotonic()
            if now - due > LATE_S:
                due = now
            await asyncio.sleep(max(0.0, due - now))
            first = len(self.log.sent)
            message = self._wire.say(range(first, first + self._pieces))
            now = time.monotonic()
            self.log.sent += [now - (self._pieces - 1 - number) * self._piece_s for number in range(self._pieces)]
            await _send(socket, message)
            due += message_s

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            at = time.monotonic()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return
            if not self._may_speak.is_set() and self._wire.may_speak(message.data):
                self._may_speak.set()
            for payload, samples in self._wire.heard(message.data):
                self.log.arrivals.append(Arrival(at, self._sequence % _TURN, self._timestamp, payload))
                self._sequence += 1
                self._timestamp += samples
                at += samples / OPUS_HZ  # can be played behind the one before it, and no sooner


async def _send(socket: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
