"""The HTTP endpoints for WebRTC: JSON in, JSON out. No media logic: the gateway and the registry do the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from rtc_server.config import Settings
from rtc_server.errors import (
    BadRequest,
    EngineUnavailable,
    PreconditionFailed,
    PreconditionRequired,
    UnknownSession,
    UnsupportedMediaType,
)
from rtc_server.protocols import trickle
from rtc_server.protocols.events import OfferOptions
from rtc_server.sessions.registry import Registry
from rtc_server.web.gate import visitor_of, visitor_of_a_socket
from rtc_server.web.neighbours import NEIGHBOURS
from rtc_server.web.routes import NO_STORE, Policy, Routes
from rtc_server.web.siblings import SIBLINGS
from rtc_server.webrtc.connection import Connection
from rtc_server.webrtc.gateway import WebRtc, connection_of

REGISTRY: Final = web.AppKey("registry", Registry)
WEBRTC: Final = web.AppKey("webrtc", WebRtc)
SETTINGS: Final = web.AppKey("settings", Settings)
_JSON: Final = "application/json"
_KEEP_ALIVE_S: Final = 15.0
"""Shorter than the patience of the proxies in between."""
_STUCK_S: Final = 30.0
"""After which a client that takes none of what is sent to it follows no more: it counts among those who are there."""

routes = Routes()


class ResumeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session to go on in, what proves the right to, and the last event that was seen of it."""

    session: str
    token: str
    last_seq: int | None = None


class OfferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/offer``."""

    sdp: str
    type: Literal["offer"]
    service: str | None = None
    options: OfferOptions | msgspec.UnsetType = msgspec.UNSET
    resume: ResumeRequest | None = None


_decoder: Final = msgspec.json.Decoder(OfferRequest)


@routes.add("POST", "/api/offer", Policy(is_offer=True))
async def offer(request: web.Request) -> web.StreamResponse:
    webrtc, visitor = request.app[WEBRTC], visitor_of(request)
    body = await _read_offer(request)
    options = OfferOptions() if body.options is msgspec.UNSET else body.options
    siblings, neighbours = request.app.get(SIBLINGS), request.app.get(NEIGHBOURS)
    far_rooms = neighbours if neighbours is not None and neighbours.know_rooms else None
    if far_rooms is not None and options.member is not None and body.resume is None:
        answered = await far_rooms.pass_on(request, options.member.partition(".")[0])
        if answered is not None:
            return answered
    elif siblings is not None:
        # A session that is resumed is where it was, and a member's is where the room is.
        place = options.member if body.resume is None else body.resume.session
        passed_on = siblings.spread(request) if place is None else siblings.pass_on(request, place)
        if (answered := await passed_on) is not None:
            return answered
    if body.resume is None:
        answer = await webrtc.open(body.sdp, body.service, options, visitor)
    elif body.service is not None or body.options is not msgspec.UNSET:
        raise BadRequest("A session that is resumed has its service and its options.")
    else:
        back = body.resume
        try:
            answer = await webrtc.resume(body.sdp, back.session, back.token, back.last_seq, visitor)
        except (UnknownSession, EngineUnavailable):
            # No engine that is shared with its own machine has it, as far as they could be asked: that machine may.
            answered = None if neighbours is None else await neighbours.pass_to_owner(request, back.session)
            if answered is None:
                raise
            return answered
    grace_s = request.app[SETTINGS].resume_grace_s
    resume = None if answer.token is None else {"token": answer.token, "grace_s": grace_s}
    return web.json_response(
        {"sdp": answer.sdp, "type": "answer", "session": answer.resource, "resume": resume},
        status=201,
        headers={
            "Location": location_of(request, f"/api/sessions/{answer.resource}"),
            "ETag": answer.etag,
            "Cache-Control": "no-store",
        },
    )


def location_of(request: web.Request, path: str) -> str:
    """``path`` as a reference from the request's own URL (RFC 9110, section 10.2.2: "the final value is computed by
    resolving it against the target URI"), for a proxy may show this server under a path that it does not know.

    Up to the root and down again, so that clients which take it for a path from the root (OBS) find it there, too.
    """
    return "../" * (request.rel_url.raw_path.count("/") - 1) + path.removeprefix("/")


@routes.get("/api/sessions/{id}", Policy(session="id"))
async def session(request: web.Request) -> web.Response:
    registry, session_id = request.app[REGISTRY], request.match_info["id"]
    try:
        found = registry.get(session_id, visitor_of(request))
    except UnknownSession as error:
        raise registry.why_ended(session_id) or error from None
    return web.json_response(
        {
            "session": found.id.text,
            "service": found.service,
            "state": found.state,
            "age_ms": round(found.age_ms),
            "stats": msgspec.to_builtins(await found.stats()),
        },
        headers=NO_STORE,
    )


@routes.get("/api/sessions/{id}/events", Policy(query_token=True, session="id"), head=False)
async def session_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events (HTML, section 9.2), for those who have no data channel."""
    followed = request.app[REGISTRY].get(request.match_info["id"], visitor_of(request))
    last = request.headers.get("Last-Event-ID", "0")
    if not last.isascii() or not last.isdigit():
        raise BadRequest("Last-Event-ID must be the id of an event.")
    response = event_stream()
    most_s = visitor_of_a_socket(request).principal.max_session_s
    async with followed.outbox.following(int(last[:18])) as stream:
        await response.prepare(request)  # not before there is a place: an answer that has begun cannot be a refusal
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(most_s):
                await send_events(request, response, stream)
    return response


