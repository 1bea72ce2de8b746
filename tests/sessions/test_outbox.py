"""What a session says: numbered, kept, told to its channel and its followers, to the last word."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from rtc_server.errors import ServerFull
from rtc_server.protocols import events
from rtc_server.sessions.outbox import MAX_FOLLOWERS, Outbox


class Channel:
    channel_open = True

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []
        self.events: list[object] = []

    def send(self, message: str, event: object) -> bool:
        self.sent.append(json.loads(message))
        self.events.append(event)
        return True


def test_events_that_count_are_numbered_and_kept_for_a_later_channel() -> None:
    outbox = Outbox()
    outbox.emit(events.Text("a"))
    outbox.emit(events.Stats())
    outbox.emit(events.Text("b"))
    assert outbox.last == 2
    outbox.channel = channel = Channel()
    outbox.seen = 1
    outbox.greet(events.Connected("s", "echo", "echo", True, True, True))
    outbox.emit(events.Pong(1))
    assert [(each["type"], each.get("seq")) for each in channel.sent] == [
        ("connected", None),
        ("text", 2),
        ("pong", None),
    ]


def test_what_was_never_said_is_told_as_the_event_that_it_is_and_what_is_said_again_is_not() -> None:
    """A protocol with words of its own tells the client what came before its channel was open, and nothing twice."""
    outbox = Outbox()
    greeting = events.Connected("s", "echo", "echo", True, True, True)
    outbox.emit(events.Text("a"))
    outbox.channel = first = Channel()
    outbox.greet(greeting)
    outbox.emit(events.Text("b"))
    assert first.events == [greeting, events.Text("a"), events.Text("b")]
    outbox.channel = None
    outbox.emit(events.Text("c"))
    outbox.channel = second = Channel()
    outbox.seen = 1
    outbox.greet(greeting)
    assert second.events == [greeting, None, events.Text("c")]


def test_after_the_last_word_nothing_is_said() -> None:
    outbox = Outbox()
    outbox.channel = channel = Channel()
    outbox.emit(events.Disconnected("bye"))
    outbox.close()
    outbox.emit(events.Text("more"))
    assert [each["type"] for each in channel.sent] == ["disconnected"]


async def test_a_slow_follower_hears_the_last_word() -> None:
    """That is said, and the outbox closed, while the follower still holds the event before."""
    outbox = Outbox()
    outbox.emit(events.Text("a"))
    async with outbox.following(0) as follower:
        first = await anext(follower)
        outbox.emit(events.Disconnected("bye"))
        outbox.close()
        rest = [event async for event in follower]
    assert [number for number, _, _ in (first, *rest)] == [1, 2]


async def test_a_follower_waits_for_what_comes() -> None:
    outbox = Outbox()
    async with outbox.following(0) as follower:
        waiting = asyncio.create_task(anext(follower), name="follower")
        await asyncio.sleep(0)
        outbox.emit(events.Text("a"))
        assert (await waiting)[0] == 1
    assert not outbox._followers


async def test_followers_are_bounded_before_they_have_heard_anything() -> None:
    outbox = Outbox()
    async with contextlib.AsyncExitStack() as following:
        for _ in range(MAX_FOLLOWERS):
            await following.enter_async_context(outbox.following(0))
        with pytest.raises(ServerFull):
            await following.enter_async_context(outbox.following(0))
    async with outbox.following(0):
        assert len(outbox._followers) == 1
