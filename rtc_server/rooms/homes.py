"""Which process is the home of which room, on however many machines; and where those processes are.

A home is claimed in Redis for ten seconds at a time. One that says nothing for so long is none any more: the room is
then the first process's that is asked for it. Owns this process's word there, and its rooms' journals.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from rtc_server.errors import RoomsPaused, UnknownRoom
from rtc_server.rooms.journal import (
    LEASE_MS,
    OPEN,
    RENEW_S,
    StoredJournal,
    card_key,
    home_key,
    mail_key,
    messages_key,
    number_of,
    state_key,
)
from rtc_server.rooms.record import RESERVED, MessageRecord, RoomRecord, read_message, read_room
from rtc_server.rooms.store import Store

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 0.5
"""While Redis does not answer, it is asked so often."""
_SHOWN: Final = 256
"""Rooms that are listed."""
_ROOM_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,80}")
_DAY_S: Final = 86_400
_ANNOUNCE: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'NX')
redis.call('SET', KEYS[3], now, 'NX')
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
local answer = {redis.call('GET', KEYS[2]), now - tonumber(redis.call('GET', KEYS[3]))}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local url = redis.call('GET', 'rooms:process:' .. name)
  if url then
    answer[#answer + 1] = name
    answer[#answer + 1] = url
  else
    redis.call('SREM', KEYS[1], name)
  end
end
return answer
"""
"""This process is there. The secret that all share, for how many seconds Redis has known of rooms, and every process
with its address."""
_CLAIM: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and string.sub(owner, 1, #ARGV[3]) ~= ARGV[3] then return owner end
if redis.call('EXISTS', KEYS[2]) == 0 then return false end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
"""The home of a room, which is this process from now on if there was none, or if it was a process in whose place this
one is. Nothing for a room that there is not."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """A room as another home has left it. ``last_numbers``: of the members' events, by member."""

    room: RoomRecord
    messages: list[MessageRecord]
    last_numbers: dict[str, int]


class Homes:
    """As seen from ``process``, with which the ids of its rooms begin: ``NODE-WORKER``. ``url``: where it is for the
    others, set before :meth:`start`."""

    def __init__(self, store: Store, process: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.process = process
        self.url = ""
        self.secret = b""
        self._owner = f"{process} {secrets.token_urlsafe(9)}"
        self._clock = clock
        self._addresses: dict[str, str] = {}
        self._known_since = clock()
        self._journals: set[StoredJournal] = set()
        self._announcing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._announcing = asyncio.create_task(self._announce(), name="homes")

    async def close(self) -> None:
        """Every room's home is free for another process. Idempotent."""
        await asyncio.gather(*(journal.close() for journal in self._journals))
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.gather(self._announcing, return_exceptions=True)
        await self.store.close()

    def address_of(self, process: str) -> str | None:
        """Where another process is, by what it has said last; None for one that has not said anything for a while."""
        return self._addresses.get(process)

    def journal(self, room_id: str, on_lost: Callable[[], None]) -> StoredJournal:
        """A room's of which this process is the home."""
        self._journals = {each for each in self._journals if not each.done}
        made = StoredJournal(self.store, self._owner, room_id, on_lost)
        self._journals.add(made)
        return made

    async def claim(self, room_id: str) -> str | None:
        """The process that is the home of a room: this one, if none is. None: there is no such room. Raises
        RoomsPaused."""
        if not _ROOM_ID.fullmatch(room_id):
            return None
        self.store.require()
        arguments = (self._owner, LEASE_MS, f"{self.process} ")
        owner = await self.store.run(_CLAIM, [home_key(room_id), state_key(room_id)], arguments)
        if owner is not None:
            return str(owner, "utf-8").partition(" ")[0]
        if self._clock() - self._known_since < LEASE_MS / 1000:
            raise RoomsPaused  # Redis has lost what it knew, and homes have not told it again
        return None

    async def inherit(self, room_id: str) -> Inheritance:
        """A room that has been claimed. Raises RoomsPaused, and UnknownRoom for one that has gone, or that another
        release has written."""
        state, messages = await self.store.ask(("GET", state_key(room_id)), ("HVALS", messages_key(room_id)))
        try:
            if state is None:
                raise UnknownRoom
            room, said = read_room(state), [read_message(raw) for raw in messages]
        except msgspec.DecodeError:
            raise UnknownRoom from None
        ends = [("XREVRANGE", mail_key(room_id, member.id), "+", "-", "COUNT", 1) for member in room.members]
        entries = await self.store.ask(*ends) if ends else []
        numbers = [number_of(each[0][0]) if each else 0 for each in entries]
        last_numbers = {member.id: number + RESERVED for member, number in zip(room.members, numbers, strict=True)}
        return Inheritance(room, sorted(said, key=lambda message: int(message.id)), last_numbers)

    async def listed(self) -> list[dict[str, Any]]:
        """The rooms that the lobby shows, of all processes. Raises RoomsPaused."""
        self.store.require()
        found = [str(each, "utf-8") for each in (await self.store.ask(("SRANDMEMBER", OPEN, _SHOWN)))[0]]
        if not found:
            return []
        (cards,) = await self.store.ask(("MGET", *map(card_key, found)))
        gone = [room for room, card in zip(found, cards, strict=True) if card is None]
        if gone:
            await self.store.ask(("SREM", OPEN, *gone))
        return [json.loads(card) for card in cards if card is not None]

    async def _announce(self) -> None:
        keys = ["rooms:processes", "rooms:secret", "rooms:since", f"rooms:process:{self.process}"]
        while True:
            arguments = (self.url, LEASE_MS, self.process, secrets.token_hex(32), _DAY_S)
            with contextlib.suppress(RoomsPaused):
                secret, known_s, *processes = await self.store.run(_ANNOUNCE, keys, arguments)
                self.secret = secret
                self._known_since = self._clock() - known_s
                words = [str(each, "utf-8") for each in processes]
                self._addresses = dict(zip(words[::2], words[1::2], strict=True))
            await asyncio.sleep(RENEW_S if self.store.answers else _AGAIN_S)
