"""What every mailbox is, in memory and on a real Redis: first in, first out, numbered, bounded, gone on with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from lab.waiting import until
from rtc_server.protocols.rooms import Playing, RoomEvent, RoomMessage
from rtc_server.rooms.homes import Homes
from rtc_server.rooms.journal import StoredJournal, mail_key
from rtc_server.rooms.mailbox import KEPT, Mailbox
from rtc_server.rooms.message import Message
from rtc_server.rooms.record import RESERVED, RoomRecord
from rtc_server.rooms.store import Store
from tests.support.redis import RedisServer, redis_server

ROOM = "a-0-room"


class ARoom:
    """With nothing in it."""

    messages: Final[list[Message]] = []

    def record(self) -> RoomRecord:
        return RoomRecord("Kitchen", False, 1, [])

    def listing(self) -> dict[str, Any] | None:
        return None


def said(number: int) -> RoomMessage:
    return RoomMessage(str(number), "m1", "Ann", "en", "text", f"number {number}", "", "ready", None, None, 0)


@contextlib.asynccontextmanager
async def journal_at(redis: RedisServer, process: str = "a-0") -> AsyncIterator[tuple[Homes, StoredJournal]]:
    homes = Homes(Store(redis.url), process)
    homes.start()
    try:
        await until(lambda: homes.store.answers, "an answer of Redis")
        journal = homes.journal(ROOM, lambda: None)
        journal.begin(ARoom())
        yield homes, journal
    finally:
        await homes.close()


@pytest.fixture(params=["memory", "redis"])
async def mailbox(request: pytest.FixtureRequest) -> AsyncIterator[Mailbox]:
    if request.param == "memory":
        yield Mailbox()
        return
    async with redis_server() as redis, journal_at(redis) as (_, journal):
        yield journal.mailbox("m1")


async def take(mailbox: Mailbox, after: int, count: int) -> list[tuple[int, Any]]:
    """So many events after a number."""
    taken = []
    async with asyncio.timeout(30), contextlib.aclosing(mailbox.follow(after)) as events:
        async for each in events:
            taken.append(each)
            if len(taken) == count:
                break
    return taken


async def test_what_goes_in_first_comes_out_first_and_has_its_number(mailbox: Mailbox) -> None:
    assert mailbox.last == 0
    for number in range(1, 6):
        mailbox.add(said(number))
    assert mailbox.last == 5
    assert await take(mailbox, 0, 5) == [(number, said(number)) for number in range(1, 6)]


async def test_one_who_comes_back_goes_on_behind_the_last_event_seen(mailbox: Mailbox) -> None:
    for number in range(1, 6):
        mailbox.add(said(number))
    assert await take(mailbox, 3, 2) == [(4, said(4)), (5, said(5))]


async def test_events_come_to_all_who_read_as_they_are_put_in(mailbox: Mailbox) -> None:
    readers = [asyncio.create_task(take(mailbox, 0, 3)) for _ in range(2)]
    for number in range(1, 4):
        mailbox.add(said(number))
        await asyncio.sleep(0)
    assert await asyncio.gather(*readers) == [[(number, said(number)) for number in range(1, 4)]] * 2


async def test_what_does_not_last_comes_in_its_turn(mailbox: Mailbox) -> None:
    events: list[RoomEvent] = [said(1), Playing("1", "started"), Playing("1", "ended"), said(2)]
    for event in events:
        mailbox.add(event)
    assert await take(mailbox, 0, 4) == list(enumerate(events, 1))


async def test_the_oldest_go(mailbox: Mailbox) -> None:
    most = KEPT + 50
    for number in range(1, most + 1):
        mailbox.add(said(number))
    await take(mailbox, most - 1, 1)
    assert [number for number, _ in await take(mailbox, 0, KEPT)] == list(range(most - KEPT + 1, most + 1))


async def test_the_end_comes_after_what_is_kept(mailbox: Mailbox) -> None:
    mailbox.add(said(1))
    await take(mailbox, 0, 1)
    mailbox.close()
    async with asyncio.timeout(30):
        assert [event async for event in mailbox.follow(0)] == [(1, said(1))]


async def test_another_home_goes_on_where_the_one_before_has_ended() -> None:
    """With what it has told, and numbers that no event had."""
    async with redis_server() as redis:
        async with journal_at(redis) as (_, journal):
            former = journal.mailbox("m1")
            for number in range(1, 200):
                former.add(said(number))
            former.add(Playing("199", "started"))
            await take(former, 199, 1)
        async with journal_at(redis, "b-0") as (_, journal):
            mailbox = journal.mailbox("m1", 199 + RESERVED)
            mailbox.add(said(200))
            taken = await take(mailbox, 50, 150)
    assert [event for _, event in taken] == [said(number) for number in range(51, 201)]
    assert [number for number, _ in taken] == [*range(51, 200), 200 + RESERVED]


async def test_what_is_kept_in_redis_is_bounded_and_ends_by_itself() -> None:
    async with redis_server() as redis, journal_at(redis) as (_, journal):
        mailbox = journal.mailbox("m1")
        for number in range(1, 1001):
            mailbox.add(said(number))
        await take(mailbox, 999, 1)
        async with redis.client() as client:
            key = mail_key(ROOM, "m1")
            assert KEPT <= await client.xlen(key) < KEPT + 200
            keys = [each async for each in client.scan_iter()]
            assert len(keys) > 3
            for each in keys:
                assert await client.pttl(each) > 0, each


async def test_two_processes_are_not_the_home_of_one_room() -> None:
    """The second writes nothing, and is told."""
    async with redis_server() as redis, journal_at(redis) as (_, journal):
        mailbox = journal.mailbox("m1")
        mailbox.add(said(1))
        await take(mailbox, 0, 1)
        lost = asyncio.Event()
        other = Homes(Store(redis.url), "b-0")
        other.start()
        await until(lambda: other.store.answers, "an answer of Redis")
        stray = other.journal(ROOM, lost.set)
        stray.mailbox("m1", RESERVED).add(said(2))
        stray.begin(ARoom())
        async with asyncio.timeout(30):
            await lost.wait()
        assert await other.claim(ROOM) == "a-0"
        await other.close()
        async with redis.client() as client:
            assert await client.xlen(mail_key(ROOM, "m1")) == 1


@pytest.mark.parametrize("keeps", [True, False], ids=["with its data", "empty"])
async def test_a_redis_that_goes_and_comes_back_costs_no_event(keeps: bool) -> None:
    """It is as if it had not gone, for one who reads and for another home: also where it has forgotten all."""
    async with redis_server(keeps) as redis, journal_at(redis) as (homes, journal):
        mailbox = journal.mailbox("m1")
        mailbox.add(said(1))
        await take(mailbox, 0, 1)
        await redis.kill()
        mailbox.add(said(2))
        await until(lambda: not homes.store.answers, "that Redis is missed")
        mailbox.add(said(3))
        assert [number for number, _ in mailbox.kept] == [1]
        await redis.start()
        assert await take(mailbox, 0, 3) == [(number, said(number)) for number in range(1, 4)]
        async with redis.client() as client:
            entries = await client.xrange(mail_key(ROOM, "m1"))
        assert [entry for entry, _ in entries] == [b"1-0", b"2-0", b"3-0"]
