"""Opens, resumes and listens to sessions over WebRTC: an offer in, an answer out.

All endpoints that take an SDP offer come here. Owns where media is reached (:class:`MediaAddresses`); the sessions are
the registry's. Knows nothing of HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.errors import EngineUnavailable, NoAudio, UnknownSession
from rtc_server.media.opus import make_encoder
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.offer import Offer, read_offer
from rtc_server.sessions.listeners import Listeners
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.transport import Transport, TransportOwner
from rtc_server.webrtc.channel import ChannelLanguage
from rtc_server.webrtc.connection import Connection, Parts
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.outgoing_voice import OutgoingVoice, SharedVoice


@dataclass(frozen=True, slots=True)
class Answer:
    """An answered offer. ``resource``: the session's id, or session and listener; ``token`` resumes the session."""

    sdp: str
    resource: str
    etag: str
    token: str | None = None


class WebRtc:
    """The way in for peers. Raises ConfigError for wrong addresses."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._addresses = MediaAddresses.from_settings(settings)

    async def open(
        self,
        sdp: str,
        service: str | None,
        options: OfferOptions,
        visitor: Visitor,
        resumable: bool = True,
        language: Callable[[Session], ChannelLanguage | None] = lambda _: None,
    ) -> Answer:
        """Answer an offer with a new session. ``language``: makes that of its data channel, where it is not the
        server's own. Raises what :meth:`Registry.opening` does, and BadSdp, NoAudio, NoCommonCodec, NoPort."""
        with self._registry.counted():
            opening = self._registry.opening(service, options, visitor, resumable)
            offer = read_offer(sdp)
            async with opening as session:
                connection = self._connect(session, offer, visitor, session.id.log_id, language(session))
                session.attach(connection)
                answer = await connection.answer()
                token = session.start()
            return Answer(answer, session.id.text, connection.etag, token)

    async def resume(self, sdp: str, session_id: str, token: str, last_seq: int | None, visitor: Visitor) -> Answer:
        """Answer an offer with a session that is there already, here or at another media node. Raises what
        :meth:`Registry.resumable` does, and ResumeRefused, BadSdp, NoAudio, NoCommonCodec, NoPort."""
        with self._registry.counted():
            offer = read_offer(sdp)
            session = await self._registry.resumable(session_id, token, visitor)

            async def connect() -> tuple[Transport, str]:
                connection = self._connect(session, offer, visitor, session.id.log_id)
                try:
                    return connection, await connection.answer()
                except BaseException:  # cancelled included: what it took must go back
                    connection.retire()
                    await connection.close(flush=False)
                    raise

            resumed = await session.resume(token, sdp, last_seq, connect)
            return Answer(resumed.answer, session.id.text, connection_of(session).etag, resumed.token)

    async def listen(self, sdp: str, session_id: str, visitor: Visitor) -> Answer:
        """Answer the offer of a client that wants to hear a session's voice. Raises as :meth:`resume`, but for
        ResumeRefused, and what :meth:`Admission.admit_beside` does; ServerFull when the session has all the listeners
        it may have."""
        with self._registry.counted():
            self._registry.admission.admit_beside()
            session = self._registry.get(session_id, visitor)
            offer = read_offer(sdp)
            if not offer.receives:
                raise NoAudio("The offer does not want to receive audio.")
            listeners = session.listeners
            voice = self._shared_voice(listeners).share() if offer.codec == "OPUS" else None
            name = listeners.admit(lambda log_id: self._connect(listeners, offer, visitor, log_id, voice=voice))
            connection = listener_of(session, name)
            try:
                answer = await connection.answer()
            except BaseException as error:  # cancelled included: what it took must go back
                if listeners.has(name):
                    listeners.remove(name)
                elif isinstance(error, EngineUnavailable):  # the session has ended, or sent the listener away
                    raise UnknownSession from None
                raise
            return Answer(answer, f"{session.id.text}/{name}", connection.etag)

    def _connect(
        self,
        owner: TransportOwner,
        offer: Offer,
        visitor: Visitor,
        log_id: str,
        language: ChannelLanguage | None = None,
        voice: OutgoingVoice | None = None,
    ) -> Connection:
        towards = self._addresses.towards(visitor.address)
        parts = Parts(self._registry.wheel)
        return Connection(owner, offer, self._settings, towards, log_id, parts, language, voice)

    def _shared_voice(self, listeners: Listeners) -> SharedVoice:
        """The one of a session's listeners."""
        if not isinstance(listeners.shared, SharedVoice):
            settings = self._settings
            encode = functools.partial(make_encoder, settings.bitrate_bps, settings.opus_complexity)
            wheel = self._registry.wheel
            listeners.shared = SharedVoice(settings.playout_margin_ms, settings.bitrate_bps, encode, wheel)
        return listeners.shared


def connection_of(session: Session) -> Connection:
    """A session's connection. Raises UnknownSession for one that has none, or is reached in another way."""
    return _connection(session.transport)


def listener_of(session: Session, name: str) -> Connection:
    """The connection of one of its listeners. Raises UnknownSession."""
    return _connection(session.listeners.get(name))


def _connection(transport: Transport) -> Connection:
    if not isinstance(transport, Connection):
        raise UnknownSession
    return transport
