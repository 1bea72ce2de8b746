"""A client of OpenAI Realtime obeyed or refused, within bounds, whatever its events come by."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from rtc_server.errors import BadMessage, RateLimited
from rtc_server.protocols import events
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.openai.ids import new_id
from rtc_server.protocols.openai.realtime import Port, RealtimeConversation
from rtc_server.protocols.openai.realtime_events import is_audio
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.sessions.session import Session
from rtc_server.sessions.transport import Transport, TransportOwner
from rtc_server.signaling import REGISTRY
from rtc_server.system.rate_limit import TokenBucket

_EVENTS_PER_S: Final = 50
_EVENT_BURST: Final = 300
"""A client may begin with the items of an earlier conversation."""
_EVENT_BYTES: Final = 16 * 1024
"""A longer one counts as several."""

OPTIONS: Final = OfferOptions(captions=False)
"""Of a session that :class:`RealtimeTalk` is going to speak for."""


class RealtimeTalk:
    """One session's. ``by_event``: its voice travels in events. ``port``: where they go."""

    def __init__(self, settings: RealtimeSettings, port: Port, by_event: bool) -> None:
        self.conversation = RealtimeConversation(port, settings, by_event)
        self._by_event = by_event
        self._captions = False
        self._events = TokenBucket(_EVENTS_PER_S, _EVENT_BURST, time.monotonic())

    def obey(self, message: str | bytes, transport: Transport, owner: TransportOwner) -> bool:
        """Do what an event asks; whether it was one. Else its client is told why not."""
        now = time.monotonic()
        try:
            hears = self._by_event and is_audio(message)
            if not hears and not self._events.allow(now, 1 + len(message) // _EVENT_BYTES):
                raise RateLimited
            self.conversation.receive(message, now)
        except (BadMessage, RateLimited) as error:
            self.conversation.refuse(error)
            owner.on_refused(transport)
            return False
        self._want_captions(transport, owner)
        return True

    def _want_captions(self, transport: Transport, owner: TransportOwner) -> None:
        """A session is opened without: what its user says is written down once the client asks for it."""
        wanted = self.conversation.settings.transcribes
        if wanted is not self._captions:
            self._captions = wanted
            owner.on_command(transport, events.Settings(captions=wanted))


def settings_of(request: web.Request, session: Session, name: str | None) -> RealtimeSettings:
    """What a session is set to at its start. ``name``: the model as the client names it."""
    admission = request.app[REGISTRY].admission
    info = admission.engines[session.service].info
    type_ = "realtime" if info is None or info.speaks else "transcription"
    expires_at = int(time.time() + admission.longest_s(session.visitor))
    return RealtimeSettings(new_id("sess"), name or session.service, expires_at, type_)
