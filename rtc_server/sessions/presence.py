"""Presence: whether a session's client is there, by which transport, and how long the session waits for it.

Owns the transport of now and those before it, the tokens that bring a client back, and the deadlines of its absence.
Knows nothing of engines and events; what follows from presence is its owner's to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from rtc_server.config import Settings
from rtc_server.errors import ResumeRefused
from rtc_server.sessions.resume import ResumeTokens
from rtc_server.sessions.state import EndReason, SessionEvent, SessionMachine, SessionState
from rtc_server.sessions.transport import Transport, TransportFigures, Unreached
from rtc_server.system.tasks import outcome_of

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 0.5
"""How often to look whether the client is still there: twice in the shortest peer timeout."""

Connect = Callable[[], Awaitable[tuple[Transport, str]]]
"""Makes a transport, and what its client is answered with."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """``answer``: what the new transport answers its client with; ``token`` resumes the session once more."""

    answer: str
    token: str | None


class PresenceOwner(Protocol):
    """What presence tells and asks its session. Called on the event loop; must not block."""

    def refuse_if_ending(self) -> None:
        """Raises EngineUnavailable when the session is ending."""

    def on_transport(self, transport: Transport | None) -> None:
        """Messages go by this one from now on; None: by none."""

    def on_here(self, transport: Transport, back: bool) -> None:
        """The client is there, for the first time or (``back``) again."""

    def on_path_lost(self) -> None:
        """The client cannot be reached: it is waited for."""

    def on_seen(self, last_seq: int) -> None:
        """The client that comes back has heard the events up to this one."""

    def on_token(self, token: str) -> None:
        """The client gets this token with its answer: it is the one that brings it back."""

    def on_unreached(self, why: Unreached) -> None:
        """The client was never there."""

    def on_left(self, reason: EndReason) -> None:
        """The client said goodbye, or is waited for no longer."""

    async def look_beside(self) -> None:
        """Called from time to time while the client is waited for."""


class Presence:
    """Of one session. ``resumable``: it waits for its client when the transport dies. ``clock``: monotonic seconds."""

    def __init__(
        self,
        machine: SessionMachine,
        owner: PresenceOwner,
        settings: Settings,
        resumable: bool,
        log_id: str,
        clock: Callable[[], float],
    ) -> None:
        self.transport: Transport | None = None
        self._machine = machine
        self._owner = owner
        self._settings = settings
        self._resumable = resumable and settings.resume_grace_s > 0
        self._log_id = log_id
        self._clock = clock
        self._here = asyncio.Event()
        self._deadline = clock() + settings.connect_timeout_s
        """When a client that is not there must be."""
        self._figures_before = self._figures_seen = TransportFigures()
        """Of the transports before this one, and of all as of the last look."""
        self._tokens = ResumeTokens()
        self._resuming: asyncio.Task[Resumed] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def resumed(self) -> bool:
        """Whether the client has come back, or is about to."""
        return self._resuming is not None

    def waits_s(self) -> float:
        """How long the client will still be waited for."""
        return max(0.0, self._deadline - self._clock())

    def attach(self, transport: Transport) -> None:
        """Take the transport by which the client is reached, and own it from now on."""
        self.transport = transport
        self._owner.on_transport(transport)

    def next_token(self) -> str | None:
        """The token that resumes the session, once; None for one that cannot be resumed."""
        if not self._resumable:
            return None
        token = self._tokens.issue()
        self._owner.on_token(token)
        return token

    def expect(self, token: str) -> None:
        """The client was another media node's until now: wait for it as for one whose path is lost. ``token`` is what
        it has."""
        self._machine.apply(SessionEvent.TAKEN_OVER)
        self._tokens.expect(token)
        self._deadline = self._clock() + self._settings.resume_grace_s

    async def resume(self, token: str, request: str, last_seq: int | None, connect: Connect) -> Resumed:
        """Put another transport in the place of the one there is. ``connect`` makes it, and what its client is answered
        with; ``request`` is what the client asks by. Raises ResumeRefused, also when the session ends meanwhile, and
        what ``connect`` raises.

        When cancelled it goes on: the client that asks again, its answer lost, gets the answer.
        """
        if not self._resumable:
            raise ResumeRefused
        if self._tokens.redeem(token, request):
            self._resuming = asyncio.create_task(self._reconnect(connect, last_seq), name=f"resume-{self._log_id}")
        assert self._resuming is not None, "a request that was redeemed before was being answered"
        return await outcome_of(self._resuming, ResumeRefused())

    def refuse_resumes(self) -> None:
        """From now on a client whose path is lost does not come back."""
        self._resumable = False

    def connected(self, transport: Transport) -> None:
        """Audio can flow by ``transport``."""
        if transport is self.transport and self._machine.state in (SessionState.CONNECTING, SessionState.WAITING):
            self._go_on(transport)

    def gone(self, transport: Transport, orderly: bool) -> None:
        """``transport`` is over: by a goodbye (``orderly``), or because its path is lost."""
        if transport is not self.transport:
            return
        if orderly:
            self._owner.on_left(EndReason.BYE)
        elif self._machine.state is SessionState.WAITING:
            self._drop_transport()
        elif self._machine.state is SessionState.CONNECTING and (failure := transport.failure) is not None:
            self._owner.on_unreached(failure)
        else:
            self.lose_path()

    def lose_path(self) -> None:
        """The client cannot be reached: wait for it, or give it up."""
        if not self._resumable or not self._machine.live:
            self._owner.on_left(EndReason.PEER_LOST)
            return
        self._machine.apply(SessionEvent.PATH_LOST)
        self._here.clear()
        self._deadline = self._clock() + self._settings.resume_grace_s
        if self.transport is not None:
            self.transport.clear()
        self._owner.on_path_lost()
        logger.info("session %s: path lost, waits %.0f s", self._log_id, self._settings.resume_grace_s)

    async def wait(self) -> bool:
        """Until the client is there; False when it is too late. A path that was dead may come back by itself."""
        while not self._here.is_set():
            wait_s = min(LOOK_INTERVAL_S, self.waits_s())
            if wait_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._here.wait()
            await self._owner.look_beside()
            await self._look_for_path()
        return True

    def unreached(self) -> Unreached:
        """Why the client did not get through in time."""
        return Unreached() if self.transport is None else self.transport.unreached()

    async def look(self) -> TransportFigures:
        """The figures of all transports so far."""
        transport, before = self.transport, self._figures_before
        figures = (TransportFigures() if transport is None else await transport.look()).after(before)
        if transport is self.transport:
            self._figures_seen = figures
        return figures

    async def stop_resuming(self) -> None:
        """The session ends: a client that is coming back is let go."""
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.gather(self._resuming, return_exceptions=True)

    async def close(self) -> None:
        """End every transport."""
        if self.transport is not None:
            await self.transport.close()
        await asyncio.gather(*self._retired)

    async def _reconnect(self, connect: Connect, last_seq: int | None) -> Resumed:
        transport: Transport | None = None
        try:
            transport, answer = await connect()
            await self.look()
            self._owner.refuse_if_ending()
        except BaseException:  # cancelled included
            self._tokens.restore()
            if transport is not None:
                self._retire(transport)
            raise
        if self._machine.live:
            self.lose_path()
        self._drop_transport()
        self.attach(transport)
        self._deadline = max(self._deadline, self._clock() + self._settings.connect_timeout_s)
        if last_seq is not None:
            self._owner.on_seen(last_seq)
        if transport.connected:  # faster than we have got here
            self._go_on(transport)
        return Resumed(answer, self.next_token())

    def _go_on(self, transport: Transport) -> None:
        back = self._machine.state is SessionState.WAITING
        self._machine.apply(SessionEvent.CONNECTED)
        self._owner.on_here(transport, back)
        self._tokens.settle()
        self._here.set()

    async def _look_for_path(self) -> None:
        transport = self.transport
        if self._machine.state is not SessionState.WAITING or transport is None or not transport.connected:
            return
        await self.look()
        alive = transport.silent_s(self._clock()) < LOOK_INTERVAL_S
        if alive and transport is self.transport and self._machine.state is SessionState.WAITING:
            self._go_on(transport)

    def _drop_transport(self) -> None:
        if self.transport is not None:
            self._figures_before = self._figures_seen
            self._retire(self.transport)
            self.transport = None
            self._owner.on_transport(None)

    def _retire(self, transport: Transport) -> None:
        """Close a transport that is of no use any more, beside all that goes on."""
        transport.retire()
        task = asyncio.create_task(transport.close(flush=False), name=f"retire-{self._log_id}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
