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
from rtc_server.errors import (
    BadMessage,
    ModelLoadError,
    RateLimited,
    RoomsPaused,
    ServerFull,
    UnknownLanguage,
    UnknownMember,
    UnknownRoom,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols.rooms import RoomCommand, Say
from rtc_server.rooms.homes import Homes
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.journal import StoredJournal
from rtc_server.rooms.member import Member
from rtc_server.rooms.message import Message
from rtc_server.rooms.room import Room, readable
from rtc_server.rooms.simultaneous import Simultaneous
from rtc_server.system.tasks import outcome_of
from rtc_server.translation.client import Translator

logger = logging.getLogger(__name__)

KEPT_SOUND_BYTES: Final = 256 << 20
"""Of all rooms' messages, which each keeps a few megabytes of: of 64 rooms in which much is said."""
_LOOK_S: Final = 1.0
_WAKE_S: Final = 20.0
_OTHERS: Final = 4
"""So many times what one address has, of rooms, is free for others, once half of all are taken."""


class Lobby:
    """``place``: with which room ids begin, ``node-worker``: where a room is. ``recognisers``: engines that write down
    what is said, each in its languages; those of ``own`` are there for rooms alone, and are started, as the translator
    is, when a client first looks into the lobby. ``detects``: a detector tells when members speak. ``most``: rooms.
    ``homes``: of rooms that other processes may go on with; None: they last as long as this one. ``simultaneous``: what
    translates speakers while they speak, by an engine that is not the lobby's; None: nothing does."""

    def __init__(
        self,
        place: str,
        interpreter: Interpreter,
        recognisers: Sequence[Engine],
        metrics: Metrics,
        most: int,
        own: Sequence[EngineClient] = (),
        detects: bool = True,
        homes: Homes | None = None,
        simultaneous: Simultaneous | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interpreter = interpreter
        self.clock = clock
        self.homes = homes
        self.simultaneous = simultaneous or Simultaneous(None, metrics)
        if homes is not None:
            homes.store.watch = self._on_store
        self._journals: dict[str, StoredJournal] = {}
        self._arriving: dict[str, asyncio.Task[str | None]] = {}
        self._place = place
        self.recognisers = [*recognisers, *own]
        self.detects = detects
        self._own = own
        self._wakes_until: float | None = None
        """Until when clients wait for what is missing; None before the first has come."""
        self._most = most
        self._rooms: dict[str, Room] = {}
        self._made_by: dict[str, str] = {}
        """From which address, by room."""
        self._looking: asyncio.Task[None] | None = None
        metrics.rooms.set_function(lambda: len(self._rooms))
        metrics.rooms_paused.set_function(lambda: self.paused)
        metrics.room_members.set_function(lambda: sum(map(len, self._rooms.values())))

    def __iter__(self) -> Iterator[Room]:
        """The rooms of now."""
        return iter(list(self._rooms.values()))

    def start(self) -> None:
        """Look after members who have gone, and rooms that are empty, from now on."""
        self._looking = asyncio.create_task(self._look(), name="lobby")
        if self.homes is not None:
            self.homes.start()

    async def wake(self) -> None:
        """Start what rooms need beside the server's other services, unless that has been done, and wait until it is
        there, or for the first while: what is missing then comes later, or never, and is not waited for."""
        parts: list[EngineClient | Translator] = list(self._own)
        if self.interpreter.translator is not None:
            parts.append(self.interpreter.translator)
        if self._wakes_until is None:
            self._wakes_until = self.clock() + _WAKE_S
            for part in parts:
                part.start()
        left_s = self._wakes_until - self.clock()
        if left_s <= 0:
            return
        waiting = [asyncio.create_task(part.wait_settled(), name="lobby-wakes") for part in parts if not part.ready]
        if not waiting:
            return
        try:
            await asyncio.wait(waiting, timeout=left_s)
        finally:
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
        for task in self._arriving.values():
            task.cancel()
        await asyncio.gather(*self._arriving.values(), return_exceptions=True)
        if self.homes is None:
            for room in self:
                self._end(room)
        else:
            for room in self:
                self._let_go(room)
            await self.homes.close()
        await self.simultaneous.close()
        await self.interpreter.close()
        if self.interpreter.translator is not None:
            await self.interpreter.translator.close()
        await asyncio.gather(*(engine.close() for engine in self._own))

    @property
    def heard(self) -> frozenset[str]:
        """Languages in which what is said is understood."""
        of_engines = (engine.info.languages for engine in self.recognisers if engine.info is not None)
        return self.interpreter.hears.union(self.simultaneous.hears, *of_engines)

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """From which language into which what is said is translated, by utterances or while it is said."""
        return self.interpreter.pairs | self.simultaneous.pairs

    @property
    def speaks(self) -> frozenset[str]:
        """Languages that have a voice."""
        return self.interpreter.speaks | self.simultaneous.speaks

    @property
    def notice(self) -> str:
        """What users of the models that translate have to know."""
        return " ".join(filter(None, [self.interpreter.info.notice, self.simultaneous.notice]))

    @property
    def languages(self) -> frozenset[str]:
        """In which one may be a member."""
        return self.heard.union(*self.pairs)

    def recogniser(self, language: str) -> Engine | None:
        """The engine that writes down what is said in ``language``; None where none does, or the translator hears
        for itself."""
        if language in self.interpreter.hears:
            return None
        known = (each for each in self.recognisers if each.info is not None and language in each.info.languages)
        return next(known, None)

    @property
    def paused(self) -> bool:
        """Whether nothing can be said or changed at the moment: it could not be written down."""
        return self.homes is not None and not self.homes.store.answers

    def require_unpaused(self) -> None:
        """Raises RoomsPaused."""
        if self.paused:
            raise RoomsPaused

    def create(self, name: str | None, private: bool, address: str | None = None) -> Room:
        """``address``: the client's; None for a room that is made for a session, and goes with it. Raises ServerFull,
        RoomsPaused."""
        self.require_unpaused()
        self._require_place()
        if address is not None:
            self._require_share(address)
        room_id = f"{self._place}-{secrets.token_urlsafe(12)}"
        journal = self._journal(room_id)
        room = Room(room_id, readable(name or "") or "Room", private, self.clock(), journal)
        self._enter(room, journal)
        if address is not None:
            self._made_by[room.id] = address
        return room

    async def settle(self, room: Room) -> None:
        """Until what has happened in a room is where another process finds it. Raises RoomsPaused for a room that has
        moved there meanwhile."""
        journal = self._journals.get(room.id)
        if journal is not None:
            await journal.settle()
        elif self.homes is not None and room.id not in self._rooms:
            raise RoomsPaused

    async def home_of(self, room_id: str) -> str | None:
        """The process to ask for a room, if it is another one. A room whose process is gone is this one's from now on.
        Raises RoomsPaused, ServerFull."""
        if self.homes is None or room_id in self._rooms:
            return None
        task = self._arriving.get(room_id)
        if task is None:
            task = self._arriving[room_id] = asyncio.create_task(self._arrive(room_id), name="room-arrives")
            task.add_done_callback(lambda _: self._arriving.pop(room_id, None))
        return await outcome_of(task, RoomsPaused())

    def room(self, room_id: str) -> Room:
        """Raises UnknownRoom, RoomsPaused."""
        self.require_unpaused()
        room = self._rooms.get(room_id)
        if room is None:
            raise UnknownRoom
        self._inform(room)
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
        """A command of a member. Raises BadMessage for one that says nothing, UnknownLanguage, RateLimited."""
        self.allow(member)
        if isinstance(command, Say):
            if not readable(command.text):
                raise BadMessage("There is no text in the message.")
            return self.write(room, member, command.text)
        if command.language is not None:
            self.require_language(command.language)
        room.change(member, command, self.clock())
        return None

    def allow(self, member: Member) -> None:
        """The member asks for something that costs the others time. Raises RateLimited, RoomsPaused."""
        self.require_unpaused()
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
                self._inform(room)
                # While rooms are paused, none of their members can come back.
                if not self.paused and room.expire(self.clock()):
                    self._end(room)
            self._forget_sounds()

    def _forget_sounds(self) -> None:
        """If all rooms together keep more than they may, those forget that have most."""
        rooms = sorted(self, key=lambda room: room.sound_bytes)
        left = KEPT_SOUND_BYTES
        for position, room in enumerate(rooms):
            share = left // (len(rooms) - position)
            if room.sound_bytes > share:
                room.forget_old_sounds(share)
            left -= room.sound_bytes

    def _end(self, room: Room) -> None:
        room.close(self.clock())
        self._forget(room)
        journal = self._journals.pop(room.id, None)
        if journal is not None:
            journal.end()

    def _let_go(self, room: Room) -> None:
        """Another process is the room's home."""
        self._forget(room)
        self._journals.pop(room.id, None)
        room.move()

    def _forget(self, room: Room) -> None:
        self._rooms.pop(room.id, None)
        self._made_by.pop(room.id, None)

    def _require_place(self) -> None:
        if len(self._rooms) >= self._most:
            raise ServerFull("This server has as many rooms as it may.")

    def _require_share(self, address: str) -> None:
        """Half of all places may be one address's. Of the other half, one has a quarter of what it leaves at most: so
        it takes some thirty addresses to have all, and not four. Raises ServerFull."""
        free = self._most - len(self._rooms)
        held = sum(maker == address for maker in self._made_by.values())
        if 2 * free <= self._most and _OTHERS * held >= free:
            raise ServerFull("Too many of this server's rooms are of this address.")

    def _journal(self, room_id: str) -> StoredJournal | None:
        """A new room's."""

        def on_lost() -> None:
            logger.warning("a room has another home")
            if room_id in self._rooms:
                self._let_go(self._rooms[room_id])

        return None if self.homes is None else self.homes.journal(room_id, on_lost)

    def _inform(self, room: Room) -> None:
        """What the translator can do, as of now."""
        room.translated = self.interpreter.pairs
        room.spoken = self.interpreter.speaks

    def _enter(self, room: Room, journal: StoredJournal | None) -> None:
        self._inform(room)
        self._rooms[room.id] = room
        if journal is not None:
            self._journals[room.id] = journal
            journal.begin(room, room.messages)

    async def _arrive(self, room_id: str) -> str | None:
        assert self.homes is not None, "rooms come from nowhere else"
        self._require_place()
        home = await self.homes.claim(room_id)
        if home != self.homes.process:
            return home
        left, journal = await self.homes.inherit(room_id), self._journal(room_id)
        assert journal is not None
        room = Room.inherited(room_id, left, self.clock(), journal)
        self._enter(room, journal)
        logger.info("a room of %d members goes on here", len(room))
        return None

    def _on_store(self, answers: bool) -> None:
        """Redis answers no more, or again."""
        for room in self:
            if answers:
                room.forgive(self.clock())
            for member in room:
                if member.seat is not None:
                    member.seat.warn(RoomsPaused(), over=answers)
