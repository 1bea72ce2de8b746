"""A member's events: numbered, the last ones kept, followed by those who read them. Bounded: the oldest go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from rtc_server.protocols.rooms import RoomEvent

KEPT: Final = 256


class Mailbox:
    """In this process's memory. ``last``: the number that the next event's is one more than."""

    def __init__(self, last: int = 0) -> None:
        self._events: deque[tuple[int, RoomEvent]] = deque(maxlen=KEPT)
        self._last = last
        self._news: set[asyncio.Event] = set()
        self._closed = False

    def add(self, event: RoomEvent) -> None:
        self._last += 1
        self.hand_out(self._last, event)

    def hand_out(self, number: int, event: RoomEvent) -> None:
        """Let those who read have an event that has its number."""
        self._events.append((number, event))
        self._wake()

    def close(self) -> None:
        """Nothing more comes: those who follow come to their end. Idempotent."""
        self._closed = True
        self._wake()

    async def follow(self, seq: int) -> AsyncGenerator[tuple[int, RoomEvent], None]:
        """The events after ``seq`` that are still kept, and then each as it comes, to the end."""
        news = asyncio.Event()
        self._news.add(news)
        try:
            while True:
                news.clear()
                closed = self._closed
                for number, event in list(self._events):
                    if number > seq:
                        seq = number
                        yield number, event
                if closed:
                    return
                await news.wait()
        finally:
            self._news.discard(news)

    def has_lost(self, seq: int) -> bool:
        """Whether some that came after ``seq`` are not kept any more."""
        return len(self._events) == KEPT and self._events[0][0] > seq + 1

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._last

    @property
    def kept(self) -> list[tuple[int, RoomEvent]]:
        """The events that those who read may have, with their numbers."""
        return list(self._events)

    def _wake(self) -> None:
        for news in self._news:
            news.set()
