"""What is spoken on a session's data channel: the server's own protocol, or another that a door brings along.

The connection knows neither. A language may keep state; each connection has one of its own.
"""

from __future__ import annotations

from typing import Protocol

from rtc_server.audio import FloatArray
from rtc_server.protocols.events import CHANNEL_LABEL, ServerEvent
from rtc_server.sessions.transport import Transport, TransportOwner


class ChannelLanguage(Protocol):
    """How messages go over a data channel. Methods return at once and do not raise."""

    @property
    def label(self) -> str:
        """Of the channel on which it is spoken; others are closed."""

    def outgoing(self, message: str, event: ServerEvent | None) -> list[str]:
        """What to send for a session's message: see :meth:`rtc_server.sessions.transport.Transport.send`."""

    def incoming(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> list[str]:
        """Tell the owner what a client's message means; returns what is to be answered at once."""

    def voice(self, pcm: FloatArray, now: float) -> tuple[FloatArray, list[str]]:
        """A frame of the model's voice on its way to the client, every 80 ms: what is to be played for it, and what to
        send because of it, or of the time. ``now``: in monotonic seconds."""


class OwnLanguage:
    """The server's own, of ``docs/protocol.md``: the session reads and writes it itself."""

    label = CHANNEL_LABEL

    def outgoing(self, message: str, event: ServerEvent | None) -> list[str]:
        return [message]

    def incoming(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> list[str]:
        owner.on_message(transport, message)
        return []

    def voice(self, pcm: FloatArray, now: float) -> tuple[FloatArray, list[str]]:
        return pcm, []
