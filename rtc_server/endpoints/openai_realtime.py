"""OpenAI Realtime over a WebSocket: ``/v1/realtime?model=NAME``, or ``?call_id=`` for one beside a call by WebRTC.

The transport of such a session, and the handler that opens it. What the events are, and when they are said, is
``protocols.openai.realtime``'s; all else is the session's.
"""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_models import service_for
from rtc_server.endpoints.openai_realtime_calls import attend
from rtc_server.endpoints.openai_realtime_talk import OPTIONS, RealtimeTalk, settings_of
from rtc_server.endpoints.paced_transport import PacedTransport
from rtc_server.endpoints.socket_transport import session_socket, telling_refusals, until_over
from rtc_server.endpoints.sockets import Message
from rtc_server.media.plain import PlainReader, PlainWriter
from rtc_server.protocols import events
from rtc_server.protocols.openai.events import MAX_EVENT_BYTES, error_event
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportOwner
from rtc_server.signaling import REGISTRY
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of_a_socket
from rtc_server.web.routes import Policy, Routes

MAX_MESSAGE_BYTES: Final = 2 * MAX_EVENT_BYTES
"""An event that is longer than it may be is told so; twice as long, and the socket is closed."""

routes = Routes(errors=Envelope.OPENAI)


class RealtimeTransport(PacedTransport):
    """One client's WebSocket: events, and audio in them. A client is there from its first event on, audio or not."""

    endpoint = "openai_realtime"

    def __init__(
        self, owner: TransportOwner, request: web.Request, socket: web.WebSocketResponse, settings: RealtimeSettings
    ) -> None:
        super().__init__(owner, request, socket)
        self.name = "OpenAI Realtime"
        self._talk = RealtimeTalk(settings, self, by_event=True)
        self._settings = settings
        self._reader_format = settings.input_format
        self._reader = PlainReader(settings.input_format)
        self._writer_format = settings.output_format
        self._writer = PlainWriter(settings.output_format)
        self._played = False

    async def take(self, message: Message) -> None:
        """One of the client's events. Raises RateLimited for a flood of audio."""
        if self.owner is None:
            return
        self.count(message)
        if self._talk.obey(message, self, self.owner):
            self.arrive()

    def send(self, message: str, event: events.ServerEvent | None) -> bool:
        if not self.channel_open:
            return False
        if isinstance(event, events.Disconnected):
            self.reason = EndReason(event.reason)
        if event is not None:
            self._talk.conversation.on_event(event, time.monotonic())
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        """In order with all other events, as soon as it is there: it comes from the model in real time."""
        if not self.connected:
            return
        if self._writer_format is not self._settings.output_format:
            self._writer_format = self._settings.output_format
            self._writer = PlainWriter(self._writer_format)
        self._talk.conversation.on_frame(self._writer.write(pcm), now)
        if not self._played and self.owner is not None:
            self._played = True
            self.owner.on_first_voice(self)

    def voice(self, pcm: FloatArray) -> Message:
        raise AssertionError("a frame goes out in an event")

    def take_audio(self, raw: bytes, audio_format: AudioFormat) -> None:
        if audio_format is not self._reader_format:
            self._reader_format, self._reader = audio_format, PlainReader(audio_format)
        self.take_pcm(self._reader.read(raw))

    def forget_voice(self) -> None:
        """None waits here: each frame is an event, which goes out at once."""


@routes.get("/v1/realtime", Policy(session="call_id"), head=False)
async def realtime(request: web.Request) -> web.WebSocketResponse:
    """One socket's life."""
    socket = session_socket(request, MAX_MESSAGE_BYTES)
    call_id = request.query.get("call_id")
    async with telling_refusals(request, socket, lambda error: error_event(error, "event_id")):
        with request.app[REGISTRY].counted():
            await (_open(request, socket) if call_id is None else attend(request, socket, call_id))
    return socket


async def _open(request: web.Request, socket: web.WebSocketResponse) -> None:
    name = request.query.get("model")
    service = service_for(request, name)
    visitor = visitor_of_a_socket(request)
    async with request.app[REGISTRY].opening(service, OPTIONS, visitor, resumable=False) as session:
        settings = settings_of(request, session, name)
        transport = RealtimeTransport(session, request, socket, settings)
        await socket.prepare(request)
        session.attach(transport)
        session.start()
    await until_over(session, transport)
