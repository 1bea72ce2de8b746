"""OpenAI Live over WebRTC: a ``POST`` with the offer in JSON makes a session, and events go over its data channel."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from rtc_server.access.principals import Visitor
from rtc_server.endpoints.openai_live_talk import LiveTalk
from rtc_server.endpoints.openai_models import service_for
from rtc_server.errors import UnsupportedMediaType
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.events import MAX_CALL_BYTES
from rtc_server.protocols.openai.ids import without_prefix
from rtc_server.protocols.openai.live import LiveSession
from rtc_server.sessions.session import Session
from rtc_server.signaling import REGISTRY, WEBRTC, location_of
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

PATH: Final = "/v1/live/sessions"
_PREFIX: Final = "live_"
_JSON: Final = "application/json"

routes = Routes(errors=Envelope.OPENAI)


def live_id(session: Session) -> str:
    """A session's id as clients of this protocol know it."""
    return _PREFIX + session.id.text


def expires_at(request: web.Request, visitor: Visitor) -> float:
    """When a session of the visitor that this request opens ends, in seconds since 1970."""
    return time.time() + request.app[REGISTRY].admission.longest_s(visitor)


@routes.add("POST", PATH, Policy(is_offer=True, spread=True, max_body_bytes=MAX_CALL_BYTES))
async def call(request: web.Request) -> web.Response:
    """Raises UnsupportedMediaType, BadEvent, UnknownModel, and what :meth:`WebRtc.open` does."""
    if request.content_type != _JSON:
        raise UnsupportedMediaType(_JSON)
    config, sdp = live.read_call(await request.read())
    visitor = visitor_of(request)
    ends_at = expires_at(request, visitor)
    answer = await request.app[WEBRTC].open(
        sdp,
        service_for(request, config.model),
        OfferOptions(),
        visitor,
        resumable=False,
        language=lambda session: LiveTalk(
            LiveSession(live_id(session), ends_at, config),
            client_events=config.client_events,
            server_events=config.server_events,
        ),
    )
    name = _PREFIX + answer.resource
    return web.json_response(
        {"session": {"id": name}, "transport": {"type": "webrtc", "sdp": answer.sdp}},
        status=201,
        headers={"Location": location_of(request, f"{PATH}/{name}"), "Cache-Control": "no-store"},
    )


@routes.add("POST", f"{PATH}/{{session}}/hangup", Policy(when_crowded=True, session="session"))
async def hang_up(request: web.Request) -> web.Response:
    """Raises UnknownSession."""
    await request.app[REGISTRY].end(session_id(request), visitor_of(request))
    return web.Response()


def session_id(request: web.Request) -> str:
    """Of the session that a request's path names. Raises UnknownSession."""
    return without_prefix(request.match_info["session"], _PREFIX)
