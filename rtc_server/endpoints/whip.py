"""The standard endpoints: WHIP (RFC 9725) to open a session, WHEP (draft-ietf-wish-whep) to hear its voice.

HTTP alone; no media logic: the gateway does the work. Errors are told as problem details (RFC 9457) by the
middleware that turns errors into answers.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from rtc_server.endpoints.ice_servers import links_for
from rtc_server.errors import BadSdp, UnknownSession, UnsupportedMediaType
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from rtc_server.signaling import REGISTRY, WEBRTC, location_of, take_candidates
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes
from rtc_server.webrtc.connection import Connection
from rtc_server.webrtc.gateway import Answer, connection_of, listener_of

SDP_TYPE: Final = "application/sdp"

_OFFER: Final = Policy(is_offer=True, spread=True)
_LISTEN: Final = Policy(is_offer=True, session="session")
_OF_ONE: Final = Policy(session="session")
_ENDS: Final = Policy(when_crowded=True, session="session")
_OPTIONS: Final = Policy(accept_post=SDP_TYPE)

routes = Routes(errors=Envelope.PROBLEM)


@routes.add("POST", "/whip/{service}", _OFFER)
async def publish(request: web.Request) -> web.Response:
    service, visitor = request.match_info["service"], visitor_of(request)
    sdp = await _read_sdp(request)
    answer = await request.app[WEBRTC].open(sdp, service, OfferOptions(), visitor, resumable=False)
    return _created(request, answer, f"/whip/{service}/{answer.resource}")


@routes.add("POST", "/whep/{session}", _LISTEN)
async def play(request: web.Request) -> web.Response:
    session, visitor = request.match_info["session"], visitor_of(request)
    answer = await request.app[WEBRTC].listen(await _read_sdp(request), session, visitor)
    return _created(request, answer, f"/whep/{answer.resource}")


@routes.add("PATCH", "/whip/{service}/{session}", _OF_ONE)
async def more_candidates(request: web.Request) -> web.Response:
    return await take_candidates(request, _published(request), (SDPFRAG_TYPE,))


@routes.add("PATCH", "/whep/{session}/{listener}", _OF_ONE)
async def more_candidates_of_a_listener(request: web.Request) -> web.Response:
    session = request.app[REGISTRY].get(request.match_info["session"], visitor_of(request))
    return await take_candidates(request, listener_of(session, request.match_info["listener"]), (SDPFRAG_TYPE,))


@routes.add("DELETE", "/whip/{service}/{session}", _ENDS)
async def stop_publishing(request: web.Request) -> web.Response:
    _published(request)
    await request.app[REGISTRY].end(request.match_info["session"], visitor_of(request))
    return web.Response()


@routes.add("DELETE", "/whep/{session}/{listener}", _ENDS)
async def stop_playing(request: web.Request) -> web.Response:
    session = request.app[REGISTRY].get(request.match_info["session"], visitor_of(request))
    session.listeners.remove(request.match_info["listener"])
    return web.Response()


@routes.add("OPTIONS", "/whip/{service}", _OPTIONS)
@routes.add("OPTIONS", "/whep/{session}", _OPTIONS)
async def what_an_endpoint_takes(_: web.Request) -> web.Response:
    """Without ICE servers: an OPTIONS request is answered to any client (RFC 9725, section 4.6)."""
    return web.Response(status=204, headers={"Allow": "OPTIONS, POST", "Accept-Post": SDP_TYPE})


@routes.add("OPTIONS", "/whip/{service}/{session}", _OPTIONS)
@routes.add("OPTIONS", "/whep/{session}/{listener}", _OPTIONS)
async def what_a_session_takes(_: web.Request) -> web.Response:
    return web.Response(status=204, headers={"Allow": "OPTIONS, PATCH, DELETE", "Accept-Patch": SDPFRAG_TYPE})


def _published(request: web.Request) -> Connection:
    """The connection of the session that a WHIP session URL names. Raises UnknownSession."""
    session = request.app[REGISTRY].get(request.match_info["session"], visitor_of(request))
    if session.service != request.match_info["service"]:
        raise UnknownSession
    return connection_of(session)


def _created(request: web.Request, answer: Answer, path: str) -> web.Response:
    headers = CIMultiDict(
        {
            "Location": location_of(request, path),
            "ETag": answer.etag,
            "Cache-Control": "no-store",
            "Accept-Patch": SDPFRAG_TYPE,
        }
    )
    for link in links_for(request):
        headers.add("Link", link)
    return web.Response(status=201, text=answer.sdp, content_type=SDP_TYPE, headers=headers)


async def _read_sdp(request: web.Request) -> str:
    if request.content_type != SDP_TYPE:
        raise UnsupportedMediaType(SDP_TYPE)
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise BadSdp from None