def event_stream() -> web.StreamResponse:
    """An answer of server-sent events, which no proxy keeps or collects."""
    return web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"} | NO_STORE)


async def send_events(
    request: web.Request,
    response: web.StreamResponse,
    stream: AsyncGenerator[tuple[int, str, Any] | tuple[int, str], None],
) -> None:
    """Send each event, a number and a text, as it comes, and signs of life between them. Raises TimeoutError for a
    client that does not read, whose connection is then cut."""

    async def write(raw: bytes) -> None:
        try:
            async with asyncio.timeout(_STUCK_S):
                await response.write(raw)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # else what it has not read would be waited for
            raise

    async def following() -> tuple[int, str, Any] | tuple[int, str] | None:
        return await anext(stream, None)

    waiting = asyncio.create_task(following(), name="event-stream")
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=_KEEP_ALIVE_S)
            if not done:
                await write(b": still here\n\n")
                continue
            event = waiting.result()
            if event is None:
                return
            await write(f"id: {event[0]}\ndata: {event[1]}\n\n".encode())
            waiting = asyncio.create_task(following(), name="event-stream")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@routes.add("DELETE", "/api/sessions/{id}", Policy(when_crowded=True, session="id"))
async def end_session(request: web.Request) -> web.Response:
    await request.app[REGISTRY].end(request.match_info["id"], visitor_of(request))
    return web.Response(status=204)


@routes.add("PATCH", "/api/sessions/{id}", Policy(session="id"))
async def more_candidates(request: web.Request) -> web.Response:
    found = request.app[REGISTRY].get(request.match_info["id"], visitor_of(request))
    return await take_candidates(request, connection_of(found), (trickle.SDPFRAG_TYPE, _JSON))


async def take_candidates(request: web.Request, connection: Connection, types: tuple[str, ...]) -> web.Response:
    """The body of a ``PATCH`` for a connection, and its answer (RFC 9725, section 4.3.1)."""
    if request.content_type not in types:
        raise UnsupportedMediaType(" or ".join(types))
    match request.headers.get("If-Match"):
        case None if request.content_type == trickle.SDPFRAG_TYPE:
            raise PreconditionRequired
        case None | "*":
            pass
        case tags if connection.etag not in [tag.strip() for tag in tags.split(",")]:
            raise PreconditionFailed
    raw = await request.read()
    parse = trickle.parse_json if request.content_type == _JSON else trickle.parse_fragment
    connection.trickle(parse(raw))
    return web.Response(status=204)


async def _read_offer(request: web.Request) -> OfferRequest:
    if request.content_type != _JSON:
        raise UnsupportedMediaType(_JSON)
    raw = await request.read()
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        # msgspec's sentences name the field and the expected type, never the value.
        raise BadRequest(f"The offer is not as it should be: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
