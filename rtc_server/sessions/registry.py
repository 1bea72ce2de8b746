"""All live sessions of this process: who may come in, where they are, and their common end.

Owns admission and drain. Knows nothing of HTTP; what it refuses, it refuses with a typed error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    Draining,
    EngineStalled,
    EngineUnavailable,
    Forbidden,
    Overloaded,
    RateLimited,
    ServerError,
    ServerFull,
    SessionEnded,
    TooManyConnections,
    TooManySessions,
    UnknownService,
    UnknownSession,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionId, SessionState
from rtc_server.system.descriptors import Descriptors
from rtc_server.system.loop_lag import LoopLag

logger = logging.getLogger(__name__)


_FILES_OF_A_SESSION: Final = 2
"""A socket for each address that the machine is reached by."""
_MOST_CONNECTING: Final = 8
"""Of one address, of all services: people in one office who all begin in the same seconds."""
_CONNECTING_RETRY_S: Final = 3
_KEPT_ENDS: Final = 1024
_END_IS_KEPT_S: Final = 300.0
_WANTED_ENDS: Final = frozenset({EndReason.BYE, EndReason.DELETED, EndReason.REFUSED})
"""Which no client asks about."""


@dataclass(slots=True, eq=False)
class Guest:
    """A session that is no call: a socket, or a file. ``connecting``: it holds its place, and has sent no audio yet."""

    engine: EngineClient
    visitor: Visitor
    connecting: bool

    @property
    def service(self) -> str:
        return self.engine.service


class Registry:
    """``engines``: by service name; the first is the default service. ``detector``: hears when a user speaks.
    ``lag``: of the loop that all this runs in, measured by its owner."""

    def __init__(
        self,
        engines: Mapping[str, EngineClient],
        settings: Settings,
        metrics: Metrics,
        detector: EngineClient | None = None,
        lag: LoopLag | None = None,
        files: Descriptors | None = None,
    ) -> None:
        self.lag = lag or LoopLag(settings.max_lag_ms, metrics)
        self._files = files or Descriptors()
        self.engines = dict(engines)
        self._detector = detector
        self.default_service = next(iter(self.engines))
        self.draining = False
        self._settings = settings
        self._metrics = metrics
        self._sessions: dict[str, Session] = {}
        self._guests: set[Guest] = set()
        self._ends: OrderedDict[str, tuple[float, EndReason, str]] = OrderedDict()
        self._empty = asyncio.Event()
        self._empty.set()
        for engine in self.engines.values():
            engine.on_stall = functools.partial(self._on_stall, engine.service)
        for state in SessionState:
            gauge = metrics.sessions.labels(state)
            gauge.set_function(lambda state=state: self.count_by_state()[state])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._sessions)

    def count_by_state(self) -> Counter[SessionState]:
        return Counter(session.state for session in self._sessions.values())

    def check(self, service: str | None, visitor: Visitor) -> None:
        """Whether a session of ``service`` would be opened now. Raises what :meth:`opening` raises for a visitor who
        is not let in: for those who want to say so before they look at what the client sent."""
        engine = self._admit(self.default_service if service is None else service, visitor)
        self._check_connecting(engine, visitor)
        self._check_pace(engine)

    @contextlib.asynccontextmanager
    async def opening(
        self, service: str | None, options: OfferOptions, visitor: Visitor, resumable: bool = True
    ) -> AsyncIterator[Session]:
        """A session with its slot, for a door to attach a transport to and to start, before the context ends. If that
        fails or is cancelled, the session ends and what it took goes back.

        Raises Draining, ServerFull, Overloaded, EngineUnavailable, UnknownService, Forbidden, TooManySessions,
        RateLimited, TooManyConnections.
        """
        self.check(service, visitor)
        engine = self.engines[self.default_service if service is None else service]
        self._files.take(_FILES_OF_A_SESSION)  # before they are open: those who come next must not count on them
        session = Session(
            SessionId(self._settings.node, worker=0),
            engine,
            options,
            self._settings,
            self._metrics,
            visitor,
            resumable,
            self._detector,
            self._forget,
        )
        self._sessions[session.id.text] = session
        self._empty.clear()
        try:
            await session.open()
            yield session
        except BaseException as error:  # cancelled included: what the session took must go back
            await session.end(EndReason.REFUSED)
            if isinstance(error, ServerFull):
                raise self._full(engine.service) from None
            raise
        self._metrics.sessions_opened.labels(engine.service).inc()

    def resumable(self, session_id: str, visitor: Visitor) -> Session:
        """A session for its client to come back to. Raises UnknownSession, Draining."""
        if self.draining:
            raise Draining
        return self.get(session_id, visitor)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is refused in the context."""
        try:
            yield
        except ServerError as error:
            self._metrics.offers_refused.labels(error.code).inc()
            raise

    def get(self, session_id: str, visitor: Visitor) -> Session:
        """Raises UnknownSession, also for a session of another visitor, who is not told that it exists."""
        session = self._sessions.get(session_id)
        if (
            session is None
            or session.state is SessionState.ENDED
            or session.visitor.principal.name != visitor.principal.name
        ):
            raise UnknownSession
        return session

    def why_ended(self, session_id: str) -> SessionEnded | None:
        """What became of a session that ended a short while ago, if its client did not ask for the end."""
        at, reason, detail = self._ends.get(session_id, (-math.inf, EndReason.INTERNAL, ""))
        if time.monotonic() - at > _END_IS_KEPT_S:
            return None
        return SessionEnded(reason, detail)

    async def end(self, session_id: str, visitor: Visitor) -> None:
        """End a session because a client that has its id asks for it. Raises UnknownSession."""
        await asyncio.shield(self.get(session_id, visitor).end(EndReason.DELETED))

    async def drain(self, grace_s: float) -> None:
        """Let no client in any more, tell those who are in, wait for them to leave, then end what is left."""
        self.draining = True
        for session in list(self._sessions.values()):
            session.warn(Draining())
            session.forbid_resume()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            logger.info("%d sessions are ended by the shutdown", len(self._sessions))
        await self.close()

    async def close(self) -> None:
        """End every session now."""
        self.draining = True
        await asyncio.gather(*(session.end(EndReason.SERVER_SHUTDOWN) for session in list(self._sessions.values())))

    @contextlib.contextmanager
    def guest(self, service: str, visitor: Visitor, connecting: bool = False) -> Iterator[Guest]:
        """What is no session but takes a slot (a file, a socket): counted with the sessions, by the same limits, as
        long as the context lasts. Raises Draining, UnknownService, Forbidden, EngineUnavailable, ServerFull,
        TooManySessions, RateLimited."""
        engine = self._admit(service, visitor)
        if connecting:
            self._check_connecting(engine, visitor)
        guest = Guest(engine, visitor, connecting)
        self._guests.add(guest)
        try:
            yield guest
        finally:
            self._guests.discard(guest)

    def longest_s(self, visitor: Visitor) -> float:
        """For how long a session of theirs may last."""
        return visitor.principal.session_s(self._settings.max_session_s)

    def _admit(self, service: str, visitor: Visitor) -> EngineClient:
        """The door, of calls and of all else that takes a slot."""
        if self.draining:
            raise Draining
        engine = self.engines.get(service)
        if engine is None:
            raise UnknownService(tuple(self.engines))
        if not visitor.principal.may_use(service):
            raise Forbidden
        if not engine.ready:
            raise EngineUnavailable
        if len(self._present()) >= self._settings.max_sessions:
            raise self._full(None)
        if len(self._present(visitor.address)) >= self._settings.sessions_per_address:
            raise TooManySessions
        if not self._files.suffice_for_media(_FILES_OF_A_SESSION):
            raise TooManyConnections
        if self._sessions or self._guests:  # without sessions, refusing one helps no other
            self.lag.require_room()
        return engine

    def _check_pace(self, engine: EngineClient) -> None:
        """Refuse a conversation before a caller hears it."""
        # The median, not the tail: the whole batch is computed in each step, so one conversation less makes no step
        # shorter. A slow one in twenty is caught up by the next; that every other is slow does not pass by itself.
        step_ms = engine.step_p50_ms
        if engine.slots_used and step_ms is not None and step_ms > self._settings.max_step_ms:
            raise Overloaded

    def _present(self, address: str | None = None) -> list[Session | Guest]:
        """All who are here, or those of one address."""
        present: list[Session | Guest] = [*self._sessions.values(), *self._guests]
        return [one for one in present if address in (None, one.visitor.address)]

    def _check_connecting(self, engine: EngineClient, visitor: Visitor) -> None:
        """Clients that only connect, and never are connected, must not keep others from coming."""
        connecting = [one.service for one in self._present(visitor.address) if one.connecting]
        slots = 0 if engine.info is None else engine.info.slots
        most = self._settings.connecting_per_address or _MOST_CONNECTING
        of_service = self._settings.connecting_per_address or max(1, slots // 2)
        full = engine.slots_used >= slots  # the engine says so itself
        if not full and (len(connecting) >= most or connecting.count(engine.service) >= of_service):
            raise RateLimited(
                "Too many conversations from this address are still connecting. Try again in a few seconds.",
                retry_after_s=_CONNECTING_RETRY_S,
            )

    def _on_stall(self, service: str, stalled: bool) -> None:
        """The engine of a service is silent, or goes on: tell its conversations."""
        for session in list(self._sessions.values()):
            if session.service == service and stalled:
                session.warn(EngineStalled())
            elif session.service == service:
                session.recovered(EngineStalled())

    def _full(self, service: str | None) -> ServerFull:
        """Places that wait for their clients are not given away, but they do not wait for ever."""
        error = ServerFull()
        waits_s = [
            session.waits_s()
            for session in self._sessions.values()
            if session.state is SessionState.WAITING and service in (None, session.service)
        ]
        if waits_s:
            error.retry_after_s = min(60, math.ceil(min(waits_s)) + 1)
        return error

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id.text, None)
        if session.end_reason is not None and session.end_reason not in _WANTED_ENDS:
            self._ends[session.id.text] = (time.monotonic(), session.end_reason, session.end_detail)
            if len(self._ends) > _KEPT_ENDS:
                self._ends.popitem(last=False)
        if not self._sessions:
            self._empty.set()
