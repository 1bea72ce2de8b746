"""Those who only listen to a session: a peer connection each, with a playout buffer of its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import Final

from aiortc.rtp import RtpPacket

from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.errors import ServerFull, UnknownSession
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.protocols.offer import Offer
from rtc_server.webrtc.connection import Connection
from rtc_server.webrtc.ice import MediaAddresses

logger = logging.getLogger(__name__)

MAX_LISTENERS: Final = 8


class Audience:
    """The listeners of one session. One that does not connect in time, falls silent or leaves is forgotten."""

    def __init__(self, settings: Settings, addresses: MediaAddresses, log_id: str) -> None:
        self._settings = settings
        self._addresses = addresses
        self._log_id = log_id
        self._numbers = itertools.count(1)
        self._listeners: dict[str, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    async def admit(self, offer: Offer) -> tuple[str, Connection, str]:
        """Answer a listener's offer: its id, its connection, the answer. Raises ServerFull, BadSdp, NoPort."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise ServerFull("This session has all the listeners it may have.")
        name = str(next(self._numbers))
        playout = PlayoutBuffer(self._settings.playout_margin_ms)
        connection = Connection(self, offer, playout, self._settings, self._addresses, f"{self._log_id}/{name}")
        self._listeners[name] = connection
        try:
            answer = await connection.answer()
        except BaseException:  # cancelled included: what it took must go back
            self._dismiss(name)
            raise
        return name, connection, answer

    def get(self, name: str) -> Connection:
        """Raises UnknownSession."""
        try:
            return self._listeners[name]
        except KeyError:
            raise UnknownSession from None

    def remove(self, name: str) -> None:
        """Send a listener away. Raises UnknownSession."""
        self.get(name)
        self._dismiss(name)

    def play(self, pcm: FloatArray, now: float) -> None:
        """Voice for all of them."""
        for listener in self._listeners.values():
            if listener.connected:
                listener.play(pcm, now)

    def clear(self) -> None:
        """The model was interrupted: nobody hears what is still waiting."""
        for listener in self._listeners.values():
            listener.playout.clear()

    async def look(self) -> None:
        """Forget those who have gone without a word."""
        for name, listener in list(self._listeners.items()):
            now = time.monotonic()
            if listener.connected:
                await listener.look()
                gone = listener.silent_s(now) > self._settings.peer_timeout_s
            else:
                gone = now - listener.opened_at > self._settings.connect_timeout_s
            if gone and name in self._listeners:
                self._dismiss(name)

    async def close(self) -> None:
        """Send all of them away, and wait for it."""
        for name in list(self._listeners):
            self._dismiss(name)
        await asyncio.gather(*self._closing)

    def _dismiss(self, name: str) -> None:
        connection = self._listeners.pop(name)
        connection.retire()
        task = asyncio.create_task(connection.close(), name=f"listener-close-{self._log_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def on_packet(self, connection: Connection, codec: str, packet: RtpPacket) -> None:
        """A listener's microphone is nobody's business."""

    def on_connected(self, connection: Connection) -> None:
        logger.info("session %s: a listener, %d in all", self._log_id, len(self._listeners))

    def on_channel_open(self, connection: Connection) -> None:
        """Listeners get the voice and no events."""

    def on_channel_closed(self, connection: Connection) -> None:
        """Nor do they miss any."""

    def on_message(self, connection: Connection, message: str | bytes) -> None:
        """A listener has nothing to say."""

    def on_gone(self, connection: Connection, orderly: bool) -> None:
        name = next((name for name, each in self._listeners.items() if each is connection), None)
        if name is not None:
            self._dismiss(name)

    def on_first_voice(self, connection: Connection) -> None:
        """Only the speaker's is measured."""
