"""Rooms of a server with several media processes: each is in one of them, and is found by whichever is asked."""

from __future__ import annotations

import contextlib

import pytest

from lab.media_processes import worker_of
from lab.waiting import until_told
from rtc_server.client import VoiceClient
from tests.conftest import ON_ONE_LOOP
from tests.support.rooms import api_at, create, join, until_event
from tests.support.server_process import server_process

pytestmark = [pytest.mark.slow, ON_ONE_LOOP]
OPTIONS = ("--model", "echo", "--rooms", "on", "--workers", "2", "--vad", "off", "--offers-per-minute", "6000")


async def test_a_room_is_found_and_its_members_meet_in_it() -> None:
    async with server_process(*OPTIONS) as server, contextlib.AsyncExitStack() as stack:
        await server.wait_ready()
        http = await stack.enter_async_context(api_at(server.url))
        rooms: dict[int, str] = {}

        async def one_in_each() -> bool:
            room = await create(http)
            rooms[worker_of(room)] = room
            return len(rooms) == 2

        await until_told(one_in_each)
        for worker, room in rooms.items():
            ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
            options = {"member": ann.token}
            async with VoiceClient(server.url, service="translate", options=options) as client:
                await client.wait_for("room")
                assert client.session is not None
                assert worker_of(client.session) == worker
                async with ana.events() as events:
                    await until_event(events, "room")
                    message = await ana.say("Bom dia")
                    read = await client.wait_for("message", 30, id=message, state="ready")
                    assert read["text"] == "Good morning"
                async with http.get("rooms") as answer:
                    assert room in [each["id"] for each in (await answer.json())["rooms"]]
