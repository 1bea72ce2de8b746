"""Wakes all that waits for a moment together: one timer, on a grid of 5 ms, for every track and session of a process.

To wake a loop costs more than what most of its sleepers do then. So they wait for a tick instead of a moment of their
own, and those of a tick are woken at once. Knows nothing of what is done then; the clock is given to it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.005
"""A quarter of what a packet lasts. At 10 ms a track is woken together with twice as many others, which saves next to
nothing, and is twice as late for the moment that it wants."""
EARLY_S: Final = 0.001
"""Event loops count in milliseconds, and by a coarser clock may wake by one too early."""
_TOLERANCE: Final = 1e-3
"""Of a tick or a millisecond: what is computed from a tick's own time is that tick."""

_NOW_S: Final = TICK_S * _TOLERANCE


class Wheel:
    """Of one event loop. ``clock``: monotonic seconds, at the pace of the loop's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._sleepers: dict[int, list[asyncio.Future[None]]] = {}
        """By the tick that they wait for. One that is cancelled stays until then."""
        self._timer: asyncio.TimerHandle | None = None
        self._timed_for = 0
        """The tick that the timer is set for."""

    def snap(self, when: float) -> float:
        """The time of the first tick that is not before ``when``."""
        return _first(when) * TICK_S

    async def sleep_until(self, when: float) -> None:
        """Return at the first tick that is not before ``when``, or up to a millisecond before that; if it has passed,
        when the loop comes round. Safe to cancel."""
        tick = _first(when)
        if tick * TICK_S <= self.now() + _NOW_S:
            await asyncio.sleep(0)
        else:
            await self._sleep(tick)

    async def sleep_towards(self, when: float) -> None:
        """Return at the last tick that is not after ``when``, or, when that has passed, at ``when``, by a timer of its
        own. For a moment that has to be kept, and is mostly put off before it is near. May return up to
        :data:`EARLY_S` too early. Safe to cancel."""
        tick, now = math.floor(when / TICK_S + _TOLERANCE), self.now()
        if tick * TICK_S <= now + _NOW_S:
            await asyncio.sleep(max(0.0, when - now))
        else:
            await self._sleep(tick)

    async def _sleep(self, tick: int) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.setdefault(tick, []).append(sleeper)
        if self._timer is None or tick < self._timed_for:
            self._set_timer(tick)
        await sleeper

    def _set_timer(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timed_for = tick
        # Whole milliseconds are what uvloop counts: with the rest rounded up it wakes at the tick, and not before.
        wait_ms = max(0, math.ceil((tick * TICK_S - self.now()) * 1000 - _TOLERANCE))
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._turn)

    def _turn(self) -> None:
        """Wake those whose tick has come; after a loop that was held up, those of the oldest first."""
        self._timer = None
        now = self.now() + EARLY_S
        for tick in sorted(tick for tick in self._sleepers if tick * TICK_S <= now):
            for sleeper in self._sleepers.pop(tick):
                if not sleeper.done():
                    sleeper.set_result(None)
        if self._sleepers:
            self._set_timer(min(self._sleepers))


def _first(when: float) -> int:
    return math.ceil(when / TICK_S - _TOLERANCE)
