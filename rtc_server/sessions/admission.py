"""Who gets a place: sessions, and all else that takes a slot of an engine, such as a socket or a file.

Owns the limits, the places that are taken, and their common end when the server shuts down: draining is decided here
and nowhere else. Knows nothing of HTTP; what it refuses, it refuses with a typed error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.errors import (
    Draining,
    Forbidden,
    Overloaded,
    RateLimited,
    ServerError,
    ServerFull,
    TooManyConnections,
    TooManySessions,
    UnknownService,
)
from rtc_server.sessions.places import Elsewhere, Nowhere, Place
from rtc_server.system.descriptors import Descriptors
from rtc_server.system.loop_lag import LoopLag

logger = logging.getLogger(__name__)

_FILES_OF_A_SESSION: Final = 2
"""A socket for each address that the machine is reached by."""
_MOST_CONNECTING: Final = 8
"""Of one address, of all services: people in one office who all begin in the same seconds."""
_CONNECTING_RETRY_S: Final = 3
_MOST_WAITING: Final = 8
"""Of one address."""


class Admitted(Place, Protocol):
    """What holds a place, and is told when the server ends."""

    def frees_s(self) -> float | None:
        """Seconds until its place is given away, if its client does not come back. None: its client is there."""

    def on_drain(self) -> None:
        """The server lets no client in any more, and ends before long."""

    def shut_down(self) -> None:
        """End now. It leaves its place when it has ended."""


@dataclass(slots=True, eq=False)
class Guest:
    """What holds a place and is no session: a socket, or a file. ``end``: ends it, and tells its client why."""

    engine: Engine
    visitor: Visitor
    connecting: bool
    end: Callable[[ServerError], None]

    @property
    def service(self) -> str:
        return self.engine.service

    @property
    def awaits_slot(self) -> bool:
        """It is refused where a session may wait."""
        return False

    def frees_s(self) -> None:
        """It never does: its client is there as long as it is."""

    def on_drain(self) -> None:
        """It has the grace to end by itself."""

    def shut_down(self) -> None:
        self.end(Draining())


class Admission:
    """``engines``: by service name; the first is the default service. ``lag``: of the loop that all this runs in,
    measured by its owner. ``elsewhere``: the places of the server's other processes."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        settings: Settings,
        lag: LoopLag,
        files: Descriptors | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.engines = dict(engines)
        self.default_service = next(iter(self.engines))
        self.lag = lag
        self.draining = False
        self._files = files or Descriptors()
        self._settings = settings
        self._elsewhere = Nowhere() if elsewhere is None else elsewhere
        self._present: set[Admitted] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """The places that are taken."""
        return len(self._present)

    def require_open(self) -> None:
        """Raises Draining."""
        if self.draining:
            raise Draining

    def admit(self, service: str | None, visitor: Visitor, wait: bool = False) -> Engine:
        """The engine of a session that may be opened now. ``service``: None is the default. ``wait``: there may be no
        engine yet, if one is coming.

        Raises Draining, UnknownService, Forbidden, EngineUnavailable, ServerFull, TooManySessions,
        TooManyConnections, Overloaded, RateLimited.
        """
        engine = self._admit(self.default_service if service is None else service, visitor, wait)
        self._check_connecting(engine, visitor)
        self._check_pace(engine)
        return engine

    def may_wait(self, engine: Engine, visitor: Visitor) -> bool:
        """Whether a session may wait for a slot of ``engine``, which has none: one is coming, and not too many wait."""
        waiting = [one.visitor.address for one in self._present if one.awaits_slot]
        everywhere = len(waiting) + self._elsewhere.awaiting()
        of_address = waiting.count(visitor.address) + self._elsewhere.awaiting_of(visitor.address)
        room = everywhere < self._settings.max_waiting and of_address < _MOST_WAITING
        return engine.coming and room and self._settings.wait_s > 0

    def admit_back(self, visitor: Visitor) -> list[Engine]:
        """The engines in which a session of theirs may be that was another media node's; not all may be ready.

        Raises Draining, ServerFull, TooManySessions, TooManyConnections, Overloaded.
        """
        self.require_open()
        self._check_limits(visitor)
        return [engine for name, engine in self.engines.items() if visitor.principal.may_use(name)]

    def admit_beside(self) -> None:
        """One more connection beside a session that is there, as of a client that listens to it. It takes no place: a
        session has so many and no more. But it takes files, and the loop's time.

        Raises Draining, TooManyConnections, Overloaded.
        """
        self.require_open()
        self._check_room()
        self.lag.require_room()
        self._files.take(_FILES_OF_A_SESSION)

    def enter_session(self, session: Admitted) -> None:
        """A session that was admitted takes its place, until :meth:`leave`."""
        self._files.take(_FILES_OF_A_SESSION)  # before they are open: those who come next must not count on them
        self._enter(session)

    def leave(self, one: Admitted) -> None:
        self._elsewhere.leave(one)
        self._present.discard(one)
        if not self._present:
            self._empty.set()

    @contextlib.contextmanager
    def guest(
        self, service: str, visitor: Visitor, end: Callable[[ServerError], None], connecting: bool = False
    ) -> Iterator[Guest]:
        """A place for what is no session, by the same limits, as long as the context lasts. ``end`` is called when the
        server can wait for it no longer.

        Raises Draining, UnknownService, Forbidden, EngineUnavailable, ServerFull, TooManySessions, TooManyConnections,
        Overloaded, RateLimited.
        """
        engine = self._admit(service, visitor)
        if connecting:
            self._check_connecting(engine, visitor)
        guest = Guest(engine, visitor, connecting, end)
        self._enter(guest)
        try:
            yield guest
        finally:
            self.leave(guest)

    def longest_s(self, visitor: Visitor) -> float:
        """For how long a session of theirs may last."""
        return visitor.principal.session_s(self._settings.max_session_s)

    def full(self, service: str | None) -> ServerFull:
        """There is no place left, of one service or of all. Places that wait for their clients are not given away, but
        they do not wait for ever."""
        error = ServerFull()
        frees_s = [one.frees_s() for one in self._present if service in (None, one.service)]
        soonest_s = min((each for each in frees_s if each is not None), default=None)
        if soonest_s is not None:
            error.retry_after_s = min(60, math.ceil(soonest_s) + 1)
        return error

    async def drain(self, grace_s: float) -> None:
        """Let no client in any more, tell those who are in, wait for them to leave, then end what is left."""
        self.draining = True
        for one in list(self._present):
            one.on_drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            logger.info("the shutdown ends %d sessions, sockets and files", len(self._present))
        await self.close()

    async def close(self) -> None:
        """End everything now, and wait until it has left."""
        self.draining = True
        for one in list(self._present):
            one.shut_down()
        await self._empty.wait()

    def _enter(self, one: Admitted) -> None:
        self._present.add(one)
        self._elsewhere.enter(one)
        self._empty.clear()

    def _admit(self, service: str, visitor: Visitor, wait: bool = False) -> Engine:
        """The door, of sessions and of all else that takes a slot."""
        self.require_open()
        engine = self.engines.get(service)
        if engine is None:
            raise UnknownService(tuple(self.engines))
        if not visitor.principal.may_use(service):
            raise Forbidden
        if not (wait and engine.coming):
            engine.require_ready()
        self._check_limits(visitor)
        return engine

    def _check_limits(self, visitor: Visitor) -> None:
        if len(self._present) + len(self._elsewhere) >= self._settings.max_sessions:
            raise self.full(None)
        held = len(self._of(visitor.address)) + self._elsewhere.count_of(visitor.address)
        if held >= self._settings.sessions_per_address:
            raise TooManySessions
        self._check_room()
        if self._present:  # without sessions, refusing one helps no other
            self.lag.require_room()

    def _check_room(self) -> None:
        """Files for the media of one more."""
        if not self._files.suffice_for_media(_FILES_OF_A_SESSION):
            raise TooManyConnections

    def _of(self, address: str) -> list[Admitted]:
        return [one for one in self._present if one.visitor.address == address]

    def _check_pace(self, engine: Engine) -> None:
        """Refuse a conversation before a caller hears it."""
        # What it would be with this one; and the median, not the tail: a step costs a part of its own and one for each
        # conversation in it, so one less makes it little shorter. A slow one in twenty is caught up by the next; that
        # every other is slow does not pass by itself.
        if not engine.slots_used:
            return
        step_ms = engine.step_with_another_ms
        if step_ms is not None and step_ms > self._settings.max_step_ms:
            raise Overloaded

    def _check_connecting(self, engine: Engine, visitor: Visitor) -> None:
        """Clients that only connect, and never are connected, must not keep others from coming."""
        connecting = [one.service for one in self._of(visitor.address) if one.connecting]
        connecting += self._elsewhere.connecting_of(visitor.address)
        slots = 0 if engine.info is None else engine.info.slots
        most = self._settings.connecting_per_address or _MOST_CONNECTING
        of_service = self._settings.connecting_per_address or max(1, slots // 2)
        full = engine.slots_used >= slots  # the engine says so itself
        if not full and (len(connecting) >= most or connecting.count(engine.service) >= of_service):
            raise RateLimited(
                "Too many conversations from this address are still connecting. Try again in a few seconds.",
                retry_after_s=_CONNECTING_RETRY_S,
            )
