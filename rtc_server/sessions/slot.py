"""A session's slot of an engine: how it is taken, that it is lost when the engine dies, and how another is waited for.

Owns the stream and the one task that waits. Knows nothing of clients and of what goes through the stream; what follows
from having a slot, or none, is its owner's to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from rtc_server.engine.engine import Engine
from rtc_server.engine.stream import EngineStream, StreamListener
from rtc_server.errors import EngineFailed, EngineUnavailable, ServerError, ServerFull

logger = logging.getLogger(__name__)

_ASK_AGAIN_S: Final = 0.2
"""After an engine has refused that seemed to have room: what is known of it is a moment old."""
_MOST_LOSSES: Final = 3
_LOSSES_WITHIN_S: Final = 60.0
"""A conversation that has lost so many slots in so short a time may be what breaks the engine: it gets no other."""


class SlotOwner(StreamListener, Protocol):
    """What a slot tells its session. Called on the event loop; must not block."""

    async def on_slot(self, stream: EngineStream) -> None:
        """The slot that was waited for is there, with a model that has heard nothing yet."""

    def on_no_slot(self) -> None:
        """It will not come, or has not come in time."""


class Slot:
    """Of one session, ``owner``, which listens to its streams. ``clock``: monotonic seconds."""

    def __init__(
        self, engine: Engine, owner: SlotOwner, log_id: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream: EngineStream | None = None
        """None while there is no slot; one that is closed is none either."""
        self._engine = engine
        self._owner = owner
        self._log_id = log_id
        self._clock = clock
        self._lost_at: deque[float] = deque(maxlen=_MOST_LOSSES)
        self._waiting: asyncio.Task[None] | None = None

    async def open(self, waits: bool = False) -> EngineStream:
        """Take a slot now. Raises ServerFull, EngineUnavailable. ``waits``: :meth:`wait` follows if there is none."""
        self.stream = await self._engine.open(self._owner, queued=waits)
        return self.stream

    async def adopt(self, key: bytes) -> EngineStream:
        """Take the slot that another media node has locked. Raises ResumeRefused, EngineUnavailable."""
        self.stream = await self._engine.adopt(key, self._owner)
        return self.stream

    def replaceable(self, error: ServerError) -> bool:
        """The slot is lost because of ``error``: whether another can take its place."""
        self.stream = None
        now = self._clock()
        self._lost_at.append(now)
        often = len(self._lost_at) == _MOST_LOSSES and now - self._lost_at[0] < _LOSSES_WITHIN_S
        return isinstance(error, EngineFailed) and not often

    def wait(self, patience_s: float) -> None:
        """Take a slot as soon as there is one. The owner is told, also when there is none in time."""
        assert self._waiting is None or self._waiting.done(), "a slot is waited for once at a time"
        self._waiting = asyncio.create_task(self._wait(patience_s), name=f"slot-{self._log_id}")

    def lock(self, digest: bytes, memo: bytes) -> None:
        """As :meth:`EngineStream.lock`, if there is a slot."""
        if self.stream is not None:
            self.stream.lock(digest, memo)

    def reset(self) -> None:
        """As :meth:`EngineStream.reset`, if there is a slot."""
        if self.stream is not None:
            self.stream.reset()

    async def stop_waiting(self) -> None:
        """Idempotent."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)

    def leave(self) -> None:
        """As :meth:`EngineStream.leave`, if there is a slot."""
        if self.stream is not None:
            self.stream.leave()

    def close(self) -> None:
        """Give the slot back. Idempotent."""
        if self.stream is not None:
            self.stream.close()

    async def _wait(self, patience_s: float) -> None:
        since = self._clock()
        try:
            async with asyncio.timeout(patience_s):
                self.stream = await self._take()
            logger.info("session %s: a slot after %.1f s", self._log_id, self._clock() - since)
            await self._owner.on_slot(self.stream)
        except (TimeoutError, EngineFailed):
            logger.info("session %s: no slot in %.1f s", self._log_id, self._clock() - since)
            self._owner.on_no_slot()
        except Exception:  # the border of a task: a fault here costs this session and no other
            logger.exception("session %s: no slot can be waited for", self._log_id)
            self._owner.on_no_slot()

    async def _take(self) -> EngineStream:
        """Raises EngineFailed when there will be none."""
        with self._engine.queued():
            while True:
                try:
                    return await self._engine.open(self._owner, queued=True)
                except (ServerFull, EngineUnavailable):
                    if self._engine.has_room:
                        await asyncio.sleep(_ASK_AGAIN_S)
                await self._engine.wait_room()
