"""Keeps the last events of a session, for the replay to a client that resumes, and for those who follow. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from rtc_server.protocols.events import ServerEvent

KEPT: Final = 256


class EventLog:
    """Numbers events from the one after ``last`` and keeps the newest."""

    def __init__(self, kept: int = KEPT, last: int = 0) -> None:
        self._events: deque[tuple[int, str, ServerEvent]] = deque(maxlen=kept)
        self.last = last
        """The number of the newest event."""

    def add(self, seq: int, text: str, event: ServerEvent) -> None:
        """``seq`` is the one after :attr:`last`."""
        assert seq == self.last + 1, "events are numbered without gaps"
        self.last = seq
        self._events.append((seq, text, event))

    def since(self, seq: int) -> list[tuple[int, str, ServerEvent]]:
        """Events after ``seq`` that are still kept, oldest first: number, text, and the event that it says."""
        return [kept for kept in self._events if kept[0] > seq]
