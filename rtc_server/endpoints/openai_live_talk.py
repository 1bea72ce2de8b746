"""What is spoken in a session of OpenAI Live, over whatever it goes: a client's events are obeyed or refused, within
bounds, and the session's are told in the words of the protocol.

A WebSocket and a data channel each have one of these; audio in events is the WebSocket's own affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from rtc_server.audio import FloatArray
from rtc_server.errors import BadMessage, RateLimited
from rtc_server.protocols.events import ServerEvent
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.live import LiveSession
from rtc_server.sessions.session import MESSAGE_BURST, MESSAGES_PER_S
from rtc_server.sessions.transport import Transport, TransportOwner
from rtc_server.system.rate_limit import TokenBucket


class LiveTalk:
    """One client's. ``on_audio``: takes the bytes of audio that came in an event. ``client_events`` and
    ``server_events``: the types that may go each way; None is all.
    """

    label = "oai-events"

    def __init__(
        self,
        session: LiveSession,
        on_audio: Callable[[bytes], None] = lambda _: None,
        client_events: Collection[str] | None = None,
        server_events: Collection[str] | None = None,
    ) -> None:
        self.session = session
        self._client_events = client_events
        self._server_events = server_events
        self._on_audio = on_audio
        self._finished = False
        self._events = TokenBucket(MESSAGES_PER_S, MESSAGE_BURST, time.monotonic())

    def outgoing(self, message: str, event: ServerEvent | None) -> list[str]:
        """As :class:`rtc_server.webrtc.channel.ChannelLanguage` has it."""
        return [] if event is None else self._permitted(self.session.tell(event))

    def incoming(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> list[str]:
        """As :class:`rtc_server.webrtc.channel.ChannelLanguage` has it. After its goodbye a client is not
        listened to."""
        if self._finished:
            return []
        try:
            head = live.head_of(message)
            if head.type != live.APPEND_AUDIO and not self._events.allow(time.monotonic()):
                raise RateLimited
            if self._client_events is not None and head.type not in self._client_events:
                raise BadEvent("event_not_allowed", "This connection may not send that event.", "type", head.event_id)
            asked = self.session.receive(message, head)
        except (BadMessage, RateLimited) as error:
            owner.on_refused(transport)
            return self._permitted([live.refusal(error)])
        if asked.audio:
            self._on_audio(asked.audio)
        if asked.command is not None:
            owner.on_command(transport, asked.command)
        if asked.closes:
            self._finished = True
            owner.on_finished(transport)
        return self._permitted([] if asked.reply is None else [asked.reply])

    def voice(self, pcm: FloatArray, now: float) -> tuple[FloatArray, list[str]]:
        """As :class:`rtc_server.webrtc.channel.ChannelLanguage` has it: the voice goes out as it is."""
        self.session.play()
        return pcm, []

    def _permitted(self, told: list[str]) -> list[str]:
        if self._server_events is None:
            return told
        return [each for each in told if live.type_of(each) in self._server_events]
