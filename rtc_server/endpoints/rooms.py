"""Translated rooms over HTTP: made, listed, joined and left; their messages in writing, as events and as sound.

What happens in a room is :mod:`rtc_server.rooms`'s. Members speak in sessions: ``POST /api/offer`` with their token.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import wave
from collections.abc import AsyncGenerator
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    RateLimited,
    ServerFull,
    UnknownMember,
    UnsupportedMediaType,
)
from rtc_server.protocols.rooms import Language, Name, RoomEvent, RoomSettings, Say, Text
from rtc_server.rooms.invitation import link_of, qr_code
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room
from rtc_server.services import TRANSLATE
from rtc_server.signaling import event_stream, send_events
from rtc_server.translation.languages import name_of
from rtc_server.web.gate import visitor_of, visitor_of_a_socket
from rtc_server.web.routes import NO_STORE, Policy, Routes
from rtc_server.web.siblings import SIBLINGS, came_from_sibling

LOBBY: Final = web.AppKey("lobby", Lobby)
TOKEN_HEADER: Final = "Room-Token"  # noqa: S105
_JSON: Final = "application/json"
_MOST_READERS: Final = 4
"""Event streams of one member."""
_B = TypeVar("_B", bound=msgspec.Struct)

routes = Routes()


class NewRoom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/rooms``."""

    name: Name | None = None
    private: bool = False


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/rooms/{room}/members``."""

    name: Name
    language: Language


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/rooms/{room}/messages``."""

    text: Text


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PATCH /api/rooms/{room}/members/me``."""

    name: Name | None = None
    language: Language | None = None


_OF_A_ROOM: Final = Policy(room="room")


@routes.get("/api/rooms", Policy())
async def list_rooms(request: web.Request) -> web.Response:
    """Of all processes of the server; what can be said and heard is the same in each."""
    lobby, siblings = _lobby(request), request.app.get(SIBLINGS)
    asked_by_sibling = came_from_sibling(request)
    if not asked_by_sibling:  # which does not wait for long
        await lobby.wake()
    if lobby.homes is not None:
        rooms = await lobby.homes.listed()
    else:
        rooms = [shown for room in lobby if (shown := room.listing()) is not None]
        if siblings is not None and not asked_by_sibling:
            for text in (await siblings.ask(request)).values():
                rooms += json.loads(text)["rooms"]
    languages = [
        {"code": code, "name": name_of(code), "hears": code in lobby.heard, "speaks": code in lobby.speaks}
        for code in sorted(lobby.languages, key=name_of)
    ]
    return web.json_response(
        {
            "rooms": rooms,
            "languages": languages,
            "pairs": sorted(lobby.pairs),
            "simultaneous": sorted(lobby.simultaneous.pairs),
            "notice": lobby.notice or None,
        },
        headers=NO_STORE,
    )


@routes.add("POST", "/api/rooms", Policy(is_offer=True))
async def create_room(request: web.Request) -> web.Response:
    body = await _read(request, NewRoom)
    room = _lobby(request).create(body.name, body.private, visitor_of(request).address)
    await _lobby(request).settle(room)
    return web.json_response(msgspec.to_builtins(room.title), status=201, headers=NO_STORE)


@routes.get("/api/rooms/{room}", _OF_A_ROOM)
async def show_room(request: web.Request) -> web.Response:
    room = _room(request)
    members = [{"id": each.id, "name": each.name, "language": each.language} for each in room]
    return web.json_response(msgspec.to_builtins(room.title) | {"members": members}, headers=NO_STORE)


@routes.get("/api/rooms/{room}/qr", _OF_A_ROOM)
async def show_qr_code(request: web.Request) -> web.Response:
    """Of the room's address on the page that ``page`` names."""
    link = link_of(request.query.get("page", ""), request.host, _room(request).id)
    return web.Response(body=qr_code(link), content_type="image/svg+xml", headers=NO_STORE)


@routes.add("POST", "/api/rooms/{room}/members", Policy(is_offer=True, room="room"))
async def join_room(request: web.Request) -> web.Response:
    body = await _read(request, NewMember)
    await _lobby(request).wake()
    room = _room(request)
    member, token = _lobby(request).join(room, body.name, body.language)
    await _lobby(request).settle(room)
    return web.json_response({"member": member.id, "token": token}, status=201, headers=NO_STORE)


