"""The door for clients of Seamless Chat: its four routes and its socket ``/chat``, with ``--seamless-door``.

A socket's client is a member of a room like any other. Owns who has come by this door, which messages each of them has
surely got, and what a recording says; what the messages are is ``protocols.seamless``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import IO, Final

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, samples_to_ms
from rtc_server.decoding.reader import MediaReader
from rtc_server.endpoints.sockets import Turn, abort, close_code, make_socket, receive, receive_data, say_goodbye
from rtc_server.endpoints.transcribe import Uploads
from rtc_server.endpoints.transcribe_body import temporary_file
from rtc_server.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    NotAudio,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
    ServerFull,
    TimeLimit,
    UnknownMember,
    UnknownRoom,
    UnsupportedPair,
    UtteranceTooLong,
)
from rtc_server.protocols import seamless
from rtc_server.protocols.room_order import InOrder
from rtc_server.protocols.rooms import MAX_TEXT, RoomMessage, Say
from rtc_server.protocols.seamless import Saying
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room
from rtc_server.services import TRANSLATE
from rtc_server.sessions.admission import Admission
from rtc_server.transcription.file import Progress, transcribe
from rtc_server.translation.languages import LANGUAGES, tag_of
from rtc_server.web.gate import visitor_of, visitor_of_a_socket
from rtc_server.web.routes import NO_STORE, Policy, Routes

logger = logging.getLogger(__name__)

_MOST_USERS: Final = 10_000
_USER_S: Final = 3600.0
"""For which one is kept who is in no room."""
_ENTER_S: Final = 10.0
_HEARTBEAT_S: Final = 10.0
_SEND_S: Final = 30.0
"""For a client to take a message."""
_CLOSE_S: Final = 2.0
_RECORDINGS: Final = 4
"""Of one client, which wait to be heard."""

routes = Routes()


@dataclass(slots=True)
class _Place:
    """Of a user in a room. ``got``: the number of the last message that the client has surely got. ``chat``: the
    socket of now; None while there is none."""

    token: str
    got: int
    chat: Chat | None = None


@dataclass(slots=True)
class _User:
    """``id``: the client's secret, which no other is told."""

    id: str
    name: str
    language: str
    used_at: float
    places: dict[str, _Place] = field(default_factory=dict)


class Door:
    """All who have come by it."""

    def __init__(self, lobby: Lobby, admission: Admission, uploads: Uploads) -> None:
        self.lobby = lobby
        self.admission = admission
        self.uploads = uploads
        self._users: OrderedDict[str, _User] = OrderedDict()

    def add_user(self, name: str, language: str) -> _User:
        """Raises ServerFull."""
        self._forget_users()
        if len(self._users) >= _MOST_USERS:
            raise ServerFull("This server knows as many users as it may.")
        user = _User(secrets.token_urlsafe(24), name, language, self.lobby.clock())
        self._users[user.id] = user
        return user

    def user(self, user_id: str) -> _User:
        """Raises UnknownMember."""
        user = self._users.get(user_id)
        if user is None:
            raise UnknownMember
        user.used_at = self.lobby.clock()
        self._users.move_to_end(user_id)
        return user

    def place(self, user: _User, room: Room, language: str) -> tuple[_Place, Member]:
        """The place that the user has in the room, or a new one. Raises UnknownLanguage, ServerFull."""
        place = user.places.get(room.id)
        if place is not None:
            with contextlib.suppress(UnknownMember):
                return place, room.member(place.token)
        member, token = self.lobby.join(room, user.name, language)
        place = user.places[room.id] = _Place(token, _last_of(room, member))
        return place, member

    def _forget_users(self) -> None:
        now = self.lobby.clock()
        for user in list(self._users.values()):
            if now - user.used_at < _USER_S:
                return
            if not any(place.chat is not None for place in user.places.values()):
                del self._users[user.id]


DOOR: Final = web.AppKey("seamless_door", Door)


def _last_of(room: Room, member: Member) -> int:
    """The number of the last message in the room."""
    return max((int(event.id) for event in room.greeting(member) if isinstance(event, RoomMessage)), default=0)


@routes.add("POST", "/create-room", Policy(is_offer=True))
async def create_room(request: web.Request) -> web.Response:
    room = _door(request).lobby.create(secrets.choice(seamless.ANIMALS), False, visitor_of(request).address)
    return web.json_response({"roomId": room.id}, headers=NO_STORE)


@routes.add("POST", "/create-user", Policy(is_offer=True))
async def create_user(request: web.Request) -> web.Response:
    door = _door(request)
    form = seamless.read_form(request.headers.get("Content-Type", ""), await request.read())
    name = form.get("user_name", "").strip()
    if not name:
        raise BadRequest("user_name is missing.")
    await door.lobby.wake()
    return web.json_response(
        {"userId": door.add_user(name, _language(door, form.get("lang", ""))).id}, headers=NO_STORE
    )


