"""Where a room writes down what has to last: nowhere, or in Redis, where another process goes on from it.

Owns a room's keys, and the task that writes them in the order in which things happened. A process writes a room only
while it is the room's home; what a member's readers get was written down before, if it is of those things that last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rtc_server.errors import RoomsPaused
from rtc_server.protocols.rooms import RoomEvent
from rtc_server.rooms.mailbox import KEPT, Mailbox
from rtc_server.rooms.message import Message
from rtc_server.rooms.record import KEPT_MESSAGES, RoomRecord, lasts, read_event, record_of, write, write_event
from rtc_server.rooms.store import Command, Store

logger = logging.getLogger(__name__)

LEASE_MS: Final = 10_000
"""After so long a home that says nothing is none any more."""
RENEW_S: Final = 3.0
LASTS_MS: Final = 120_000
"""For how long a room without a home is kept."""
_REFRESH_EACH: Final = 10
"""Of the renewals, one in so many says how long the room's other keys last."""
_MOST_WAITING: Final = 8192
"""Events of a room that wait to be written, of all members: the oldest go."""
_AT_ONCE: Final = 512
_PAGE: Final = 64
OPEN: Final = "rooms:open"
"""The rooms that are listed, by their ids."""

_LOST: Final = 0
_WRITTEN: Final = 1
_WRITE: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not owner then return 2 end
local at = 3
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  local done = redis.pcall(unpack(ARGV, at + 1, last))
  at = last + 1
  if type(done) == 'table' and done.err and not string.find(done.err, 'equal or smaller', 1, true) then
    return redis.error_reply(done.err)
  end
end
return 1
"""
"""Commands, each behind the number of its words, if this process is the home of the room; if none was, it is now, and
nothing is written yet. They may come once more, if the answer was lost: then an entry is there already."""


class Journal(Protocol):
    """A room's."""

    def mailbox(self, member: str, last: int = 0) -> Mailbox:
        """A member's, whose events have numbers from ``last`` on."""

    def forget(self, member: str) -> None:
        """The member has left."""

    def changed(self) -> None:
        """There is another member, or one less, or something of one is different."""

    def said(self, message: Message) -> None:
        """There is a message, or something of it is different."""


class Unwritten:
    """Of rooms that last as long as their process."""

    def mailbox(self, member: str, last: int = 0) -> Mailbox:
        return Mailbox(last)

    def forget(self, member: str) -> None: ...

    def changed(self) -> None: ...

    def said(self, message: Message) -> None: ...


class Recorded(Protocol):
    """A room, as its journal sees it."""

    def record(self) -> RoomRecord: ...

    def listing(self) -> dict[str, Any] | None:
        """What the lobby shows of it; None: nothing."""

    @property
    def messages(self) -> list[Message]:
        """Those that are kept, the oldest first."""


@dataclass(slots=True)
class _Batch:
    commands: list[Command] = field(default_factory=list)
    mail: list[tuple[StoredMailbox, int, RoomEvent]] = field(default_factory=list)
    settling: list[asyncio.Future[None]] = field(default_factory=list)
    ends: bool = False


