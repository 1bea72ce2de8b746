"""A client of OpenAI's translation sessions obeyed or refused, within bounds, whatever its events come by; and the
booth that its session speaks in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import numpy as np
from aiohttp import web

from rtc_server.audio import FloatArray
from rtc_server.endpoints.openai_models import service_for
from rtc_server.endpoints.rooms import LOBBY
from rtc_server.errors import BadMessage, RateLimited, UnsupportedPair
from rtc_server.protocols.events import OfferOptions, ServerEvent, Settings
from rtc_server.protocols.openai import translation
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.models import UnknownModel
from rtc_server.protocols.openai.translation import TranslationSession, Wish
from rtc_server.protocols.rooms import RoomSettings
from rtc_server.rooms.booth import Booth, require_target
from rtc_server.rooms.lobby import Lobby
from rtc_server.services import TRANSLATE
from rtc_server.sessions.session import MESSAGE_BURST, MESSAGES_PER_S, Session
from rtc_server.sessions.transport import Transport, TransportOwner
from rtc_server.signaling import REGISTRY
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.translation.languages import tag_of
from rtc_server.web.gate import visitor_of

_PREFIX: Final = "sess_"
_FLUSH_S: Final = 3.0
"""After the last audio, for words that are under way, and for the detector to hear a pause."""
_LONGEST_FLUSH_S: Final = 20.0


class TranslationTalk:
    """One client's: a :class:`rtc_server.webrtc.channel.ChannelLanguage`. ``on_audio``: takes the bytes of audio that
    came in an event; ``waits``: whether some of it was not heard yet."""

    label = "oai-events"

    def __init__(
        self,
        session: TranslationSession,
        lobby: Lobby,
        on_audio: Callable[[bytes], None] = lambda _: None,
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self.session = session
        self._lobby = lobby
        self._on_audio = on_audio
        self._waits = waits
        self._events = TokenBucket(MESSAGES_PER_S, MESSAGE_BURST, time.monotonic())
        self._finish: Callable[[], None] | None = None
        """Ends the session, once the client has said its goodbye."""
        self._goodbye_at = self._heard_at = 0.0

    def outgoing(self, message: str, event: ServerEvent | None) -> list[str]:
        return [] if event is None else self.session.tell(event, time.monotonic())

    def incoming(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> list[str]:
        """After its goodbye a client is not listened to."""
        if self._finish is not None:
            return []
        cause = None
        try:
            head = translation.head_of(message)
            cause = head.event_id
            if head.type != translation.APPEND_AUDIO and not self._events.allow(time.monotonic()):
                raise RateLimited
            asked = self.session.receive(message, head)
            if asked.wish is not None:
                return [self._change(asked.wish, transport, owner)]
        except (BadMessage, RateLimited) as error:
            owner.on_refused(transport)
            return [translation.refusal(error, cause)]
        if asked.audio:
            self._on_audio(asked.audio)
        if asked.closes:
            self._goodbye_at = self._heard_at = time.monotonic()
            self._finish = lambda: owner.on_finished(transport)
            if not self._waits():
                owner.on_command(transport, Settings(muted=True))
        return []

    def voice(self, pcm: FloatArray, now: float) -> tuple[FloatArray, list[str]]:
        """The end comes when all has been said that was under way."""
        self.session.play()
        if self._finish is not None:
            if self._waits():
                self._heard_at = now
            quiet = self.session.is_quiet and not np.any(pcm) and now - self._heard_at >= _FLUSH_S
            if quiet or now - self._heard_at >= _LONGEST_FLUSH_S:
                self._finish()
        return pcm, []

    def _change(self, wish: Wish, transport: Transport, owner: TransportOwner) -> str:
        """Raises BadEvent."""
        if wish.language is not None:
            tag = language_of(self._lobby, wish)
            owner.on_command(transport, RoomSettings(language=tag))
        self.session.change(wish)
        return self.session.updated()


def language_of(lobby: Lobby, wish: Wish) -> str | None:
    """The language into which a client wants it translated, if it says one. Raises BadEvent for one that there is
    not."""
    if wish.language is None:
        return None
    tag = tag_of(wish.language)
    try:
        if tag is None:
            raise UnsupportedPair
        require_target(lobby, tag)
    except UnsupportedPair:
        targets = ", ".join(sorted({target for source, target in lobby.pairs if source in lobby.heard}))
        sentence = f"Nothing is translated into this language here. There are: {targets or 'none'}."
        raise BadEvent("invalid_value", sentence, "session.audio.output.language") from None
    return tag


def require_translation(request: web.Request, model: str | None) -> Lobby:
    """The rooms that a translation takes place in, by the model that a client names. Raises UnknownModel."""
    if LOBBY not in request.app or (model and service_for(request, model) != TRANSLATE):
        raise UnknownModel((TRANSLATE,) if LOBBY in request.app else tuple(request.app[REGISTRY].admission.engines))
    return request.app[LOBBY]


@contextlib.asynccontextmanager
async def booth_for(request: web.Request, model: str | None, wish: Wish) -> AsyncIterator[Booth]:
    """A booth, in which a session can be opened; it closes with that, or here if none was. Raises UnknownModel,
    BadEvent, UnsupportedPair, ServerFull."""
    lobby = require_translation(request, model)
    if not lobby.pairs:
        await lobby.wake()
    kept = visitor_of(request).principal.language
    booth = Booth(lobby, language_of(lobby, wish) or kept)
    try:
        yield booth
    except BaseException:
        booth.close()
        raise


def options_of(booth: Booth) -> OfferOptions:
    """Of the offer of a session in it."""
    return OfferOptions(member=booth.token)


def session_in(
    request: web.Request, opened: Session, booth: Booth, model: str | None, wish: Wish, by_event: bool
) -> TranslationSession:
    """What its client is told of it."""
    expires_at = time.time() + request.app[REGISTRY].admission.longest_s(opened.visitor)
    name = model or TRANSLATE
    session = TranslationSession(_PREFIX + opened.id.text, name, expires_at, wish.language or booth.target, by_event)
    session.change(wish)
    return session
