"""OpenAI's translation sessions: ``/v1/realtime/translations`` as a WebSocket, its calls over WebRTC, and short-lived
keys for them.

What the events are is ``protocols.openai.translation``'s; what is translated, and how, is the rooms'.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import hdrs, web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_realtime_calls import call_answer, hang_up
from rtc_server.endpoints.openai_translation_talk import (
    TranslationTalk,
    booth_for,
    language_of,
    options_of,
    require_translation,
    session_in,
)
from rtc_server.endpoints.paced_transport import PacedTransport
from rtc_server.endpoints.rooms import LOBBY
from rtc_server.endpoints.socket_transport import session_socket, telling_refusals, until_over
from rtc_server.endpoints.sockets import Message
from rtc_server.errors import UnsupportedMediaType
from rtc_server.media.plain import PlainReader, PlainWriter
from rtc_server.protocols import events
from rtc_server.protocols.openai import translation
from rtc_server.protocols.openai.events import MAX_CALL_BYTES, MAX_EVENT_BYTES, MAX_PLAIN_BYTES, Head, read_event
from rtc_server.protocols.openai.ids import new_id
from rtc_server.protocols.openai.realtime_calls import read_call
from rtc_server.protocols.openai.translation import TranslationSession, Wish, read_wish
from rtc_server.rooms.lobby import Lobby
from rtc_server.services import TRANSLATE
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportOwner
from rtc_server.signaling import REGISTRY, WEBRTC
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import ACCESS, visitor_of, visitor_of_a_socket
from rtc_server.web.routes import NO_STORE, Policy, Routes

PATH: Final = "/v1/realtime/translations"
CALLS_PATH: Final = f"{PATH}/calls"
_JSON: Final = "application/json"

routes = Routes(errors=Envelope.OPENAI)


class TranslationTransport(PacedTransport):
    """One client's WebSocket: events, and audio in them."""

    endpoint = "openai_translation"

    def __init__(
        self,
        owner: TransportOwner,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: TranslationSession,
        lobby: Lobby,
    ) -> None:
        super().__init__(owner, request, socket)
        self.name = "OpenAI Realtime translation"
        self._session = session
        self._talk = TranslationTalk(session, lobby, self._on_audio, lambda: self.audio_waits)
        self._reader = PlainReader(translation.FORMAT)
        self._writer = PlainWriter(translation.FORMAT)

    async def take(self, message: Message) -> None:
        """One of the client's events. Raises RateLimited for a flood of audio."""
        if self.owner is None:
            return
        self.count(message)
        for reply in self._talk.incoming(message, self, self.owner):
            self.say(reply)
        self.arrive()

    def send(self, message: str, event: events.ServerEvent | None) -> bool:
        if not self.channel_open:
            return False
        told = self._talk.outgoing(message, event)
        if isinstance(event, events.Disconnected):
            self.reason = EndReason(event.reason)
            self.last_words = [*told]
        else:
            for each in told:
                self.say(each)
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        """In order with all other events. Where nothing is translated, nothing is sent."""
        if not self.connected:
            return
        elapsed_ms = self._session.elapsed_ms
        pcm, told = self._talk.voice(pcm, now)
        for each in told:
            self.say(each)
        if pcm.any():
            self.say(translation.audio_event(self._writer.write(pcm), elapsed_ms))

    def voice(self, pcm: FloatArray) -> Message:
        raise AssertionError("a frame goes out in an event")

    def _on_audio(self, raw: bytes) -> None:
        self.take_pcm(self._reader.read(raw))


@routes.get(PATH, Policy(), head=False)
async def translate(request: web.Request) -> web.WebSocketResponse:
    """One socket's life."""
    socket = session_socket(request, 2 * MAX_EVENT_BYTES)
    async with telling_refusals(request, socket, translation.refusal):
        with request.app[REGISTRY].counted():
            await _open(request, socket, request.query.get("model"))
    return socket


async def _open(request: web.Request, socket: web.WebSocketResponse, model: str | None) -> None:
    visitor, wish = visitor_of_a_socket(request), Wish()
    if not require_translation(request, model).pairs:  # clients do not wait for that before the upgrade
        await socket.prepare(request)
    async with booth_for(request, model, wish) as booth:
        opening = request.app[REGISTRY].opening(TRANSLATE, options_of(booth), visitor, resumable=False)
        async with opening as session:
            told = session_in(request, session, booth, model, wish, by_event=True)
            transport = TranslationTransport(session, request, socket, told, request.app[LOBBY])
            if not socket.prepared:
                await socket.prepare(request)
            session.attach(transport)
            session.start()
    await until_over(session, transport)


@routes.add("POST", CALLS_PATH, Policy(is_offer=True, spread=True, max_body_bytes=MAX_CALL_BYTES))
async def call(request: web.Request) -> web.Response:
    """Raises UnsupportedMediaType, BadEvent, UnknownModel, and what :meth:`WebRtc.open` does."""
    sdp, asked = read_call(request.headers.get(hdrs.CONTENT_TYPE, ""), await request.read())
    wish = read_wish(asked)
    model = wish.model or request.query.get("model")
    async with booth_for(request, model, wish) as booth:

        def speak(opened: Session) -> TranslationTalk:
            told = session_in(request, opened, booth, model, wish, by_event=False)
            return TranslationTalk(told, request.app[LOBBY])

        answer = await request.app[WEBRTC].open(
            sdp, TRANSLATE, options_of(booth), visitor_of(request), resumable=False, language=speak
        )
    return call_answer(request, CALLS_PATH, answer)


routes.add("POST", f"{CALLS_PATH}/{{call}}/hangup", Policy(when_crowded=True, session="call"))(hang_up)


class _ExpiresAfter(msgspec.Struct, frozen=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, msgspec.Meta(ge=10, le=7200)] = 600


class _SecretRequest(msgspec.Struct, frozen=True):
    session: dict[str, Any]
    expires_after: _ExpiresAfter = _ExpiresAfter()


_secrets: Final = msgspec.json.Decoder(_SecretRequest)


@routes.add("POST", f"{PATH}/client_secrets", Policy(is_offer=True, max_body_bytes=MAX_PLAIN_BYTES))
async def client_secret(request: web.Request) -> web.Response:
    """A key that translates for the client that asks, into the language that it names, and opens nothing else. Raises
    UnsupportedMediaType, BadEvent, UnknownModel, Forbidden."""
    request.app[REGISTRY].admission.require_open()  # none outlives this process
    if request.content_type != _JSON:
        raise UnsupportedMediaType(_JSON)
    asked = read_event(await request.read(), Head(""), _secrets)
    wish = read_wish(asked.session)
    lobby = require_translation(request, wish.model)
    await lobby.wake()
    tag, visitor, now = language_of(lobby, wish), visitor_of(request), time.time()
    value, expires_at = request.app[ACCESS].ephemeral.issue(
        visitor.principal, now, asked.expires_after.seconds, TRANSLATE, tag
    )
    longest_s = request.app[REGISTRY].admission.longest_s(visitor)
    session = TranslationSession(new_id("sess"), wish.model or TRANSLATE, now + longest_s, wish.language, by_event=True)
    session.change(wish)
    return web.json_response({"value": value, "expires_at": expires_at, "session": session.as_dict()}, headers=NO_STORE)
