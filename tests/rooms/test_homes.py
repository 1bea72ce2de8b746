"""Which process is the home of a room, as Redis knows it: and what is said of a room of which that knows nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from lab.waiting import until
from rtc_server.errors import RoomsPaused
from rtc_server.rooms.homes import Homes
from rtc_server.rooms.store import Store
from tests.support.redis import RedisServer, redis_server


@contextlib.asynccontextmanager
async def homes_at(redis: RedisServer, process: str) -> AsyncIterator[Homes]:
    homes = Homes(Store(redis.url), process)
    homes.url = f"http://{process}.example"
    homes.start()
    try:
        await until(lambda: homes.secret, "its word in Redis")
        yield homes
    finally:
        await homes.close()


async def test_a_room_is_missing_only_when_every_home_had_the_time_to_tell_of_it() -> None:
    """A Redis that is new, or has forgotten everything, knows nothing yet of rooms that go on all the same."""
    async with redis_server() as redis, redis.client() as client:
        async with homes_at(redis, "a-0") as homes:
            with pytest.raises(RoomsPaused) as paused:
                await homes.claim("b-0-room")
            assert paused.value.retry_after_s
        seconds, _ = await client.time()
        await client.set("rooms:since", seconds - 20)
        async with homes_at(redis, "a-0") as homes:
            assert await homes.claim("b-0-room") is None


async def test_what_can_be_no_rooms_id_is_missing_at_once() -> None:
    async with redis_server() as redis, homes_at(redis, "a-0") as homes:
        for room_id in ("", "a-0-room*", "a-0-room\n", "../home", "x" * 81):
            assert await homes.claim(room_id) is None


async def test_processes_know_each_others_addresses_and_share_a_secret() -> None:
    async with redis_server() as redis, homes_at(redis, "a-0") as first, homes_at(redis, "b-0") as second:
        assert second.address_of("a-0") == "http://a-0.example"
        assert first.secret == second.secret
        await until(lambda: first.address_of("b-0") == "http://b-0.example", "the other's address")
        assert first.address_of("c-0") is None
