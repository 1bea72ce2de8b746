"""A second connection to a session of OpenAI Live over WebRTC, for an application's own server: it reads the events,
and may mute, change and end the session. It carries no audio.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_live_calls import PATH, session_id
from rtc_server.endpoints.openai_live_talk import LiveTalk
from rtc_server.endpoints.socket_transport import CLOSE_S, SocketTransport, as_long_as_its_token, session_socket
from rtc_server.endpoints.sockets import Message
from rtc_server.errors import ServerFull, UnknownSession
from rtc_server.protocols.events import ServerEvent
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.events import MAX_PLAIN_BYTES
from rtc_server.protocols.openai.live import LiveSession
from rtc_server.sessions.session import Session
from rtc_server.signaling import REGISTRY
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes
from rtc_server.webrtc.gateway import connection_of

routes = Routes(errors=Envelope.OPENAI)


class Attached(SocketTransport):
    """One such connection, among the listeners of its session; but it hears nothing."""

    def __init__(
        self, session: Session, spoken: LiveSession, request: web.Request, socket: web.WebSocketResponse
    ) -> None:
        super().__init__(session.listeners, request, socket)
        self.connected = True
        self._session = session
        self._spoken = spoken
        self._talk = LiveTalk(spoken)
        self._following = asyncio.create_task(self._follow(), name="live-attached")

    def greeting(self) -> list[Message]:
        return list(self._spoken.started())

    def send(self, message: str, event: ServerEvent | None) -> bool:
        """Events are read where all followers of a session read them."""
        return False

    def play(self, pcm: FloatArray, now: float) -> None:
        """It carries no audio."""

    def voice(self, pcm: FloatArray) -> Message:
        raise AssertionError("it plays nothing")

    async def take(self, message: Message) -> None:
        if self.owner is not None:
            for reply in self._talk.incoming(message, self, self._session):
                self.say(reply)

    async def close(self, flush: bool = True) -> None:
        """After the session's last event, if it has ended."""
        if self._session.outbox.closed:
            await asyncio.wait({self._following}, timeout=CLOSE_S)
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await super().close(flush)

    async def _follow(self) -> None:
        outbox = self._session.outbox
        try:
            async with outbox.following(outbox.last) as following:
                async for _, text, event in following:
                    for told in self._talk.outgoing(text, event):
                        self.say(told)
        except ServerFull as error:
            self.say(live.refusal(error))


@routes.get(f"{PATH}/{{session}}/attach", Policy(session="session"), head=False)
async def attach(request: web.Request) -> web.WebSocketResponse:
    """Raises UnknownSession, also for a session that is not OpenAI Live's over WebRTC; ServerFull."""
    session = request.app[REGISTRY].get(session_id(request), visitor_of(request))
    language = connection_of(session).language
    if not isinstance(language, LiveTalk):
        raise UnknownSession
    socket = session_socket(request, 2 * MAX_PLAIN_BYTES)
    attached = Attached(session, language.session, request, socket)
    try:
        session.listeners.admit(lambda _: attached)
        await socket.prepare(request)
        with as_long_as_its_token(request, attached):
            await attached.run()
    except ConnectionError:
        session.listeners.on_gone(attached, orderly=False)
    finally:
        await asyncio.shield(attached.close())
    return socket
