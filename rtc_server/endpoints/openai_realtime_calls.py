"""OpenAI Realtime over WebRTC: an offer makes a call, whose events go over its data channel, and to sockets that its
application's own server opens beside it (``?call_id=``).
"""

from __future__ import annotations

import time
from typing import Any, Final

from aiohttp import hdrs, web

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_models import service_for
from rtc_server.endpoints.openai_realtime_talk import OPTIONS, RealtimeTalk, settings_of
from rtc_server.endpoints.socket_transport import SocketTransport, as_long_as_its_token
from rtc_server.endpoints.sockets import Message
from rtc_server.errors import UnknownSession
from rtc_server.protocols.events import ServerEvent
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_CALL_BYTES
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.ids import without_prefix
from rtc_server.protocols.openai.realtime_calls import CALL_PREFIX, SDP_TYPE, read_call
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.sessions.session import Session
from rtc_server.sessions.transport import Transport, TransportOwner
from rtc_server.signaling import REGISTRY, WEBRTC, location_of
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes
from rtc_server.webrtc.connection import Connection
from rtc_server.webrtc.gateway import Answer, connection_of

PATH: Final = "/v1/realtime/calls"

routes = Routes(errors=Envelope.OPENAI)


class CallTalk:
    """What is spoken on one call's data channel: a :class:`rtc_server.webrtc.channel.ChannelLanguage`, and the port of
    its conversation."""

    label = "oai-events"

    def __init__(self, settings: RealtimeSettings) -> None:
        self.beside: set[Sideband] = set()
        self._talk = RealtimeTalk(settings, self, by_event=False)
        self._settings = settings
        self._told: list[str] = []
        self._forgets = False

    def outgoing(self, message: str, event: ServerEvent | None) -> list[str]:
        if event is not None:
            self._talk.conversation.on_event(event, time.monotonic())
        return self.take()

    def incoming(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> list[str]:
        self._talk.obey(message, transport, owner)
        if self._forgets:
            self._forgets = False
            transport.clear()
        return self.take()

    def voice(self, pcm: FloatArray, now: float) -> tuple[FloatArray, list[str]]:
        conversation = self._talk.conversation
        conversation.on_frame(b"", now)
        return audio.silence(pcm.size) if conversation.silenced else pcm, self.take()

    def created(self) -> str:
        """What one that comes to it later is told first."""
        return self._talk.conversation.created()

    def take(self) -> list[str]:
        """What is to be sent on the channel."""
        told, self._told = self._told, []
        return told

    def say(self, event: str) -> None:
        self._told.append(event)
        for each in self.beside:
            each.say(event)

    def take_audio(self, raw: bytes, audio_format: AudioFormat) -> None:
        """Audio comes beside the events."""

    def forget_audio(self) -> None:
        """None waits: it comes in real time."""

    def forget_voice(self) -> None:
        self._forgets = True


class Sideband(SocketTransport):
    """A socket beside a call: it gets the call's events and may send its own. It carries no audio."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        talk: CallTalk,
        request: web.Request,
        socket: web.WebSocketResponse,
    ) -> None:
        super().__init__(session.listeners, request, socket)
        self.name = "OpenAI Realtime, beside a call"
        self.connected = True
        self._session = session
        self._connection = connection
        self._talk = talk

    def greeting(self) -> list[Message]:
        return [self._talk.created()]

    async def take(self, message: Message) -> None:
        if self.owner is not None:
            self._connection.say(self._talk.incoming(message, self._connection, self._session))

    def send(self, message: str, event: ServerEvent | None) -> bool:
        """It is told what the call's channel is told."""
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        """It has no sound."""

    def voice(self, pcm: FloatArray) -> Message:
        raise AssertionError("it has no sound")


@routes.add("POST", PATH, Policy(is_offer=True, spread=True, max_body_bytes=MAX_CALL_BYTES))
async def call(request: web.Request) -> web.Response:
    """Raises UnsupportedMediaType, BadEvent, UnknownModel, and what :meth:`WebRtc.open` does."""
    sdp, session = read_call(request.headers.get(hdrs.CONTENT_TYPE, ""), await request.read())
    name = _model(session) or request.query.get("model")
    service = service_for(request, name)

    def speak(opened: Session) -> CallTalk:
        settings = settings_of(request, opened, name)
        settings.update(session)
        return CallTalk(settings)

    answer = await request.app[WEBRTC].open(sdp, service, OPTIONS, visitor_of(request), resumable=False, language=speak)
    return call_answer(request, PATH, answer)


def call_answer(request: web.Request, path: str, answer: Answer) -> web.Response:
    """The answer to the offer of a call, which is below ``path`` from now on."""
    return web.Response(
        status=201,
        text=answer.sdp,
        content_type=SDP_TYPE,
        headers={
            "Location": location_of(request, f"{path}/{CALL_PREFIX}{answer.resource}"),
            "Cache-Control": "no-store",
        },
    )


@routes.add("POST", f"{PATH}/{{call}}/hangup", Policy(when_crowded=True, session="call"))
async def hang_up(request: web.Request) -> web.Response:
    """Raises UnknownSession."""
    await request.app[REGISTRY].end(without_prefix(request.match_info["call"], CALL_PREFIX), visitor_of(request))
    return web.Response()


async def attend(request: web.Request, socket: web.WebSocketResponse, call_id: str) -> None:
    """The life of a socket beside a call, to the end of either. Raises UnknownSession, ServerFull before it begins."""
    session = request.app[REGISTRY].get(without_prefix(call_id, CALL_PREFIX), visitor_of(request))
    connection = connection_of(session)
    talk = connection.language
    if not isinstance(talk, CallTalk):
        raise UnknownSession
    sideband = Sideband(session, connection, talk, request, socket)
    session.listeners.admit(lambda _: sideband)
    talk.beside.add(sideband)
    try:
        await socket.prepare(request)
        with as_long_as_its_token(request, sideband):
            await sideband.run()
    except ConnectionError:
        pass
    finally:
        talk.beside.discard(sideband)
        session.listeners.on_gone(sideband, orderly=False)


def _model(session: dict[str, Any]) -> str | None:
    model = session.get("model")
    if model is not None and not isinstance(model, str):
        raise BadEvent("invalid_value", "It must be a text.", "session.model")
    return model
