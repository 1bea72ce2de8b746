"""Rooms of several media nodes that share a Redis: found from each, gone on with when one of them dies, paused while
Redis is away, and of no concern to conversations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lab.waiting import until_told
from rtc_server.client import VoiceClient
from rtc_server.rooms.journal import LEASE_MS, home_key
from tests.support.redis import RedisServer, redis_server
from tests.support.rooms import RoomClient, api_at, create, join, until_event
from tests.support.server_process import ServerProcess, server_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OPTIONS = ("--model", "echo", "--rooms", "on", "--vad", "off")


@contextlib.asynccontextmanager
async def node(redis: RedisServer, name: str, *more: str) -> AsyncIterator[ServerProcess]:
    async with server_process(*OPTIONS, "--redis", redis.url, "--node", name, *more) as server:
        await server.wait_ready(120)
        await until_told(lambda: rooms_are_open(server), "Redis")
        yield server


async def rooms_are_open(server: ServerProcess) -> bool:
    """In all its processes: each request has a connection of its own. One that has just been started, on a busy
    machine, may not have got through to Redis in time."""
    async with api_at(server.url) as http:
        return all([await status_is(http, "rooms", 200) for _ in range(8)])


@contextlib.asynccontextmanager
async def two_nodes(redis: RedisServer) -> AsyncIterator[tuple[ServerProcess, ServerProcess]]:
    options = (*OPTIONS, "--redis", redis.url)
    async with server_process(*options, "--node", "a") as first, server_process(*options, "--node", "b") as second:
        await asyncio.gather(first.wait_ready(120), second.wait_ready(120))
        for server in (first, second):
            await until_told(lambda server=server: rooms_are_open(server), "Redis")  # type: ignore[misc]
        yield first, second


def elsewhere(http: aiohttp.ClientSession, member: RoomClient) -> RoomClient:
    """The same member, who asks another node."""
    return RoomClient(http, member.room, member.member, member.token)


async def status_of(request: Any) -> tuple[int, str]:
    async with request as answer:
        return answer.status, "" if answer.ok else (await answer.json())["error"]["code"]


async def test_a_room_is_found_from_each_node_and_spoken_in_where_it_is() -> None:
    async with redis_server() as redis, two_nodes(redis) as (first, second), contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(api_at(first.url))
        there = await stack.enter_async_context(api_at(second.url))
        room = await create(here, name="Kitchen")
        assert room.startswith("a-0-")
        ann = await join(here, room, "Ann", "en")
        await until_told(lambda: status_is(there, f"rooms/{room}", 200), "the other node's address")
        ben = await join(there, room, "Ben", "en")
        async with ben.events() as events:
            state = await until_event(events, "room")
            assert [each["name"] for each in state["members"]] == ["Ann", "Ben"]
            message = await ann.say("Good morning")
            assert (await until_event(events, "message", id=message))["text"] == "Good morning"
            async with VoiceClient(second.url, service="translate", options={"member": ann.token}) as client:
                assert client.session is not None
                assert client.session.startswith("a-0-")
                assert await status_is(there, f"sessions/{client.session}", 200), "sessions are found by the same means"
                await client.wait_for("room")
                await until_event(events, "member", change="changed")
                client.send({"type": "say", "text": "I am here"})
                assert (await until_event(events, "message"))["text"] == "I am here"
        for http in (here, there):
            await until_told(lambda http=http: is_listed(http, room), "the room in the lobby")
        assert await ben.leave() == 204
        assert await status_of(there.get("rooms/a-0-none")) in [(404, "unknown_room"), (503, "rooms_paused")]


async def test_when_a_home_is_killed_its_members_go_on_from_the_last_message_they_had() -> None:
    async with redis_server() as redis, two_nodes(redis) as (first, second), contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(api_at(first.url))
        there = await stack.enter_async_context(api_at(second.url))
        room = await create(here, name="Kitchen")
        ann, ben = await join(here, room, "Ann", "en"), await join(here, room, "Ben", "en")
        assert await ben.change(name="Benjamin") == 204
        async with ben.events() as events:
            await until_event(events, "room")
            seen = (await until_event(events, "message", id=await ann.say("one")))["seen"]
        ids = [await ann.say(text) for text in ("two", "three")]
        await first.kill()
        async with redis.client() as client:
            for key in (home_key(room), "rooms:process:a-0"):
                left_ms = await client.pttl(key)  # -2: it is over; -1: it would never be
                assert left_ms != -1
                assert left_ms <= LEASE_MS
                await client.pexpire(key, 100)  # the rest need not be waited for

        ann, ben = elsewhere(there, ann), elsewhere(there, ben)
        await until_told(lambda: status_is(there, f"rooms/{room}", 200), "the new home")
        async with ben.events(seen) as events:
            missed = [await until_event(events, "message") for _ in range(2)]
            assert [(each["id"], each["text"]) for each in missed] == [*zip(ids, ("two", "three"), strict=True)]
            message = await ann.say("four")
            last = await until_event(events, "message")
            assert (last["id"], last["text"], last["user"]) == (message, "four", ann.member)
            assert int(message) > int(ids[-1])
        async with ann.events() as events:
            state = await until_event(events, "room")
            assert [each["name"] for each in state["members"]] == ["Ann", "Benjamin"]
            texts = [(await until_event(events, "message"))["text"] for _ in range(4)]
            assert texts == ["one", "two", "three", "four"]
        async with VoiceClient(second.url, service="translate", options={"member": ann.token}) as client:
            await client.wait_for("message", text="four")
        stranger = RoomClient(there, room, ann.member, f"{room}.{'x' * 32}")
        assert await stranger.leave() == 403


async def test_a_home_that_stops_lets_its_rooms_go_at_once() -> None:
    """And those who read there are told to come back, not that the members have left."""
    async with redis_server() as redis, two_nodes(redis) as (first, second), contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(api_at(first.url))
        there = await stack.enter_async_context(api_at(second.url))
        room = await create(here)
        ann = await join(here, room, "Ann", "en")
        await ann.say("one")
        async with ann.events() as events:
            await until_event(events, "room")
            first.process.terminate()
            rest = [event async for event in quietly(events)]
        assert [event for event in rest if event["type"] == "member"] == []
        await first.wait_exit(60)
        ann = elsewhere(there, ann)
        async with ann.events() as events:
            assert (await until_event(events, "message"))["text"] == "one"


async def test_redis_that_is_killed_and_comes_back_pauses_rooms_and_costs_no_message() -> None:
    """What is said meanwhile is refused, with a code."""
    async with redis_server() as redis, node(redis, "a") as server, api_at(server.url) as http:
        room = await create(http)
        ann, ben = await join(http, room, "Ann", "en"), await join(http, room, "Ben", "en")
        async with (
            ben.events() as events,
            VoiceClient(server.url, service="translate", options={"member": ann.token}) as client,
        ):
            await client.wait_for("room")
            await until_event(events, "message", id=await ann.say("one"))
            await redis.kill()
            paused = await client.wait_for("error", 30, code="rooms_paused")
            assert paused["retryable"]
            headers = {"Room-Token": ben.token}
            refused = http.post(f"rooms/{room}/messages", json={"text": "lost?"}, headers=headers)
            assert await status_of(refused) == (503, "rooms_paused")
            assert await status_of(http.post("rooms", json={})) == (503, "rooms_paused")
            assert await status_of(http.get("rooms")) == (503, "rooms_paused")
            await redis.start()
            await client.wait_for("recovered", 30, code="rooms_paused")
            message = await ben.say("two")
            assert (await until_event(events, "message"))["id"] == message
        async with ben.events() as events:
            texts = [(await until_event(events, "message"))["text"] for _ in range(2)]
            assert texts == ["one", "two"]


async def test_redis_that_hangs_costs_a_conversation_nothing() -> None:
    """One that runs, and one that begins: while rooms are paused."""
    async with redis_server() as redis, node(redis, "a") as server, api_at(server.url) as http:
        room = await create(http)
        async with VoiceClient(server.url, service="echo") as before:
            await before.wait_for("connected")
            redis.stop()
            await until_told(lambda: status_is(http, f"rooms/{room}", 503), "the pause")
            async with VoiceClient(server.url, service="echo") as during:
                await during.wait_for("connected")
                for client in (before, during):
                    client.send({"type": "ping", "id": 7})
                    await client.wait_for("pong", id=7)
            assert await status_of(http.get(f"{server.url}/readyz")) == (200, "")
            redis.go_on()
            await until_told(lambda: status_is(http, f"rooms/{room}", 200), "the room")


async def test_a_room_that_a_new_redis_does_not_know_is_missing_only_after_a_while() -> None:
    """Its home may be about to tell: until then a client is asked to come again, and keeps its place in it."""
    async with redis_server() as redis, node(redis, "a") as server, api_at(server.url) as http:
        async with redis.client() as client:
            await client.incrby("rooms:since", 3600)  # however long the node took to start
            await until_told(lambda: status_is(http, "rooms/b-0-room", 503), "a while that has only begun")
            async with http.get("rooms/b-0-room") as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
                assert (await answer.json())["error"]["code"] == "rooms_paused"
            await client.decrby("rooms:since", 3660)
        await until_told(lambda: status_is(http, "rooms/b-0-room", 404), "that there is no such room")


async def test_rooms_of_several_processes_of_one_node_are_found_by_each() -> None:
    async with redis_server() as redis, node(redis, "a", "--workers", "2") as server, api_at(server.url) as http:
        room = await create(http)
        ann, ben = await join(http, room, "Ann", "en"), await join(http, room, "Ben", "en")
        async with ben.events() as events:
            for text in ("one", "two", "three", "four"):
                message = await ann.say(text)
                assert (await until_event(events, "message"))["id"] == message


async def status_is(http: aiohttp.ClientSession, path: str, status: int) -> bool:
    async with http.get(path) as answer:
        return answer.status == status


async def is_listed(http: aiohttp.ClientSession, room: str) -> bool:
    async with http.get("rooms") as answer:
        return room in [each["id"] for each in (await answer.json())["rooms"]]


async def quietly(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """To their end, however that comes."""
    with contextlib.suppress(aiohttp.ClientError):
        async with asyncio.timeout(60):
            async for event in events:
                yield event
