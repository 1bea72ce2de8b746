"""A session's event stream: numbers events, stamps them, keeps the last ones for replay, and sends them to the client
and to followers.

Knows connections only as something that sends text.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, Protocol

from rtc_server.errors import ServerFull
from rtc_server.protocols import events
from rtc_server.sessions.event_log import EventLog

MAX_FOLLOWERS: Final = 8

Follower = AsyncGenerator[tuple[int, str, events.ServerEvent], None]


class Channel(Protocol):
    """Where events go at once; ``channel_open`` says whether they can."""

    @property
    def channel_open(self) -> bool: ...

    def send(self, message: str, event: events.ServerEvent | None) -> bool: ...


class Outbox:
    """One session's events. ``channel``: of the client, while it has one. ``seen``: the last event that the client on
    the next channel has seen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.channel: Channel | None = None
        self.seen = 0
        self._log = EventLog()
        self._sent = 0
        self._began_at: float | None = None
        self._followers: set[asyncio.Event] = set()
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._log.last

    @property
    def began(self) -> bool:
        """Whether the session's media ever connected."""
        return self._began_at is not None

    @property
    def time_s(self) -> float | None:
        """How long ago that was; None if it never did."""
        return None if self._began_at is None else self._clock() - self._began_at

    @property
    def closed(self) -> bool:
        """Whether the last word was said."""
        return self._closed

    def go_on(self, last_seq: int, began_at: float | None) -> None:
        """This is the rest of a session whose events up to ``last_seq`` another media node has said. ``began_at``: when
        its media first connected."""
        self._log = EventLog(last=last_seq)
        self._began_at = began_at

    def begin(self, now: float) -> None:
        """The session's media has connected: time counts from its first connection."""
        if self._began_at is None:
            self._began_at = now

    def emit(self, event: events.ServerEvent) -> None:
        """Number it if it counts, keep it, and tell it. Nothing is said after the close."""
        if self._closed:
            return
        seq = None if isinstance(event, events.Stats | events.Pong | events.Starting) else self._log.last + 1
        text = events.encode_event(event, self._time_ms(), seq)
        if seq is not None:
            self._log.add(seq, text, event)
            self._wake()
        if self.channel is not None and self.channel.channel_open and self.channel.send(text, event):
            self._sent = self._sent if seq is None else seq

    def greet(self, greeting: events.Connected | events.Starting) -> None:
        """The first message on a channel that has just opened, and what its client has missed."""
        if self.channel is None:
            return
        self.channel.send(events.encode_event(greeting, self._time_ms()), greeting)
        said = self._sent
        for number, missed, event in self._log.since(self.seen):
            if self.channel.send(missed, event if number > said else None):
                self._sent = number

    def channel_closed(self) -> None:
        """The client has closed its channel, and may open another: that goes on where this one has ended."""
        self.seen = max(self.seen, self._sent)

    @contextlib.asynccontextmanager
    async def following(self, seq: int) -> AsyncIterator[Follower]:
        """A follower's place, and the events that it gets: those after ``seq`` that are still kept, and then each as it
        comes, to the end: number, text, and the event that it says. Raises ServerFull."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise ServerFull("Enough already follow the events of this session.")
        news = asyncio.Event()
        self._followers.add(news)
        try:
            async with contextlib.aclosing(self._since(seq, news)) as follower:
                yield follower
        finally:
            self._followers.discard(news)

    async def _since(self, seen: int, news: asyncio.Event) -> Follower:
        while True:
            news.clear()
            # Looked at before the log: what is said while a follower takes an event is read in the next round.
            closed = self._closed
            for number, text, event in self._log.since(seen):
                seen = number
                yield number, text, event
            if closed:
                return
            await news.wait()

    def close(self) -> None:
        """The last word was said. Followers come to their end. Idempotent."""
        self._closed = True
        self._wake()

    def _time_ms(self) -> float:
        return (self.time_s or 0.0) * 1000

    def _wake(self) -> None:
        for follower in self._followers:
            follower.set()