class StoredJournal:
    """``owner``: by which this process is known as a home. ``on_lost``: another process is the room's home."""

    def __init__(self, store: Store, owner: str, room_id: str, on_lost: Callable[[], None]) -> None:
        self._store = store
        self._owner = owner
        self._id = room_id
        self._on_lost = on_lost
        self._room: Recorded | None = None
        self._changed = True
        self._said: dict[str, Message] = {}
        self._forgotten: list[str] = []
        self._mail: deque[tuple[StoredMailbox, int, RoomEvent]] = deque(maxlen=_MOST_WAITING)
        self._mailboxes: dict[str, StoredMailbox] = {}
        self._settling: list[asyncio.Future[None]] = []
        self._written: deque[str] = deque()
        self._renewals = 0
        self._claimed = False
        self._over: str | None = None
        self._lost = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def mailbox(self, member: str, last: int = 0) -> StoredMailbox:
        made = self._mailboxes[member] = StoredMailbox(self, self._store, mail_key(self._id, member), last)
        return made

    def forget(self, member: str) -> None:
        if self._mailboxes.pop(member, None) is not None:
            self._forgotten.append(member)

    def changed(self) -> None:
        self._changed = True
        self._news.set()

    def said(self, message: Message) -> None:
        self._said[message.id] = message
        self._news.set()

    def post(self, mailbox: StoredMailbox, number: int, event: RoomEvent) -> None:
        """An event for a member's readers, once it is written down."""
        self._mail.append((mailbox, number, event))
        self._news.set()

    def begin(self, room: Recorded, written: list[Message] | None = None) -> None:
        """Write from now on. ``written``: messages of it that are written already."""
        self._room = room
        self._written.extend(message.id for message in written or [])
        self._task = asyncio.create_task(self._run(), name=f"journal-{self._id[:8]}")

    async def settle(self) -> None:
        """Until all of now is written down, or Redis is known not to answer. Raises RoomsPaused if this process is not
        the room's home any more."""
        if self._task is None or self._task.done():
            raise RoomsPaused
        if not self._store.answers:
            return
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(settled)
        self._news.set()
        await settled
        if self._lost:
            raise RoomsPaused

    def end(self) -> None:
        """The room is over: its keys go. Idempotent."""
        self._finish("end")

    async def close(self) -> None:
        """Let another process be the room's home, without waiting for the lease to end. Idempotent."""
        self._finish("release")
        if self._task is None:
            return
        if self._store.answers:
            await asyncio.wait({self._task}, timeout=RENEW_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def done(self) -> bool:
        """Whether nothing more is written."""
        return self._task is None or self._task.done()

    def _finish(self, how: str) -> None:
        self._over = self._over or how
        self._news.set()

    async def _run(self) -> None:
        try:
            while not await self._step():
                pass
        except asyncio.CancelledError:
            self._lost = True  # what waits to be written is not
            raise
        except Exception:  # the border of a task: nothing more of this room is written, and others go on
            self._lost = True
            logger.exception("a room's journal failed")
        finally:
            for settled in self._settling:
                self._resolve(settled)

    async def _step(self) -> bool:
        """Write once; whether it was the last time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                await self._news.wait()
        renews = not self._news.is_set()
        self._news.clear()
        batch = self._take(renews)
        try:
            return await self._write_batch(batch)
        finally:  # cancelled included: those who wait for it have no other sign of its end
            for settled in batch.settling:
                self._resolve(settled)

    async def _write_batch(self, batch: _Batch) -> bool:
        """Whether it was the last."""
        while batch.commands:
            try:
                answer = await self._write(batch.commands)
            except RoomsPaused:
                for settled in batch.settling:
                    self._resolve(settled)
                await self._store.wait_back()
                continue
            if answer == _LOST:
                self._lost = True
                self._on_lost()
                return True
            if answer == _WRITTEN:
                break
            if self._claimed and not batch.ends:
                batch.commands = [*self._all(), *batch.commands]
            self._claimed = True
        for mailbox, number, event in batch.mail:
            mailbox.hand_out(number, event)
        return batch.ends

    def _take(self, renews: bool) -> _Batch:
        """What is to be written now. Of things that do not last there may be nothing to write."""
        batch = _Batch(settling=self._settling)
        self._settling = []
        if self._over == "end":
            batch.ends = True
            members = [*self._mailboxes, *self._forgotten]
            mail = [mail_key(self._id, member) for member in members]
            batch.commands = [
                ("SREM", OPEN, self._id),
                ("DEL", *mail, *(key(self._id) for key in (state_key, messages_key, card_key, home_key))),
            ]
            batch.mail = list(self._mail)
            return batch
        assert self._room is not None, "it has begun"
        commands = batch.commands
        for member in self._forgotten:
            commands.append(("DEL", mail_key(self._id, member)))
        self._forgotten.clear()
        if self._changed:
            commands.append(("SET", state_key(self._id), write(self._room.record()), "PX", LASTS_MS))
        self._take_messages(commands)
        while self._mail and len(batch.mail) < _AT_ONCE:
            mailbox, number, event = self._mail.popleft()
            batch.mail.append((mailbox, number, event))
            if lasts(event, number):
                commands.extend(mailbox.commands(number, event))
        if self._mail:
            self._news.set()
        if renews or self._changed:
            self._renew(commands)
        self._changed = False
        if self._over == "release" and not self._mail:
            batch.ends = True
            commands.append(("DEL", home_key(self._id)))
        return batch

    def _take_messages(self, commands: list[Command]) -> None:
        key = messages_key(self._id)
        for message in self._said.values():
            commands.append(("HSET", key, message.id, write(record_of(message))))
            if message.id not in self._written:
                self._written.append(message.id)
        if self._said:
            commands.append(("PEXPIRE", key, LASTS_MS))
        self._said.clear()
        while len(self._written) > KEPT_MESSAGES:
            commands.append(("HDEL", key, self._written.popleft()))

    def _renew(self, commands: list[Command]) -> None:
        """The room is here, and this is what the lobby shows of it."""
        assert self._room is not None, "it has begun"
        listing = self._room.listing()
        if listing is None:
            commands += [("SREM", OPEN, self._id), ("DEL", card_key(self._id))]
        else:
            commands.append(("SET", card_key(self._id), json.dumps(listing), "PX", LEASE_MS))
            commands.append(("SADD", OPEN, self._id))
        if self._renewals % _REFRESH_EACH == 0:
            keys = [state_key(self._id), messages_key(self._id)]
            keys += [mail_key(self._id, member) for member in self._mailboxes]
            commands += [("PEXPIRE", key, LASTS_MS) for key in keys]
        self._renewals += 1

    def _all(self) -> list[Command]:
        """All that is known of the room: Redis has let it go, and may have lost it."""
        assert self._room is not None, "it has begun"
        commands: list[Command] = [("SET", state_key(self._id), write(self._room.record()), "PX", LASTS_MS)]
        for message in self._room.messages[-KEPT_MESSAGES:]:
            self._said.setdefault(message.id, message)
        self._take_messages(commands)
        for mailbox in self._mailboxes.values():
            for number, event in mailbox.kept:
                if lasts(event, number):
                    commands.extend(mailbox.commands(number, event))
        return commands

    async def _write(self, commands: list[Command]) -> int:
        """Whether they are written. Raises RoomsPaused."""
        for first in range(0, len(commands), _AT_ONCE):
            words = (word for command in commands[first : first + _AT_ONCE] for word in (len(command), *command))
            answer = await self._store.run(_WRITE, [home_key(self._id)], (self._owner, LEASE_MS, *words))
            if answer != _WRITTEN:
                return int(answer)
        return _WRITTEN

    @staticmethod
    def _resolve(settled: asyncio.Future[None]) -> None:
        if not settled.done():
            settled.set_result(None)


class StoredMailbox(Mailbox):
    """On a stream of Redis, whose entries have the events' numbers. ``last``: up to which number the events are those
    of homes before this one."""

    def __init__(self, journal: StoredJournal, store: Store, key: str, last: int) -> None:
        super().__init__(last)
        self._journal = journal
        self._store = store
        self._key = key
        self._inherited = last

    def add(self, event: RoomEvent) -> None:
        self._last += 1
        self._journal.post(self, self._last, event)

    def commands(self, number: int, event: RoomEvent) -> list[Command]:
        """That write an event."""
        return [
            ("XADD", self._key, "MAXLEN", "~", KEPT, f"{number}-0", "event", write_event(event)),
            ("PEXPIRE", self._key, LASTS_MS),
        ]

    async def follow(self, seq: int) -> AsyncGenerator[tuple[int, RoomEvent], None]:
        while seq < self._inherited:
            try:
                answer = await self._store.ask(("XREAD", "COUNT", _PAGE, "STREAMS", self._key, f"{seq}-0"))
            except RoomsPaused:
                return  # the reader comes back, and goes on from the last event it had
            entries = entries_of(answer[0])
            for number, raw in entries:
                seq = number
                if number <= self._inherited:
                    yield number, read_event(raw)
            if len(entries) < _PAGE:
                seq = self._inherited
        async with contextlib.aclosing(super().follow(seq)) as events:
            async for each in events:
                yield each


def entries_of(answer: Any) -> list[tuple[int, bytes]]:
    """Numbers and events of what ``XREAD`` says of one stream."""
    if not answer:
        return []
    ((_, entries),) = answer.items() if isinstance(answer, dict) else answer
    return [(number_of(entry), _field(fields)) for entry, fields in entries]


def number_of(entry: bytes) -> int:
    """The event's number that an entry of a stream has as its id."""
    return int(entry.partition(b"-")[0])


def _field(fields: Any) -> bytes:
    return bytes(fields[b"event"] if isinstance(fields, dict) else fields[1])


def home_key(room: str) -> str:
    return f"room:{room}:home"


def state_key(room: str) -> str:
    return f"room:{room}"


def messages_key(room: str) -> str:
    return f"room:{room}:messages"


def card_key(room: str) -> str:
    return f"room:{room}:card"


def mail_key(room: str, member: str) -> str:
    return f"room:{room}:mail:{member}"
