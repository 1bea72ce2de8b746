"""All live sessions of this process: how one is opened, where they are, and why those ended that are gone.

Who may come in, and what becomes of all when the server shuts down, is ``sessions.admission``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from rtc_server.access.principals import Visitor
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.engine.stream import StreamListener
from rtc_server.errors import (
    EngineStalled,
    EngineUnavailable,
    ResumeRefused,
    ServerError,
    ServerFull,
    SessionEnded,
    UnknownSession,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.captioner import Captioners
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionId, SessionState
from rtc_server.system.wheel import Wheel

_KEPT_ENDS: Final = 1024
_END_IS_KEPT_S: Final = 300.0
_WANTED_ENDS: Final = frozenset({EndReason.BYE, EndReason.DELETED, EndReason.REFUSED})
"""Which no client asks about."""


class Registry:
    """The sessions that ``admission`` lets in. ``detector``: hears when a user speaks; ``captioners``: write down
    what they say. ``worker``: which of the server's media processes this is."""

    def __init__(
        self,
        admission: Admission,
        settings: Settings,
        metrics: Metrics,
        detector: Engine | None = None,
        captioners: Captioners | None = None,
        worker: int = 0,
    ) -> None:
        self.admission = admission
        self.wheel = Wheel()
        """That wakes all tracks and sessions of this process."""
        self.captioners = captioners or Captioners(metrics)
        self._detector = detector
        self._settings = settings
        self._metrics = metrics
        self._worker = worker
        self._sessions: dict[str, Session] = {}
        self._by_former_id: dict[str, Session] = {}
        """Those that were another media node's, by the id that they had there."""
        self._takeovers: dict[tuple[str, ...], asyncio.Task[Session]] = {}
        self._ends: OrderedDict[str, tuple[float, EndReason, str]] = OrderedDict()
        for engine in admission.engines.values():
            engine.on_stall = self._on_stall
        for state in SessionState:
            gauge = metrics.sessions.labels(state)
            gauge.set_function(lambda state=state: self.count_by_state()[state])  # type: ignore[misc]
        for service in admission.engines:
            gauge = metrics.sessions_waiting.labels(service)
            gauge.set_function(lambda service=service: self._waiting(service))  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """The sessions of now."""
        return iter(list(self._sessions.values()))

    def count_by_state(self) -> Counter[SessionState]:
        return Counter(session.state for session in self._sessions.values())

    def _waiting(self, service: str) -> int:
        return sum(session.awaits_slot and session.service == service for session in self._sessions.values())

    def opening(
        self, service: str | None, options: OfferOptions, visitor: Visitor, resumable: bool = True
    ) -> AbstractAsyncContextManager[Session]:
        """A session with its slot, or one that waits for it if its client asks for that, for an endpoint to attach a
        transport to and to start, before the context ends. If that fails or is cancelled, the session ends and what it
        took goes back.

        Raises at once what :meth:`Admission.admit` does, so that an endpoint can look at what the client sent in
        between: nothing may be awaited before the context is entered. There it raises ServerFull, EngineUnavailable.
        """
        return self._opening(self.admission.admit(service, visitor, options.wait), options, visitor, resumable)

    @contextlib.asynccontextmanager
    async def _opening(
        self, engine: Engine, options: OfferOptions, visitor: Visitor, resumable: bool
    ) -> AsyncIterator[Session]:
        session = self._enter(engine, options, visitor, resumable)
        try:
            try:
                await session.open(options.wait)
            except EngineUnavailable:
                if not options.wait or not self.admission.may_wait(engine, visitor):
                    raise
                session.wait_for_slot()
            yield session
        except BaseException as error:  # cancelled included: what the session took must go back
            await session.end(EndReason.REFUSED)
            if isinstance(error, ServerFull):
                raise self.admission.full(engine.service) from None
            raise
        self._metrics.sessions_opened.labels(engine.service).inc()

    async def resumable(self, session_id: str, token: str, visitor: Visitor) -> Session:
        """A session for its client to come back to. One that is not here, and whose slot an engine keeps that is shared
        with the media node where it was, is taken over from there, with another id.

        Raises UnknownSession, EngineUnavailable while not all engines can be asked, Draining, and what
        :meth:`Admission.admit_back` does.
        """
        self.admission.require_open()
        try:
            return self.get(session_id, visitor)
        except UnknownSession:
            if session_id in self._sessions:
                raise
        asked = session_id, token, visitor.principal.name
        if asked not in self._takeovers:
            engines = self.admission.admit_back(visitor)
            taking = asyncio.create_task(self._take_over(engines, session_id, token, visitor), name="takeover")
            self._takeovers[asked] = taking
            taking.add_done_callback(functools.partial(self._took_over, asked))
        # A client that does not wait for its answer asks again, and finds the session here.
        return await asyncio.shield(self._takeovers[asked])

    def _took_over(self, asked: tuple[str, ...], taking: asyncio.Task[Session]) -> None:
        self._takeovers.pop(asked)
        if not taking.cancelled():
            taking.exception()  # its clients were told, if they waited

    async def _take_over(self, engines: Sequence[Engine], session_id: str, token: str, visitor: Visitor) -> Session:
        all_asked = True
        for engine in engines:
            if not engine.ready:
                all_asked = False
                continue
            session = self._enter(engine, OfferOptions(), visitor, resumable=True)
            try:
                await session.take_over(session_id, token)
            except (ResumeRefused, EngineUnavailable) as error:  # it is not in this engine's slots, as far as is known
                all_asked = all_asked and isinstance(error, ResumeRefused)
                await session.end(EndReason.REFUSED)
            except BaseException:  # cancelled included: what the session took must go back
                await session.end(EndReason.REFUSED)
                raise
            else:
                self._by_former_id[session_id] = session
                return session
        if not all_asked:  # a client that is told that there is no such session begins another one
            raise EngineUnavailable
        raise UnknownSession

    def _enter(self, engine: Engine, options: OfferOptions, visitor: Visitor, resumable: bool) -> Session:
        session = Session(
            SessionId(self._settings.node, self._worker),
            engine,
            options,
            self._settings,
            self._metrics,
            visitor,
            resumable,
            self._detector,
            self.captioners,
            self._forget,
            self.wheel,
        )
        self._sessions[session.id.text] = session
        self.admission.enter_session(session)
        return session

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
        session = self._sessions.get(session_id) or self._by_former_id.get(session_id)
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

    def _on_stall(self, stalled: bool, listeners: Collection[StreamListener]) -> None:
        """An engine is silent, or goes on: tell its conversations."""
        for session in self:
            if session in listeners and stalled:
                session.warn(EngineStalled())
            elif session in listeners:
                session.recovered(EngineStalled())

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id.text, None)
        for former_id in [key for key, one in self._by_former_id.items() if one is session]:
            del self._by_former_id[former_id]
        if session.end_reason is not None and session.end_reason not in _WANTED_ENDS:
            self._ends[session.id.text] = (time.monotonic(), session.end_reason, session.end_detail)
            if len(self._ends) > _KEPT_ENDS:
                self._ends.popitem(last=False)
        self.admission.leave(session)
