"""The transports of clients that only listen to a session."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.errors import ServerFull, UnknownSession
from rtc_server.protocols import events
from rtc_server.sessions.transport import Transport

logger = logging.getLogger(__name__)

MAX_LISTENERS: Final = 8


class SharedAudio(Protocol):
    """The voice for several listeners whose transports do not each queue their own."""

    def play(self, pcm: FloatArray, now: float) -> None:
        """Queue a frame of the model's voice: mono float32 at 24 kHz."""

    def clear(self) -> None:
        """Forget the voice that has not left yet."""

    async def close(self) -> None:
        """No more is sent. Idempotent."""


class Listeners:
    """The listeners of one session. One that does not connect in time, falls silent or leaves is forgotten.

    Owns their transports, and is told what happens to them (:class:`~rtc_server.sessions.transport.TransportOwner`).
    """

    def __init__(self, settings: Settings, log_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._log_id = log_id
        self._clock = clock
        self._numbers = itertools.count(1)
        self._listeners: dict[str, Transport] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.shared: SharedAudio | None = None
        """Set by the kind of transport that has such."""

    def __len__(self) -> int:
        return len(self._listeners)

    def admit(self, make: Callable[[str], Transport]) -> str:
        """Take in one more: ``make`` makes its transport, given its name in the log. Returns the listener's id.
        Raises ServerFull."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise ServerFull("This session has all the listeners it may have.")
        name = str(next(self._numbers))
        self._listeners[name] = make(f"{self._log_id}/{name}")
        return name

    def get(self, name: str) -> Transport:
        """Raises UnknownSession."""
        try:
            return self._listeners[name]
        except KeyError:
            raise UnknownSession from None

    def has(self, name: str) -> bool:
        """Whether it is still there."""
        return name in self._listeners

    def remove(self, name: str) -> None:
        """Send a listener away. Raises UnknownSession."""
        self.get(name)
        self._dismiss(name)

    def play(self, pcm: FloatArray, now: float) -> None:
        """Voice for all of them."""
        if self.shared is not None:
            self.shared.play(pcm, now)
        for listener in self._listeners.values():
            if listener.connected:
                listener.play(pcm, now)

    def clear(self) -> None:
        """The model was interrupted: no listener hears what is still waiting."""
        if self.shared is not None:
            self.shared.clear()
        for listener in self._listeners.values():
            listener.clear()

    async def look(self) -> None:
        """Forget those who have gone without a word."""
        for name, listener in list(self._listeners.items()):
            now = self._clock()
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
        if self.shared is not None:
            await self.shared.close()

    def _dismiss(self, name: str) -> None:
        transport = self._listeners.pop(name)
        transport.retire()
        task = asyncio.create_task(transport.close(), name=f"listener-close-{self._log_id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def on_audio(self, transport: Transport, pcm: FloatArray, now: float) -> None:
        """A listener's microphone is not heard."""

    def on_connected(self, transport: Transport) -> None:
        logger.info("session %s: a listener, %d in all", self._log_id, len(self._listeners))

    def on_channel_open(self, transport: Transport) -> None:
        """Listeners get the voice and no events."""

    def on_channel_closed(self, transport: Transport) -> None:
        """Nor do they miss any."""

    def on_message(self, transport: Transport, message: str | bytes) -> None:
        """A listener has nothing to say."""

    def on_command(self, transport: Transport, command: events.ClientMessage) -> None:
        """In whatever protocol."""

    def on_refused(self, transport: Transport) -> None:
        """Nor does it get a word in with nonsense."""

    def on_finished(self, transport: Transport) -> None:
        """Its going is told by :meth:`on_gone`."""

    def on_gone(self, transport: Transport, orderly: bool) -> None:
        name = next((name for name, each in self._listeners.items() if each is transport), None)
        if name is not None:
            self._dismiss(name)

    def on_first_voice(self, transport: Transport) -> None:
        """Only the speaker's is measured."""
