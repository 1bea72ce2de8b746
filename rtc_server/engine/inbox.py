"""What has come for an engine and waits for its step loop, each message with the time at which it came.

A step takes a while, and when it is over the loop asks how long a frame has waited: so messages are stamped when they
come, not when they are read. By the engine's own clock: the other side may be on another machine, which has another.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from rtc_server.engine.messages import ToEngine
from rtc_server.engine.owners import HOST, Owner

_MESSAGES: Final = 10_000
_LOOK_S: Final = 0.1
"""How often one that waits for room looks whether that is over."""


class Arrival(NamedTuple):
    """``at_s``: when ``message`` came, by the clock of the inbox. ``owner``: from whom."""

    message: ToEngine
    at_s: float
    owner: Owner = HOST


class Inbox:
    """Filled by one thread, emptied by the one that steps. ``clock``: that of the step loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, size: int = _MESSAGES) -> None:
        self._clock = clock
        self._closed = False
        self._queue: queue.Queue[Arrival] = queue.Queue(size)

    def __len__(self) -> int:
        """Messages that wait to be received."""
        return self._queue.qsize()

    def put(self, message: ToEngine, wait_s: float = 0.0, owner: Owner = HOST) -> bool:
        """Stamp ``message`` and keep it. False if there has been no room for it for ``wait_s``."""
        arrival = Arrival(message, self._clock(), owner)
        try:
            self._queue.put(arrival, block=wait_s > 0, timeout=wait_s)
        except queue.Full:
            return False
        return True

    def keep(self, message: ToEngine, owner: Owner = HOST) -> None:
        """Put ``message`` as soon as there is room; not at all if :meth:`close` comes first. While a step hangs, what
        comes behind it waits where it is, and the other side hears of it."""
        while not self._closed and not self.put(message, _LOOK_S, owner):
            pass

    def close(self) -> None:
        """Those who wait in :meth:`keep` give up soon."""
        self._closed = True

    def receive(self, wait_s: float | None) -> Iterator[Arrival]:
        """All that has come, in that order. Waits up to ``wait_s`` until something has, for ever if that is None."""
        try:
            yield self._queue.get(wait_s != 0, wait_s)
            while True:
                yield self._queue.get_nowait()
        except queue.Empty:
            return