@routes.get("/rooms", Policy())
async def list_rooms(request: web.Request) -> web.Response:
    """Members by the ids that others know them by: those of users are their clients' secrets."""
    rooms = [room for room in _door(request).lobby if not room.private]
    listed = {room.id: {"name": room.name, "members": [member.id for member in room]} for room in rooms}
    return web.json_response(listed, headers=NO_STORE)


@routes.get("/room-info", Policy())
async def room_info(request: web.Request) -> web.Response:
    try:
        room = _door(request).lobby.room(request.query.get("room_id", ""))
    except UnknownRoom:
        return web.json_response({"detail": "Room not found"}, status=UnknownRoom.http_status, headers=NO_STORE)
    members = {member.id: {"name": member.name, "lang": _iso(member.language)} for member in room}
    return web.json_response({"name": room.name, "members": members}, headers=NO_STORE)


@routes.get("/chat", Policy(), head=False)
async def chat(request: web.Request) -> web.WebSocketResponse:
    door = _door(request)
    visitor = visitor_of_a_socket(request)
    socket = make_socket(request, seamless.MAX_MESSAGE_BYTES, _CLOSE_S, _HEARTBEAT_S)
    await socket.prepare(request)
    try:
        async with asyncio.timeout(_ENTER_S):
            entering = await receive_data(socket, Turn())
        if entering.type is WSMsgType.TEXT:
            enter = seamless.read_enter(entering.data)
            await door.lobby.wake()
            user, room = door.user(enter.user_id), door.lobby.room(enter.room_id)
            member = Chat(door, request, socket, user, room)
            with door.admission.guest(TRANSLATE, visitor, member.end):
                await member.run(_language(door, enter.lang), door.admission.longest_s(visitor))
    except ServerError as error:
        await _refuse(request, socket, error)
    except TimeoutError:
        await _refuse(request, socket, RequestTimeout("The first message did not come."))
    except ConnectionError:
        pass
    return socket


async def _refuse(request: web.Request, socket: web.WebSocketResponse, error: ServerError) -> None:
    code = close_code(error, WSCloseCode.POLICY_VIOLATION)
    await say_goodbye(request, socket, _CLOSE_S, code, error.code)


