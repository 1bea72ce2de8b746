"""All live sessions of this process: who may come in, where they are, and their common end.

Owns admission and drain. Knows nothing of HTTP; what it refuses, it refuses with a typed error.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rtc_server.call import Call
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    Draining,
    EngineUnavailable,
    Overloaded,
    ServerError,
    ServerFull,
    UnknownService,
    UnknownSession,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.sdp import narrow_offer
from rtc_server.session import EndReason, SessionId, SessionState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answered offer."""

    sdp: str
    session: str


class Registry:
    """``engines``: by service name; the first is the default service."""

    def __init__(self, engines: Mapping[str, EngineClient], settings: Settings, metrics: Metrics) -> None:
        self.engines = dict(engines)
        self.default_service = next(iter(self.engines))
        self.draining = False
        self._settings = settings
        self._metrics = metrics
        self._calls: dict[str, Call] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        for state in SessionState:
            gauge = metrics.sessions.labels(state)
            gauge.set_function(lambda state=state: self.count_by_state()[state])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._calls)

    def count_by_state(self) -> Counter[SessionState]:
        return Counter(call.state for call in self._calls.values())

    async def open(self, sdp: str, service: str | None, options: OfferOptions) -> Answer:
        """Answer an offer. Raises what the door says: Draining, ServerFull, Overloaded, EngineUnavailable,
        UnknownService, BadSdp, NoAudio, NoCommonCodec."""
        try:
            return await self._open(sdp, service, options)
        except ServerError as error:
            self._metrics.offers_refused.labels(error.code).inc()
            raise

    def get(self, session_id: str) -> Call:
        """Raises UnknownSession."""
        call = self._calls.get(session_id)
        if call is None or call.state is SessionState.ENDED:
            raise UnknownSession
        return call

    async def end(self, session_id: str) -> None:
        """End a session because somebody who has its id asks for it. Raises UnknownSession."""
        await asyncio.shield(self.get(session_id).end(EndReason.DELETED))

    async def drain(self, grace_s: float) -> None:
        """Take nobody in any more, tell those who are in, wait for them to leave, then end what is left."""
        self.draining = True
        for call in self._calls.values():
            call.warn(Draining())
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            logger.info("%d sessions are ended by the shutdown", len(self._calls))
        await self.close()

    async def close(self) -> None:
        """End every session now."""
        self.draining = True
        await asyncio.gather(*(call.end(EndReason.SERVER_SHUTDOWN) for call in list(self._calls.values())))

    async def _open(self, sdp: str, service: str | None, options: OfferOptions) -> Answer:
        engine = self._admit(self.default_service if service is None else service)
        offer = narrow_offer(sdp)
        session_id = SessionId(self._settings.node, worker=0)
        call = Call(session_id, engine, options, self._settings, self._metrics, self._forget)
        self._calls[session_id.text] = call
        self._empty.clear()
        try:
            answer = await call.answer(offer)
        except BaseException:  # cancelled included: what the call took must go back
            await call.end(EndReason.REFUSED)
            raise
        self._metrics.sessions_opened.labels(engine.service).inc()
        return Answer(answer, session_id.text)

    def _admit(self, service: str) -> EngineClient:
        """The door: refuse before it is felt in anybody's ear."""
        if self.draining:
            raise Draining
        engine = self.engines.get(service)
        if engine is None:
            raise UnknownService(tuple(self.engines))
        if not engine.ready:
            raise EngineUnavailable
        if len(self._calls) >= self._settings.max_sessions:
            raise ServerFull
        step_ms = engine.step_p50_ms
        if engine.slots_used and step_ms is not None and step_ms > self._settings.max_step_ms:
            raise Overloaded
        return engine

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.id.text, None)
        if not self._calls:
            self._empty.set()
