"""Measures how late the event loop is, and decides whether it can carry more calls.

The loop moves every packet: where a processor is short they wait in it, and no model's step tells. A tick that is due
every 20 ms, as the packets of a call are, finds out for how long. :class:`LagWindow` is pure, time is an argument;
:class:`LoopLag` reads the clock for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from rtc_server.audio import PACKET_MS
from rtc_server.errors import Overloaded
from rtc_server.metrics import Metrics

TICK_S: Final = PACKET_MS / 1000
WINDOW_S: Final = 4.0
_CROWDED_SHARE: Final = 0.05
_CROWDED_TICKS: Final = 4
_ROOMY_SHARE: Final = 0.01
"""Of late ticks in the window: with so many the loop is crowded, and then until there are so few. A hold-up of any
length is one late tick, and the arrival of a client a few."""


@dataclass(frozen=True, slots=True)
class _Tick:
    at: float
    late_s: float


class LagWindow:
    """By how much the ticks of the last seconds were late. ``late_s``: what counts as late."""

    def __init__(self, late_s: float) -> None:
        self._late_s = late_s
        self._ticks: deque[_Tick] = deque()
        self._late = 0
        self._began: float | None = None
        self.crowded = False

    def add(self, now: float, late_s: float) -> None:
        """A tick that was due ``late_s`` ago."""
        if self._began is None:
            self._began = now
        self._ticks.append(_Tick(now, max(0.0, late_s)))
        self._late += late_s > self._late_s
        while self._ticks[0].at < now - WINDOW_S:
            self._late -= self._ticks.popleft().late_s > self._late_s
        if now - self._began >= WINDOW_S:  # a process that starts has much to do at once
            self._judge()

    @property
    def late_share(self) -> float:
        """Share of the window's ticks that were late; 0 while it fills for the first time."""
        filled = self._began is not None and bool(self._ticks) and self._ticks[-1].at - self._began >= WINDOW_S
        return self._late / len(self._ticks) if filled else 0.0

    def quantile(self, share: float) -> float:
        """Lag that this share of the window's ticks did not exceed, in seconds; 0 before the first."""
        ordered = sorted(tick.late_s for tick in self._ticks)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def _judge(self) -> None:
        if self._late >= max(_CROWDED_TICKS, _CROWDED_SHARE * len(self._ticks)):
            self.crowded = True
        elif self._late <= _ROOMY_SHARE * len(self._ticks):
            self.crowded = False


class LoopLag:
    """Of the running loop, from :meth:`start` to :meth:`stop`. ``max_lag_ms``: what is too late for a packet."""

    def __init__(self, max_lag_ms: float, metrics: Metrics) -> None:
        self.window = LagWindow(max_lag_ms / 1000)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        for share in (0.5, 0.95):
            gauge = metrics.loop_lag_seconds.labels(str(share))
            gauge.set_function(lambda share=share: self.window.quantile(share))  # type: ignore[misc]

    def require_room(self) -> None:
        """The door: raises Overloaded while another call would be heard by those that run."""
        if self.window.crowded:
            raise Overloaded("The server is at its limit. Try again in a few seconds.")

    def start(self) -> None:
        self._next()

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        # Counted from now and not from when the last one was due: one long hold-up is one late tick, not many.
        self._due = time.monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        self.window.add(now, now - self._due)
        self._next()
