"""All rooms of this process: made, found, joined and forgotten; and what can be said and heard in them.

Owns the rooms, the languages and the limits. Knows nothing of HTTP and sessions.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.errors import ModelLoadError, RateLimited, ServerFull, UnknownLanguage, UnknownMember, UnknownRoom
from rtc_server.metrics import Metrics
from rtc_server.protocols.rooms import RoomCommand, Say
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.member import Member
from rtc_server.rooms.message import Message
from rtc_server.rooms.room import Room, readable
from rtc_server.translation.client import Translator

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_WAKE_S: Final = 20.0


class Lobby:
    """``place``: with which room ids begin, ``node-worker``: where a room is. ``recognisers``: engines that write down
    what is said, each in its languages; those of ``own`` are there for rooms alone, and are started, as the translator
    is, when a client first looks into the lobby. ``detects``: a detector tells when members speak. ``most``: rooms."""

    def __init__(
        self,
        place: str,
        interpreter: Interpreter,
        recognisers: Sequence[Engine],
        metrics: Metrics,
        most: int,
        own: Sequence[EngineClient] = (),
        detects: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interpreter = interpreter
        self.clock = clock
        self._place = place
        self.recognisers = [*recognisers, *own]
        self.detects = detects
        self._own = own
        self._awake = False
        self._most = most
        self._rooms: dict[str, Room] = {}
        self._looking: asyncio.Task[None] | None = None
        metrics.rooms.set_function(lambda: len(self._rooms))
        metrics.room_members.set_function(lambda: sum(map(len, self._rooms.values())))

    def __iter__(self) -> Iterator[Room]:
        """The rooms of now."""
        return iter(list(self._rooms.values()))

    def start(self) -> None:
        """Look after members who have gone, and rooms that are empty, from now on."""
        self._looking = asyncio.create_task(self._look(), name="lobby")

    async def wake(self) -> None:
        """Start what rooms need beside the server's other services, unless that has been done, and wait until it is
        there, or for a while: what is missing then comes later, or never."""
        parts: list[EngineClient | Translator] = list(self._own)
        if self.interpreter.translator is not None:
            parts.append(self.interpreter.translator)
        if not self._awake:
            self._awake = True
            for part in parts:
                part.start()
        waiting = [asyncio.create_task(part.wait_settled(), name="lobby-wakes") for part in parts if not part.ready]
        if not waiting:
            return
        await asyncio.wait(waiting, timeout=_WAKE_S)
        for task in waiting:
            task.cancel()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(error, ModelLoadError):
                logger.warning("rooms do without a model: %s", error.message)

    async def close(self) -> None:
        """All rooms are over. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for room in self:
            self._end(room)
        await self.interpreter.close()
        if self.interpreter.translator is not None:
            await self.interpreter.translator.close()
        await asyncio.gather(*(engine.close() for engine in self._own))

    @property
    def heard(self) -> frozenset[str]:
        """Languages in which what is said is understood."""
        of_engines = (engine.info.languages for engine in self.recognisers if engine.info is not None)
        return self.interpreter.hears.union(*of_engines)

    @property
    def languages(self) -> frozenset[str]:
        """In which one may be a member."""
        return self.heard.union(*self.interpreter.pairs)

    def recogniser(self, language: str) -> Engine | None:
        """The engine that writes down what is said in ``language``; None where none does, or the translator hears
        for itself."""
        if language in self.interpreter.hears:
            return None
        known = (each for each in self.recognisers if each.info is not None and language in each.info.languages)
        return next(known, None)

    def create(self, name: str | None, private: bool) -> Room:
        """Raises ServerFull."""
        if len(self._rooms) >= self._most:
            raise ServerFull("This server has as many rooms as it may.")
        room_id = f"{self._place}-{secrets.token_urlsafe(12)}"
        room = Room(room_id, readable(name or "") or "Room", private, self.clock())
        self._rooms[room.id] = room
        return room

    def room(self, room_id: str) -> Room:
        """Raises UnknownRoom."""
        room = self._rooms.get(room_id)
        if room is None:
            raise UnknownRoom
        room.translated = self.interpreter.pairs
        return room

    def join(self, room: Room, name: str, language: str) -> tuple[Member, str]:
        """A new member, and the token. Raises UnknownLanguage, ServerFull."""
        self.require_language(language)
        return room.join(name, language, self.clock())

    def require_language(self, language: str) -> None:
        """Raises UnknownLanguage."""
        if language not in self.languages:
            raise UnknownLanguage(sorted(self.languages))

    def member(self, token: str) -> tuple[Room, Member]:
        """By the token that a client has. Raises UnknownMember."""
        try:
            room = self.room(token.partition(".")[0])
        except UnknownRoom:
            raise UnknownMember from None
        return room, room.member(token)

    def obey(self, room: Room, member: Member, command: RoomCommand) -> Message | None:
        """A command of a member. Raises UnknownLanguage, RateLimited."""
        self.allow(member)
        if isinstance(command, Say):
            return self.write(room, member, command.text)
        if command.language is not None:
            self.require_language(command.language)
        room.change(member, command, self.clock())
        return None

    def allow(self, member: Member) -> None:
        """The member asks for something that costs the others time. Raises RateLimited."""
        if not member.wishes.allow(self.clock()):
            raise RateLimited

    def catch_up(self, room: Room, member: Member) -> None:
        """Have what was said last translated for a member who has just come."""
        for message in room.untranslated(member):
            self.interpreter.begin(room, message, member.language, speak=False)

    def write(self, room: Room, member: Member, text: str) -> Message:
        """A member says something in writing."""
        message = room.say(member, text.strip(), "text", 0, self.clock())
        self.interpreter.interpret(room, message)
        return message

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for room in self:
                room.translated = self.interpreter.pairs
                if room.expire(self.clock()):
                    self._end(room)

    def _end(self, room: Room) -> None:
        room.close(self.clock())
        self._rooms.pop(room.id, None)
