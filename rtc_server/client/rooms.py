"""A client for programs: a member of a translated room, who speaks, hears, reads and writes.

Owns the requests of ``docs/rooms.md`` and the typed events; the call itself is :class:`VoiceClient`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import wave
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, get_args

import aiohttp
import msgspec
import numpy as np
from aiortc import RTCIceServer

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.client.microphone import Microphone, silent_microphone
from rtc_server.client.voice import Refused, VoiceClient
from rtc_server.protocols.rooms import MAX_NAME, Original, RoomEvent, RoomMessage, RoomName

_SERVICE: Final = "translate"
_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(RoomEvent))
_MOST_EVENTS: Final = 1000
"""Those that the program does not take: the oldest go."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)
"""The first to ask for the rooms waits for models that are started for it."""
_Answer = TypeVar("_Answer")


class ListedRoom(msgspec.Struct, frozen=True):
    """``members``: how many there are; ``languages``: theirs."""

    id: str
    name: str
    members: int
    languages: list[str]


class Language(msgspec.Struct, frozen=True):
    """``hears``: what is said in it is written down. ``speaks``: there is a voice for it."""

    code: str
    name: str
    hears: bool
    speaks: bool


class Lobby(msgspec.Struct, frozen=True):
    """What there is to join, and what the server can do. ``pairs``: of languages, from and to; ``simultaneous``: those
    that are translated while one speaks."""

    rooms: list[ListedRoom]
    languages: list[Language]
    pairs: list[tuple[str, str]]
    notice: str | None
    simultaneous: list[tuple[str, str]] = []


class _Joined(msgspec.Struct, frozen=True):
    member: str
    token: str


class _Said(msgspec.Struct, frozen=True):
    id: str


async def list_rooms(url: str, token: str | None = None) -> Lobby:
    """The public rooms with someone in them. Raises Refused, aiohttp.ClientError."""
    async with _http(url, token) as http:
        return await _ask(http, "GET", "rooms", Lobby)


async def create_room(url: str, name: str | None = None, private: bool = False, token: str | None = None) -> RoomName:
    """A room; one that stays empty goes after a minute. Raises Refused, aiohttp.ClientError."""
    async with _http(url, token) as http:
        return await _ask(http, "POST", "rooms", RoomName, {"name": name, "private": private})


class RoomClient:
    """One member, from joining to leaving. Use it as an asynchronous context manager.

    ``room``: its id. ``language``: in which the member speaks and is spoken to. ``microphone``, ``on_voice``,
    ``token`` and ``ice_servers``: as of :class:`VoiceClient`; what is heard are the others, translated where need be.
    ``member``: the member's id, once it has joined.
    """

    def __init__(
        self,
        url: str,
        room: str,
        name: str,
        language: str,
        microphone: Microphone | None = silent_microphone,
        *,
        on_voice: Callable[[FloatArray], None] = lambda _: None,
        token: str | None = None,
        ice_servers: Sequence[RTCIceServer] = (),
    ) -> None:
        self._url, self._room, self._token = url, room, token
        self._who = {"name": name[:MAX_NAME], "language": language}
        self._microphone, self._on_voice, self._ice_servers = microphone, on_voice, ice_servers
        self._http: aiohttp.ClientSession | None = None
        self._call: VoiceClient | None = None
        self._waiting: deque[RoomEvent] = deque(maxlen=_MOST_EVENTS)
        self._news = asyncio.Event()
        self._over = False
        self.member = ""

    async def __aenter__(self) -> Self:
        """Raises Refused, aiohttp.ClientError."""
        self._http = _http(self._url, self._token)
        try:
            await self._join(self._http)
        except BaseException:
            await self.leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def _join(self, http: aiohttp.ClientSession) -> None:
        joined = await _ask(http, "POST", f"rooms/{self._room}/members", _Joined, self._who)
        self.member = joined.member
        http.headers["Room-Token"] = joined.token
        self._call = VoiceClient(
            self._url,
            self._microphone,
            service=_SERVICE,
            options={"member": joined.token},
            on_voice=self._on_voice,
            on_event=self._on_event,
            token=self._token,
            ice_servers=self._ice_servers,
        )
        await self._call.connect()

    async def events(self) -> AsyncGenerator[RoomEvent, None]:
        """What happens in the room, each as it comes, to the end of the session. One program reads them at a time."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

    async def say(self, text: str) -> str:
        """Say something in writing; the message's id. Raises Refused."""
        said = await _ask(self._joined, "POST", f"rooms/{self._room}/messages", _Said, {"text": text})
        return said.id

    async def change(
        self, *, language: str | None = None, name: str | None = None, original: Original | None = None
    ) -> None:
        """Go on in another language, or under another name; ``original``: how loud the others are under their
        translation. Raises Refused."""
        wishes = {key: value for key, value in {"language": language, "name": name}.items() if value is not None}
        if wishes:
            await _ask(self._joined, "PATCH", f"rooms/{self._room}/members/me", type(None), wishes)
        if original is not None and self._call is not None:
            self._call.send({"type": "room-settings", "original": original})

    async def sound_of(self, message: RoomMessage) -> FloatArray:
        """A message as it is heard in the member's language, 24 kHz. Raises Refused where it has no voice."""
        if message.audio is None:
            raise Refused(404, "not_found", "This message has no sound.")
        async with self._joined.get(message.audio) as response:
            await _require(response)
            with wave.open(io.BytesIO(await response.read())) as file:
                return audio.from_int16(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))

    async def resume(self) -> None:
        """Come back over a new connection, after the path of the old one has died. Raises OfferRefused,
        aiohttp.ClientError."""
        assert self._call is not None, "there is nothing to come back to before joining"
        await self._call.resume()

    async def leave(self) -> None:
        """Leave the room, and hang up. Idempotent."""
        http, self._http = self._http, None
        call, self._call = self._call, None
        if http is not None:
            async with http:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, Refused):
                    if self.member:
                        await _ask(http, "DELETE", f"rooms/{self._room}/members/me", type(None))
        if call is not None:
            await call.close()
        self._end()

    @property
    def _joined(self) -> aiohttp.ClientSession:
        """Raises Refused for one who has left."""
        if self._http is None:
            raise Refused(403, "unknown_member", "This is no member of the room any more.")
        return self._http

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["type"] in _TYPES:
            self._waiting.append(msgspec.convert(event, RoomEvent))
            self._news.set()
        elif event["type"] == "disconnected":
            self._end()

    def _end(self) -> None:
        self._over = True
        self._news.set()


def _http(url: str, token: str | None) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return aiohttp.ClientSession(f"{url.rstrip('/')}/api/", headers=headers, timeout=_TIMEOUT)


async def _ask(
    http: aiohttp.ClientSession, method: str, path: str, kind: type[_Answer], body: dict[str, Any] | None = None
) -> _Answer:
    """Raises Refused, aiohttp.ClientError."""
    async with http.request(method, path, json=body) as response:
        await _require(response)
        return msgspec.json.decode(await response.read() or b"null", type=kind)


async def _require(response: aiohttp.ClientResponse) -> None:
    """Raises Refused for an error."""
    if response.status >= 400:  # noqa: PLR2004
        raise await Refused.of(response)
