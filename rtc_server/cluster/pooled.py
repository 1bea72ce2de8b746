"""The engines of one service in a pool, as one engine to the media plane: who opens a stream gets it at the fullest
engine that has room.

Each engine has a client of its own, which knows by itself whether it answers and what is taken; from the pool comes
which engines there are. An engine decides whether it has a slot, and if it has none, the next is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rtc_server.cluster.directory import Directory
from rtc_server.cluster.messages import Listed, Roster
from rtc_server.cluster.policy import Phase, Room, order
from rtc_server.cluster.waiting import Waiting
from rtc_server.engine.client import MAX_RETRY_S, EngineClient
from rtc_server.engine.engine import OnStall
from rtc_server.engine.model import MemoryUse, ModelInfo, PagesUse
from rtc_server.engine.moving import NotMoved, move
from rtc_server.engine.stream import EngineStream, StreamListener
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import EngineStarting, EngineUnavailable, ResumeRefused, ServerError, ServerFull
from rtc_server.metrics import Metrics

logger = logging.getLogger(__name__)

_MISSING_S: Final = 10.0
"""An engine that the pool does not name any more, and that is not in use, is let go after so long: a pool that was
started again names them all within seconds."""
_ASK_FULL: Final = 2
_MOVES: Final = 3
"""That are tried of a conversation, before it stays until its end."""
_MOVE_AGAIN_S: Final = 1.0
_SETTLE_ROSTERS: Final = 10
"""At the start, engines that are named have so many seconds to answer before the server says that it is ready."""
MakeClient = Callable[[str, str], EngineClient]
"""The client of the engine at an address: service, ``HOST:PORT``."""


@dataclass(slots=True, eq=False)
class _Member:
    client: EngineClient
    draining: bool = False
    missing_since: float | None = None
    emptying: asyncio.Task[None] | None = None
    """Moves its conversations elsewhere, once it drains."""
    tries: Counter[EngineStream] = field(default_factory=Counter)
    stuck: bool = False

    @property
    def usable(self) -> bool:
        return self.client.ready and not self.draining and self.client.info is not None


class PooledEngine:
    """Of ``service``; an :class:`rtc_server.engine.engine.Engine`. ``ready``: a client that comes now gets a slot, or
    is told when there will be one."""

    def __init__(
        self,
        service: str,
        directory: Directory,
        make_client: MakeClient,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.shared = True
        self.on_stall: OnStall = lambda stalled, listeners: None
        self.failure = None
        self.pid = None
        self._directory = directory
        self._make_client = make_client
        self._metrics = metrics
        self._clock = clock
        self._members: dict[str, _Member] = {}
        self._info: ModelInfo | None = None
        self._starts_in_s: float | None = None
        self._rosters = 0
        self._changed = asyncio.Event()
        self._waiting = Waiting()
        self._queued = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._restarts = 0
        self._counts_pages = False
        self._own_metrics()

    @property
    def info(self) -> ModelInfo | None:
        """Of the model, with the slots of all engines that can be used; of the last one, if there is none."""
        usable = [each for each in self._clients(usable=True) if each.info is not None]
        if not usable or usable[0].info is None:
            return self._info
        slots = sum(each.info.slots for each in usable if each.info is not None)
        self._info = dataclasses.replace(usable[0].info, slots=slots)
        return self._info

    @property
    def memory(self) -> MemoryUse:
        """Of all its engines."""
        each = [client.memory for client in self._clients()]
        fields = (field.name for field in dataclasses.fields(MemoryUse))
        return MemoryUse(**{name: sum(getattr(one, name) for one in each) for name in fields})

    @property
    def pages(self) -> PagesUse | None:
        """Of all engines that can be used, and have such."""
        each = [client.pages for client in self._clients(usable=True) if client.pages is not None]
        if not each:
            return None
        return PagesUse(*(sum(getattr(one, field.name) for one in each) for field in dataclasses.fields(PagesUse)))

    @property
    def state(self) -> EngineState:
        states = {client.state for client in self._clients()}
        for state in (EngineState.READY, EngineState.STALLED):
            if state in states:
                return state
        return EngineState.CLOSED if self._closed else EngineState.LOADING

    @property
    def directory(self) -> Directory:
        """That of all services of this process which are in the pool."""
        return self._directory

    @property
    def ready(self) -> bool:
        return any(member.usable for member in self._members.values()) or self._another_in_s() is not None

    @property
    def restarts(self) -> int:
        """Engines that were lost."""
        return self._restarts + sum(client.restarts for client in self._clients())

    @property
    def slots_used(self) -> int:
        return sum(client.slots_used for client in self._clients())

    @property
    def slots_asked_for(self) -> int:
        return sum(client.slots_asked_for for client in self._clients())

    @property
    def has_room(self) -> bool:
        return any(client.has_room for client in self._clients(usable=True))

    @property
    def coming(self) -> bool:
        """Whether there will be another engine."""
        return self._another_in_s() is not None

    @property
    def starts_in_s(self) -> float | None:
        """In how many seconds there will be another engine; None if there will be none, or that is not known."""
        return self._another_in_s()

    @property
    def step_p50_ms(self) -> float | None:
        """Of the engine that is fastest: the next conversation may go there."""
        return self._least(client.step_p50_ms for client in self._clients(usable=True))

    @property
    def step_p95_ms(self) -> float | None:
        return self._least(client.step_p95_ms for client in self._clients(usable=True))

    @property
    def step_with_another_ms(self) -> float | None:
        return self._least(client.step_with_another_ms for client in self._clients(usable=True))

    def start(self) -> None:
        self._directory.join(self)

    def require_ready(self) -> None:
        """Raises EngineUnavailable; EngineStarting when there is no engine, and one is started for this client."""
        if not any(member.usable for member in self._members.values()):
            raise self._refusal(full=False)

    async def wait_settled(self) -> None:
        """Until the pool has answered, and an engine that it names as well."""
        while not self._rosters or (self._members and self._rosters < _SETTLE_ROSTERS and not self._clients(True)):
            await self._change()

    async def wait_ready(self) -> None:
        """Until there is an engine that can be used. Safe to cancel; for ever, if there never is."""
        while not self._clients(usable=True):
            await self._change()

    async def wait_room(self) -> None:
        """Until there seems to be a slot that is not taken. Safe to cancel; for ever, if there never is."""
        while not self.has_room:
            await self._change()

    @contextlib.contextmanager
    def queued(self) -> Iterator[None]:
        """A client waits for a slot as long as the context lasts: the pool hears of it."""
        self._queued += 1
        self._directory.ask_soon()
        try:
            yield
        finally:
            self._queued -= 1

    async def open(self, listener: StreamListener, spare: bool = False, queued: bool = False) -> EngineStream:
        """Take a slot: at the fullest engine that has room. Raises ServerFull if all have none and there will be no
        more of them, EngineStarting, EngineUnavailable. ``spare``: only lent, as by one engine; none is started for
        it. ``queued``: the caller is in :meth:`queued`, and does not count as one that comes back."""
        asked: set[_Member] = set()
        full = False
        while member := next((each for each in self._in_order(spare) if each not in asked), None):
            asked.add(member)
            try:
                stream = await member.client.open(listener, spare)
            except ServerFull:
                full = True
            except EngineUnavailable:
                continue
            else:
                if not spare and not queued:
                    self._waiting.served()
                return stream
        full = full or len(asked) < len(self._clients(usable=True))
        raise ServerFull if spare else self._refusal(full, queued)

    async def adopt(self, key: bytes, listener: StreamListener) -> EngineStream:
        """Go on in the slot that is locked with the digest of ``key``, wherever it is: an engine that drains is asked
        as well. Raises ResumeRefused if there is no such slot, EngineUnavailable if some engines could not be asked."""
        error: ServerError = ResumeRefused()
        for client in self._clients():
            try:
                return await client.adopt(key, listener)
            except ResumeRefused:
                continue
            except EngineUnavailable as unavailable:
                error = unavailable
        raise error

    async def close(self) -> None:
        """Let all go. Open streams are not told. Idempotent."""
        self._closed = True
        await self._directory.leave(self)
        for life in list(self._members):
            self._let_go(life, self._members[life].client.close())
        await asyncio.gather(*self._closing)

    def waiting(self) -> int:
        return self._waiting.count(self._clock()) + self._queued

    def on_roster(self, roster: Roster) -> None:
        now = self._clock()
        named = {listed.life: listed for listed in roster.engines if listed.service == self.service}
        outlooks = {outlook.service: outlook.starts_in_s for outlook in roster.outlooks}
        self._starts_in_s = outlooks.get(self.service)
        for life in roster.gone:
            if life in self._members:
                self._give_up(life, "has ended")
        for life, listed in named.items():
            self._name(life, listed)
        for life in [life for life in self._members if life not in named]:
            self._miss(life, now)
        self._rosters += 1
        self._changed.set()

    def _name(self, life: str, listed: Listed) -> None:
        member = self._members.get(life)
        if member is None:
            member = self._members[life] = _Member(self._make_client(self.service, listed.address))
            member.client.on_stall = self.on_stall
            member.client.on_news = self._on_news
            self._own_metrics()
            member.client.start()
        member.draining = listed.phase is Phase.DRAINING
        member.missing_since = None
        emptying = member.emptying is not None and not member.emptying.done()
        if member.draining and not emptying and self._movable(member):
            member.emptying = asyncio.create_task(self._empty(member), name=f"engine-empty-{self.service}")

    def _miss(self, life: str, now: float) -> None:
        """The pool does not name it: it may be silent, or the pool new. One that is silent to this media node as well
        is given up as soon as there is another for its conversations: whether it will come back, no one knows, and a
        machine that is gone does not say so."""
        member = self._members[life]
        if member.missing_since is None:
            member.missing_since = now
        if member.client.state is EngineState.STALLED and self.has_room:
            self._give_up(life, "is silent, to its pool as well: it is given up")
        elif now - member.missing_since > _MISSING_S and not member.client.slots_used:
            self._let_go(life, member.client.close())

    def _give_up(self, life: str, why: str) -> None:
        """Its conversations are told that they have lost it."""
        self._restarts += 1
        logger.warning("an engine of %s %s", self.service, why)
        self._let_go(life, self._members[life].client.abandon())

    async def _empty(self, member: _Member) -> None:
        """Move the conversations of an engine that drains to others that run the same model. One for which there is no
        room waits until there is; one that cannot be moved stays until its end, or the engine's."""
        try:
            while streams := self._movable(member):
                other = self._target(member)
                if other is None:
                    self._tell_stuck(member)
                    await self._change()
                else:
                    await self._move(streams[0], member, other)
        except Exception:  # the border of a task: the conversations stay where they are
            logger.exception("the conversations of an engine of %s cannot be moved", self.service)
        if member.client.slots_used:
            logger.warning(
                "%d of %s stay at an engine that drains until they end", member.client.slots_used, self.service
            )

    @staticmethod
    def _movable(member: _Member) -> list[EngineStream]:
        """Its conversations that may yet be moved, but for those that are only on their way to it."""
        streams = member.client.streams
        return [stream for stream in streams if stream.tape is None and member.tries[stream] < _MOVES]

    async def _move(self, stream: EngineStream, member: _Member, other: _Member) -> None:
        member.tries[stream] += 1
        try:
            await move(stream, member.client, other.client)
        except (NotMoved, ServerFull, EngineUnavailable) as error:
            outcome = "failed"
            logger.warning("a conversation of %s was not moved to another engine: %s", self.service, error)
            await asyncio.sleep(_MOVE_AGAIN_S)
        else:
            outcome = "moved"
            logger.info("a conversation of %s was moved to another engine", self.service)
        self._metrics.streams_moved.labels(self.service, outcome).inc()

    def _target(self, member: _Member) -> _Member | None:
        """The fullest engine that has room for a conversation of ``member``, and runs what it runs."""
        row_format = "" if member.client.info is None else member.client.info.row_format
        for other in self._in_order(spare=True, newcomer=False):
            info = other.client.info
            if row_format and info is not None and info.row_format == row_format and other is not member:
                return other
        return None

    def _tell_stuck(self, member: _Member) -> None:
        if not member.stuck:
            member.stuck = True
            logger.warning(
                "an engine of %s drains, and no other with the same model has room: %d conversations wait there",
                self.service,
                member.client.slots_used,
            )

    def _let_go(self, life: str, end: Coroutine[Any, Any, None]) -> None:
        member = self._members.pop(life)
        task = asyncio.create_task(self._end(member, end), name=f"engine-let-go-{self.service}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @staticmethod
    async def _end(member: _Member, end: Coroutine[Any, Any, None]) -> None:
        if member.emptying is not None:
            member.emptying.cancel()
            await asyncio.gather(member.emptying, return_exceptions=True)
        await end

    def _on_news(self) -> None:
        if self.pages is not None and not self._counts_pages:
            self._counts_pages = True
            pages = self._metrics.pages
            pages.labels(self.service, "free").set_function(lambda: 0 if self.pages is None else self.pages.free)
            pages.labels(self.service, "total").set_function(lambda: 0 if self.pages is None else self.pages.total)
        self._changed.set()

    def _own_metrics(self) -> None:
        """Those of a client are of its engine alone: here they are those of all."""
        metrics, service = self._metrics, self.service
        metrics.slots_used.labels(service).set_function(lambda: self.slots_used)
        metrics.slots.labels(service).set_function(
            lambda: sum(client.info.slots for client in self._clients(usable=True) if client.info is not None)
        )
        memory = metrics.engine_memory_bytes
        memory.labels(service, "weights").set_function(lambda: self.memory.weights_bytes)
        memory.labels(service, "cache").set_function(lambda: self.memory.cache_bytes)
        memory.labels(service, "rest").set_function(lambda: self.memory.rest_bytes)

    def _clients(self, usable: bool = False) -> list[EngineClient]:
        return [member.client for member in self._members.values() if member.usable or not usable]

    def _in_order(self, spare: bool, newcomer: bool = True) -> list[_Member]:
        """The engines to ask, one after the other. What is lent is free to those who ask for a slot of their own. For
        one that is no ``newcomer`` but goes on, a slot suffices."""
        rooms = []
        for life, member in self._members.items():
            client = member.client
            if member.usable and client.info is not None:
                free = (client.room if newcomer else client.slots_free) + (0 if spare else client.slots_lent)
                rooms.append(Room(life, client.info.slots, client.info.slots - free))
        return [self._members[life] for life in order(rooms, 0 if spare else _ASK_FULL)]

    def _another_in_s(self) -> float | None:
        """In how many seconds there will be another engine; None if there will be none, or that is not known."""
        if self._starts_in_s is None or self._directory.away:
            return None
        return max(0.0, self._starts_in_s - self._directory.age_s)

    def _refusal(self, full: bool, queued: bool = False) -> ServerError:
        """What a client is told that gets no slot: there are engines, and all are ``full``, or there is none. It counts
        as waiting from now on, if it does not already."""
        another_in_s = self._another_in_s()
        error: ServerError
        if another_in_s is not None:
            error = EngineStarting(min(MAX_RETRY_S, max(1, math.ceil(another_in_s))))
        else:
            error = ServerFull() if full else EngineUnavailable()
        if not queued:
            self._waiting.refused(error.retry_after_s or 0, self._clock())
            self._directory.ask_soon()
        return error

    async def _change(self) -> None:
        """Until the pool or one of the engines has told something."""
        self._changed.clear()
        await self._changed.wait()

    @staticmethod
    def _least(values: Iterable[float | None]) -> float | None:
        return min((value for value in values if value is not None), default=None)