class Chat:
    """One client's socket, from its first message on. What goes wrong with a message costs that message."""

    def __init__(
        self, door: Door, request: web.Request, socket: web.WebSocketResponse, user: _User, room: Room
    ) -> None:
        self._door = door
        self._request = request
        self._socket = socket
        self._user = user
        self._room = room
        self._recordings: asyncio.Queue[bytes] = asyncio.Queue(_RECORDINGS)
        self._ended = asyncio.Event()
        self._error: ServerError | None = None
        self._left = False
        """The client has said goodbye, and is no member any more."""

    def end(self, error: ServerError | None) -> None:
        """The first call counts."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()

    async def run(self, language: str, most_s: float) -> None:
        """To its end; the socket is closed when it returns. Raises UnknownLanguage, ServerFull."""
        self._place, self._member = self._door.place(self._user, self._room, language)
        former, self._place.chat = self._place.chat, self
        if former is not None:
            former.end(None)
        lobby = self._door.lobby
        self._member.readers += 1
        self._room.look_for(self._member, lobby.clock())
        timer = asyncio.get_running_loop().call_later(most_s, self.end, TimeLimit("This has lasted as long as it may."))
        works = [
            asyncio.create_task(self._guard(work()), name=f"seamless-{work.__name__}")
            for work in (self._read, self._write, self._hear)
        ]
        try:
            await self._ended.wait()
        finally:
            timer.cancel()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            self._member.readers -= 1
            self._room.look_for(self._member, lobby.clock())
            if self._place.chat is self:
                self._place.chat = None
                if self._left:
                    self._room.leave(self._member, lobby.clock())
                    self._user.places.pop(self._room.id, None)
        if self._error is not None:
            raise self._error
        await say_goodbye(self._request, self._socket, _CLOSE_S, WSCloseCode.OK, "")

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        """However ``work`` ends, the socket ends with it."""
        try:
            await work
        except ServerError as error:
            self.end(error)
        except (ConnectionError, TimeoutError):
            abort(self._request)
            self.end(None)
        except Exception:  # the border of a task: the fault is ours, is logged, and costs this client alone
            logger.exception("a chat failed")
            self.end(InternalError())
        else:
            self.end(None)

    async def _read(self) -> None:
        turn = Turn()
        while True:
            message = await receive(self._socket, turn)
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._obey(message.data)
                case WSMsgType.PONG:
                    self._acknowledge(message.data)
                case WSMsgType.PING:
                    pass
                case _:
                    self._left = message.type is WSMsgType.CLOSE
                    return

    def _acknowledge(self, payload: bytes) -> None:
        """A pong to the ping behind a message: that has arrived, and all before it."""
        if payload.isdigit():
            self._place.got = max(self._place.got, int(payload[:18]))

    async def _obey(self, message: str | bytes) -> None:
        try:
            saying = seamless.read_saying(message)
            if saying.message_type == "text":
                self._door.lobby.obey(self._room, self._member, Say(saying.text))
            else:
                self._take_recording(saying)
        except ServerError as error:
            await self._tell(error)

    def _take_recording(self, saying: Saying) -> None:
        """Raises BadMessage, RateLimited."""
        recording = saying.recording
        self._door.lobby.allow(self._member)
        try:
            self._recordings.put_nowait(recording)
        except asyncio.QueueFull:
            raise RateLimited("Enough recordings wait to be heard.") from None

    async def _hear(self) -> None:
        """What recordings say, one after the other."""
        while True:
            recording = await self._recordings.get()
            try:
                with temporary_file() as file:
                    file.write(recording)
                    file.seek(0)
                    await self._say_what_is_in(file)
            except ServerError as error:
                await self._tell(error)

    async def _say_what_is_in(self, file: IO[bytes]) -> None:
        """Raises what reading a file and transcribing it raise."""
        lobby, language = self._door.lobby, self._member.language
        pcm: FloatArray | None = None
        if language in lobby.interpreter.hears:
            pcm = await self._decoded(file)
            text, spoken_ms = "", round(samples_to_ms(pcm.size))
        else:
            text, spoken_ms = await self._transcribed(file)
        message = self._room.say(self._member, text, "speech", spoken_ms, lobby.clock())
        lobby.interpreter.interpret(self._room, message, pcm)

    async def _decoded(self, file: IO[bytes]) -> FloatArray:
        """Raises UtteranceTooLong beside what reading a file raises."""
        blocks, left = list[FloatArray](), round(seamless.MAX_SOUND_S * MODEL_RATE_HZ)
        async with MediaReader(self._door.uploads.decoders, file) as reader:
            async for block in reader:
                left -= block.size
                if left < 0:
                    raise UtteranceTooLong
                blocks.append(block)
        return np.concatenate(blocks)

    async def _transcribed(self, file: IO[bytes]) -> tuple[str, int]:
        """The words, and how long the recording is, in ms."""
        engine = self._door.lobby.recogniser(self._member.language)
        if engine is None:
            raise UnsupportedPair("What is said in this language is not understood here. Type it.")

        async def ignore(_: Progress) -> None:
            pass

        uploads = self._door.uploads
        transcript = await transcribe(
            engine, uploads.decoders, file, uploads.settings, ignore, limit_s=seamless.MAX_SOUND_S
        )
        text = " ".join(word.text for word in transcript.words)[:MAX_TEXT]
        if not text:
            raise NotAudio("No words were heard in the recording.")
        return text, transcript.duration_ms

    async def _write(self) -> None:
        """The room's messages, in order, each with a ping behind it: its pong says that it has arrived."""
        order = InOrder(self._place.got)
        async with contextlib.aclosing(self._events()) as events:
            async for event in events:
                for message in order.take(event, self._door.lobby.clock()):
                    pcm = await self._sound_of(message)
                    mine = message.user == self._member.id
                    text = await asyncio.to_thread(
                        seamless.encode_message,
                        *(f"{self._room.id}-{message.id}", self._user.id if mine else message.user, message.name),
                        *(_iso(message.language), message.text, pcm),
                    )
                    async with asyncio.timeout(_SEND_S):
                        await self._socket.send_str(text)
                        await self._socket.ping(message.id.encode())

    async def _events(self) -> AsyncGenerator[RoomMessage, None]:
        """Those that came while there was no socket, and then each as it comes."""
        seen = self._member.mailbox.last
        for event in list(self._room.greeting(self._member)):  # as of now: what comes next is in the mailbox
            if isinstance(event, RoomMessage):
                yield event
        async with contextlib.aclosing(self._member.mailbox.follow(seen)) as events:
            async for _, event in events:
                if isinstance(event, RoomMessage):
                    yield event

    async def _sound_of(self, message: RoomMessage) -> FloatArray | None:
        kept = self._room.message(message.id)
        if kept is None or message.audio is None:
            return None
        try:
            return await self._door.lobby.interpreter.sound_of(self._room, kept, self._member.language)
        except ServerError:  # what cannot be heard can be read
            return None

    async def _tell(self, error: ServerError) -> None:
        notice = seamless.encode_notice(self._room.name, _iso(self._member.language), error)
        async with asyncio.timeout(_SEND_S):
            await self._socket.send_str(notice)


def _language(door: Door, code: str) -> str:
    """Raises UnknownLanguage."""
    tag = tag_of(code) or ""
    door.lobby.require_language(tag)
    return tag


def _iso(language: str) -> str:
    """Its code of ISO 639-3."""
    return LANGUAGES[language].iso if language in LANGUAGES else language


def _door(request: web.Request) -> Door:
    """Raises NotFound on a server without this door, Forbidden for a client that may not use rooms."""
    if DOOR not in request.app:
        raise NotFound
    if not visitor_of(request).principal.may_use(TRANSLATE):
        raise Forbidden
    return request.app[DOOR]
