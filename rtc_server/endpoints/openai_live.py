"""OpenAI Live over a WebSocket: ``/v1/live/sessions``.

The transport of such a session, and the handler that opens it. What the events are is ``protocols.openai.live``'s; all
else is the session's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

from aiohttp import WSMsgType, web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_live_calls import PATH, expires_at, live_id
from rtc_server.endpoints.openai_live_talk import LiveTalk
from rtc_server.endpoints.openai_models import service_for
from rtc_server.endpoints.socket_transport import SocketTransport, refuse, session_socket, until_over
from rtc_server.endpoints.sockets import Message, Turn, receive_data
from rtc_server.errors import RateLimited, RequestTimeout, ServerError
from rtc_server.media.plain import PlainReader, PlainWriter
from rtc_server.media.quiet import QuietGate
from rtc_server.protocols import events
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_EVENT_BYTES
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.live import BadStart, LiveSession, SessionConfig
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportFigures, TransportOwner
from rtc_server.signaling import REGISTRY
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of_a_socket
from rtc_server.web.routes import Policy, Routes

_START_S: Final = 10.0
"""For a client to say how its session shall be."""
_BAD_BEFORE_START: Final = 10
_AUDIO_BYTES_PER_S: Final = 640_000
"""Of base64 that is looked into: ten times what audio at 24 kHz has in real time."""
_AUDIO_BURST_BYTES: Final = MAX_EVENT_BYTES
_LEAST_BYTES: Final = 1024
"""What an event with audio counts as at least: to read it takes time, however little there is in it."""
_DROPPED_BYTES_PER_S: Final = 4 * 1024 * 1024
"""Read and dropped, beyond that: so slowly that others have their time, and so fast that pings behind it are seen."""
_TELL_DROPS_S: Final = 5.0
_BASE64: Final = 4 / 3
"""Characters for a byte."""

routes = Routes(errors=Envelope.OPENAI)


class LiveTransport(SocketTransport):
    """One client's WebSocket: events with audio in base64, both ways all the time."""

    endpoint = "openai_live"

    def __init__(
        self,
        owner: TransportOwner,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: LiveSession,
        audio_format: AudioFormat,
    ) -> None:
        super().__init__(owner, request, socket)
        self.name = f"OpenAI Live, {audio_format.type} at {audio_format.rate_hz} Hz"
        self._unread_bytes = 0
        """Of base64, not looked into: it came faster than anyone speaks."""
        self._bytes_per_ms = audio_format.rate_hz * audio_format.sample_bytes / 1000 * _BASE64
        self._talk = LiveTalk(session, self._on_audio)
        self._reader = PlainReader(audio_format)
        self._writer = PlainWriter(audio_format)
        self._quiet = QuietGate()
        self._audio = TokenBucket(_AUDIO_BYTES_PER_S, _AUDIO_BURST_BYTES, self.opened_at)
        self._drops_told_at = self.opened_at - _TELL_DROPS_S

    def send(self, message: str, event: events.ServerEvent | None) -> bool:
        """Say a session's event in the words of this protocol."""
        if not self.channel_open:
            return False
        told: list[Message] = [*self._talk.outgoing(message, event)]
        if isinstance(event, events.Disconnected):
            self.reason = EndReason(event.reason)
            self.last_words = told
        else:
            for text in told:
                self.say(text)
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        pcm, _ = self._talk.voice(pcm, now)
        super().play(self._quiet.pass_on(pcm), now)

    def voice(self, pcm: FloatArray) -> Message:
        return live.audio_event(self._writer.write(pcm))

    async def look(self) -> TransportFigures:
        return replace(await super().look(), heard_dropped_ms=self._unread_bytes / self._bytes_per_ms)

    async def take(self, message: Message) -> None:
        """Obey an event, or refuse it."""
        if self.owner is None:
            return
        audio_bytes = len(message) if live.is_audio(message) else 0
        if audio_bytes and not self._audio.allow(time.monotonic(), max(_LEAST_BYTES, audio_bytes)):
            await self._drop(audio_bytes)
            return
        for reply in self._talk.incoming(message, self, self.owner):
            self.say(reply)

    def _on_audio(self, raw: bytes) -> None:
        self.hear(self._reader.read(raw))

    async def _drop(self, audio_bytes: int) -> None:
        self._unread_bytes += audio_bytes
        now = time.monotonic()
        if now - self._drops_told_at >= _TELL_DROPS_S:
            self._drops_told_at = now
            self.say(live.refusal(RateLimited("Audio comes faster than it lasts. What is too much is dropped.")))
        await asyncio.sleep(max(_LEAST_BYTES, audio_bytes) / _DROPPED_BYTES_PER_S)


@routes.get(PATH, Policy(), head=False)
async def converse(request: web.Request) -> web.WebSocketResponse:
    """A conversation with one of the server's models, for clients of OpenAI Live."""
    registry = request.app[REGISTRY]
    registry.admission.require_open()
    socket = session_socket(request, 2 * MAX_EVENT_BYTES)
    await socket.prepare(request)
    start_id = None
    try:
        async with asyncio.timeout(_START_S):
            start = await _started(socket)
        if start is not None:
            config, start_id = start
            with registry.counted():
                await _open(request, socket, config, start_id)
    except TimeoutError:
        error = RequestTimeout("No session.start came.")
        await refuse(request, socket, error, live.refusal(error))
    except ServerError as error:
        await refuse(request, socket, error, live.refusal(error, start_id))
    except ConnectionError:
        pass
    return socket


async def _started(socket: web.WebSocketResponse) -> tuple[SessionConfig, str | None] | None:
    """How the client wants its session; None if it left. What comes before that is refused and may be followed by it.
    Raises BadEvent."""
    turn = Turn()
    for attempt in range(1, _BAD_BEFORE_START + 1):
        message = await receive_data(socket, turn)
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return None
        try:
            return live.read_start(message.data)
        except BadStart:
            raise
        except BadEvent as error:
            if attempt == _BAD_BEFORE_START:
                raise
            await socket.send_str(live.refusal(error))
    return None


async def _open(
    request: web.Request, socket: web.WebSocketResponse, config: SessionConfig, start_id: str | None
) -> None:
    visitor = visitor_of_a_socket(request)
    assert config.format is not None, "a start on a socket has a format"
    service = service_for(request, config.model)
    opening = request.app[REGISTRY].opening(service, OfferOptions(), visitor, resumable=False)
    async with opening as session:
        spoken = LiveSession(live_id(session), expires_at(request, visitor), config, start_id)
        transport = LiveTransport(session, request, socket, spoken, config.format)
        session.attach(transport)
        session.start()
    await until_over(session, transport)