@routes.add("PATCH", "/api/rooms/{room}/members/me", _OF_A_ROOM)
async def change_member(request: web.Request) -> web.Response:
    room, member = _member(request)
    body = await _read(request, Change)
    _lobby(request).obey(room, member, RoomSettings(body.language, body.name))
    await _lobby(request).settle(room)
    return web.Response(status=204)


@routes.add("DELETE", "/api/rooms/{room}/members/me", Policy(when_crowded=True, room="room"))
async def leave_room(request: web.Request) -> web.Response:
    room, member = _member(request)
    room.leave(member, _lobby(request).clock())
    await _lobby(request).settle(room)
    return web.Response(status=204)


@routes.add("POST", "/api/rooms/{room}/messages", _OF_A_ROOM)
async def write_message(request: web.Request) -> web.Response:
    room, member = _member(request)
    body = await _read(request, NewMessage)
    message = _lobby(request).obey(room, member, Say(body.text))
    await _lobby(request).settle(room)
    assert message is not None
    return web.json_response({"id": message.id}, status=201, headers=NO_STORE)


@routes.get("/api/rooms/{room}/messages/{message}/audio", _OF_A_ROOM)
async def message_sound(request: web.Request) -> web.Response:
    lobby = _lobby(request)
    room, member = _member(request)
    message = room.message(request.match_info["message"])
    if message is None:
        raise NotFound
    lobby.allow(member)
    language = request.query.get("language", member.language)
    pcm = await lobby.interpreter.sound_of(room, message, language)
    return web.Response(body=_wav(pcm), content_type="audio/wav", headers=NO_STORE)


@routes.get("/api/rooms/{room}/events", Policy(query_token=True, room="room"), head=False)
async def room_events(request: web.Request) -> web.StreamResponse:
    """Server-sent events (HTML, section 9.2), for a member who only reads."""
    lobby = _lobby(request)
    room, member = _member(request)
    last = request.headers.get("Last-Event-ID", "")
    if last and not (last.isascii() and last.isdigit()):
        raise BadRequest("Last-Event-ID must be the id of an event.")
    if member.readers >= _MOST_READERS:
        raise ServerFull("Enough already follow this room as this member.")
    if not member.visits.allow(lobby.clock()):
        raise RateLimited
    response = event_stream()
    member.readers += 1
    lobby.catch_up(room, member)
    room.look_for(member, lobby.clock())
    try:
        await response.prepare(request)
        stream = _events_of(room, member, int(last[:18]) if last else None)
        most_s = visitor_of_a_socket(request).principal.max_session_s
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(most_s), contextlib.aclosing(stream):
                await send_events(request, response, stream)
    finally:
        member.readers -= 1
        room.look_for(member, lobby.clock())
    return response


async def _events_of(room: Room, member: Member, seen: int | None) -> AsyncGenerator[tuple[int, str], None]:
    """From the beginning, or behind the last that was ``seen`` where nothing since is lost; with their numbers."""
    mailbox = member.mailbox
    if seen is None or seen > mailbox.last or mailbox.has_lost(seen):
        seen = mailbox.last
        for event in list(room.greeting(member)):  # as of now: what comes next has a number after these
            yield seen, _text(event)
    async with contextlib.aclosing(mailbox.follow(seen)) as events:
        async for number, event in events:
            yield number, _text(event)


def _text(event: RoomEvent) -> str:
    return msgspec.json.encode(event).decode()


def _lobby(request: web.Request) -> Lobby:
    """Raises NotFound on a server without rooms, Forbidden for a client that may not use them."""
    if LOBBY not in request.app:
        raise NotFound("This server has no rooms.")
    if not visitor_of(request).principal.may_use(TRANSLATE):
        raise Forbidden
    return request.app[LOBBY]


def _room(request: web.Request) -> Room:
    return _lobby(request).room(request.match_info["room"])


def _member(request: web.Request) -> tuple[Room, Member]:
    """The member whose token the request carries, in the room that it is about. Raises UnknownRoom, UnknownMember."""
    room = _room(request)
    token = request.headers.get(TOKEN_HEADER) or request.query.get("member", "")
    if not token:
        raise UnknownMember
    return room, room.member(token)


def _wav(pcm: FloatArray) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MODEL_RATE_HZ)
        file.writeframes(audio.to_int16(pcm).tobytes())
    return made.getvalue()


async def _read(request: web.Request, kind: type[_B]) -> _B:
    raw = await request.read()
    if request.content_type != _JSON:
        raise UnsupportedMediaType(_JSON)
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as error:
        # msgspec's sentences name the field and the expected type, never the value.
        raise BadRequest(f"The body is not as it should be: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
