"""The model that translates speakers while they speak: its languages, its rows, and the lanes that have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ServiceKind
from rtc_server.engine.stream import StreamListener
from rtc_server.errors import EngineUnavailable, ModelLoadError, ServerError
from rtc_server.metrics import Metrics
from rtc_server.rooms.lane import Lane, Limits
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room

logger = logging.getLogger(__name__)

RETRY_S: Final = 5.0
"""After which a speaker for whom there was no row is tried again."""


class Simultaneous:
    """``engine``: the model's, started and closed by its owner; None where the server has none: then members are
    translated by utterances alone. ``targets``: into which language it translates what is said in each of those that it
    hears. ``notice``: what its users have to know."""

    def __init__(
        self,
        engine: Engine | None,
        metrics: Metrics,
        targets: Mapping[str, str] | None = None,
        notice: str = "",
        limits: Limits | None = None,
    ) -> None:
        targets = targets or {}
        if engine is not None:
            engine.on_stall = self._on_stall
        self.engine = engine
        self.notice = notice
        self._metrics = metrics
        self.pairs = frozenset(targets.items())
        self._targets = targets
        self._limits = limits or Limits()
        self._openings: set[asyncio.Task[None]] = set()

    @property
    def hears(self) -> frozenset[str]:
        return frozenset(self._targets)

    @property
    def speaks(self) -> frozenset[str]:
        return frozenset(self._targets.values())

    def require_translates(self) -> None:
        """Raises ModelLoadError for a model that has loaded and is of another kind."""
        info = None if self.engine is None else self.engine.info
        if info is not None and (info.kind is not ServiceKind.TRANSLATE or not info.speaks):
            raise ModelLoadError(
                f"--simultaneous {info.name}: this model does not translate what it hears.",
                "Give a checkpoint of Hibiki or Hibiki-Zero.",
            )

    def target(self, room: Room, member: Member, has_lane: bool) -> str | None:
        """Into which language ``member`` is to be translated while they speak; None where no listener is there for
        that. ``has_lane``: they are; a listener who was cut off may come back to it."""
        target = self._targets.get(member.language)
        if target is None or self.engine is None or not self.engine.ready:
            return None
        listeners = (other for other in room if other is not member and other.language == target)
        return target if any(has_lane or other.here for other in listeners) else None

    def lane(
        self, room: Room, member: Member, target: str, clock: Callable[[], float], paused: Callable[[], bool]
    ) -> Lane:
        """A lane, which has a row soon or fails. ``target``: as :meth:`target` says."""
        assert self.engine is not None, "without one there is no target"
        lane = Lane(room, member, member.language, target, clock, paused, self._on_failed, self._limits)
        task = asyncio.create_task(lane.take(self.engine), name=f"lane-{member.id}")
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)
        return lane

    async def close(self) -> None:
        """Open no more lanes. Idempotent."""
        openings = list(self._openings)
        for task in openings:
            task.cancel()
        await asyncio.gather(*openings, return_exceptions=True)

    def _on_failed(self, error: ServerError) -> None:
        logger.info("a speaker is translated by utterances: %s", error.code)
        self._metrics.lanes_failed.labels(error.code).inc()

    def _on_stall(self, stalled: bool, listeners: Collection[StreamListener]) -> None:
        """Speakers do not wait for an engine that may never go on: what it says later is late."""
        for lane in listeners if stalled else ():
            lane.on_engine_error(EngineUnavailable())
